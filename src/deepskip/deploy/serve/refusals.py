"""Answers that say in a line why there is no other one: where, what was found there, what is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from deepskip.deploy.serve.limits import RefusedError
from deepskip.errors import choices, nearest

TELLING = {
    401: {"WWW-Authenticate": "Bearer"},
    408: {"Connection": "close"},
    429: {"Retry-After": "1"},
    503: {"Connection": "close"},
}
"""Headers of refusals, by status."""
LONGEST = 80  # characters of a path that are repeated


def refusal(error: RefusedError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer that a refusal is."""
    content = json.dumps({"detail": str(error)})
    return Response(
        content, error.status, {**TELLING.get(error.status, {}), **(headers or {})}, "application/json"
    )


async def refused(request: Request, error: Exception) -> Response:
    """Answer what was refused."""
    assert isinstance(error, RefusedError)
    return refusal(error)


async def unrouted(request: Request, error: Exception) -> Response:
    """Answer what found no path, or no method there."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:LONGEST]
    if error.status_code == 404:
        paths = sorted(str(getattr(route, "path", "")) for route in request.app.routes)
        said = RefusedError(404, "path", repr(path), choices(paths), nearest(path, paths))
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another one")
        said = RefusedError(405, "method", f"{request.method} {path}", allowed)
    else:
        got = HTTPStatus(error.status_code).phrase.lower()
        said = RefusedError(error.status_code, "request", got, "what /openapi.json describes")
    return refusal(said, error.headers)
