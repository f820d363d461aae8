"""What the review's page asks for, and its answers."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Any, Literal, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from runtime.review.decisions import Call, ConflictError, Decision
from runtime.review.evidence import evidence
from runtime.review.masks import fitted, region
from runtime.review.review import Entry, Item, Review
from runtime.review.shown import layer, marked
from runtime.web.assets import asset, page_frame, shared_assets
from runtime.web.refusal import refused
from stlm_edge.errors import ConfigError, ControlError, DataError, ImageError, OutputError, StlmError
from stlm_edge.imaging import encode_image, read_image
from stlm_edge.masks import read_mask
from stlm_edge.names import unescaped
from stlm_edge.records import Within, build, parse

MOST_BYTES = 32 << 20
"""Of what the page sends; a mask of 2048 x 2048 takes less than a tenth."""

_SCRIPTS = ("mask.js", "tables.js", "review.js")
_AGAIN = "load the page again"
_MOST_ENTRIES = 500
_STATUS: tuple[tuple[type[StlmError], int], ...] = (
    (ControlError, 409),
    (OutputError, 507),
    (DataError, 404),
    (StlmError, 400),
)

Which = Literal["disagree", "unclear", "good", "defect", "skip", "open", "all"]
T = TypeVar("T")


@dataclass(frozen=True)
class _Session:
    session: str


@dataclass(frozen=True)
class _Take(_Session):
    count: Annotated[int, Within(1, 8)]


@dataclass(frozen=True)
class _Undo(_Session):
    reviewer: str


@dataclass(frozen=True)
class _Decide(_Session):
    number: int
    sha256: str
    call: Call
    reviewer: str
    kind: str
    mask: str
    replaces: int | None


def make_app(review: Review, *, reviewer: str) -> Starlette:
    """Args: reviewer: the name that the page proposes."""

    def take(wanted: _Take) -> dict[str, Any]:
        return {"items": [_item(each) for each in review.take(wanted.session, wanted.count)], **state()}

    def decide(wanted: _Decide) -> dict[str, Any]:
        review.touch(wanted.session)
        try:
            mask = base64.b64decode(wanted.mask, validate=True)
        except (binascii.Error, ValueError):
            raise ImageError(f"found a mask that is not base64; {_AGAIN}") from None
        made = review.decide(
            wanted.number,
            wanted.call,
            reviewer=wanted.reviewer,
            sha256=wanted.sha256,
            kind=wanted.kind,
            mask=mask,
            replaces=wanted.replaces,
        )
        return {"decision": _decision(made), **state()}

    def undo(wanted: _Undo) -> dict[str, Any]:
        taken, number = review.undo(wanted.session, reviewer=wanted.reviewer)
        try:
            item = None if number is None else _item(review.item(number))
        except DataError:  # it was removed meanwhile
            item = None
        return {"taken_back": _decision(taken), "item": item, **state()}

    def release(wanted: _Session) -> dict[str, Any]:
        review.release(wanted.session)
        return {}

    def state() -> dict[str, Any]:
        return {"counts": review.counts(), "kinds": review.kinds()[:20]}

    def start(_: Request) -> Response:
        return JSONResponse({"reviewer": reviewer, "folder": review.folder_name, **state()})

    def item(request: Request) -> Response:
        return JSONResponse({"item": _item(review.item(_number(request)))})

    def listed(request: Request) -> Response:
        which = request.query_params.get("which", "all")
        entries = [each for each in review.entries() if _fits(each, which)]
        return JSONResponse({"entries": [_entry(each) for each in entries[:_MOST_ENTRIES]], "total": len(entries)})

    def threshold(_: Request) -> Response:
        return JSONResponse(dataclasses.asdict(evidence(review.decisions)))

    def picture(request: Request) -> Response:
        number = _number(request)
        if "full" in request.query_params:
            return Response(encode_image(read_image(review.path(number)), suffix=".jpg"), media_type="image/jpeg")
        return _picture(review.shown(number).preview, "image/jpeg")

    def heat(request: Request) -> Response:
        return _picture(layer(review.shown(_number(request))), "image/png")

    def map_region(request: Request) -> Response:
        shown = review.shown(_number(request))
        try:
            level = float(request.query_params.get("level", ""))
        except ValueError:
            raise ConfigError(f"found no level of the map in the request; {_AGAIN}") from None
        if shown.anomaly_map is None or shown.preview_size is None:
            return _picture(None, "image/png")
        return _picture(marked(region(shown.anomaly_map, level=level, size=shown.preview_size)), "image/png")

    def mask(request: Request) -> Response:
        """That of the decision that holds."""
        found = review.item(_number(request))
        names = () if found.decision is None else found.decision.files
        path = next((review.root / unescaped(name) for name in names if name.startswith("ground_truth/")), None)
        size = found.shown.preview_size
        if path is None or size is None:
            return _picture(None, "image/png")
        return _picture(marked(fitted(read_mask(path, size=found.shown.size), size)), "image/png")

    body = files("runtime.review").joinpath("static", "review.html").read_text()
    page = page_frame("Review", body, scripts=_SCRIPTS, styles=("review.css",))
    return Starlette(
        routes=[
            Route("/", lambda _: HTMLResponse(page)),
            *shared_assets(),
            *(asset("runtime.review", name) for name in (*_SCRIPTS, "review.css")),
            Route("/api/start", start),
            Route("/api/item/{number:int}", item),
            Route("/api/list", listed),
            Route("/api/threshold", threshold),
            Route("/picture/{number:int}", picture),
            Route("/heat/{number:int}", heat),
            Route("/region/{number:int}", map_region),
            Route("/mask/{number:int}", mask),
            Route("/api/take", _post(_Take, take), methods=["POST"]),
            Route("/api/decide", _post(_Decide, decide), methods=["POST"]),
            Route("/api/undo", _post(_Undo, undo), methods=["POST"]),
            Route("/api/release", _post(_Session, release), methods=["POST"]),
        ],
        exception_handlers={StlmError: _refused, HTTPException: refused},
    )


def _post(kind: type[T], answer: Callable[[T], dict[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that takes a dataclass as JSON; what it does may wait for the disk."""

    async def endpoint(request: Request) -> Response:
        text = (await request.body()).decode("utf-8", "replace")
        data = parse(text, what="the request", error=ConfigError, remedy=_AGAIN)
        wanted = build(kind, data, error=ConfigError, remedy=_AGAIN, what="request")
        return JSONResponse(await run_in_threadpool(answer, wanted))

    return endpoint


def _refused(_: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUS if isinstance(error, kind))
    decision = error.decision if isinstance(error, ConflictError) else None
    return JSONResponse({"error": str(error), "decision": decision and _decision(decision)}, status)


def _picture(data: bytes | None, kind: str) -> Response:
    return Response(status_code=404) if data is None else Response(data, media_type=kind)


def _number(request: Request) -> int:
    return int(request.path_params["number"])


def _item(item: Item) -> dict[str, Any]:
    shown, said = item.shown, item.shown.said
    return {
        "number": item.number,
        "name": item.name,
        "sha256": shown.sha256,
        "size": shown.size,
        "preview_size": shown.preview_size,
        "fault": shown.fault,
        "verdict": said.verdict,
        "score": said.score,
        "threshold": said.threshold,
        "unclear_from": said.unclear_from,
        "time": said.time,
        "where": said.where,
        "map_peak": None if shown.anomaly_map is None else float(shown.anomaly_map.max()),
        "decision": item.decision and _decision(item.decision),
    }


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "seq": decision.seq,
        "call": decision.call,
        "kind": None if decision.kind is None else unescaped(decision.kind),
        "reviewer": decision.reviewer,
        "time": decision.time,
        "files": decision.files,
        "has_mask": any(name.startswith("ground_truth/") for name in decision.files),
        "score": decision.score,
        "verdict": decision.verdict,
        "disagrees": decision.disagrees,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "name": entry.name,
        "decision": entry.decision and _decision(entry.decision),
    }


def _fits(entry: Entry, which: str) -> bool:
    decision = entry.decision
    if which == "all" or decision is None:
        return which in ("all", "open")
    if which == "disagree":
        return decision.disagrees
    return which in (decision.call, decision.verdict) if which == "unclear" else which == decision.call
