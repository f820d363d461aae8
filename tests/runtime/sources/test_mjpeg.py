"""MJPEG cameras that are killed, hang, change their size and want a password."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from runtime.sources import SourceOptions, open_source
from runtime.sources.live_camera import LiveCamera, Patience
from runtime.sources.mjpeg import open_mjpeg
from runtime.sources.shape import Shaped, Shaper
from stlm_edge.errors import SourceError
from stlm_edge.imaging import decode

from .conftest import CameraServer, frames, read_until, wait_for_event

pytestmark = pytest.mark.heavy

QUICK = Patience(read_s=1, first_delay_s=0.05, most_delay_s=0.2)
AS_IS = SourceOptions()


def open_quick(uri: str, options: SourceOptions = AS_IS, *, answer_s: float = 5.0) -> LiveCamera:
    """As `open_source` does, with less patience."""
    shaper = Shaper(options, is_camera=True)
    return LiveCamera(
        lambda: Shaped(open_mjpeg(uri, options, answer_s=answer_s), shaper), name="the camera", patience=QUICK
    )


@pytest.fixture
def two_sizes() -> Iterator[CameraServer]:
    server = CameraServer("http", "48x64", "96x128")
    yield server
    server.kill()


def test_stream_whose_server_is_killed_goes_on_when_it_is_started_again(camera_server: CameraServer) -> None:
    with open_quick(camera_server.address("/line")) as source:
        before = read_until(source, lambda frame: frame.index >= 5)
        camera_server.kill()
        lost = wait_for_event(source, "camera-lost")
        assert "trying again until it is back" in lost.text
        camera_server.start()
        wait_for_event(source, "camera-back")
        after = read_until(source, lambda frame: frame.index > before.index)
        assert read_until(source, lambda frame: frame.index > after.index).image.shape == (48, 64, 3)
        assert source.reconnects == 1
        assert after.timestamp_s > before.timestamp_s


def test_loss_is_told_at_once_and_the_source_stays_usable(camera_server: CameraServer) -> None:
    with open_source(camera_server.address("/line")) as source:
        assert source.read() is not None
        camera_server.kill()
        # With the patience of a real line, so 5 s would pass until a mere time-out.
        with pytest.raises(SourceError, match="has stopped delivering frames: its stream ended"):
            list(frames(source))
        camera_server.start()
        assert read_until(source, lambda _: source.reconnects == 1).image.shape == (48, 64, 3)


def test_stream_that_stalls_is_lost_and_opened_again(standing_server: CameraServer) -> None:
    with open_quick(standing_server.address("/stalls"), answer_s=1.5) as source:
        assert "nothing came for" in wait_for_event(source, "camera-lost").text
        wait_for_event(source, "camera-back")
        assert source.reconnects == 1


def test_stream_that_ends_is_a_camera_that_is_lost(standing_server: CameraServer) -> None:
    with open_quick(standing_server.address("/ends")) as source:
        assert "its stream ended" in wait_for_event(source, "camera-lost").text
        wait_for_event(source, "camera-back")


def test_server_that_accepts_and_sends_nothing(standing_server: CameraServer) -> None:
    with pytest.raises(SourceError, match=r"does not answer within 0\.5 s"):
        open_quick(standing_server.address("/silent"), answer_s=0.5)


def test_changed_size_goes_through_with_a_line_in_the_log(
    two_sizes: CameraServer, caplog: pytest.LogCaptureFixture
) -> None:
    with open_quick(two_sizes.address("/line")) as source:
        assert read_until(source, lambda _: True).image.shape == (48, 64, 3)
        read_until(source, lambda frame: frame.image.shape == (96, 128, 3))
        assert source.reconnects == 0
    assert caplog.text.count("delivers 96 x 128 (height x width) now, before that it was 48 x 64") == 1


def test_frames_get_the_size_that_is_asked_for(two_sizes: CameraServer, caplog: pytest.LogCaptureFixture) -> None:
    options = SourceOptions(width=32, height=96, rotate=90)
    with open_quick(two_sizes.address("/line"), options) as source:
        for frame in frames(source):
            assert frame.image.shape == (96, 32, 3)
            assert frame.file is None  # which has another size
            if frame.index > 30:
                break
    resized = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(resized) == 2
    assert "delivers 64 x 48 (height x width), asked for were 96 x 32 (height x width): resized" in resized[0]


def test_rate_that_is_asked_for_is_not_exceeded(standing_server: CameraServer) -> None:
    with open_quick(standing_server.address("/line"), SourceOptions(fps=10)) as source:
        assert source.fps == 10
        seen = [frame.timestamp_s for frame, _ in zip(frames(source), range(6), strict=False)]
    assert seen[-1] - seen[0] >= 4 / 10
    assert source.dropped == 0


def test_pictures_without_a_length_are_read_up_to_the_boundary(standing_server: CameraServer) -> None:
    with open_quick(standing_server.address("/bare")) as source:
        frame = read_until(source, lambda frame: frame.index > 3)
    assert frame.image.shape == (48, 64, 3)
    assert frame.file is not None  # as the camera sent it
    np.testing.assert_array_equal(decode(frame.file), frame.image)


def test_login_is_used_and_shown_nowhere(
    camera_server: CameraServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = camera_server.address("/private?token=t0ken", login="adm:s3cret@")
    with caplog.at_level(logging.DEBUG), open_source(uri) as source:
        frame = source.read()
        assert frame is not None
        camera_server.kill()
        texts = [frame.source, wait_for_event(source, "camera-lost").text]
        with pytest.raises(SourceError) as caught:
            list(frames(source))
        camera_server.start()
        texts += [str(caught.value), wait_for_event(source, "camera-back").text, caplog.text, *capfd.readouterr()]
    assert all(text.startswith("http://***@127.0.0.1") for text in texts[:4])
    assert not any("s3cret" in text or "t0ken" in text or "adm" in text for text in texts)


def test_password_is_not_sent_where_a_digest_is_asked_for(standing_server: CameraServer) -> None:
    with open_source(standing_server.address("/digest", login="adm:s3cret@")) as source:
        assert source.read() is not None


@pytest.mark.parametrize(
    ("path", "login", "expected"),
    [
        ("/digest", "adm:wr0ng@", r"answers 401 \(Unauthorized\); check user and password"),
        ("/private", "", r"answers 401 \(Unauthorized\); check user and password"),
        ("/private", "adm:wr0ng@", r"answers 401 \(Unauthorized\); check user and password"),
        (
            "/nowhere?pwd=s3cret",
            "",
            r"nowhere\?pwd=\*\*\* cannot be opened: .* answers 404 \(Not Found\); check the path",
        ),
        ("/snapshot", "", "sends image/jpeg, expected multipart/x-mixed-replace"),
    ],
)
def test_server_that_refuses_is_told_from_one_that_is_not_there(
    standing_server: CameraServer, path: str, login: str, expected: str
) -> None:
    with pytest.raises(SourceError, match=expected) as caught:
        open_source(standing_server.address(path, login=login))
    assert "wr0ng" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_nobody_listens(scheme: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"{scheme}://adm:s3cret@127.0.0.1:{free.getsockname()[1]}/line"
        with pytest.raises(SourceError, match="Connection refused; check the camera's address") as caught:
            open_source(uri)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("rest", ["", "/line", "admin:se/cret@127.0.0.1/line", "host:port/line"])
def test_malformed_address(scheme: str, rest: str) -> None:
    with pytest.raises(SourceError, match="is not an address, expected SCHEME://USER:PASSWORD@HOST") as caught:
        open_source(f"{scheme}://{rest}")
    assert "cret" not in str(caught.value)
