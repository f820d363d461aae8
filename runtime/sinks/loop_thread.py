"""An event loop on a thread of its own, for servers whose library is written for asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar
from urllib.parse import SplitResult

from runtime.closing import Closing
from stlm_edge.errors import OutputError, shortly

T = TypeVar("T")

LOOPBACK = "127.0.0.1"

_GONE_AFTER = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}
"""Seconds, seconds, times: a client whose cable was pulled is noticed after about ten seconds."""


class LoopThread(Closing):
    """Runs coroutines and callbacks for other threads. Owns its thread until `close`."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon, as the outputs' own threads are.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], *, within_s: float) -> T:
        """What `work` returns or raises; it is given up after `within_s`, with `OutputError`."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(within_s)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise OutputError(f"{self._thread.name} does not answer within {within_s:g} s") from None

    def soon(self, call: Callable[..., object], *arguments: object) -> None:
        """Have `call` called on the loop, at once unless it is busy; returns without waiting."""
        self._loop.call_soon_threadsafe(call, *arguments)

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.run(_cancel_all(), within_s=5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def address_of(uri: str, parts: SplitResult, *, default_port: int) -> tuple[str, int]:
    """Where a server is to listen: this machine alone unless the URI names another address.

    Raises:
        OutputError: if it names none that can be used, or has a path or a login.
    """
    try:
        port = parts.port or default_port
    except ValueError:
        port = None
    if port is None or parts.path.strip("/") or parts.username is not None:
        raise OutputError(
            f"{uri} is no address to listen on; expected {parts.scheme}://ADDRESS:PORT, as in "
            f"{parts.scheme}://0.0.0.0:{default_port} for all of this machine's, or {parts.scheme}:// for itself alone"
        )
    return parts.hostname or LOOPBACK, port


def require_free(uri: str, host: str, port: int) -> None:
    """See whether a server can listen there, since libraries say less of why it cannot. Raises `OutputError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen()
    except OSError as error:
        remedy = (
            "give a port above 1023, which needs no special rights"
            if error.errno == errno.EACCES
            else "end the program that has the port, or give another address or port"
        )
        reason = error.strerror or shortly(error)
        raise OutputError(f"{uri} cannot listen on {host} port {port} ({reason}); {remedy}") from error


def notice_lost_clients(listening: Iterable[socket.socket]) -> None:
    """Have connections that these sockets take end when the other side is gone without a word."""
    for each in listening:  # what they take inherits it
        each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _GONE_AFTER.items():
            each.setsockopt(socket.IPPROTO_TCP, option, value)
