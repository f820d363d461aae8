"""Network cameras that send MJPEG over HTTP: one JPEG after the other in an answer that does not end.

Read here and not by OpenCV's FFmpeg, which scales or garbles the pictures of a camera that changes its size, and does
not tell a wrong password from a wrong path.
"""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np

from runtime.sources.camera import Camera
from runtime.sources.credentials import without_credentials
from runtime.sources.network import split_address, why_unreachable
from runtime.sources.shape import SourceOptions
from stlm_edge.errors import SourceError

_LONGEST_LINE = 1 << 16
_LARGEST_PICTURE = 1 << 26


def open_mjpeg(uri: str, options: SourceOptions, *, answer_s: float) -> Camera:
    """Open `http://` or `https://`, where asked for with a user and password, basic or digest.

    Args:
        answer_s: how long an answer and each frame may take; after that the connection counts as lost.
    Raises:
        SourceError: if nobody answers, or not with MJPEG.
    """
    capture = MjpegCapture(uri, answer_s=answer_s)
    name = without_credentials(uri)
    return Camera(capture, name=name, fps=options.fps, reason=lambda: capture.reason)


class MjpegCapture:
    """A connection with the methods of `cv2.VideoCapture`.

    Attributes:
        reason: why the last `grab` or `retrieve` failed.
    """

    def __init__(self, uri: str, *, answer_s: float) -> None:
        self.reason: str | None = None
        self._answer_s = answer_s
        self._jpeg = b""
        self._pending: bytes | None = None
        self._answer = _ask(uri, answer_s=answer_s)
        kind = self._answer.headers.get_content_type()
        if kind != "multipart/x-mixed-replace":
            self.release()
            raise SourceError(
                f"{without_credentials(uri)} sends {kind}, expected multipart/x-mixed-replace, that is MJPEG; give the "
                "camera's MJPEG address, or read it by gst:souphttpsrc …"
            )
        self._boundary = b"--" + self._answer.headers.get_boundary("").lstrip("-").encode()

    def grab(self) -> bool:
        """Wait for the next picture."""
        self.reason = None
        try:
            self._jpeg = self._next_part()
        except TimeoutError:
            self.reason = f"nothing came for {self._answer_s:g} s"
            return False
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.reason = str(error) or type(error).__name__
            return False
        return True

    def retrieve(self) -> tuple[bool, Any]:
        """Decode what was grabbed."""
        whole = b"\xff\xd9" in self._jpeg[-1024:]
        image = cv2.imdecode(np.frombuffer(self._jpeg, np.uint8), cv2.IMREAD_COLOR) if whole else None
        if image is None:
            self.reason = "it sent a damaged JPEG"
        return image is not None, image

    def get(self, _: int) -> float:
        """MJPEG tells nothing of its rate."""
        return 0.0

    def release(self) -> None:
        """End the connection."""
        self._answer.close()

    def _next_part(self) -> bytes:
        while not self._line().startswith(self._boundary):
            pass
        length = None
        while (line := self._line().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        if length is None:
            return self._until_boundary()
        if not 0 < length <= _LARGEST_PICTURE:
            raise ValueError(f"it announced a picture of {length} bytes")
        data: bytes = self._answer.read(length)
        if len(data) < length:
            raise ValueError("its stream ended")
        return data

    def _until_boundary(self) -> bytes:
        """A picture whose length was not told; the boundary after it begins the next part."""
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._line()
            if line.startswith(self._boundary):
                self._pending = line
                return b"".join(lines)
            lines.append(line)
            size += len(line)
            if size > _LARGEST_PICTURE:
                raise ValueError("it sent a picture without an end")

    def _line(self) -> bytes:
        line: bytes | None
        line, self._pending = self._pending, None
        if line is None:
            line = self._answer.readline(_LONGEST_LINE)
        if not line:
            raise ValueError("its stream ended")
        return line


def _ask(uri: str, *, answer_s: float) -> Any:
    from urllib.error import HTTPError, URLError
    from urllib.request import (
        HTTPBasicAuthHandler,
        HTTPDigestAuthHandler,
        HTTPPasswordMgrWithDefaultRealm,
        ProxyHandler,
        build_opener,
    )

    parts, host, port = split_address(uri)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    passwords = HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        passwords.add_password(None, address, unquote(parts.username), unquote(parts.password or ""))
    # No proxy: a camera stands in the network of its line.
    opener = build_opener(ProxyHandler({}), HTTPDigestAuthHandler(passwords), HTTPBasicAuthHandler(passwords))
    try:
        return opener.open(address, timeout=answer_s)
    except HTTPError as error:
        error.close()
        meaning = http.client.responses.get(error.code, "unknown")
        remedy = "user and password" if error.code in (401, 403) else "the path"
        problem = f"{host} answers {error.code} ({meaning}); check {remedy}"
    except URLError as error:
        reason = error.reason if isinstance(error.reason, Exception) else error
        problem = why_unreachable(reason, host=host, port=port, waited_s=answer_s)
    except (OSError, ValueError, http.client.HTTPException) as error:
        problem = why_unreachable(error, host=host, port=port, waited_s=answer_s)
    raise SourceError(f"{without_credentials(uri)} cannot be opened: {problem}")
