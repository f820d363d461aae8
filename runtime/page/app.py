"""What the live page answers: itself, pictures, what happens, and the few things that may be asked of a line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from heapq import merge
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from runtime.closing import Closing
from runtime.config import CameraConfig
from runtime.line_control import Control
from runtime.metrics import Metrics
from runtime.page.rows import KEPT, table
from runtime.page.watch import OK, STARTING, CameraWatch
from runtime.web.assets import asset, page_frame, shared_assets
from runtime.web.options import Serving
from runtime.web.refusal import refusal, refused
from runtime.web.server import WebServer
from stlm_edge.errors import ControlError, shown

_EVERY_S = 0.5
"""How often a page is told what is new."""
_ROWS = 1000
"""Of a table, where nobody says how many."""

_ONLY = "camera"
"""What a camera without a name is called."""

_BODY = (
    '<header id="top"><h1>Line</h1><span id="link" class="chip" role="status">connecting</span>'
    '<a class="button" href="/events.csv" download>Events of all as CSV</a></header>'
    '<main id="wall" aria-live="off"></main>'
    "<noscript><p>This page needs JavaScript.</p></noscript>"
)


class LivePage(Closing):
    """The page of one run, served from before the first camera is open until the last output is closed.

    Attributes:
        url, port: of the page.
    """

    def __init__(self, serving: Serving) -> None:
        """Raises `ConfigError`, `OutputError`: see `WebServer`."""
        self._metrics: Metrics | None = None
        self._cameras: dict[str, CameraWatch] = {}
        routes = [
            Route("/", self._page),
            Route("/live", self._live),
            Route("/state", self._state),
            Route("/stream", self._stream),
            Route("/picture", self._picture),
            Route("/events.csv", self._events),
            Route("/trigger", self._trigger, methods=["POST"]),
            Route("/recipe", self._recipe, methods=["POST"]),
            Route("/healthz", self._healthz),
            Route("/metrics", self._exposition),
            asset("runtime.page", "page.js"),
            asset("runtime.page", "page.css"),
            *shared_assets(),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: refused})
        self._server = WebServer(app, serving, what="page", open_paths=["/healthz"])
        self.url, self.port = self._server.url, self._server.port
        self._html = page_frame("Line", _BODY, scripts=("page.js",), styles=("page.css",))

    def watch(self, config: CameraConfig, control: Control) -> CameraWatch:
        """Show one more camera, to the end. What is returned wants to be one of its outputs, and knows their states."""
        events = next((each.partition("?")[0] for each in config.output if _is_events(each)), None)
        camera = CameraWatch(
            config.name or _ONLY,
            control=control,
            recipes=[recipe.name for recipe in config.recipes],
            can_trigger=config.trigger is not None,
            events=None if events is None else Path(events),
        )
        self.add(camera)
        return camera

    def add(self, camera: CameraWatch) -> None:
        """Show one more, by its name, to the end."""
        self._cameras = {**self._cameras, camera.name: camera}

    def give_metrics(self, metrics: Metrics) -> None:
        """What `/metrics` is to answer, from now on."""
        self._metrics = metrics

    def close(self) -> None:
        self._server.close()

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(self._html)

    async def _state(self, _: Request) -> Response:
        """The same once, for programs."""
        return JSONResponse([camera.told(after=0) for camera in self._cameras.values()])

    async def _live(self, _: Request) -> Response:
        """Server-sent events: twice a second all that is shown, with the rows that are new."""

        async def tell() -> AsyncIterator[str]:
            seen: dict[str, int] = {}
            while True:
                told = [camera.told(after=seen.get(camera.name, 0)) for camera in self._cameras.values()]
                seen = {each["name"]: each["number"] for each in told}
                yield f"data: {json.dumps(told)}\n\n"
                await asyncio.sleep(_EVERY_S)

        return StreamingResponse(tell(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _stream(self, request: Request) -> Response:
        camera = self._asked(request.query_params)
        return StreamingResponse(
            camera.picture.stream(),
            media_type="multipart/x-mixed-replace; boundary=frame",
            headers={"x-accel-buffering": "no"},
        )

    async def _picture(self, request: Request) -> Response:
        jpeg = await self._asked(request.query_params).picture.still()
        if jpeg is None:
            raise HTTPException(404, "no frame has come yet")
        return Response(jpeg, media_type="image/jpeg")

    async def _events(self, request: Request) -> Response:
        wanted = request.query_params.get("last", str(_ROWS))
        if not (wanted.isascii() and wanted.isdecimal() and len(wanted) < 9 and int(wanted) > 0):
            raise HTTPException(
                400, f"found last={wanted[:40]}, expected a whole number from 1 on; at most {KEPT} rows are kept"
            )
        named = "camera" in request.query_params
        cameras = [self._asked(request.query_params)] if named else list(self._cameras.values())

        def written() -> str:
            rows = [[(camera.name, row) for row in camera.last(int(wanted))] for camera in cameras]
            return table(list(merge(*rows, key=lambda named: named[1].time))[-int(wanted) :])

        text = await run_in_threadpool(written)
        return Response(
            text,
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="events.csv"'},
        )

    async def _trigger(self, request: Request) -> Response:
        asked = await _json(request, known=("camera", "part_id"))
        part_id = asked.get("part_id")
        if part_id is not None and not part_id.isprintable():
            raise HTTPException(400, f"found part_id {shown(part_id)}, expected characters that can be printed")
        control = self._asked(asked).control
        try:
            number = await run_in_threadpool(control.trigger, part_id)
        except ControlError as error:
            return refusal(str(error), 409)
        return JSONResponse({"part": number})

    async def _recipe(self, request: Request) -> Response:
        asked = await _json(request, known=("camera", "recipe"))
        if "recipe" not in asked:
            raise HTTPException(400, 'found no recipe, expected its name or number, as in {"recipe": "disc"}')
        camera = self._asked(asked)
        try:
            camera.control.change_recipe(asked["recipe"])
        except ControlError as error:
            return refusal(str(error), 409)
        return JSONResponse({"recipe": asked["recipe"]}, 202)

    async def _healthz(self, request: Request) -> Response:
        """200 and `ok` only while every camera's frames are judged, or the one's that is asked for."""
        named = "camera" in request.query_params
        cameras = [self._asked(request.query_params)] if named else list(self._cameras.values())
        words = [word for camera in cameras if (word := camera.health()) != OK]
        word = STARTING if not cameras else words[0] if words else OK
        return PlainTextResponse(word, 200 if word == OK else 503)

    def _exposition(self, request: Request) -> Response:
        """For Prometheus; on a thread, as `def` has it, since a driver is asked about its GPU."""
        if self._metrics is None:
            return PlainTextResponse(STARTING, 503)
        text, content_type = self._metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    def _asked(self, asked: Mapping[str, str]) -> CameraWatch:
        """The camera that is named, or the only one. Raises `HTTPException`."""
        cameras = self._cameras
        if not cameras:
            raise HTTPException(503, STARTING)
        name = asked.get("camera")
        if name is None and len(cameras) == 1:
            return next(iter(cameras.values()))
        if name not in cameras:
            found = "no camera" if name is None else f"camera {shown(name)}"
            raise HTTPException(404, f"found {found}, expected one of {', '.join(cameras)}")
        return cameras[name]


def _is_events(uri: str) -> bool:
    """Whether an output is a file of events."""
    place = uri.partition("?")[0]
    return "://" not in place and place.endswith(".jsonl")


async def _json(request: Request, *, known: tuple[str, ...]) -> dict[str, str]:
    """Texts by name, numbers as such; an empty body is none. Raises `HTTPException`."""
    body: Any = {}
    try:
        if raw := await request.body():
            body = json.loads(raw)
    except (ValueError, RecursionError):
        raise HTTPException(400, f"found no JSON, expected an object with {' and '.join(known)}") from None
    if not isinstance(body, dict):
        raise HTTPException(400, f"found {shown(body)}, expected an object with {' and '.join(known)}")
    for name, value in body.items():
        if name not in known:
            raise HTTPException(400, f"found {shown(name)}, expected {' and '.join(known)} alone")
        if type(value) not in (str, int):
            raise HTTPException(400, f"found {name} {shown(value)}, expected a text or a whole number")
    return {name: str(value) for name, value in body.items()}
