"""What `benchmarks.loop` measures of the live page: the pace of a line that nobody looks at, and with viewers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.loop_measures import SETTLING, FreeSource, pictures_of, run_line, timeless_detector
from runtime.line_control import Control
from runtime.page.app import LivePage
from runtime.page.watch import CameraWatch
from runtime.sinks import FrameSink
from runtime.sources import Frame
from runtime.web.options import Serving
from stlm_edge.errors import VerificationError
from stlm_edge.imaging import Image
from stlm_edge.spec import Size

FPS = 60.0
_VIEWER = """
import selectors, socket, sys
port, reading, stalled = map(int, sys.argv[1:])
chosen, kept = selectors.DefaultSelector(), []
for number in range(reading + stalled):
    viewer = socket.create_connection(("127.0.0.1", port))
    path = "/live" if number == 0 else "/stream"
    viewer.sendall(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    kept.append(viewer)
    if number < reading:
        chosen.register(viewer, selectors.EVENT_READ)
print("looking", flush=True)
while all([ready.fileobj.recv(1 << 20) for ready, _ in chosen.select()]):
    pass
"""
"""Most take all that comes, one the events and the others pictures; some take nothing and stay connected."""


class PacedSource(FreeSource):
    """A camera at `FPS` frames a second, of which the line takes the newest."""

    def __init__(self, pictures: Sequence[Image], *, frames: int, on_frame: Callable[[int], None]) -> None:
        super().__init__(pictures, frames=frames, on_frame=on_frame)
        self._due_s = time.monotonic()

    def read(self) -> Frame | None:
        self._due_s = max(self._due_s + 1 / FPS, time.monotonic() - 1 / FPS)
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        return super().read()

    def poll(self) -> Frame | None:
        return self.read() if time.monotonic() >= self._due_s + 1 / FPS else None


def paces(
    *, frame_size: Size, input_size: Size, frames: int, turns: int, viewers: int, stalled: int
) -> list[tuple[float, float]]:
    """Frames a second, turn by turn: without a page, and with one that `viewers` look at, and `stalled` besides them
    that take nothing of what they have asked for.

    Raises `VerificationError` if a viewer was not served.
    """
    pictures = pictures_of(frame_size)
    found = []
    for _ in range(turns):
        alone = _pace(pictures, frames=frames, input_size=input_size, page=None)
        with LivePage(Serving("127.0.0.1:0")) as page, ExitStack() as looking:

            def look(page: LivePage = page, looking: ExitStack = looking) -> None:
                looking.enter_context(_looked_at(page, viewers, stalled))

            found.append((alone, _pace(pictures, frames=frames, input_size=input_size, page=page, look=look)))
    return found


def _pace(
    pictures: Sequence[Image],
    *,
    frames: int,
    input_size: Size,
    page: LivePage | None,
    look: Callable[[], None] = lambda: None,
) -> float:
    taken_s: list[float] = []

    def sinks(control: Control) -> dict[str, FrameSink]:
        if page is None:
            return {}
        watch = CameraWatch("camera", control=control, recipes=[], can_trigger=False, events=None)
        page.add(watch)
        look()  # now that there is something to look at
        return {watch.output: watch}

    source = PacedSource(pictures, frames=frames + SETTLING + 1, on_frame=lambda _: taken_s.append(time.perf_counter()))
    with timeless_detector(input_size) as detector:
        run_line(source, detector, sinks=sinks)
    return frames / (taken_s[-1] - taken_s[SETTLING])


@contextmanager
def _looked_at(page: LivePage, viewers: int, stalled: int) -> Iterator[None]:
    command = [sys.executable, "-c", _VIEWER, str(page.port), str(viewers), str(stalled)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            program.stdout.readline()
            yield
            if program.poll() is not None:
                raise VerificationError("a viewer was not served to the end, expected all to be; look at runtime/page")
        finally:
            program.kill()
