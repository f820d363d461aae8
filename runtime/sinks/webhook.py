"""`https://…`, `http://…` as an output: each part as JSON, posted to a web server."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from runtime.inspection import Inspection
from runtime.part import VERDICTS, Part
from runtime.sinks.access import NetworkOptions, why_untrusted
from runtime.sinks.base import FrameSink, SinkContext
from runtime.sinks.events import part_event
from runtime.sinks.handshake import Losses
from runtime.sinks.outbox import Message, Outbox
from runtime.sinks.snapshot import snapshot
from runtime.sources.network import why_unreachable
from runtime.timing import Seldom
from runtime.uri import Option
from stlm_edge.credentials import safe_name
from stlm_edge.errors import OutputError, StlmError, shortly

logger = logging.getLogger(__name__)

LOGIN_VARIABLE = "STLM_WEBHOOK_LOGIN"
"""Of the environment: a header, such as `Authorization: Bearer TOKEN`."""

_ANSWERS_WITHIN_S = 10.0
_RETRIED_AFTER_S = (0.5, 60.0)
"""The first and the longest wait before a message is posted again."""
_LAST_SENT_WITHIN_S = 5.0
_MOST_READ = 1 << 16
_BUSY = frozenset({408, 425, 429})
"""Answers of the 400s that ask to be tried again."""


@dataclass(frozen=True)
class Server:
    """Whom parts are posted to.

    Attributes:
        name: for messages, without secrets.
        target: path and query.
        headers: that let us in.
        tls: None for a connection that is not encrypted.
    """

    name: str
    host: str
    port: int
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None


class _AwayError(Exception):
    """The server cannot take it now; for people.

    Attributes:
        wait_s: it asks for so long a pause.
    """

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _RefusedError(Exception):
    """The server does not want this; for people."""


class Webhook(FrameSink):
    """Posts each part whose verdict is asked for, in order, from an `Outbox` and on a thread of its own.

    What fails for the moment (no connection, no answer within 10 s, 5xx, 408, 425, 429) is posted again, later and
    later, until it is taken. What is refused (any other 4xx, or a redirect, which is not followed: it would carry the
    login elsewhere) is counted as lost, and the next one is tried.
    """

    takes_pictures = False
    takes_frames = False

    def __init__(
        self,
        server: Server,
        outbox: Outbox,
        *,
        context: SinkContext,
        verdicts: Collection[str] = VERDICTS,
        pictures: bool = False,
    ) -> None:
        """Owns the outbox.

        Args:
            verdicts: of the parts that are posted.
            pictures: parts that are not good come with a drawn JPEG, `snapshot`, in Base64.
        """
        self.takes_pictures = pictures
        self._server = server
        self._outbox = outbox
        self._context = context
        self._verdicts = frozenset(verdicts)
        self._connection: http.client.HTTPConnection | None = None
        self._changed = threading.Condition()
        self._end_s: float | None = None
        self._away: str | None = None
        self._away_log = Seldom()
        self._is_away_told = False
        self._losses = Losses(server.name, context.tell)
        self._thread = threading.Thread(target=self._run, name=f"webhook {server.name}", daemon=True)
        self._thread.start()

    @classmethod
    def check(cls, uri: str) -> None:
        address, options = _split(uri)
        NetworkOptions(options, name=safe_name(address), more={"on": _ON})

    @classmethod
    def from_uri(cls, uri: str, *, context: SinkContext) -> Webhook:
        """Options stand behind `?`, or behind `#` where the address has a query of its own.

        Raises `OutputError` on unknown options too.
        """
        context.require_parts(safe_name(uri))
        address, options = _split(uri)
        name = safe_name(address)
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
            target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}".encode("ascii").decode()
        except (ValueError, UnicodeError):
            host = None
        if not host:
            raise OutputError(
                f"{name} is not an address, expected https://HOST:PORT/PATH with special characters as %20"
            )
        if "@" in parts.netloc:
            raise OutputError(
                f"{name} has a login, which the list of processes shows; put a header such as Authorization: Bearer "
                f"TOKEN into the first line of a file and give login=FILE, or set {LOGIN_VARIABLE}"
            )
        given = NetworkOptions(options, name=name, more={"on": _ON})
        login = given.login(LOGIN_VARIABLE, expected="a header", example="Authorization: Bearer TOKEN")
        if parts.scheme == "http":
            given.refuse_certificates("https")
            given.warn_of_clear_login(login, host=host, scheme="https")
        server = Server(
            name=name,
            host=host,
            port=port,
            target=target,
            headers={} if login is None else _header(login, name=name),
            tls=given.tls() if parts.scheme == "https" else None,
        )
        outbox = given.outbox("webhook")
        return cls(server, outbox, context=context, verdicts=given.rest.get("on", VERDICTS), pictures=given.snapshot)

    @property
    def state(self) -> str:
        words = ["connected" if self._away is None else f"away ({self._away})"]
        if len(self._outbox):
            words.append(f"{len(self._outbox)} waiting")
        if self.lost:
            words.append(f"{self.lost} lost")
        return ", ".join(words)

    @property
    def away(self) -> str | None:
        return self._away

    def write(self, inspection: Inspection) -> None:
        """Frames are not posted, the part that they belong to is."""

    def write_part(self, part: Part) -> None:
        if part.verdict not in self._verdicts:
            return
        record: dict[str, Any] = {
            **part_event(part, engine_sha256=self._context.engine_sha256),
            "run": self._context.run,
        }
        if self.takes_pictures and (picture := snapshot(part, run=self._context.run)) is not None:
            record["snapshot"] = base64.b64encode(picture).decode()
        if not self._outbox.put("part", json.dumps(record).encode()):
            self._lose(f"there is no room for what waits ({self._away or 'it is slow'})")
        with self._changed:
            self._changed.notify_all()
        self._outbox.keep_saved()

    def close(self) -> None:
        with self._changed:
            self._end_s = self._end_s or time.monotonic() + _LAST_SENT_WITHIN_S
            self._changed.notify_all()
        self._thread.join(_LAST_SENT_WITHIN_S + 1)
        if self._thread.is_alive():  # it waits for an answer; what it has not got stays on the disk
            connection = self._connection
            if connection is not None and connection.sock is not None:
                with suppress(OSError):  # of one that has just been closed
                    connection.sock.shutdown(socket.SHUT_RDWR)
            self._thread.join(1)
        if len(self._outbox):
            logger.warning(
                "%s has not taken %d parts; they wait in %s for the next run",
                self._server.name,
                len(self._outbox),
                self._outbox.file.parent,
            )
        self._outbox.close()

    def _run(self) -> None:
        wait_s = _RETRIED_AFTER_S[0]
        message: Message | None = None
        while True:
            try:
                self._outbox.keep_saved()
                message = self._outbox.after(0)
                if message is None:
                    if self._end_s is not None:
                        break
                    self._pause(1.0, until_told=True)
                    continue
                self._post(message)
                self._outbox.done(message.number)
                self._told_back()
                wait_s = _RETRIED_AFTER_S[0]
            except _RefusedError as error:
                assert message is not None
                self._outbox.done(message.number)
                self._away = None
                wait_s = _RETRIED_AFTER_S[0]
                self._lose(f"it {error}")
            except (_AwayError, StlmError) as error:
                self._tell_away(error)
                asked_s = min(getattr(error, "wait_s", 0.0), _RETRIED_AFTER_S[1])
                self._pause(max(wait_s, asked_s))
                wait_s = min(2 * wait_s, _RETRIED_AFTER_S[1])
            except Exception as error:  # a mistake of ours must not end the hand-over
                logger.debug("", exc_info=True)
                self._tell_away(_AwayError(f"{type(error).__name__}: {shortly(error)}"))
                self._pause(wait_s)
                wait_s = min(2 * wait_s, _RETRIED_AFTER_S[1])
            if self._end_s is not None and (self._away is not None or time.monotonic() > self._end_s):
                break
        self._disconnect()

    def _post(self, message: Message) -> None:
        """Raises `_AwayError`, `_RefusedError`."""
        server = self._server
        headers = {"Content-Type": "application/json", "User-Agent": "stlm-edge", **server.headers}
        is_old = self._connection is not None
        try:
            answer = self._answered(message, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self._disconnect()
            if not is_old:
                raise self._away_by(error) from error
            try:  # a server may close a connection that it has kept for a while
                answer = self._answered(message, headers)
            except (OSError, http.client.HTTPException) as again:
                self._disconnect()
                raise self._away_by(again) from again
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            raise self._away_by(error) from error
        status, text = answer.status, f"{answer.status} {answer.reason}"
        if 200 <= status < 300:
            return
        if status >= 500 or status in _BUSY:
            after = answer.headers.get("Retry-After", "")
            raise _AwayError(f"it answers {text}", wait_s=float(after) if after.isascii() and after.isdigit() else 0.0)
        if 300 <= status < 400:
            place = safe_name(answer.headers.get("Location", "nowhere"))
            raise _RefusedError(f"answers {text} to {place}, which is not followed; give that address")
        raise _RefusedError(f"answers {text}; check its address, what it expects, and the login")

    def _answered(self, message: Message, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = self._connection
        if connection is None:
            host, port, wait_s = self._server.host, self._server.port, _ANSWERS_WITHIN_S
            tls = self._server.tls
            if tls is None:
                connection = http.client.HTTPConnection(host, port, timeout=wait_s)
            else:
                connection = http.client.HTTPSConnection(host, port, timeout=wait_s, context=tls)
            self._connection = connection
        connection.request("POST", self._server.target, body=message.payload, headers=headers)
        answer = connection.getresponse()
        answer.read(_MOST_READ)
        if not answer.isclosed():  # it goes on and on, and nobody reads it
            self._disconnect()
        return answer

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _away_by(self, error: Exception) -> _AwayError:
        host, port = self._server.host, self._server.port
        if isinstance(error, ssl.SSLCertVerificationError):
            return _AwayError(why_untrusted(error, host=host))
        return _AwayError(why_unreachable(error, host=host, port=port, waited_s=_ANSWERS_WITHIN_S, what="server"))

    def _lose(self, why: str) -> None:
        self.lost += 1
        self._losses.add(why)

    def _pause(self, seconds: float, *, until_told: bool = False) -> None:
        """Args: until_told: a new message ends it too."""
        over_s = time.monotonic() + seconds
        with self._changed:
            while self._end_s is None and (left_s := over_s - time.monotonic()) > 0:
                if until_told and len(self._outbox):
                    return
                self._changed.wait(min(left_s, 1.0))
                self._outbox.keep_saved()

    def _tell_away(self, error: Exception) -> None:
        self._away = str(error)
        if self._away_log.is_due():
            self._is_away_told = True
            logger.warning(
                "%s does not take parts: %s; they wait in %s, and are tried again",
                self._server.name,
                error,
                self._outbox.file.parent,
            )

    def _told_back(self) -> None:
        if self._is_away_told:
            logger.info("%s takes parts again; %d wait", self._server.name, len(self._outbox))
        self._away, self._is_away_told = None, False


def _verdicts(text: str) -> tuple[str, ...]:
    """Raises `ValueError`."""
    words = tuple(text.split(","))
    if not set(words) <= set(VERDICTS):
        raise ValueError(text)
    return words


_ON = Option(_verdicts, f"some of {', '.join(VERDICTS)}, joined by commas")


def _header(line: str, *, name: str) -> dict[str, str]:
    key, colon, value = (part.strip() for part in line.partition(":"))
    is_token = key and all(character.isalnum() or character in "!#$%&'*+-.^_`|~" for character in key)
    if not (colon and value and is_token and line.isascii() and line.isprintable()):
        raise OutputError(f"the login of {name} is no header, expected one such as Authorization: Bearer TOKEN")
    return {key: value}


def _split(uri: str) -> tuple[str, str]:
    """Where it is sent, and our options."""
    address, mark, options = uri.partition("#")
    if not mark:
        address, _, options = uri.partition("?")
    return address, options
