"""The HTTP application: its paths, what is said of each, and the layers around them."""

from __future__ import annotations

import hmac
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from importlib.resources import files
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from deepskip._version import __version__
from deepskip.deploy.serve import answers
from deepskip.deploy.serve.guard import Guard, Net
from deepskip.deploy.serve.limits import Limits, RefusedError
from deepskip.deploy.serve.query import invalid, only
from deepskip.deploy.serve.queue import Run
from deepskip.deploy.serve.refusals import refused, unrouted
from deepskip.deploy.serve.service import Service
from deepskip.model import Model

BATCH = 16
"""Pictures computed at once, at most: enough to keep a processor's cores busy, few enough to answer soon."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page's Content-Security-Policy: nothing from elsewhere, and no script or style but in files of ours."""
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
"""The page's files, by path."""

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_RAW = dict.fromkeys(("image/jpeg", "image/png", "image/webp", "application/octet-stream"), _BINARY)
Told = dict[int | str, dict[str, Any]]

_REFUSALS: Told = {
    status: {"model": answers.Refusal, "description": text}
    for status, text in (
        (400, "No body, or a form that is none"),
        (401, "No bearer token, or another one, where the server wants one"),
        (408, "The body did not arrive in time"),
        (413, "Too many bytes, pixels or pictures"),
        (421, "Another name than this server's, where only this machine can reach it"),
        (422, "A picture that cannot be read, or a parameter that is none"),
        (429, "Too much is waiting already; try again soon"),
        (500, "Something went wrong in the server"),
        (503, "The server ends"),
        (504, "No answer in time"),
    )
}


def create(
    model: Model,
    runner: Run,
    *,
    way: str,
    batch: int = BATCH,
    limits: Limits | None = None,
    token: str | None = None,
    origins: Sequence[str] = (),
    hosts: Collection[str] | None = None,
    page: bool = True,
    ready: Callable[[], object] = bool,
    say: Callable[[str], object] = sys.stderr.write,
) -> FastAPI:
    """Return the application that serves `model`, whose pictures `runner` computes in one thread.

    `way` is how it does so, in a word. With a `token`, everything that computes or tells of it wants it as a
    bearer token. Pages of `origins` (`https://example.org`) may use it from a browser; none may by default.
    With `hosts`, requests have to call the server by one of these names. Without `page` there is neither the
    page nor what only the page needs. `ready` is called once it can answer, and `say` with a line where
    something went wrong that should not have. `app.state.left` counts requests that its end came before.
    """
    service = Service(model, runner, way=way, batch=batch, limits=limits or Limits(), ready=ready)
    app = FastAPI(
        # The description needs no token, so with one it does not tell of the model.
        title=f"deepskip: {model.net.spec.name}" if token is None else "deepskip",
        description=f"A residual network with {len(model.classes)} classes." if token is None else "",
        version=__version__,
        lifespan=service.running,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    app.state.left = 0
    _add_paths(app, service, token=token, named=hosts is not None, page=page)
    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, unrouted)
    app.add_middleware(Net, say=say)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
        )
    app.add_middleware(Guard, metrics=service.metrics, hosts=hosts)
    return app


def _add_paths(app: FastAPI, service: Service, *, token: str | None, named: bool, page: bool) -> None:
    """Give the application its paths; `named` is whether it may be called by some names alone."""
    unsaid = {status for status, said in ((401, token is not None), (421, named)) if not said}
    refusals: Told = {status: text for status, text in _REFUSALS.items() if status not in unsaid}
    named_only: Told = {status: text for status, text in refusals.items() if status == 421}
    few: Told = {status: text for status, text in refusals.items() if status in (401, 421)}
    guarded = [] if token is None else [Depends(HTTPBearer(auto_error=False)), Depends(_bearer(token))]
    app.add_api_route("/predict", service.predict, methods=["POST"], response_model=answers.Predictions,
                      responses=refusals, openapi_extra=_body(many=True),
                      dependencies=[*guarded, Depends(only("top"))])  # fmt: skip
    if token is None:
        app.add_api_route("/health", service.health, response_model=answers.Health, responses=named_only)
    else:
        app.add_api_route("/health", service.alive, response_model=answers.Alive, responses=named_only)
    app.add_api_route("/metrics", service.counters, response_class=_Text, responses=few, dependencies=guarded)
    if page:
        app.add_api_route("/look", service.look, methods=["POST"], response_model=answers.Look,
                          responses=refusals, openapi_extra=_body(many=False),
                          dependencies=[*guarded, Depends(only("cut", "at", "class", "top"))])  # fmt: skip
        app.add_api_route(
            "/model", service.describe, response_model=answers.About, responses=few, dependencies=guarded
        )
        for path, (name, kind) in PAGE.items():
            app.add_api_route(path, _asset(name, kind), include_in_schema=False)


class _Text(Response):
    media_type = "text/plain"


def _asset(name: str, kind: str) -> Callable[[], Any]:
    content = files("deepskip.deploy.serve").joinpath(name).read_bytes()
    headers = {
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
    }

    async def asset() -> Response:
        return Response(content, headers=headers, media_type=f"{kind}; charset=utf-8")

    return asset


def _bearer(token: str) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), token.encode()):
            got = "another token" if given else "no token"
            raise RefusedError(401, "Authorization", got, "Bearer TOKEN, with the server's token")

    return check


def _body(*, many: bool) -> dict[str, Any]:
    """Return the description of a body of one picture, or of several, which is read by hand."""
    one = {"type": "string", "format": "binary"}
    file = {"type": "array", "items": one, "minItems": 1} if many else one
    form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}, **_RAW}}}
