"""Passwords and tokens of camera addresses, which no log, message, frame or event may carry."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"""(?<=://)[^\s"']*@""")
"""What stands before the last @ of an address. A password may hold slashes and question marks that nobody escaped, so
an @ further on in a path hides too much rather than too little."""

_SECRET = re.compile(
    r"""([\w-]*(?:user|usr|login|account|pass|pwd|-pw|token|key|secret|auth|credential|signature|session)[\w-]*\s*=\s*)"""
    r"""("[^"]*"|'[^']*'|[^&\s"'!]*)""",
    re.IGNORECASE,
)
"""`NAME=VALUE` of a query, of a path (`/user=admin&password=1`) or of a GStreamer element (`user-pw="a b"`)."""


def without_credentials(text: str) -> str:
    """`text` with `***` in place of what could be a login, wherever an address stands in it.

    Hidden are `user:password@` and the values whose names tell of users, passwords, keys or tokens.
    """
    return _SECRET.sub(r"\1***", _LOGIN.sub("***@", text))
