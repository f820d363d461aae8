"""Answers to a camera that asks for user and password over HTTP: basic (RFC 7617) and digest (RFC 7616)."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.request import parse_http_list

_HASHES = {"MD5": "md5", "SHA-256": "sha256", "SHA-512-256": "sha512_256"}
"""Algorithm of a digest → its name in hashlib, weakest first."""


@dataclass(frozen=True)
class Login:
    """A user and a password, neither of them escaped."""

    user: str
    password: str


@dataclass(frozen=True)
class Challenge:
    """One way to log in that a camera offers.

    Attributes:
        scheme: as the camera has it, `Basic`, `Digest`, `Bearer`, …
        parameters: name, in small letters → value.
    """

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def algorithm(self) -> str:
        """Of a digest, without `-sess`."""
        return self.parameters.get("algorithm", "MD5").upper().removesuffix("-SESS")

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.scheme} with {self.algorithm}" if self.scheme.lower() == "digest" else self.scheme

    @property
    def strength(self) -> int:
        """-1 where it cannot be answered, 0 where it takes the password in the clear, more where it does not."""
        qop = self.parameters.get("qop", "auth")
        match self.scheme.lower():
            case "basic":
                return 0
            case "digest" if self.algorithm in _HASHES and "auth" in re.split(r"[\s,]+", qop):
                return 1 + list(_HASHES).index(self.algorithm)
        return -1


def challenges(headers: Sequence[str]) -> list[Challenge]:
    """What the `WWW-Authenticate` headers of an answer offer; each may have several, of which a comma ends one."""
    found: list[Challenge] = []
    for item in (item.strip() for header in headers for item in parse_http_list(header)):
        begins = re.fullmatch(r"([A-Za-z][\w-]*)(?:\s+(?!=)(.*))?", item, re.DOTALL)
        if begins is not None:
            found.append(Challenge(begins[1]))
        name, equals, value = (item if begins is None else begins[2] or "").partition("=")
        if equals and found:
            found[-1].parameters[name.strip().lower()] = value.strip().strip('"')
    return found


def authorization(
    login: Login, offered: Sequence[Challenge], *, target: str, own_nonce: str | None = None
) -> bytes | None:
    """The `Authorization` header for a GET of `target`; None where nothing that is offered can be answered.

    The password goes in the clear only where no digest is offered.

    Args:
        own_nonce: of a digest, drawn where none is given.
    """
    best = max(offered, key=lambda challenge: challenge.strength, default=None)
    if best is None or best.strength < 0:
        return None
    if best.strength == 0:
        return b"Basic " + base64.b64encode(f"{login.user}:{login.password}".encode())
    return _digest(login, best, target=target, own=own_nonce or os.urandom(8).hex()).encode()


def _digest(login: Login, challenge: Challenge, *, target: str, own: str) -> str:
    def hashed(*parts: str) -> str:
        name = _HASHES[challenge.algorithm]
        return hashlib.new(name, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    given = challenge.parameters
    realm, nonce = given.get("realm", ""), given.get("nonce", "")
    count = "00000001"
    secret = hashed(login.user, realm, login.password)
    if given.get("algorithm", "").upper().endswith("-SESS"):
        secret = hashed(secret, nonce, own)
    counted = (count, own, "auth") if "qop" in given else ()
    quoted = {
        "username": login.user,
        "realm": realm,
        "nonce": nonce,
        "uri": target,
        "response": hashed(secret, nonce, *counted, hashed("GET", target)),
        **({"opaque": given["opaque"]} if "opaque" in given else {}),
        **({"cnonce": own} if "qop" in given else {}),
    }
    plain = {
        **({"algorithm": given["algorithm"]} if "algorithm" in given else {}),
        **({"qop": "auth", "nc": count} if "qop" in given else {}),
    }
    fields = [f'{name}="{_escaped(value)}"' for name, value in quoted.items()]
    return "Digest " + ", ".join([*fields, *(f"{name}={value}" for name, value in plain.items())])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
