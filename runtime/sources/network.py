"""Addresses of network cameras, and why nobody answers there."""

from __future__ import annotations

import socket
from urllib.parse import SplitResult, urlsplit

from stlm_edge.credentials import safe_name
from stlm_edge.errors import SourceError

STREAM_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""Scheme → the port that is meant where none is given."""


def split_address(uri: str) -> tuple[SplitResult, str, int]:
    """The parts of a camera's address, its host and its port. Raises `SourceError`."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or STREAM_PORTS[parts.scheme]
        # A login with a slash in it would be taken for the host.
        if host and ("@" in parts.netloc or "@" not in uri):
            return parts, host, port
    except ValueError:
        pass
    raise SourceError(
        f"{safe_name(uri)} is not an address, expected SCHEME://USER:PASSWORD@HOST:PORT/PATH; write special "
        "characters as %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %"
    )


def why_unreachable(error: BaseException, *, host: str, port: int, waited_s: float, what: str = "camera") -> str:
    """What `error` says of a host that did not answer, and what to check. Args: what: should have answered."""
    from ssl import SSLCertVerificationError

    match error:
        case SSLCertVerificationError():
            return f"the certificate of {host} is not trusted; save it as a .pem and name that in SSL_CERT_FILE"
        case socket.gaierror():
            return f"there is no host {host}; check the name, or give its IP address"
        case TimeoutError():
            return f"{host} at port {port} does not answer within {waited_s:g} s; check the {what}'s power and network"
        case OSError():
            return f"{host} at port {port}: {error.strerror or error}; check the {what}'s address and that it runs"
    return f"{host} at port {port} does not speak as expected ({type(error).__name__}); check the address"
