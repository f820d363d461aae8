"""RTSP cameras, read by OpenCV's FFmpeg, that are killed, stall and want a password."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runtime.sources import SourceOptions, open_source
from runtime.sources.live_camera import LiveCamera, Patience
from runtime.sources.rtsp import open_rtsp
from stlm_edge.errors import SourceError

from .conftest import CameraServer, read_until, wait_for_event

pytestmark = pytest.mark.heavy

LOGIN = "adm:s3cret@"
TICK_S = 0.008
"""What a grey value of the server's pictures stands for."""


@pytest.fixture
def rtsp_server() -> Iterator[CameraServer]:
    server = CameraServer("rtsp")
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def own_ffmpeg_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's settings reach a test, nor what it sets the next one."""
    for variable in ("OPENCV_FFMPEG_LOGLEVEL", "OPENCV_FFMPEG_DEBUG", "OPENCV_FFMPEG_CAPTURE_OPTIONS"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


def test_stream_whose_server_is_killed_goes_on_and_its_login_is_shown_nowhere(
    rtsp_server: CameraServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), open_source(rtsp_server.address("/line", login=LOGIN)) as source:
        frame = read_until(source, lambda frame: frame.index >= 3)
        assert frame.image.shape == (48, 64, 3)
        assert source.fps == 100
        rtsp_server.kill()
        lost = wait_for_event(source, "camera-lost")
        rtsp_server.start()
        back = wait_for_event(source, "camera-back")
        after = read_until(source, lambda after: after.index > frame.index)
        assert source.reconnects == 1
    texts = [frame.source, after.source, lost.text, back.text]
    assert all(text.startswith("rtsp://***@127.0.0.1:") for text in texts)
    output = capfd.readouterr()
    assert not any("s3cret" in text or "adm" in text for text in (*texts, caplog.text, output.out, output.err))
    assert output.err == ""


def test_stream_that_stalls_is_lost_and_no_old_picture_is_taken_for_a_new_one(rtsp_server: CameraServer) -> None:
    uri = rtsp_server.address("/stalls", login=LOGIN)
    patience = Patience(read_s=0.2, first_delay_s=0.05, most_delay_s=0.2)
    with LiveCamera(lambda: open_rtsp(uri, SourceOptions(), answer_s=1.5), name="camera", patience=patience) as source:
        assert "nothing came for" in wait_for_event(source, "camera-lost").text
        last = source.poll()
        assert last is not None
        # What the decoder still held would be 1.5 s old.
        assert (int(last.timestamp_s / TICK_S) - int(last.image[0, 0, 0])) % 256 * TICK_S < 0.5
        wait_for_event(source, "camera-back")


def test_wrong_password_is_refused_without_a_word_from_opencv(rtsp_server: CameraServer) -> None:
    """In a process of its own, since FFmpeg asks only once how much it shall say."""
    uri = rtsp_server.address("/line", login="adm:wr0ng@")
    program = (
        "from runtime.sources import open_source; from stlm_edge.errors import SourceError\n"
        f"try:\n    open_source({uri!r})\nexcept SourceError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert re.fullmatch(r"rtsp://\*\*\*@127.* its host answers but sends no stream; check path, user.*\n", done.stdout)
    assert done.stderr == ""


def test_server_that_speaks_something_else(standing_server: CameraServer) -> None:
    with pytest.raises(SourceError, match="its host answers but sends no stream"):
        open_source(standing_server.address("/line").replace("http", "rtsp"))
