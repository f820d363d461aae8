"""A camera's answer over HTTP. Whatever is waited for ends in its time, however slowly the camera dribbles."""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urljoin

from runtime.sources.http_login import Challenge, Login, authorization, challenges
from runtime.sources.network import split_address, why_unreachable
from stlm_edge.credentials import safe_name
from stlm_edge.errors import SourceError

_MOST_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_LOGIN_NEEDED = (401, 403, 407)
_CHUNK = 1 << 16
_SAFE = "/%:=&?+!$,;'@()*[]~|"
"""What of a path and a query is sent as it is; a space, say, would end them."""


class HttpStream:
    """An answer that has begun and may have no end. Used on one thread; whoever opened it closes it."""

    def __init__(self, connection: http.client.HTTPConnection, answer: _Answer) -> None:
        self._connection = connection
        self._answer = answer
        self.status = answer.status
        self.headers = answer.headers

    def wait(self, most_s: float) -> None:
        """Let everything that is received from now on come within so many seconds, all of it together."""
        self._answer.until(time.monotonic() + most_s)

    def receive(self) -> bytes:
        """What has come, some bytes; none at its end.

        Raises:
            TimeoutError: if the time is over.
            OSError, http.client.HTTPException: if the connection is lost.
        """
        return self._answer.read1(_CHUNK)

    def close(self) -> None:
        """End the connection."""
        self._answer.close()
        self._connection.close()


def open_stream(uri: str, *, answer_s: float) -> HttpStream:
    """Ask for what stands at `http://` or `https://`, where that is asked for with a login.

    Redirects are followed; the login stays with its host. No proxy is asked: a camera stands in the network of its
    line.

    Args:
        answer_s: how long each answer may take to begin.
    Raises:
        SourceError: if nobody answers, or not with success.
    """
    first, address = split_address(uri)[0], uri
    login = None if first.username is None else Login(unquote(first.username), unquote(first.password or ""))
    for _ in range(1 + _MOST_REDIRECTS):
        parts, host, port = split_address(address)
        is_own = host == first.hostname and (parts.scheme == "https" or first.scheme == "http")
        try:
            stream = _ask(parts, host, port, login=login if is_own else None, answer_s=answer_s)
        except (OSError, ValueError, http.client.HTTPException) as error:
            problem = why_unreachable(error, host=host, port=port, waited_s=answer_s)
            break
        if 200 <= stream.status < 300:
            return stream
        stream.close()
        problem = _refusal(stream, host=host, has_login=login is not None and is_own)
        if stream.status not in _REDIRECTS or not stream.headers["Location"]:
            break
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        try:
            address = urljoin(bare, stream.headers["Location"])
            if not address.lower().startswith(("http://", "https://")):
                break
            split_address(address)
        except (ValueError, SourceError):  # the camera's mistake, which `problem` tells of, and not the user's
            break
    raise SourceError(f"{safe_name(uri)} cannot be opened: {problem}")


def _ask(parts: SplitResult, host: str, port: int, *, login: Login | None, answer_s: float) -> HttpStream:
    target = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    stream = _get(kind(host, port, timeout=answer_s), target, {})
    if stream.status != 401 or login is None:
        return stream
    header = authorization(login, _offered(stream), target=target)
    if header is None:
        return stream
    stream.close()
    return _get(kind(host, port, timeout=answer_s), target, {"Authorization": header})


def _get(connection: http.client.HTTPConnection, target: str, headers: dict[str, bytes]) -> HttpStream:
    connection.response_class = _Answer
    try:
        connection.request("GET", target, headers={"User-Agent": "stlm-edge", "Connection": "close", **headers})
        answer = connection.getresponse()
    except BaseException:
        connection.close()
        raise
    assert isinstance(answer, _Answer)
    return HttpStream(connection, answer)


def _offered(stream: HttpStream) -> Sequence[Challenge]:
    return challenges(stream.headers.get_all("WWW-Authenticate", []))


def _refusal(stream: HttpStream, *, host: str, has_login: bool) -> str:
    """What an answer without success means, and what to check."""
    answers = f"answers {stream.status} ({http.client.responses.get(stream.status, 'unknown')})"
    if stream.status in _LOGIN_NEEDED:
        offered = _offered(stream)
        ways = ", ".join(sorted({challenge.name[:40] for challenge in offered}))
        if has_login and offered and all(challenge.strength < 0 for challenge in offered):
            return (
                f"{host} needs a login by {ways}, expected Basic or Digest; choose one of them in the camera's settings"
            )
        return f"{host} needs a login: it {answers}; check user and password, as in http://USER:PASSWORD@{host}/"
    if stream.status in _REDIRECTS:
        return f"{host} {answers} and leads on without end, or to what is no http address; give the address at its end"
    if stream.status >= 500:
        return f"{host} {answers}; check the camera itself, and whether others watch it"
    return f"{host} {answers}; check the path"


class _Answer(http.client.HTTPResponse):
    """An answer that is read against the clock: a time-out of a socket begins anew with each byte."""

    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        super().__init__(sock, *arguments, **named)
        self._in_time = _InTime(sock, self.fp.detach())
        self.fp = io.BufferedReader(self._in_time)

    def until(self, until_s: float) -> None:
        """Until when on the clock of `time.monotonic` it may be read."""
        self._in_time.until_s = until_s


class _InTime(io.RawIOBase):
    """What a socket receives until some time."""

    def __init__(self, sock: socket.socket, inner: io.RawIOBase) -> None:
        self.until_s = time.monotonic() + (sock.gettimeout() or 0.0)
        self._sock = sock
        self._inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()
