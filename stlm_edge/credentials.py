"""Passwords and tokens of camera addresses, which no log, message, frame, event or traceback may carry.

Two ways, since neither is enough: in an address whatever looks like a login or a token is hidden, and what was hidden
in an address that this process was given is hidden wherever it stands. Both hide too much rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import quote, unquote

Hide = Callable[[str], str]

_HIDDEN = "***"

_WORDS = "user|usr|login|account|pass|pwd|-pw|tok|key|secret|auth|credential|signature|session|cookie|header"
_NAME = rf"(?<![\w-])[\w-]{{0,40}}(?:{_WORDS})[\w-]{{0,40}}"
_NAMED = re.compile(_NAME, re.IGNORECASE)
_VALUE = r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?:\\.|[^\s"'])*"""

_SCHEME = r"[a-z][a-z0-9+.-]*://"
_FOUND = re.compile(
    rf"""(?P<name>{_NAME}\s*=\s*(?:\(\w+\)\s*)?)(?P<value>{_VALUE})"""
    rf"""|(?P<address>(?<="){_SCHEME}[^"\n]*(?=")|(?<='){_SCHEME}[^'\n]*(?=')|\b{_SCHEME}(?:\S*@)?[^\s"']*)""",
    re.IGNORECASE,
)
"""`NAME=VALUE` of a GStreamer element, as in `user-pw="a b"`, or an address. A password may hold slashes and question
marks that nobody escaped, so an @ further on in a path hides too much."""

_EXAMPLE = "USER:PASSWORD"
"""As messages have it, which say how an address is to be written."""

_REST = re.compile(r"(?<=://)\S+")

_PAIR = re.compile(rf"({_NAME}\s*=)([^&;]*)", re.IGNORECASE)
"""`NAME=VALUE` inside a path, as in `/user=admin&password=1`."""

_ENCODED_NAME = re.compile(r"(?<![\w%-])[\w-]{0,40}%[\w%-]{1,120}(?=\s{0,9}=|/)")
"""`%74oken=`, which is `token=` to whoever is asked for it; or such a part of a path."""

_NOT_OF_A_NETWORK = frozenset({"test", "v4l2", "gige", "u3v", "csi", "display", "file"})

_OF_BROKERS = frozenset({"mqtt", "mqtts"})
"""Addresses whose query is for this program alone and has names of files, not what they hold; a user is not secret."""

_HARMLESS = re.compile(
    r"\d{1,4}|\d{1,4}x\d{1,4}|\d{1,2}\.\d{1,3}|\d{1,4}[KMGT]B|[A-Za-z][a-z]{0,7}(?:,[a-z]{1,8})*|h26[45]"
)
"""Values of a query that are shown: numbers, sizes and short words."""

_FILE_OF_OURS = re.compile(r"(?:ca|cert|certificates|login|queue)=\.{0,2}(?:/[\w.-]+)+/?")
"""An option of an output that names a file or a folder, which is no secret, whatever is in it."""

_RUNS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_WITH_DIGITS = re.compile(r"h26[45]|mp[34]|v4l", re.IGNORECASE)

_TOO_COMMON = re.compile(r".{0,3}|\d{4,5}", re.DOTALL)
"""Secrets that are hidden in addresses alone: the number of frame 1234 is not the password 1234."""

_known: set[str] = set()


def safe_name(address: str) -> str:
    """What may be shown of a camera's address, a GStreamer pipeline or whatever else was given as a source.

    From then on its secrets are hidden wherever they stand, see `without_logins`.
    """
    secrets: list[str] = []

    def hide(secret: str) -> str:
        secrets.append(secret)
        return _HIDDEN

    if re.match(_SCHEME, address, re.IGNORECASE):
        name = _shown(_ENCODED_NAME.sub(_decoded_name, address), hide)
    elif not address.startswith("gst:") and re.match(r"(?://)?[^\s/:]+:.*@", address, re.DOTALL):
        name = _shown(f"://{address.removeprefix('//')}", hide).removeprefix("://")  # the scheme was forgotten
    else:
        name = _searched(address, hide)
    spellings = {spelling for secret in secrets for spelling in _spellings(secret)}
    _known.update(spelling for spelling in spellings if not _TOO_COMMON.fullmatch(spelling))
    return name


def keep_secret(secret: str) -> None:
    """Have a login or a token that came from a file or the environment hidden wherever it stands, see
    `without_logins`, and what stands behind a colon in it too."""
    parts = {secret, secret.partition(":")[2].strip()}
    spellings = {spelling for part in parts if part for spelling in _spellings(part)}
    _known.update(spelling for spelling in spellings if not _TOO_COMMON.fullmatch(spelling))


def without_credentials(text: str) -> str:
    """`text` with `***` in place of what is or could be a secret.

    Hidden are what `without_logins` hides; in any address values of the query that are not plainly harmless and what
    looks like a token; elsewhere the values whose names tell of users, passwords, keys or tokens.
    """
    return _searched(without_logins(text), lambda _: _HIDDEN)


def without_logins(text: str) -> str:
    """`text` with `***` in place of the secrets of the addresses that `safe_name` was asked for, and of what stands
    before the @ of any other address."""
    known = _pattern(frozenset(_known)).sub(_HIDDEN, text) if _known else text
    return _REST.sub(lambda match: _without_login(match[0]), known)


def _without_login(rest: str) -> str:
    login, at, place = rest.rpartition("@")
    return rest if not at or login == _EXAMPLE else f"{_HIDDEN}@{place}"


def _searched(text: str, hide: Hide) -> str:
    def replaced(match: re.Match[str]) -> str:
        if match["address"]:
            return _shown(match["address"], hide)
        return match["name"] + (hide(match["value"]) if match["value"] else "")

    return _FOUND.sub(replaced, _ENCODED_NAME.sub(_decoded_name, text))


def _decoded_name(match: re.Match[str]) -> str:
    name = unquote(match[0])
    return name if _NAMED.search(name) else match[0]


def _shown(address: str, hide: Hide) -> str:
    """What may be shown of `scheme://login@host/path?query#fragment`. A fragment is for no camera and left out."""
    scheme, mark, rest = address.partition("://")
    if scheme.lower() in _NOT_OF_A_NETWORK:
        return _PAIR.sub(lambda match: match[1] + hide(match[2]), address)
    login, at, rest = rest.rpartition("@")
    if scheme.lower() in _OF_BROKERS and ":" not in login:
        return f"{scheme}{mark}{_HIDDEN if at else ''}{at}{rest}"
    if at and login != _EXAMPLE:
        hide(login)
        login = hide(login.partition(":")[2])
    place, question, query = rest.partition("#")[0].partition("?")
    host, *parts = place.split("/")
    path = "".join(f"/{_part(part, before, hide)}" for before, part in zip(["", *parts], parts, strict=False))
    query = re.sub(r"[^&;]+", lambda match: _parameter(match[0], hide), query)
    return f"{scheme}{mark}{login}{at}{host}{path}{question}{query}"


def _part(part: str, before: str, hide: Hide) -> str:
    """What may be shown of a part of a path, which stands behind another part or behind none."""
    if "=" in part:
        return _PAIR.sub(lambda match: match[1] + hide(match[2]), part)
    is_named = _NAMED.fullmatch(part) is not None and re.search("[-_:~]", part) is not None
    return hide(part) if part and (is_named or _looks_random(part) or _NAMED.fullmatch(before)) else part


def _parameter(parameter: str, hide: Hide) -> str:
    """What may be shown of one `NAME=VALUE` of a query; a name of one letter says nothing of its value."""
    name, equals, value = parameter.partition("=")
    if not equals:
        return hide(parameter) if _looks_random(parameter) else parameter
    is_harmless = len(name) > 1 and not _NAMED.search(name) and _HARMLESS.fullmatch(value)
    if is_harmless or _FILE_OF_OURS.fullmatch(parameter):
        return parameter
    return f"{name}={hide(value)}"


def _looks_random(part: str) -> bool:
    """Whether it is unlike the words and numbers that paths are made of, as in `h264Preview_01_main`."""
    text = _WITH_DIGITS.sub("", unquote(part))
    runs = _RUNS.findall(text)
    longest = {True: 4, False: 14}
    return bool(
        len(runs) > 2 + len(text) / 3
        or any(len(run) > (6 if run.isupper() else longest[run.isdigit()]) for run in runs)
        or re.search(r"[A-Za-z]\d+[A-Za-z]", text)
        or re.fullmatch(r"[0-9a-fA-F-]{12,}", text)
    )


def _spellings(secret: str) -> set[str]:
    """How a secret may stand in a message: as it was given, decoded, encoded, and as Python writes it in quotes."""
    quoted = re.fullmatch(r"([\"'])(.*)\1", secret, re.DOTALL)
    bare = re.sub(r"\\(.)", r"\1", quoted[2] if quoted else secret)
    forms = {secret, bare, unquote(secret), quote(unquote(secret)), quote(unquote(secret), safe="")}
    return forms | {repr(form)[1:-1] for form in forms}


@lru_cache(maxsize=4)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    """Longest first; a secret that is a word is not hidden within a longer one."""
    each = (
        (r"(?<!\w)" if secret[0].isalnum() else "") + re.escape(secret) + (r"(?!\w)" if secret[-1].isalnum() else "")
        for secret in sorted(secrets, key=len, reverse=True)
    )
    return re.compile("|".join(each))
