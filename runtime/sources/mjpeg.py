"""Network cameras that send MJPEG over HTTP: one JPEG after the other in an answer that does not end.

Read here and not by OpenCV's FFmpeg, which scales or garbles the pictures of a camera that changes its size, and does
not tell a wrong password from a wrong path.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any

from runtime.sources.camera import Camera
from runtime.sources.http_stream import open_stream
from runtime.sources.shape import SourceOptions
from stlm_edge.credentials import safe_name
from stlm_edge.errors import ImageError, SourceError
from stlm_edge.imaging import decode

_LARGEST_PICTURE = 1 << 26
_MOST_HEADERS = 1 << 16
_LONGEST_BOUNDARY = 256
"""With the dashes around it. RFC 2046 allows 70 characters."""


def open_mjpeg(uri: str, options: SourceOptions, *, answer_s: float) -> Camera:
    """Open `http://` or `https://`, where asked for with a user and password, basic or digest.

    Args:
        answer_s: how long an answer and each frame may take; after that the connection counts as lost.
    Raises:
        SourceError: if nobody answers, or not with MJPEG.
    """
    capture = MjpegCapture(uri, answer_s=answer_s)
    return Camera(
        capture,
        name=safe_name(uri),
        fps=options.fps,
        reason=lambda: capture.reason,
        file=lambda: capture.picture,
    )


class MjpegCapture:
    """A connection with the methods of `cv2.VideoCapture`.

    Attributes:
        reason: why the last `grab` or `retrieve` failed.
        picture: what was grabbed, as it was sent.
    """

    def __init__(self, uri: str, *, answer_s: float) -> None:
        self.reason: str | None = None
        self._answer_s = answer_s
        self.picture = b""
        self._stream = open_stream(uri, answer_s=answer_s)
        headers = self._stream.headers
        self._parts = Parts(self._stream.receive, boundary=headers.get_boundary(""))
        found = headers.get_content_type()
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            found += f" packed by {headers['Content-Encoding'][:20]}"
        elif headers.get_content_maintype() == "multipart":
            return
        self.release()
        raise SourceError(
            f"{safe_name(uri)} sends {found}, expected multipart/x-mixed-replace, that is MJPEG; give the camera's "
            "MJPEG address, or read it by gst:souphttpsrc …"
        )

    def grab(self) -> bool:
        """Wait for the next picture."""
        self.reason = None
        self._stream.wait(self._answer_s)
        try:
            self.picture = self._parts.next_picture()
        except TimeoutError:
            what = "no whole picture" if self._parts.received else "nothing"
            self.reason = f"{what} came for {self._answer_s:g} s{self._parts.no_boundary}"
            return False
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.reason = (str(error) or type(error).__name__) + self._parts.no_boundary
            return False
        return True

    def retrieve(self) -> tuple[bool, Any]:
        """Decode what was grabbed."""
        try:
            return True, decode(self.picture)
        except ImageError as error:
            self.reason = str(error)
            return False, None

    def get(self, _: int) -> float:
        """MJPEG tells nothing of its rate."""
        return 0.0

    def release(self) -> None:
        """End the connection, and keep nothing of what came."""
        self._stream.close()
        self._parts.clear()
        self.picture = b""


class Parts:
    """The pictures of a multipart answer, RFC 2046, and of those that are not quite one.

    The line between two pictures is taken for one whether or not the camera counts its leading dashes to the boundary
    that it announced. Where none was announced, the first line that begins with two dashes is the boundary. A length
    that does not lead to the end of a JPEG is not believed, and the picture read up to the next boundary.

    Attributes:
        received: bytes of the picture that is waited for, all that stands before it among them.
    """

    def __init__(self, receive: Callable[[], bytes], *, boundary: str) -> None:
        """
        Args:
            receive: waits for some bytes; none at the end. What it raises ends `next_picture`.
            boundary: as announced, empty where none was.
        """
        self.received = 0
        self._receive = receive
        self._announced = boundary
        self._boundary: bytes | None = _bare(boundary.encode("latin-1", "replace")) if boundary else None
        self._began = False
        self._buffer = bytearray()

    @property
    def no_boundary(self) -> str:
        """To be added to a reason: that nothing of what came was the boundary. Empty where that is not the reason."""
        if self._began or not self.received:
            return ""
        expected = f"the boundary {self._announced[:70]!r} that it announced" if self._announced else "a boundary --…"
        return f", and no line of it is {expected}"

    def clear(self) -> None:
        """Forget what has come."""
        self._buffer.clear()

    def next_picture(self) -> bytes:
        """The next part that may be a picture.

        Raises:
            ValueError: with the reason, if the stream has ended or is none of pictures.
        """
        self.received = 0
        while True:
            while (boundary := self._find_boundary(0)) is None:
                del self._buffer[: max(0, len(self._buffer) - _LONGEST_BOUNDARY)]
                self._more()
            self._began = True
            del self._buffer[: boundary[1]]
            kind, length = self._headers()
            body = self._body(length)
            if body.startswith(b"\xff\xd8") or (body and kind.startswith((b"image/", b"application/octet-stream"))):
                return body

    def _headers(self) -> tuple[bytes, int | None]:
        """Kind and length of a part; `image/` and None where they are not told."""
        kind, length, left = b"image/", None, _MOST_HEADERS
        while line := self._line(left).strip():
            left -= len(line)
            name, _, value = line.lower().partition(b":")
            value = value.strip()
            if name == b"content-type":
                kind = value
            elif name == b"content-length" and value.isdigit():
                length = int(value[:20])
                if length > _LARGEST_PICTURE:
                    raise ValueError(f"it announced a picture of {length} bytes, expected at most {_LARGEST_PICTURE}")
        return kind, length

    def _line(self, most: int) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0 or end > most:
            if max(end, len(self._buffer)) > most:
                raise ValueError(f"it sent more than {_MOST_HEADERS} bytes of headers for one picture")
            self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _body(self, length: int | None) -> bytes:
        searched = 0
        while True:
            boundary = self._find_boundary(searched)
            if boundary is not None:
                length = boundary[0]
            elif not length or len(self._buffer) < length or not _is_ended(self._buffer, length):
                searched = max(0, len(self._buffer) - _LONGEST_BOUNDARY)
                self._more()
                continue
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
            return body

    def _find_boundary(self, start: int) -> tuple[int, int] | None:
        """Where the next line begins and ends that is the boundary, looked for from `start` on.

        It begins with the line break before it, which is no part of a picture.
        """
        sought, at = self._boundary or b"--", start - 1
        while (at := self._buffer.find(sought, at + 1)) >= 0:
            earliest = max(0, at - _LONGEST_BOUNDARY)
            begin = self._buffer.rfind(b"\n", earliest, at) + 1
            end = self._buffer.find(b"\n", at, at + _LONGEST_BOUNDARY)
            if begin < earliest or end < 0:
                continue
            line = bytes(self._buffer[begin:end])
            if self._boundary is None and line.startswith(b"--"):
                self._boundary = _bare(line)
            if self._boundary is not None and _bare(line) == self._boundary and (self._boundary or b"--" in line):
                is_crlf = self._buffer[max(0, begin - 2) : begin] == b"\r\n"
                return begin - (2 if is_crlf else min(1, begin)), end + 1
        return None

    def _more(self) -> None:
        data = self._receive()
        if not data:
            raise ValueError("its stream ended")
        self.received += len(data)
        if self.received > _LARGEST_PICTURE + _MOST_HEADERS:
            raise ValueError(f"it sent {_LARGEST_PICTURE} bytes without an end of a picture")
        self._buffer += data


def _bare(line: bytes) -> bytes:
    """A boundary without what cameras do not agree about: the dashes around it, and white space."""
    return line.strip().strip(b"-").strip()


def _is_ended(data: bytearray, length: int) -> bool:
    """Whether so many bytes are a whole JPEG, as far as its end shows, or something else."""
    return not data.startswith(b"\xff\xd8") or data.find(b"\xff\xd9", max(0, length - 1024), length) >= 0
