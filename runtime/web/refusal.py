"""What a page answers instead of what was asked for: one line as JSON, so that programs read all of them alike."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


def refusal(text: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


async def refused(_: Request, error: Exception) -> Response:
    """Starlette's handler of an `HTTPException`, such as of a path that is not there."""
    assert isinstance(error, HTTPException)
    return refusal(error.detail, error.status_code, error.headers)
