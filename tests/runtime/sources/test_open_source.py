"""What the URIs mean, options that are the same for all, and cameras that are not there."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.devices import ARGUS_SOCKET
from runtime.sources import SourceOptions, open_source
from runtime.sources.gstreamer import csi_pipeline, with_sink
from runtime.sources.v4l2 import open_device
from stlm_edge.errors import ConfigError, SourceError
from stlm_edge.imaging import write_image

HAS_GSTREAMER = cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)


def test_unknown_source_says_what_is_known_and_no_password() -> None:
    for uri in ("", "nowhere.mp4", "rtps://adm:s3cret@camera/1", "/no/such/folder", "csi://left", "/no/folder?watch=1"):
        with pytest.raises(SourceError, match=r"known are a camera's index .* v4l2:.* csi:.* rtsp:.* gst:") as caught:
            open_source(uri)
        assert "s3cret" not in str(caught.value)


def test_folder_with_an_unknown_option(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a folder takes watch=1 or watch=new, as in .*\?watch=1"):
        open_source(f"{tmp_path}?wach=1")


def test_file_with_a_question_mark_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "good?watch=1.png"
    write_image(path, np.full((8, 8, 3), 60, np.uint8))
    with open_source(str(path)) as source:
        assert source.read() is not None
        assert source.read() is None


@pytest.mark.parametrize("uri", ["99", "/dev/video99", "v4l2:///dev/video99"])
def test_camera_that_is_not_there(uri: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be opened: there is no camera at /dev/video99; check its cable"):
        open_source(uri)


@pytest.mark.parametrize("uri", ["test://?%70assword=abc", "csi://9?key=abc"])
def test_secret_of_a_source_that_needs_none_is_not_told(uri: str) -> None:
    with pytest.raises(SourceError, match=r"=\*\*\*") as caught:
        open_source(uri)
    assert "abc" not in str(caught.value)


def test_control_that_a_device_has_not_is_named_and_its_value_is_not() -> None:
    with pytest.raises(
        SourceError, match=r"camera /dev/null cannot be opened: there is no option 'token'; known"
    ) as caught:
        open_source("v4l2:///dev/null?tok%65n=abc")
    assert "abc" not in str(caught.value)


def test_device_that_is_no_camera() -> None:
    with pytest.raises(SourceError, match="/dev/null is not a camera"):
        open_source("v4l2:///dev/null")


@pytest.fixture
def forbidden_device(tmp_path: Path) -> Iterator[Path]:
    """A file that the user may not open, who is for once not root."""
    device = tmp_path / "video0"
    device.touch(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield device
    os.seteuid(user)


def test_permission_denied_names_the_group(forbidden_device: Path) -> None:
    with pytest.raises(SourceError, match=r"permission for .*/video0 is denied; .* usermod -aG video"):
        open_device(forbidden_device, SourceOptions(), name="camera 0")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EBUSY, "is in use by another program; find and end it: fuser -v"), (errno.EIO, "unplug the camera")],
)
def test_camera_that_answers_with_an_error(number: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver's answers, since no camera is here that could be in use."""

    def ioctl(_: int, request: int, answer: bytearray) -> int:
        if request == 0x80685600:
            struct.pack_into("=II", answer, 84, 0x84A00001, 0x04200001)
            return 0
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(SourceError, match=expected):
        open_device(Path("/dev/null"), SourceOptions(), name="camera 0")


def test_metadata_device_of_a_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    def ioctl(_: int, request: int, answer: bytearray) -> int:
        struct.pack_into("=II", answer, 84, 0x84A00001, 0x04A00000)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with pytest.raises(SourceError, match="carries no pictures but another part of a camera"):
        open_device(Path("/dev/null"), SourceOptions(), name="camera 0")


def virtual_camera() -> Path | None:
    """A camera of the kernel's `vivid`, which draws its own pictures."""
    for name in Path("/sys/class/video4linux").glob("*/name"):
        if "vivid" in name.read_text() and "vid-cap" in name.read_text():
            return Path("/dev") / name.parent.name
    return None


@pytest.mark.skipif(virtual_camera() is None, reason="the kernel has no virtual camera; load one: modprobe vivid")
def test_kernel_camera_delivers_the_size_that_is_asked_for() -> None:
    with open_source(f"v4l2://{virtual_camera()}", SourceOptions(width=320, height=240, fps=10)) as source:
        for _ in range(3):
            frame = source.read()
            assert frame is not None
            assert frame.image.shape == (240, 320, 3)


@pytest.mark.skipif(HAS_GSTREAMER, reason="this OpenCV has GStreamer")
def test_opencv_without_gstreamer_says_where_one_is_and_no_password() -> None:
    with pytest.raises(SourceError, match=r"built without it, .*apt install python3-opencv.*stlm doctor") as caught:
        open_source("gst:rtspsrc location=rtsp://adm:s3cret@camera/1 user-pw=s3cret ! decodebin")
    assert "s3cret" not in str(caught.value)


@pytest.mark.skipif(not HAS_GSTREAMER, reason="OpenCV's wheel has no GStreamer; the distribution's OpenCV has")
def test_pipeline_delivers_frames_of_the_size_asked_for() -> None:
    uri = "gst:videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1"
    with open_source(uri, SourceOptions(width=24, height=32, rotate=90)) as source:
        frame = source.read()
        assert frame is not None
        assert frame.image.shape == (32, 24, 3)


@pytest.mark.skipif(ARGUS_SOCKET.is_socket(), reason="this is a Jetson")
@pytest.mark.parametrize("uri", ["0", "rtsp://camera/1", "csi://0"])
def test_camera_that_takes_no_command_says_which_trigger_it_may_have(uri: str) -> None:
    with pytest.raises(SourceError, match=r"cannot be triggered by command.*--trigger hardware .*fifo"):
        open_source(uri, SourceOptions(trigger="software"))


@pytest.mark.parametrize(
    ("uri", "options", "expected"),
    [
        ("test://?fps=10", SourceOptions(trigger="software"), "expected a picture for each trigger"),
        ("FOLDER?watch=1", SourceOptions(trigger="software"), "each new picture is a trigger"),
        ("0", SourceOptions(trigger="hardware", fps=10), "a frame for each trigger is wanted; leave the rate out"),
    ],
)
def test_source_that_does_not_fit_the_trigger(uri: str, options: SourceOptions, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=expected):
        open_source(uri.replace("FOLDER", str(tmp_path)), options)


def test_source_that_comes_by_itself_is_not_triggered(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    with open_source(str(tmp_path)) as source, pytest.raises(SourceError, match="cannot be triggered by command"):
        source.trigger()


def test_csi_camera_away_from_a_jetson() -> None:
    with pytest.raises(SourceError, match=r"csi://0 cannot be opened: NVIDIA's camera service is not there"):
        open_source("csi://0")


def test_csi_pipeline_asks_for_the_size_before_turning_and_turns_clockwise() -> None:
    assert csi_pipeline(1, SourceOptions(width=1080, height=1920, fps=30, rotate=90)) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1 ! "
        "nvvidconv flip-method=3 ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
    assert "framerate=30000/1001" in csi_pipeline(0, SourceOptions(fps=29.97002997))
    assert "(memory:NVMM) ! nvvidconv flip-method=0" in csi_pipeline(0, SourceOptions())


def test_pipeline_gets_an_appsink_unless_it_has_one() -> None:
    assert with_sink("videotestsrc !").startswith(
        "videotestsrc ! videoconvert ! video/x-raw,format=BGR ! appsink drop="
    )
    assert with_sink("videotestsrc ! appsink name=x") == "videotestsrc ! appsink name=x"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"width": 640}, "expected both or neither"),
        ({"width": 0, "height": 480}, "expected pixels"),
        ({"fps": 0}, "give a number above 0"),
        ({"fps": float("nan")}, "give a number above 0"),
        ({"rotate": 45}, "expected 0, 90, 180 or 270"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        SourceOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_frames_are_turned_clockwise_and_then_resized(degrees: int, corner: tuple[int, int], tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:20, :20] = 200
    write_image(tmp_path / "a.png", image)
    with open_source(str(tmp_path), SourceOptions(width=60, height=120, rotate=degrees)) as source:
        frame = source.read()
    assert frame is not None
    assert frame.image.shape == (120, 60, 3)
    corners = {(row, column): int(frame.image[row, column, 0]) for row in (0, -1) for column in (0, -1)}
    assert corners == {place: 200 if place == corner else 0 for place in corners}


def test_folder_of_many_sizes_is_resized_with_a_line_for_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, size in (("a.png", (40, 80)), ("b.png", (50, 80)), ("c.png", (60, 80))):
        write_image(tmp_path / name, np.zeros((*size, 3), np.uint8))
    with open_source(str(tmp_path), SourceOptions(width=32, height=16)) as source:
        shapes = []
        while (frame := source.read()) is not None:
            shapes.append(frame.image.shape)
    assert shapes == [(16, 32, 3)] * 3
    assert caplog.text.count("delivers 40 x 80 (height x width), asked for were 16 x 32 (height x width): resized") == 1
    assert "50 x 80" not in caplog.text
