"""A web server on a thread of its own, for pages that stand beside what a program does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.closing import Closing
from runtime.web.guard import Guard, is_loopback, read_token
from runtime.web.options import Serving
from stlm_edge.errors import ConfigError, OutputError, StlmError, shortly, shown

logger = logging.getLogger(__name__)

_STARTS_WITHIN_S = 10.0
_ENDS_WITHIN_S = 2.0
"""What is being answered may take so long at the end; streams are ended at once."""
_MOST_CONNECTIONS = 256


_REMEDIES: dict[int | None, str] = {
    errno.EADDRINUSE: "end the program that has the port, or give another one",
    errno.EACCES: "give a port above 1023, which needs no special rights",
}
"""Where nobody can listen; otherwise the address is wrong."""


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `ADDRESS:PORT`. Raises `ConfigError`."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.netloc != text or parts.username is not None or not text.isprintable():
        raise ConfigError(
            f"found {shown(text)} to serve on, expected ADDRESS:PORT, such as 127.0.0.1:8080 for this machine alone, "
            "0.0.0.0:8080 or [::]:8080 for all that reach it"
        )
    return host, port


class WebServer(Closing):
    """Serves an ASGI application, behind a `Guard`. Owns its thread and its socket until `close`.

    When it is made it listens. Nothing that a request does to the application ends it.

    Attributes:
        url: of the page.
        port: that it listens on.
    """

    def __init__(
        self,
        app: ASGIApp,
        serving: Serving,
        *,
        what: str,
        most_bytes: int = 1 << 16,
        open_paths: Sequence[str] = (),
    ) -> None:
        """
        Args:
            what: is served, for people: a word or two.
            most_bytes: of a request's body.
            open_paths: need no token.
        Raises:
            ConfigError: if the address or a file of `serving` cannot be.
            OutputError: if nobody can listen there.
        """
        host, port = parse_address(serving.address)
        tls = _tls(serving)
        self._socket = _listening(host, port)
        try:
            own = is_loopback(self._socket.getsockname()[0])
            token = None if own and serving.token is None else read_token(serving.token, what=what)
            guarded = Guard(app, token=token, most_bytes=most_bytes, open_paths=open_paths, encrypted=tls is not None)
        except StlmError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        shown_host = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown_host}:{self.port}/"
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what is of interest `_Answering` logs
        self._answering = _Answering(guarded, what=what)
        config = uvicorn.Config(
            self._answering,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="none",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=round(_ENDS_WITHIN_S),
        )
        config.load()
        config.ssl = tls
        self._server = uvicorn.Server(config)
        self._has_started = threading.Event()
        # A daemon, since a request's work cannot be ended from outside.
        self._thread = threading.Thread(target=self._run, name=f"{what} server", daemon=True)
        self._thread.start()
        if not self._has_started.wait(_STARTS_WITHIN_S):
            self._socket.close()
            raise OutputError(f"the {what} does not start within {_STARTS_WITHIN_S:g} s; try again")
        logger.info("%s: %s", what, self.url)

    def close(self) -> None:
        if self._thread.is_alive():
            self._answering.end()
            self._server.should_exit = True
            self._thread.join(2 * _ENDS_WITHIN_S + 1)
        self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._answering.loop = asyncio.get_running_loop()
        asyncio.get_running_loop().call_soon(self._has_started.set)
        with contextlib.suppress(asyncio.CancelledError):
            await self._server.serve(sockets=[self._socket])


class _Answering:
    """The application as the server has it: its mistakes are one line, and its streams end with the server."""

    def __init__(self, app: ASGIApp, *, what: str) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._app, self._what = app, what
        self._streams: set[asyncio.Task[None]] = set()
        self._is_ending = False

    def end(self) -> None:
        """End all streams; on any thread."""
        self._is_ending = True
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        for stream in self._streams:
            stream.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        task = asyncio.current_task()
        assert task is not None
        has_begun = False

        async def sent(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            self._streams.add(task)  # from its first byte on, so that work that is not done yet is waited for
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            if not self._is_ending:
                raise
        except Exception as error:
            logger.error("the %s failed at %s: %s: %s", self._what, scope["path"], type(error).__name__, shortly(error))
            logger.debug("", exc_info=error)
            if not has_begun:
                await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body"})
        finally:
            self._streams.discard(task)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.listen(128)
        except OSError:
            bound.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or shortly(error)
        remedy = _REMEDIES.get(
            getattr(error, "errno", None), "give an address of this machine, or 0.0.0.0 for all of them"
        )
        raise OutputError(f"cannot serve on {host} port {port} ({reason}); {remedy}") from error
    return bound


def _tls(serving: Serving) -> ssl.SSLContext | None:
    """Raises `ConfigError`."""
    if serving.cert is None:
        if serving.key is not None:
            raise ConfigError(f"found the key {serving.key} and no certificate, expected both; give --serve-cert too")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for file in (serving.cert, serving.key or serving.cert):  # OpenSSL does not say which
        try:
            file.open("rb").close()
        except OSError as error:
            raise ConfigError(
                f"{file} cannot be read ({error.strerror}), expected a file in PEM; check the path and its rights"
            ) from None
    try:
        context.load_cert_chain(serving.cert, serving.key, password=_no_password)
    except (OSError, ValueError) as error:
        names = " and ".join(str(each) for each in (serving.cert, serving.key) if each is not None)
        remedy = "give its key by --serve-key" if serving.key is None else "give those that belong together"
        raise ConfigError(
            f"{names} cannot be used ({getattr(error, 'strerror', None) or shortly(error)}), expected a certificate in "
            f"PEM and its key, without a password; {remedy}"
        ) from error
    return context


def _no_password() -> str:
    """Of a key, for which OpenSSL would ask at the terminal."""
    raise ValueError("it has a password")
