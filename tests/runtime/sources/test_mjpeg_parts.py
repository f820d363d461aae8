"""How pictures are found in what a camera sends, whichever way it writes its boundaries and however it is cut up."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from runtime.sources import mjpeg
from runtime.sources.mjpeg import Parts

PICTURES = [
    cv2.imencode(".jpg", np.random.default_rng(seed).integers(60, 200, (24, 32, 3), np.uint8))[1].tobytes()
    for seed in range(3)
]


def receiving(data: bytes, *, most: int = 1 << 16) -> Callable[[], bytes]:
    """Hands over `data` in pieces of up to `most` bytes, and then its end."""
    draw, at = random.Random(0), 0

    def receive() -> bytes:
        nonlocal at
        piece = data[at : at + draw.randint(1, most)]
        at += len(piece)
        return piece

    return receive


def found(data: bytes, *, boundary: str = "frame", most: int = 1 << 16) -> list[bytes]:
    """All pictures until the end."""
    parts = Parts(receiving(data, most=most), boundary=boundary)

    def each() -> Iterator[bytes]:
        while True:
            try:
                yield parts.next_picture()
            except ValueError as error:
                assert "its stream ended" in str(error)
                return

    return list(each())


def sent(line: bytes = b"--frame", *, end: bytes = b"\r\n", length: Callable[[int], object] | None = int) -> bytes:
    """Three pictures, each after `line`; `length` makes what is said of their length from what it is."""
    told = [
        b"" if length is None else b"Content-Length: %s" % str(length(len(each))).encode() + end for each in PICTURES
    ]
    head = line + end + b"Content-Type: image/jpeg" + end
    return (
        b"".join(head + size + end + each + end for size, each in zip(told, PICTURES, strict=True)) + line + b"--" + end
    )


@pytest.mark.parametrize("most", [1, 7, 1 << 16])
@pytest.mark.parametrize("length", [None, int], ids=["unknown", "told"])
@pytest.mark.parametrize(
    ("announced", "line"),
    [
        ("frame", b"--frame"),
        ("--frame", b"--frame"),
        ("--frame", b"----frame"),
        ("-----7b3c", b"-------7b3c"),
        ("frame", b"frame"),
        ("frame", b"--frame \t"),
        ("my frame", b"--my frame"),
        ("a'()+_,-./:=?b", b"--a'()+_,-./:=?b"),
        ("b", b"--b"),
        ("----", b"------"),
        ("", b"--whatever"),
    ],
)
def test_boundary_is_found_with_the_dashes_that_cameras_put_before_it(
    announced: str, line: bytes, length: Callable[[int], object] | None, most: int
) -> None:
    assert found(sent(line, length=length), boundary=announced, most=most) == PICTURES


@pytest.mark.parametrize("most", [1, 7, 1 << 16])
@pytest.mark.parametrize("length", [None, int], ids=["unknown", "told"])
def test_lines_may_end_without_a_carriage_return(length: Callable[[int], object] | None, most: int) -> None:
    assert found(sent(end=b"\n", length=length), most=most) == PICTURES


@pytest.mark.parametrize("most", [5, 1 << 16])
@pytest.mark.parametrize(
    "length",
    [
        lambda size: size - 300,
        lambda size: size + 300,
        lambda size: 3 * size,
        lambda _: 0,
        lambda _: -5,
        lambda _: "banana",
        lambda _: "",
    ],
    ids=["too short", "too long", "three times", "0", "negative", "a word", "empty"],
)
def test_length_that_is_wrong_is_not_believed(length: Callable[[int], object], most: int) -> None:
    assert found(sent(length=length), most=most) == PICTURES


def test_picture_of_a_told_length_is_there_before_the_next_boundary() -> None:
    parts = Parts(receiving(sent()[: -len(b"\r\n--frame--\r\n")]), boundary="frame")
    assert [parts.next_picture() for _ in PICTURES] == PICTURES


def test_boundary_may_follow_a_picture_without_a_new_line() -> None:
    assert found(sent().replace(b"\r\n--frame", b"--frame")) == PICTURES


def test_what_is_no_picture_is_passed_over() -> None:
    text = b"--frame\r\nContent-Type: text/xml\r\nContent-Length: 7\r\n\r\n<event>\r\n--frame\r\n\r\n\r\n"
    assert found(b"a preamble\r\n" + text + sent() + text + sent()) == 2 * PICTURES


def test_damaged_picture_is_handed_on_and_the_next_one_is_whole() -> None:
    cut = PICTURES[0][: len(PICTURES[0]) // 2]
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(cut)
    assert found(part + cut + b"\r\n" + sent()) == [cut, *PICTURES]


@pytest.mark.parametrize(("announced", "expected"), [("other", "'other' that it announced"), ("=?", "'=?' that it")])
def test_boundary_that_never_comes_is_the_reason(announced: str, expected: str) -> None:
    parts = Parts(receiving(sent()), boundary=announced)
    with pytest.raises(ValueError, match="its stream ended"):
        parts.next_picture()
    assert f"no line of it is the boundary {expected}" in parts.no_boundary


def test_silence_and_later_trouble_are_not_put_down_to_the_boundary() -> None:
    parts = Parts(receiving(b""), boundary="frame")
    with pytest.raises(ValueError, match="its stream ended"):
        parts.next_picture()
    assert parts.no_boundary == ""
    parts = Parts(receiving(sent() + b"garbage"), boundary="frame")
    for _ in PICTURES:
        parts.next_picture()
    with pytest.raises(ValueError, match="its stream ended"):
        parts.next_picture()
    assert parts.no_boundary == ""


@pytest.mark.parametrize(
    ("head", "flood", "expected"),
    [
        (b"", b"zzzz\r\n", "it sent 65536 bytes without an end of a picture"),
        (b"", b"\x13", "it sent 65536 bytes without an end of a picture"),
        (b"--frame\r\n\r\n", b"z", "it sent 65536 bytes without an end of a picture"),
        (b"--frame\r\n", b"X-A: y\r\n", "it sent more than 65536 bytes of headers for one picture"),
        (b"--frame\r\nX-A: ", b"y", "it sent more than 65536 bytes of headers for one picture"),
        (
            b"--frame\r\nContent-Length: 1073741824\r\n\r\n",
            b"z",
            "it announced a picture of 1073741824 bytes, expected",
        ),
        (b"--frame\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", b"z", "it announced a picture of 99999"),
    ],
)
def test_flood_without_a_picture_is_the_end(
    head: bytes, flood: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mjpeg, "_LARGEST_PICTURE", 1 << 16)
    parts = Parts(receiving(head + flood * (4 << 20)), boundary="frame")
    with pytest.raises(ValueError, match=expected):
        parts.next_picture()
