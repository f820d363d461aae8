"""A network camera: MJPEG over HTTP, as a program of its own that a test may kill.

python mjpeg_server.py PORT [HEIGHTxWIDTH …]; prints its port when it listens.

/line sends pictures without end, of each size for 20 pictures and of the last one for good; /silent accepts and sends
nothing; /stalls sends 20 pictures and then nothing; /ends sends 20 and ends. /private wants the user adm with the
password s3cret, /digest too but not in the clear. /bare does not tell the length of its pictures; /snapshot is one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import itertools
import sys
import time
from collections.abc import Iterator
from urllib.request import parse_http_list, parse_keqv_list

import cv2
import numpy as np

FPS = 50
OF_EACH_SIZE = 20


def pictures(sizes: list[tuple[int, int]]) -> Iterator[bytes]:
    for index in itertools.count():
        size = sizes[min(index // OF_EACH_SIZE, len(sizes) - 1)]
        yield cv2.imencode(".jpg", np.full((*size, 3), 40 + index % 160, np.uint8))[1].tobytes()
        time.sleep(1 / FPS)


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    sizes: list[tuple[int, int]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/silent":
            time.sleep(3600)
        elif (
            path == "/private" and self.headers["Authorization"] != f"Basic {base64.b64encode(b'adm:s3cret').decode()}"
        ):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif path == "/digest" and not self.has_digest():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Digest realm="camera", nonce="n0nce", qop="auth"')
            self.end_headers()
        elif path == "/snapshot":
            self.begin("image/jpeg")
            self.wfile.write(next(pictures(self.sizes)))
        elif path in ("/line", "/private", "/digest", "/stalls", "/ends", "/bare"):
            self.begin("multipart/x-mixed-replace; boundary=frame")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_pictures(path)
        else:
            self.send_error(404)

    def has_digest(self) -> bool:
        """Whether the request's digest is that of RFC 2617 for the user, the password and the path."""
        given = parse_keqv_list(parse_http_list((self.headers["Authorization"] or "").removeprefix("Digest ")))
        who, what = md5("adm:camera:s3cret"), md5(f"GET:{self.path}")
        parts = [who, "n0nce", given.get("nc", ""), given.get("cnonce", ""), "auth", what]
        return given.get("response") == md5(":".join(parts))

    def begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def send_pictures(self, path: str) -> None:
        for index, picture in enumerate(pictures(self.sizes)):
            if index == OF_EACH_SIZE and path == "/ends":
                return
            if index == OF_EACH_SIZE and path == "/stalls":
                time.sleep(3600)
            length = "" if path == "/bare" else f"Content-Length: {len(picture)}\r\n"
            head = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n"
            self.wfile.write(head.encode() + picture + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    port, *sizes = sys.argv[1:]
    Handler.sizes = [tuple(map(int, size.split("x"))) for size in sizes or ["48x64"]]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
