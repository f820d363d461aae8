from __future__ import annotations

import time
from urllib.parse import quote, unquote

import pytest

from stlm_edge import credentials
from stlm_edge.credentials import safe_name, without_credentials, without_logins


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets of one test are none of the next."""
    monkeypatch.setattr(credentials, "_known", set())


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
    ("text", "expected"),
    [
        ("rtsps://nvr:7441/AbCdEfGhIjKlMnOp?enableSrtp", "rtsps://nvr:7441/***?enableSrtp"),
        ("http://c/live/8f3a9c2e/x.mjpg", "http://c/live/***/x.mjpg"),
        ("http://c/0f8fad5b-d9cb-469f-a165-70867728950e", "http://c/***"),
        ("http://c/token/abc/video", "http://c/token/***/video"),
        ("http://c/video?u=adm&p=1234&camera=front", "http://c/video?u=***&p=***&camera=front"),
        ("http://c/video?id=QmFzZTY0IGlzIG5vdA", "http://c/video?id=***"),
        ("http://c/Streaming/Channels/101?fps=5", "http://c/Streaming/Channels/101?fps=5"),
        ("http://c/axis-cgi/mjpg/video.cgi?resolution=640x480", "http://c/axis-cgi/mjpg/video.cgi?resolution=640x480"),
        ("http://c/h264Preview_01_main", "http://c/h264Preview_01_main"),
        ("http://c/video?%74oken=main&fps=5", "http://c/video?token=***&fps=5"),
        ("http://c/pass%77ord=main/x", "http://c/password=***/x"),
        ("http://c/tok%65n/abc/video", "http://c/token/***/video"),
        ("http://c/video?%74itle=main", "http://c/video?%74itle=main"),
        ("v4l2:///dev/video0?format=MJPG&token=main", "v4l2:///dev/video0?format=MJPG&token=***"),
        ("mqtt://line@broker/a?login=/etc/login&key=/etc/k", "mqtt://***@broker/a?login=/etc/login&key=/etc/k"),
        ("mqtts://line:main@broker:8883/a?login=/x", "mqtts://***@broker:8883/a?login=/x"),
        ("https://h/a?login=/etc/l&queue=./q&on=good,fault", "https://h/a?login=/etc/l&queue=./q&on=good,fault"),
        ("https://h/a?limit=100MB&ca=../ca.pem&login=main1", "https://h/a?limit=100MB&ca=../ca.pem&login=***"),
        ("https://hooks/services/T0/B0/aB3dE5gH7jK9?on=reject", "https://hooks/services/T0/B0/***?on=reject"),
        ("test://?fps=10&passw%6Frd=main&size=64x64", "test://?fps=10&password=***&size=64x64"),
        ('gst:souphttpsrc extra-headers="x,a=(string)\\"b c\\"" ! x', "gst:souphttpsrc extra-headers=*** ! x"),
        ("gst:rtspsrc user-pw=a\\ b&c!d ! x", "gst:rtspsrc user-pw=*** ! x"),
        ('gst:rtspsrc location="rtsp://a:b c@camera/1" ! x', 'gst:rtspsrc location="rtsp://***@camera/1" ! x'),
    ],
)
def test_tokens_are_hidden_and_the_words_of_a_path_are_not(text: str, expected: str) -> None:
    assert without_credentials(text) == safe_name(text) == expected


@pytest.mark.parametrize(
    "password",
    ["p@ss", "a/b/c/d", "what?ever", "pa#ss", "pass word", "a\"b'c d", "100%sure", "p%40ss%20w", "ünlüü", "a\\bc"],
)
def test_secret_of_an_address_is_hidden_wherever_it_stands(password: str) -> None:
    assert safe_name(f"rtsp://adm:{password}@camera/1") == "rtsp://***@camera/1"
    spellings = {password, unquote(password), quote(unquote(password), safe=""), repr(password)[1:-1]}
    for text in (f"login {spelling} failed" for spelling in spellings):
        assert without_logins(text) == without_credentials(text) == "login *** failed"


def test_short_numbers_and_parts_of_words_are_left_alone() -> None:
    safe_name("http://camera/video?pwd=1234&token=plates")
    assert without_logins("frame 1234 of templates") == "frame 1234 of templates"
    assert without_logins("the token plates") == "the token ***"


@pytest.mark.parametrize("piece", ["user", "://", "user=", "a:", "@", "http://x", "a=b ", "%74", "a%"])
def test_long_text_does_not_take_long(piece: str) -> None:
    """An argument may have 128 KiB; a search whose time grows with the square of that would take a minute."""
    started_s = time.monotonic()
    safe_name(piece * 20_000)
    without_credentials(piece * 20_000)
    assert time.monotonic() - started_s < 10


@pytest.mark.parametrize("begin", ["", "//"])
def test_address_whose_scheme_was_forgotten(begin: str) -> None:
    assert safe_name(f"{begin}adm:s3/cr@et@camera/line") == "***@camera/line"
    assert without_logins("login s3/cr@et failed") == "login *** failed"


@pytest.mark.parametrize(
    "text",
    [
        "as in http://USER:PASSWORD@camera/",
        "rtsp://camera:554/line?channel=1",
        "test://?fps=10&seed=1&size=64x64",
        "/data/parts",
        "0",
        "a@b",
        "",
    ],
)
def test_nothing_else_is_changed(text: str) -> None:
    assert without_credentials(text) == text
