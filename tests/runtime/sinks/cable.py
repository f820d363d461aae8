"""A network between a client and a server on this machine that can be cut, in the middle of a request too."""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import closing, suppress

_RESET = struct.pack("ii", 1, 0)


class Cable:
    """Passes bytes on from a port of its own; as often as `cuts` says, it swallows them and resets both ends.

    Attributes:
        port: for the client.
        cut: how often it was.
    """

    def __init__(self, target: int, *, cuts: float = 0.0, seed: int = 0) -> None:
        """
        Args:
            target: port of the server.
            cuts: share of the pieces at which it is cut, requests and answers alike.
        """
        self.cut = 0
        self._target = target
        self._cuts = cuts
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError), closing(source), closing(sink):
            while data := source.recv(4096):
                if self._random.random() < self._cuts:
                    self.cut += 1
                    # A part of it may still arrive.
                    sink.sendall(data[: self._random.randrange(len(data) + 1)])
                    break
                sink.sendall(data)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as trial:
        port: int = trial.getsockname()[1]
        return port
