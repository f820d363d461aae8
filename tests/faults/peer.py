"""A network camera that does what a test says, in the test's own process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

MJPEG = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"

UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\n%s\r\n\r\n"
DIGEST = b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"'

Script = Callable[[socket.socket, bytes], None]
"""What is done with a connection and the request that came on it."""


def picture(seed: int = 0, *, size: tuple[int, int] = (48, 64)) -> bytes:
    """A JPEG of noise, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(60, 120, (*size, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def part(jpeg: bytes) -> bytes:
    return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"


class Peer:
    """What listens.

    Attributes:
        requests: what each connection asked for.
        open: connections that neither side has closed.
    """

    def __init__(self, script: Script) -> None:
        self.requests: list[bytes] = []
        self.open = 0
        self._script = script
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}/line"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.open += 1
        try:
            with connection:
                request = connection.recv(1 << 16)
                self.requests.append(request)
                self._script(connection, request)
        except OSError:  # the program has closed its side
            pass
        finally:
            with self._lock:
                self.open -= 1


@contextmanager
def peer(script: Script) -> Iterator[Peer]:
    listening = Peer(script)
    try:
        yield listening
    finally:
        listening.close()
