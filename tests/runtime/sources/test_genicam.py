"""GenICam cameras: Aravis' own GigE Vision camera, the standard's own producer, and counters that no camera gives."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.sources import FrameSource, SourceOptions, open_source
from runtime.sources.cameras import find_camera
from runtime.sources.genicam.camera import GenicamCamera
from runtime.sources.genicam.controls import Controls
from runtime.sources.genicam.transport import Delivery, NodeKind
from stlm_edge.errors import SourceError, SourceTimeout

from .conftest import read_until, wait_for_event
from .gige import SERIAL, URI, GigeCamera, gige_camera

MONO8 = 0x01080001
BY_COMMAND = SourceOptions(trigger="software")


@pytest.fixture(scope="module")
def gige() -> Iterator[GigeCamera]:
    with gige_camera() as camera:
        yield camera


@pytest.fixture
def viky() -> str:
    """The GenTL producer that comes with genicam; its cameras are 0, 1 and 2."""
    found = importlib.util.find_spec("genicam")
    if found is None or found.origin is None or importlib.util.find_spec("harvesters") is None:
        pytest.skip("there is no genicam: pip install 'stlm-edge[genicam]'")
    return f"genicam:{Path(found.origin).with_name('viky.cti')}"


class Script:
    """A camera that sends what a test says."""

    loss: str | None = None

    def __init__(self, *counters: int | None, incomplete: Sequence[int] = ()) -> None:
        self._deliveries = [
            Delivery(None, counter=counter)
            if counter is None or counter in incomplete
            else Delivery(np.full(6, 7, np.uint8), code=MONO8, size=(2, 3), counter=counter)
            for counter in counters
        ]
        self.written: list[tuple[str, str]] = []
        self.is_closed = False

    def names(self) -> list[str]:
        return ["Height", "Width", "PixelFormat", "TriggerMode", "TriggerSource", "TriggerSoftware"]

    def kind(self, node: str) -> NodeKind | None:
        kinds: dict[str, NodeKind] = {"Height": "integer", "Width": "integer", "TriggerSoftware": "command"}
        return kinds.get(node, "enumeration") if node in self.names() else None

    def choices(self, node: str) -> list[str]:
        return ["On", "Off", "Software", "Line1", "Mono8"]

    def limits(self, node: str) -> tuple[float, float]:
        return 1, 10

    def read(self, node: str) -> str:
        return {"Height": "2", "Width": "3"}.get(node, "Mono8")

    def write(self, node: str, text: str) -> None:
        self.written.append((node, text))

    def format_code(self) -> int:
        return MONO8

    def start(self) -> None:
        pass

    def take(self, timeout_s: float) -> Delivery | None:
        if self._deliveries:
            return self._deliveries.pop(0)
        time.sleep(min(timeout_s, 0.01))
        return None

    def close(self) -> None:
        self.is_closed = True


def counted(*counters: int | None, incomplete: Sequence[int] = ()) -> list[tuple[int | None, str | None]]:
    """Number and fault of each frame that a camera gives which counts so."""
    script = Script(*counters, incomplete=incomplete)
    with GenicamCamera(lambda: script, name="the camera", controls=Controls(), fps=None) as camera:
        found = []
        with contextlib.suppress(SourceTimeout):
            while (frame := camera.read()) is not None:
                assert frame.index == len(found)
                assert frame.image.max() == (7 if frame.fault is None else 0)
                found.append((frame.counter, frame.fault))
    assert script.is_closed
    return found


def test_picture_that_lacks_packets_is_a_frame_with_a_fault_in_its_place() -> None:
    assert counted(4, 5, 6, incomplete=[5]) == [(4, None), (5, "incomplete"), (6, None)]


def test_picture_of_which_nothing_came_is_one_too() -> None:
    assert counted(4, 7) == [(4, None), (5, "incomplete"), (6, "incomplete"), (7, None)]


def test_one_that_was_told_of_without_its_number_is_not_told_of_again() -> None:
    assert counted(4, None, 6, 8) == [(4, None), (None, "incomplete"), (6, None), (7, "incomplete"), (8, None)]


def test_counter_of_16_bits_begins_anew_with_1() -> None:
    assert counted(65534, 65535, 1, 2) == [(65534, None), (65535, None), (1, None), (2, None)]
    assert [fault for _, fault in counted(65534, 2)] == [None, "incomplete", "incomplete", None]


def test_counter_that_is_another_one_tells_of_no_loss() -> None:
    assert counted(7, 1_000_000, 3) == [(7, None), (1_000_000, None), (3, None)]


def test_triggered_camera_may_be_silent_and_is_asked_in_the_meantime() -> None:
    script = Script()
    with GenicamCamera(lambda: script, name="it", controls=Controls(), fps=5, trigger="software") as camera:
        assert camera.fps is None
        for _ in range(3):
            with pytest.raises(SourceTimeout):
                camera.read()
        camera.trigger()
        script.loss = "unplugged"
        with pytest.raises(SourceError, match="it is lost: unplugged; check the camera and its cable"):
            camera.read()
    assert script.written == [("TriggerMode", "On"), ("TriggerSource", "Software"), ("TriggerSoftware", "true")]


class Signed(Script):
    """Is set to a format that is not read."""

    others: tuple[str, ...] = ()

    def format_code(self) -> int:
        return 0x01080002

    def read(self, node: str) -> str:
        return "Mono8s" if node == "PixelFormat" else super().read(node)

    def choices(self, node: str) -> list[str]:
        return ["Mono8s", *self.others] if node == "PixelFormat" else super().choices(node)


@pytest.mark.parametrize(
    ("others", "remedy"),
    [
        (("Mono8", "Confidence8", "YUV422Packed"), "choose one of Mono8, YUV422Packed by pixel-format=…"),
        (("Confidence8",), "it has no other that is"),
    ],
)
def test_format_that_is_not_read_is_a_line_with_those_that_are(others: tuple[str, ...], remedy: str) -> None:
    script = Signed(1)
    script.others = others
    expected = f"it cannot be opened: the camera is set to the pixel format Mono8s, which is not read; {remedy}"
    with pytest.raises(SourceError, match=f"^{re.escape(expected)}$"):
        GenicamCamera(lambda: script, name="it", controls=Controls())
    assert script.is_closed


def test_nodes_by_name_come_first_and_in_order() -> None:
    script = Script()
    controls = Controls.parse("trigger-edge=rising&node.PixelFormat=Mono8&node.Width=3", trigger="hardware")
    with pytest.raises(SourceError, match="it cannot be opened: the camera has no node TriggerActivation"):
        GenicamCamera(lambda: script, name="it", controls=controls, trigger="hardware")
    script = Script()
    controls = Controls.parse("trigger-source=Software&node.PixelFormat=Mono8&node.Width=3", trigger="hardware")
    with GenicamCamera(lambda: script, name="it", controls=controls, trigger="hardware"):
        pass
    assert script.written[:3] == [("PixelFormat", "Mono8"), ("Width", "3"), ("TriggerMode", "On")]
    assert script.written[3] == ("TriggerSource", "Software")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("exposre-us=3", "no option 'exposre-us', did you mean exposure-us; known are exposure-us, gain"),
        ("exposure-us=-3", "exposure-us is '-3', expected microseconds above 0, or auto"),
        ("gain=loud", "gain is 'loud', expected a number, or auto"),
        ("white-balance=1.5", "white-balance is '1.5', expected auto, once, or RED,BLUE as in 1.5,2.1"),
        ("region=1,2,3", "region is '1,2,3', expected LEFT,TOP,WIDTH,HEIGHT in pixels"),
        (
            "trigger=hardware",
            "trigger is no part of the address but an option, --trigger hardware or --trigger software",
        ),
        ("trigger-edge=rising", "trigger-edge is given and nothing that it is for, expected --trigger hardware"),
        (
            "trigger-delay-us=9",
            "trigger-delay-us is given and nothing that it is for, expected --trigger hardware or soft",
        ),
        ("gain=1&gain=2", "gain is given twice"),
    ],
)
def test_control_that_does_not_fit_is_a_line_before_anything_is_opened(query: str, expected: str) -> None:
    with pytest.raises(SourceError, match=re.escape("gige://GV01 cannot be opened: ") + ".*" + re.escape(expected)):
        find_camera(f"gige://GV01?{query}", SourceOptions())


def test_source_without_a_trigger_says_so(tmp_path: Path) -> None:
    with open_source("test://?frames=1") as source, pytest.raises(SourceError, match="cannot be triggered by command"):
        source.trigger()


@pytest.mark.heavy
def test_gige_camera_delivers_what_it_is_set_to(gige: GigeCamera) -> None:
    with open_source(f"{URI}&exposure-us=5000&gain=3&node.TestBoolean=true", SourceOptions(fps=20)) as source:
        frames = [source.read() for _ in range(3)]
        assert {frame.image.shape for frame in frames if frame} == {(64, 96)}
        assert frames[0] is not None and frames[0].counter is not None and frames[0].source == f"gige://{SERIAL}"
        assert source.fps == 20
    with open_source("gige://127.0.0.1?region=0,0,96,64&pixel-format=RGB8") as source:
        frame = source.read()
        assert frame is not None and frame.image.shape == (64, 96, 3)


@pytest.mark.heavy
def test_each_software_trigger_gives_one_picture(gige: GigeCamera) -> None:
    with open_source(f"{URI}&pixel-format=BayerRG8", BY_COMMAND) as source:
        time.sleep(0.3)
        assert source.poll() is None
        counters = []
        for _ in range(3):
            source.trigger()
            frame = read_until(source, lambda frame: frame.fault is None)
            counters.append(frame.counter)
        assert counters[0] is not None
        assert [counter - counters[0] for counter in counters if counter] == [0, 1, 2]
        assert source.poll() is None
        for _ in range(5):  # faster than anybody reads: none is lost, and their order is kept
            source.trigger()
            time.sleep(0.05)
        more = [read_until(source, lambda frame: frame.fault is None).counter for _ in range(5)]
        assert more == sorted(more) and source.dropped == 0
    with open_source(URI) as source, pytest.raises(SourceError, match="cannot be triggered"):  # runs freely again
        assert source.read() is not None
        source.trigger()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("pixel-format=Mono9", r"does not take 'Mono9' for PixelFormat: expected .* or Mono8 .*did you mean Mono8"),
        ("gain=99", "does not take '99' for GainRaw: expected a whole number from 0 to 10"),
        ("node.GainRow=1", "the camera has no node GainRow, did you mean GainRaw; see"),
        ("node.Width=wide", "does not take 'wide' for Width: expected a whole number from 1 to 2048"),
        ("node.TestBoolean=perhaps", "does not take 'perhaps' for TestBoolean: expected true or false"),
        ("white-balance=auto", "the camera has no node BalanceWhiteAuto"),
        ("trigger-source=Line1", "does not take 'Line1' for TriggerSource: expected Line0 or Software"),
    ],
)
def test_what_a_camera_does_not_take_is_a_line_and_leaves_it_free(gige: GigeCamera, query: str, expected: str) -> None:
    with pytest.raises(SourceError, match=f"^gige://{SERIAL} cannot be opened: .*{expected}"):
        open_source(f"gige://{SERIAL}?{query}", SourceOptions(trigger="hardware"))
    with open_source(URI) as source:
        assert source.read() is not None


@pytest.mark.heavy
def test_camera_that_nobody_has_names_those_there_are(gige: GigeCamera) -> None:
    with pytest.raises(SourceError, match=f"no camera 'GONE' answers, those that do: .*{SERIAL}; check"):
        open_source("gige://GONE")
    with pytest.raises(SourceError, match="u3v://GONE cannot be opened: no camera 'GONE' answers, none does"):
        open_source("u3v://GONE")


@pytest.mark.heavy
def test_camera_in_use_is_refused(gige: GigeCamera) -> None:
    with open_source(URI) as source:
        assert source.read() is not None
        with pytest.raises(SourceError, match="another program has it; end that"):
            open_source(URI)
        assert source.read() is not None


@pytest.mark.heavy
def test_camera_that_is_killed_is_lost_and_comes_back(gige: GigeCamera) -> None:
    with open_source(URI, BY_COMMAND) as source:
        source.trigger()
        before = read_until(source, lambda frame: frame.fault is None)
        gige.kill()
        gige.start()  # it has forgotten whom it belonged to, which the next heartbeat tells
        lost = wait_for_event(source, "camera-lost")
        assert lost.text.startswith(f"gige://{SERIAL} is lost: it does not answer any more")
        after = triggered(source)
        assert after.index > before.index
        wait_for_event(source, "camera-back")
        assert source.reconnects == 1


def triggered(source: FrameSource):  # type: ignore[no-untyped-def]
    """The frame of the first trigger that the camera takes again."""
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        with contextlib.suppress(SourceError, SourceTimeout):
            source.trigger()
            time.sleep(0.2)
            if (frame := source.poll()) is not None:
                return frame
    raise AssertionError("no frame")


@pytest.mark.heavy
def test_trigger_while_it_closes_is_refused_or_taken(gige: GigeCamera) -> None:
    source = open_source(URI, BY_COMMAND)
    outcomes: list[str] = []

    def fire() -> None:
        while True:
            try:
                source.trigger()
            except SourceError as error:
                outcomes.append(str(error))
                return

    thread = threading.Thread(target=fire)
    thread.start()
    time.sleep(0.1)
    source.close()
    thread.join(10)
    assert not thread.is_alive()
    assert "was not triggered" in outcomes[0]


@pytest.mark.heavy
def test_producer_delivers_grey_and_colour(viky: str) -> None:
    with open_source(f"{viky}#1?pixel-format=Mono8&node.Width=200") as source:
        frame = source.read()
        assert frame is not None and frame.image.shape == (400, 200)
        assert source.read() is not None
    with open_source(f"{viky}#2?pixel-format=RGBa8&node.Width=400") as source:
        frame = source.read()
        assert frame is not None and frame.image.shape == (400, 400, 3)
        blue, green, red = frame.image.min(axis=(0, 1))
        assert len({int(blue), int(green), int(red)}) > 1, "the ball of its camera 2 is blue"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("", "it sees the serial numbers 0, 1, 2; write genicam:"),
        ("#7", "it sees the serial numbers 0, 1, 2; write genicam:"),
        ("#1?node.Width=wide", "does not take 'wide' for Width: expected a whole number from 100 to 800"),
        ("#1?node.PayloadSize=8", "does not take '8' for PayloadSize"),
    ],
)
def test_what_a_producer_does_not_take_is_a_line(viky: str, rest: str, expected: str) -> None:
    with pytest.raises(SourceError, match=f"cannot be opened: .*{expected}") as caught:
        open_source(f"{viky}{rest}")
    assert "thrown in node" not in str(caught.value)
    with open_source(f"{viky}#1?node.Width=400") as source:
        assert source.read() is not None


@pytest.mark.heavy
def test_producer_without_a_trigger_says_so(viky: str) -> None:
    with pytest.raises(SourceError, match="the camera has no node TriggerMode; see what it has"):
        open_source(f"{viky}#1", BY_COMMAND)


@pytest.mark.heavy
def test_producer_that_is_none_is_a_line(viky: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file, expected a vendor's GenTL producer"):
        open_source(f"genicam:{tmp_path}/gone.cti#1")
    for place, kind in ((tmp_path, "a folder"), ("/dev/null", "a device")):
        with pytest.raises(SourceError, match=f"it is {kind}, expected a vendor's GenTL producer"):
            open_source(f"genicam:{place}#1")
    with pytest.raises(SourceError, match="found the serial number behind the settings, expected it before them"):
        open_source(f"genicam:{tmp_path}/gone.cti?gain=3#1")
    other = tmp_path / "other.cti"
    other.write_text("no library")
    with pytest.raises(SourceError, match=r"found no library that this machine loads \(.*, expected a GenTL producer"):
        open_source(f"genicam:{other}#1")
