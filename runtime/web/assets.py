"""Files of ours that pages consist of, and the frame round each page."""

from __future__ import annotations

import html
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

STYLE, ICON = "/static/style.css", "/static/icon.svg"
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml", "html": "text/html"}


def asset(package: str, name: str) -> Route:
    """Serves a file of the folder `static` in `package` at `/static/NAME`."""
    content = files(package).joinpath("static", name).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(content, media_type=_TYPES[name.rpartition(".")[2]])

    return Route(f"/static/{name}", answer)


def shared_assets() -> list[Route]:
    """What `page_frame` asks for."""
    return [asset("runtime.web", "style.css"), asset("runtime.web", "icon.svg")]


def page_frame(title: str, body: str, *, scripts: tuple[str, ...] = (), styles: tuple[str, ...] = ()) -> str:
    """A whole page.

    Args:
        body: markup; names in it are escaped already.
        scripts, styles: names of files beside `style.css`.
    """
    links = "".join(f'<link rel="stylesheet" href="/static/{name}">' for name in ("style.css", *styles))
    code = "".join(f'<script src="/static/{name}" defer></script>' for name in scripts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<title>{html.escape(title)}</title><link rel="icon" href="/static/icon.svg">{links}{code}</head>'
        f"<body>{body}</body></html>"
    )
