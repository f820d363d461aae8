"""Which pictures a model has learnt from or remembers: it scores them lower than new ones.

The specification has a short digest of each, which travels with it into engines, where nothing can be left out any
more. It is of the pixels as they are read, so copies under other names and in other lossless formats are known, and
other exposures of the same part are not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from stlm_edge.errors import DataError, counted
from stlm_edge.imaging import Image
from stlm_edge.spec import DIGEST_DIGITS, ModelSpec

logger = logging.getLogger(__name__)

MOST_DIGESTS = 2000
"""In a specification, which is to stay small; of more pictures every second, third, … is told."""


def digest_of(image: Image) -> str:
    """Of a picture as it was read, before it is resized: (H, W, 3) uint8."""
    size = "x".join(map(str, image.shape)).encode()
    return blake2b(np.ascontiguousarray(image).tobytes(), digest_size=DIGEST_DIGITS // 2, person=size[:16]).hexdigest()


def seen_of(digests: Sequence[str]) -> str:
    """What `ModelSpec.seen` holds of these pictures."""
    return "".join(digests[:: -(-len(digests) // MOST_DIGESTS)]) if digests else ""


class SeenPictures:
    """Those of some good pictures that a model has learnt from or remembers.

    Attributes:
        count: of the pictures that were looked at.
        found: the names of those that it knows.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._known = {spec.seen[at : at + DIGEST_DIGITS] for at in range(0, len(spec.seen), DIGEST_DIGITS)}
        self.count = 0
        self.found: list[str] = []

    def add(self, digest: str, *, name: str) -> None:
        """Look at a good picture."""
        self.count += 1
        if digest in self._known:
            self.found.append(name)

    def require_new(self, model: str) -> None:
        """Before a threshold is chosen by their scores. One that remembers them has hardly any distance to them.

        Raises:
            DataError: if a model with a patch memory knows one; what a model without one has learnt from is warned of.
        """
        if self._spec.memory and not self._spec.seen:
            logger.warning(
                "SEEN PICTURES? %s remembers good pictures and does not say which; if these are among them, the "
                "threshold is far too low: give others",
                model,
            )
        if not self.found:
            return
        if self._spec.memory:
            raise DataError(
                f"{model} remembers {self._told}, and scores them far too low to choose a threshold by; give good "
                "pictures that it was not made from, or choose by --method quantile in the checkpoint, which leaves "
                "out what it remembers of them (stlm threshold CHECKPOINT --data DATA), and export again"
            )
        logger.warning(
            "SEEN PICTURES: %s has learnt from %s, and scores them lower than new ones, so the threshold may be too "
            "low; give good pictures that it was not trained on",
            model,
            self._told,
        )

    def warn(self, model: str) -> None:
        """After figures were measured by their scores."""
        if self.found:
            logger.warning(
                "SEEN PICTURES: %s has learnt from or remembers %s, and scores them lower than new ones, so these "
                "figures flatter it; test on good pictures that it was not made from",
                model,
                self._told,
            )

    @property
    def _told(self) -> str:
        first = f"the first is {self.found[0]}" if len(self.found) > 1 else self.found[0]
        return f"{len(self.found)} of these {counted(self.count, 'good picture')} ({first})"
