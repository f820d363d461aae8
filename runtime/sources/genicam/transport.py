"""What a GenICam camera is reached by: its nodes, which all have by the same names, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stlm_edge.errors import SourceError
from stlm_edge.spec import Size

FOLDERS_VARIABLE = "GENICAM_GENTL64_PATH"
"""Of the environment: where producers are, by the GenTL standard; their installers set it."""

NodeKind = Literal["integer", "float", "boolean", "enumeration", "command", "string"]


class NodeError(SourceError):
    """A node that cannot be read or written; its text is a reason, for the inside of a message."""


@dataclass(frozen=True, eq=False)
class Delivery:
    """What a camera sent for one exposure.

    Attributes:
        data: its bytes, owned by whoever has this; None if any of them are missing, so that nothing can be made of it.
        code: of the pixel format, by the Pixel Format Naming Convention of GenICam.
        size: (height, width).
        counter: the camera's own number of the picture; None where it was lost with the rest.
        is_plain: nothing but pixels is in `data`, so that what is too much pads the rows.
    """

    data: NDArray[np.uint8] | None
    code: int = 0
    size: Size = (0, 0)
    counter: int | None = None
    is_plain: bool = True


class Transport(Protocol):
    """One camera that is open, under the control of this process. Owns it until `close`.

    Attributes:
        loss: why the camera is gone, None while it is there.
    """

    loss: str | None

    def names(self) -> Sequence[str]:
        """Of all nodes."""

    def kind(self, node: str) -> NodeKind | None:
        """None if the camera has no such node."""

    def choices(self, node: str) -> list[str]:
        """The words of an enumeration."""

    def limits(self, node: str) -> tuple[float, float]:
        """Lowest and highest value of a number. Raises `NodeError`."""

    def read(self, node: str) -> str:
        """Raises `NodeError`."""

    def write(self, node: str, text: str) -> None:
        """Give a node a value of its kind, or run a command. Any thread may. Raises `NodeError`."""

    def format_code(self) -> int:
        """Of the pixel format that is set. Raises `NodeError`."""

    def start(self) -> None:
        """Have it send pictures. Raises `NodeError`."""

    def take(self, timeout_s: float) -> Delivery | None:
        """The next picture in the order they were sent; None if none came in time."""

    def close(self) -> None:
        """Give the camera back."""


@dataclass(frozen=True)
class Seen:
    """A camera that answers.

    Attributes:
        uri: by which it is opened.
        address: in its network or at its bus.
    """

    uri: str
    vendor: str
    model: str
    serial: str
    address: str = ""
