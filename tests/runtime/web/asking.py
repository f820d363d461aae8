"""Requests to a server of ours, with whatever headers a test has in mind."""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from runtime.web.server import WebServer

SOON_S = 20.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    text: str


def ask(server: WebServer, path: str, *, method: str = "GET", body: str = "", **headers: str) -> Answer:
    """Args: headers: underscores for dashes."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SOON_S)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=body.encode() or None, headers=named)
        answer = connection.getresponse()
        told = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, told, answer.read().decode())
    finally:
        connection.close()
