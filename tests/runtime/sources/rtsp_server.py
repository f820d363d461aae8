"""A network camera: RTSP over TCP, as a program of its own that a test may kill.

python rtsp_server.py PORT; prints its port when it listens. It sends 100 pictures a second of 48 x 64 pixels without
compression (RFC 4175) at /line, to the user adm with the password s3cret; at /stalls it sends 150 and then nothing. The
grey value of a picture is the 8-ms tick of `time.monotonic` at which it was sent.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import socketserver
import struct
import sys
import time

HEIGHT, WIDTH = 48, 64
FPS = 100
LOGIN = "Basic " + base64.b64encode(b"adm:s3cret").decode()

SDP = f"""v=0
o=- 0 0 IN IP4 127.0.0.1
s=line
c=IN IP4 127.0.0.1
t=0 0
a=control:*
m=video 0 RTP/AVP 96
a=rtpmap:96 raw/90000
a=fmtp:96 sampling=BGR; width={WIDTH}; height={HEIGHT}; depth=8; colorimetry=BT601-5
a=framerate:{FPS}
a=control:track
""".replace("\n", "\r\n")


def tick() -> int:
    """What a picture says of the time, 0 … 255."""
    return int(time.monotonic() / 0.008) % 256


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while (request := self.rfile.readline().decode().split()) != []:
                headers = {}
                while (line := self.rfile.readline().decode().strip()) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                self.answer(request[0], request[1], headers)

    def answer(self, method: str, uri: str, headers: dict[str, str]) -> None:
        sequence = headers["cseq"]
        if method != "OPTIONS" and headers.get("authorization") != LOGIN:
            self.reply("401 Unauthorized", sequence, 'WWW-Authenticate: Basic realm="camera"')
        elif method == "OPTIONS":
            self.reply("200 OK", sequence, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            self.reply("200 OK", sequence, f"Content-Base: {uri}/", "Content-Type: application/sdp", body=SDP)
        elif method == "SETUP":
            self.reply("200 OK", sequence, "Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        elif method == "PLAY":
            self.reply("200 OK", sequence, "Session: 1", "RTP-Info: url=track;seq=0;rtptime=0")
            self.send_pictures(stop_after=150 if "/stalls" in uri else None)
        else:
            self.reply("200 OK", sequence)

    def reply(self, status: str, sequence: str, *headers: str, body: str = "") -> None:
        lines = [f"RTSP/1.0 {status}", f"CSeq: {sequence}", *headers, f"Content-Length: {len(body)}", "", body]
        self.wfile.write("\r\n".join(lines).encode())

    def send_pictures(self, *, stop_after: int | None) -> None:
        for index in itertools.count():
            if index == stop_after:
                time.sleep(3600)
            # One packet for a picture: RTP's header, of each row its length, number and offset, then the rows.
            head = struct.pack(">BBHII", 0x80, 0x80 | 96, index % 65536, index * 90000 // FPS % (1 << 32), 1)
            last = HEIGHT - 1
            rows = b"".join(struct.pack(">HHH", 3 * WIDTH, row, 0x8000 if row < last else 0) for row in range(HEIGHT))
            packet = head + b"\0\0" + rows + bytes([tick()]) * (3 * WIDTH * HEIGHT)
            self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
            time.sleep(1 / FPS)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
