"""What is answered to a camera that wants a user and a password, by the examples of the RFCs."""

from __future__ import annotations

import hashlib
import re

import pytest

from runtime.sources.http_login import Challenge, Login, authorization, challenges

MUFASA = Login("Mufasa", "Circle of Life")
OF_RFC_7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
MD5_OF_RFC, SHA_OF_RFC = (
    "8ca523f5e9506fed4657c9700eebdbec",
    "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
)


def answer(*headers: str, login: Login = MUFASA) -> str | None:
    """Of the RFC's client."""
    own = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    header = authorization(login, challenges(headers), target="/dir/index.html", own_nonce=own)
    return None if header is None else header.decode()


@pytest.mark.parametrize(("algorithm", "expected"), [("MD5", MD5_OF_RFC), ("SHA-256", SHA_OF_RFC)])
def test_digest_is_that_of_rfc_7616(algorithm: str, expected: str) -> None:
    header = answer(OF_RFC_7616.format(algorithm))
    assert header is not None
    assert f'response="{expected}"' in header
    assert f"algorithm={algorithm}, qop=auth, nc=00000001" in header
    assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in header


def test_digest_without_qop_is_that_of_rfc_2069() -> None:
    header = answer('Digest realm="r", nonce="n"', login=Login("u", "p"))
    secret, what = (hashlib.md5(text).hexdigest() for text in (b"u:r:p", b"GET:/dir/index.html"))
    assert header is not None
    assert f'response="{hashlib.md5(f"{secret}:n:{what}".encode()).hexdigest()}"' in header
    assert "qop" not in header and "cnonce" not in header


def test_session_digest_hashes_both_nonces() -> None:
    header = answer('Digest realm="r", nonce="n", algorithm=MD5-sess, qop="auth"', login=Login("u", "p"))
    own = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    secret = hashlib.md5(f"{hashlib.md5(b'u:r:p').hexdigest()}:n:{own}".encode()).hexdigest()
    what = hashlib.md5(b"GET:/dir/index.html").hexdigest()
    expected = hashlib.md5(f"{secret}:n:00000001:{own}:auth:{what}".encode()).hexdigest()
    assert header is not None
    assert f'response="{expected}"' in header


def test_basic_is_that_of_rfc_7617() -> None:
    assert answer('Basic realm="WallyWorld"', login=Login("Aladdin", "open sesame")) == (
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    )


@pytest.mark.parametrize(
    "headers",
    [
        ('Basic realm="a"', OF_RFC_7616.format("MD5")),
        (f'Basic realm="a, b", {OF_RFC_7616.format("MD5")}',),
        (OF_RFC_7616.format("SHA-256"), OF_RFC_7616.format("MD5"), "Basic realm=a"),
        ("Negotiate", OF_RFC_7616.format("TIGER"), OF_RFC_7616.format("MD5")),
    ],
)
def test_strongest_of_several_offers_is_taken(headers: tuple[str, ...]) -> None:
    header = answer(*headers)
    assert header is not None
    assert re.search(f'response="({SHA_OF_RFC if "SHA-256" in headers[0] else MD5_OF_RFC})"', header)


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("",),
        ("=,=;",),
        ("Bearer",),
        ('Bearer realm="x", error="invalid_token"',),
        ("Negotiate abc==",),
        (OF_RFC_7616.format("TIGER"),),
        ('Digest realm="r", nonce="n", qop="auth-int"',),
    ],
)
def test_what_cannot_be_answered_is_not(headers: tuple[str, ...]) -> None:
    assert answer(*headers) is None


def test_offers_are_taken_apart() -> None:
    assert challenges(['Digest realm = "a \\"b\\", c", nonce=1 , Basic realm=x', "Negotiate"]) == [
        Challenge("Digest", {"realm": 'a "b", c', "nonce": "1"}),
        Challenge("Basic", {"realm": "x"}),
        Challenge("Negotiate"),
    ]


def test_quotes_in_a_user_do_not_end_the_header() -> None:
    header = answer('Digest realm="r", nonce="n"', login=Login('a"b\\c', "p"))
    assert header is not None
    assert 'username="a\\"b\\\\c"' in header
