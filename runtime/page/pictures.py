"""The newest overlay of a line as JPEG, for all who look at it: encoded once for all, and only while somebody does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from runtime.closing import Closing
from stlm_edge.errors import shortly
from stlm_edge.imaging import Image, encode_image, resize

logger = logging.getLogger(__name__)

MOST_PER_SECOND = 15.0
_LONGEST_SIDE = 1280
"""Pixels; a larger picture is shown smaller."""
_FIRST_WITHIN_S = 3.0
PART = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
"""Begins each picture of a stream."""


class LivePicture(Closing):
    """Whoever hands over a picture is never held up: it is drawn and encoded on a thread of its own, owned until
    `close`, at most `MOST_PER_SECOND` of them. Who looks has the newest there is whenever he has taken the one before,
    so a slow viewer skips pictures, and the others do not notice.
    """

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._newest: Callable[[], Image] | None = None
        self._newest_number = self._drawn = 0
        self._viewers = 0
        self._is_closed = False
        self._jpeg = b""
        self._number = 0
        """Of the picture that `_jpeg` is; it and what follows belong to the server's loop."""
        self._waiting: list[asyncio.Future[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name=f"page picture {name}", daemon=True)
        self._thread.start()

    def put(self, picture: Callable[[], Image]) -> None:
        """Take the newest picture, to be drawn if somebody looks; on any thread."""
        self._newest = picture
        self._newest_number += 1
        if self._viewers:
            with self._changed:
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def viewers(self) -> int:
        """How many look at it now."""
        return self._viewers

    async def stream(self) -> AsyncIterator[bytes]:
        """A `multipart/x-mixed-replace` body, without end."""
        yield PART
        seen = 0
        with self._looking():
            while True:
                await self._after(seen)
                seen = self._number
                # With the next one's head behind it, without which Chromium shows this one when the next has come,
                # beside the next part's verdict. So no head can tell a length.
                yield self._jpeg + b"\r\n" + PART

    async def still(self) -> bytes | None:
        """The newest picture; None where there is none yet."""
        with self._looking(), contextlib.suppress(asyncio.TimeoutError):
            if self._number < self._newest_number:
                await asyncio.wait_for(self._after(self._number), _FIRST_WITHIN_S)
        return self._jpeg or None

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        self._loop = asyncio.get_running_loop()
        with self._changed:
            self._viewers += 1
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._viewers -= 1

    async def _after(self, seen: int) -> None:
        """Wait for another picture than this one."""
        while self._number == seen:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            finally:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(waiting)

    def _arrived(self, jpeg: bytes, number: int) -> None:
        self._jpeg, self._number = jpeg, number
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or (self._viewers and self._newest_number > self._drawn))
                if self._newest_number == self._drawn:
                    return
                # At the end too, since who looks later is to see why the camera ended.
                picture, self._drawn = self._newest, self._newest_number
            start_s = time.monotonic()
            assert picture is not None
            try:
                jpeg = _encoded(picture())
                if self._loop is None:  # nobody has looked yet
                    self._arrived(jpeg, self._drawn)
                else:
                    self._loop.call_soon_threadsafe(self._arrived, jpeg, self._drawn)
            except Exception as error:  # of one picture, or of a loop that has ended: the next may be shown
                logger.debug("the page cannot show a picture: %s", shortly(error), exc_info=error)
            with self._changed:
                left_s = start_s + 1 / MOST_PER_SECOND - time.monotonic()
                self._changed.wait_for(lambda: self._is_closed, max(0.0, left_s))


def _encoded(image: Image) -> bytes:
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > _LONGEST_SIDE:
        image = resize(image, (max(1, height * _LONGEST_SIDE // longest), max(1, width * _LONGEST_SIDE // longest)))
    return encode_image(image, suffix=".jpg")
