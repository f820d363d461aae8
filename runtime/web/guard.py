"""Who is let in to a page, and what a browser may do with it.

On loopback whoever is at the machine is let in. From anywhere else a token is asked for, by a form whose answer is a
cookie, or by `Authorization: Bearer`. A browser is an open door besides, for every page that it shows: so a request
must be addressed to loopback by one of its own names, since a foreign one may be made to point there, and only the
page itself may post.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import logging
import secrets
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.timing import Seldom
from runtime.web.assets import ICON, STYLE, page_frame
from runtime.web.refusal import refusal
from stlm_edge.cli import print_lines
from stlm_edge.credentials import keep_secret
from stlm_edge.errors import ConfigError, shown
from stlm_edge.files import replacing, state_folder

logger = logging.getLogger(__name__)

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_SHORTEST, _LONGEST = 16, 1000
"""Characters of a token."""
_ONLY_OWNER = 0o600
_COOKIE_DAYS = 30
_LOGIN_BYTES = 4096
_WITHOUT_EFFECT = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer."""


def is_loopback(host: str) -> bool:
    """Whether this address is of the machine itself alone. Args: host: numeric."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def read_token(file: Path | None, *, what: str) -> str:
    """The token that lies in `file`; where there is none it is made, for its owner's eyes only, and printed this once.

    Args:
        file: None for `page-token` in the user's state folder.
        what: it opens, for people.
    Raises:
        ConfigError: if the file may be read by others, or holds no token.
        OutputError: if it cannot be written.
    """
    path = state_folder() / "page-token" if file is None else file
    try:
        mode = path.stat().st_mode
        with path.open(encoding="utf-8") as stream:
            token = stream.readline(_LONGEST + 2).strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(24)
        with replacing(path) as temporary:
            temporary.chmod(_ONLY_OWNER)
            temporary.write_text(f"{token}\n")
        print_lines([f"token for the {what}, kept in {path} and not shown again: {token}"])
        return token
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigError(f"{path} cannot be read ({reason}), expected a token in its first line") from None
    if mode & 0o077:
        raise ConfigError(f"{path} may be read by others than its owner; chmod 600 {path}")
    if not _SHORTEST <= len(token) <= _LONGEST or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"found no token in the first line of {path}, expected {_SHORTEST} to {_LONGEST} characters of ASCII; "
            "delete the file to have one made"
        )
    keep_secret(token)
    logger.info("the token for the %s is in %s", what, path)
    return token


class Guard:
    """Stands before an application: lets in who may come, bounds what is sent, and adds `HEADERS` to each answer.

    `/login` is its own.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, most_bytes: int, open_paths: Sequence[str], encrypted: bool
    ) -> None:
        """
        Args:
            token: that is asked for; None on loopback, where the name of the machine is looked at instead.
            most_bytes: of a request's body.
            open_paths: need no token.
            encrypted: the connection is, so that the cookie is never to travel without.
        """
        self._app = app
        self._token = None if token is None else token.encode()
        self._most_bytes = most_bytes
        self._open = frozenset((*open_paths, "/login", STYLE, ICON))
        self._encrypted = encrypted
        self._wrong = Seldom()
        # Not the token itself, which whoever sees the cookie would have for good.
        digest = hmac.new(self._token or b"", b"cookie of a page of stlm-edge", hashlib.sha256).hexdigest()
        self._cookie, self._cookie_name = digest, f"stlm-{digest[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await refused(scope, receive, with_headers)
            return
        body = await self._body(scope, headers, receive)
        if body is None:
            text = f"found a body of more than {self._most_bytes} bytes, expected at most that"
            answer = refusal(text, 413, {"connection": "close"})
            await answer(scope, receive, with_headers)
        elif scope["path"] == "/login" and self._token is not None:
            await self._login(scope, body)(scope, receive, with_headers)
        else:
            await self._app(scope, _having(body, receive), with_headers)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._token is None and _name_of(host) not in _LOOPBACK_NAMES:
            return refusal(
                f"found the host {shown(host)}, expected localhost, since the page is for this machine alone; give "
                "--serve an address of the network, or behind a proxy --serve-token",
                421,
            )
        if scope["method"] not in _WITHOUT_EFFECT and not _is_own(headers, host=host):
            sender = shown(headers.get("origin", "another site"))
            return refusal(
                f"found a request that {sender} has a browser send to {shown(host)}, expected the page's own; a proxy "
                "is to pass on Host as it came",
                403,
            )
        if self._token is None or scope["path"] in self._open or self._is_let_in(headers):
            return None
        if scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):
            return _form(scope["path"], status=401)
        found = "another token" if "authorization" in headers else "no token"
        return refusal(
            f"found {found}, expected 'Authorization: Bearer TOKEN'; it lies in the file of --serve-token, or in "
            "page-token of the state folder",
            401,
            {"www-authenticate": "Bearer"},
        )

    def _is_let_in(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        assert self._token is not None
        if kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie_name)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())

    def _login(self, scope: Scope, body: bytes) -> Response:
        if scope["method"] != "POST":
            return _form("/", status=200)
        try:
            fields = parse_qs(body[:_LOGIN_BYTES].decode("ascii"), max_num_fields=10)
        except ValueError:
            fields = {}
        given, to = (fields.get(name, [""])[0] for name in ("token", "to"))
        assert self._token is not None
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token):
            if self._wrong.is_due():
                logger.warning("a wrong token was given from %s", (scope.get("client") or ("somewhere",))[0])
            return _form(to, status=403, text="That is not the token.")
        answer = RedirectResponse(_own_path(to), 303)
        answer.set_cookie(
            self._cookie_name,
            self._cookie,
            max_age=_COOKIE_DAYS * 86400,
            httponly=True,
            samesite="strict",
            secure=self._encrypted,
        )
        return answer

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes | None:
        """All of it; None where it is too long."""
        if scope["method"] in _WITHOUT_EFFECT:
            return b""
        said = headers.get("content-length", "0")
        if not said.isdecimal() or int(said[:20]) > self._most_bytes:
            return None
        body = b""
        while True:
            message = await receive()
            part: bytes = message.get("body", b"")
            body += part
            if len(body) > self._most_bytes:
                return None
            if not message.get("more_body", False):
                return body


def _having(body: bytes, receive: Receive) -> Receive:
    """Hands out the body that was read, and then what comes after it: that the other side is gone."""
    is_new = True

    async def received() -> Message:
        nonlocal is_new
        if not is_new:
            return await receive()
        is_new = False
        return {"type": "http.request", "body": body, "more_body": False}

    return received


def _name_of(host: str) -> str:
    """The host without its port; nothing for what is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_own(headers: Headers, *, host: str) -> bool:
    """Whether a request comes from a page of ours, or from no browser."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == host.lower() != ""
    except ValueError:
        return False


def _own_path(to: str) -> str:
    """A path of this server to go to; what leads elsewhere leads to the beginning."""
    is_path = to.startswith("/") and not to.startswith(("//", "/\\")) and to.isascii() and to.isprintable()
    return to if is_path else "/"


def _form(to: str, *, status: int, text: str = "") -> HTMLResponse:
    said = f'<p class="bad" role="alert">{html.escape(text)}</p>' if text else ""
    body = (
        '<main class="login"><h1>Token</h1>'
        "<p>It was printed when this server was started for the first time, and lies in a file there.</p>"
        f'{said}<form method="post" action="/login"><input type="hidden" name="to" value="{html.escape(to)}">'
        '<label>Token <input name="token" type="password" autocomplete="current-password" autofocus required></label>'
        "<button>Open</button></form></main>"
    )
    return HTMLResponse(page_frame("Token", body), status)
