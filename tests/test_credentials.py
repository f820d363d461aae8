from __future__ import annotations

import pytest

from stlm_edge.credentials import without_credentials


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rtsp://adm:s3cret@camera:554/line", "rtsp://***@camera:554/line"),
        ("rtsp://s3cret@camera/line", "rtsp://***@camera/line"),
        ("rtsp://adm:s3@cr/e?t@camera/line", "rtsp://***@camera/line"),
        ("cannot open rtsp://adm:s3cret@camera/1 (refused)", "cannot open rtsp://***@camera/1 (refused)"),
        ("http://camera/video?user=s3cret&pwd=s3cret&fps=5", "http://camera/video?user=***&pwd=***&fps=5"),
        ("http://camera/video?fps=5&access_token=s3cret", "http://camera/video?fps=5&access_token=***"),
        ("http://camera/video?Password=s3cret#x", "http://camera/video?Password=***"),
        ("rtsp://camera/user=s3cret&password=s3cret&channel=1", "rtsp://camera/user=***&password=***&channel=1"),
        ("rtsp://camera/user=adm_password=s3cret_channel=1", "rtsp://camera/user=***"),
        ('gst:rtspsrc user-id=s3cret user-pw="s3 cret" ! x', "gst:rtspsrc user-id=*** user-pw=*** ! x"),
        ('gst:rtspsrc location="rtsp://adm:s3cret@camera/1" ! x', 'gst:rtspsrc location="rtsp://***@camera/1" ! x'),
        ("rtsp://a:s3cret@one/1 and rtsp://b:s3cret@two/2", "rtsp://***@one/1 and rtsp://***@two/2"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str) -> None:
    assert without_credentials(text) == expected
    assert "cret" not in without_credentials(text)


@pytest.mark.parametrize(
    "text", ["rtsp://camera:554/line?channel=1", "test://?fps=10&seed=1&size=64x64", "/data/parts", "0", "a@b", ""]
)
def test_nothing_else_is_changed(text: str) -> None:
    assert without_credentials(text) == text
