"""The HTTP application: its paths, what each takes and gives, and what becomes of what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.resources import files
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer

from deepskip._version import __version__
from deepskip.data.dataset import Pixels
from deepskip.deploy.serve import answers
from deepskip.deploy.serve.body import received
from deepskip.deploy.serve.decoder import Decoder
from deepskip.deploy.serve.guard import Guard, refusal
from deepskip.deploy.serve.limits import Gate, Limits, RefusedError, Visit
from deepskip.deploy.serve.look import about, look
from deepskip.deploy.serve.metrics import Metrics
from deepskip.deploy.serve.queue import Probabilities, Queue, Run, check
from deepskip.errors import InputError, nearest, printable
from deepskip.model import Model

BATCH = 16
"""Pictures computed at once, at most: enough to keep a processor's cores busy, few enough to answer soon."""
LOOK = 4
"""Pictures that one look counts as: it computes the network three times, and once backwards."""
TOP = 5
LONGEST = 200  # characters of a name in a query
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

Top = Annotated[int, Query(ge=1, le=1000, description="How many of the most probable classes to list")]
Cut = Annotated[list[str] | None, Query(description="A block to cut, as `s2.b3`; may be given several times")]
At = Annotated[str | None, Query(max_length=LONGEST, description="The block where Grad-CAM looks")]
Explained = Annotated[
    str | None, Query(alias="class", max_length=LONGEST, description="The class that Grad-CAM explains")
]

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
        (422, "A picture that cannot be read, or a parameter that is none"),
        (429, "Too much is waiting already; try again soon"),
        (500, "Something went wrong in the server"),
        (504, "No answer in time"),
    )
}


_TELLING = {429: {"Retry-After": "1"}, 408: {"Connection": "close"}}
"""Headers of refusals, by status."""


class Service:
    """A model, and what stands between it and the network's thread: what the paths of an application do."""

    def __init__(
        self,
        model: Model,
        runner: Run,
        *,
        way: str,
        batch: int,
        limits: Limits,
        ready: Callable[[], object] = bool,
    ) -> None:
        self.model = model
        self.way = way
        self.limits = limits
        self.gate = Gate(limits)
        self.metrics = Metrics(self.gate, {"model": model.net.spec.name, "way": way, "version": __version__})
        self.queue = Queue(runner, batch=batch, ran=self.metrics.batch)
        self.warm = functools.partial(check, runner, model.preprocessing, batch)
        self.decoder = Decoder(model.preprocessing, limits)
        self.about = about(model)
        self.ready = ready
        self.blocks = {row["block"]: row["can_be_cut"] for row in self.about["blocks"]}

    @contextlib.asynccontextmanager
    async def running(self, app: FastAPI) -> AsyncIterator[None]:
        """Answer while inside; at the end what waits is still answered."""
        self.queue.start(asyncio.get_running_loop())
        # There too: OpenMP makes a team of threads for each that computes, and libraries prepare on first use.
        await self.queue.call(self.warm)
        self.ready()
        try:
            yield
        finally:
            await asyncio.to_thread(self.queue.close)
            self.decoder.close()

    async def predict(self, request: Request, top: Top = TOP) -> Response:
        """Name the class of one or more pictures.

        The body is a picture, or a multipart form with one or more in parts named `file`: JPEG, PNG, WebP, BMP,
        GIF, TIFF or PPM, of an animation the first frame. All of them are answered, or none.
        """
        async with self._visit() as visit:
            pixels = await self._pixels(request, visit)
            rows = await self.queue.ask(pixels)
        return _json({"predictions": [self._prediction(row, top) for row in rows]})

    async def look(
        self,
        request: Request,
        cut: Cut = None,
        at: At = None,
        explained: Explained = None,
        top: Top = TOP,
    ) -> Response:
        """See one picture from inside the network: what it says without some blocks, and where it looks.

        The body is as for /predict, with one picture. Computed by PyTorch in float32, whichever way answers
        /predict. Counts as four pictures where limits are.
        """
        cut = cut or []
        self._check(cut, at, explained)
        async with self._visit(min(LOOK, self.limits.queue)) as visit:
            pixels = await self._pixels(request, visit)
            if len(pixels) > 1:
                raise RefusedError(413, "body", f"{len(pixels)} pictures", "one")
            work = functools.partial(look, self.model, pixels[0], cut=cut, at=at, target=explained, top=top)
            try:
                return _json(await self.queue.call(work))
            except InputError as error:
                raise RefusedError(422, error.where, error.got, error.allowed) from error

    async def describe(self) -> Response:
        """Describe the model: the net, its blocks, its classes."""
        return _json(self.about)

    async def health(self) -> Response:
        """Say that the server is there. Needs no token."""
        return _json(
            {
                "status": "ok",
                "model": self.about["name"],
                "way": self.way,
                "waiting": self.gate.pictures,
                "version": __version__,
            }
        )

    async def counters(self) -> Response:
        """Return the server's counters as Prometheus reads them."""
        text, kind = self.metrics.page()
        return Response(text, headers={"Content-Type": kind})

    @contextlib.asynccontextmanager
    async def _visit(self, pictures: int = 1) -> AsyncIterator[Visit]:
        """Let a request in, and give it up when its time is over. Raises RefusedError."""
        with self.gate.visit(pictures) as visit:
            try:
                async with asyncio.timeout(self.limits.seconds):
                    yield visit
            except TimeoutError:
                where = (504, "answer", "none") if visit.received else (408, "body", "a part of it")
                raise RefusedError(*where, f"all within {self.limits.seconds:g} s") from None

    async def _pixels(self, request: Request, visit: Visit) -> list[Pixels]:
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdecimal() else None
        kind = request.headers.get("content-type", "")
        files = await received(request.stream(), kind, announced, self.limits, visit)
        visit.received = True
        return await self.decoder.decode(files)

    def _prediction(self, row: Probabilities, top: int) -> dict[str, Any]:
        best = [
            {"class": self.model.classes[i], "probability": float(row[i])}
            for i in np.argsort(-row, kind="stable")[:top].tolist()
        ]
        return {**best[0], "top": best}

    def _check(self, cut: Sequence[str], at: str | None, explained: str | None) -> None:
        """Raise RefusedError, before anything is read, for what is no block that can be cut, or no class."""
        for where, name in (*(("cut", name) for name in cut), ("at", at)):
            if name is not None and name not in self.blocks:
                known = nearest(name[:LONGEST], self.blocks) or next(iter(self.blocks))
                raise RefusedError(422, where, repr(name[:LONGEST]), f"a block, as {known}")
        fixed = next((name for name in cut if not self.blocks[name]), None)
        if fixed is not None:
            raise RefusedError(422, "cut", repr(fixed), "a block of equal dimensions, in a plain net")
        if explained is not None and explained not in self.model.classes:
            known = nearest(explained, self.model.classes) or self.model.classes[0]
            raise RefusedError(422, "class", repr(explained), f"a class of the model's, as {known}")


def create(
    model: Model,
    runner: Run,
    *,
    way: str,
    batch: int = BATCH,
    limits: Limits | None = None,
    token: str | None = None,
    origins: Sequence[str] = (),
    page: bool = True,
    ready: Callable[[], object] = bool,
    say: Callable[[str], object] = sys.stderr.write,
) -> FastAPI:
    """Return the application that serves `model`, whose pictures `runner` computes in one thread.

    `way` is how it does so, in a word. With a `token`, everything that computes or tells of it wants it as a
    bearer token. Pages of `origins` (`https://example.org`) may use it from a browser; none may by default.
    Without `page` there is neither the page nor what only the page needs. `ready` is called once it can answer,
    and `say` with a line where something went wrong that should not have.
    """
    service = Service(model, runner, way=way, batch=batch, limits=limits or Limits(), ready=ready)
    app = FastAPI(
        title=f"deepskip: {model.net.spec.name}",
        description=f"A residual network with {len(model.classes)} classes.",
        version=__version__,
        lifespan=service.running,
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
    )
    guarded = [] if token is None else [Depends(HTTPBearer(auto_error=False)), Depends(_bearer(token))]
    refusals: Told = {status: text for status, text in _REFUSALS.items() if token is not None or status != 401}
    few: Told = {status: text for status, text in refusals.items() if status == 401}
    app.add_api_route("/predict", service.predict, methods=["POST"], response_model=answers.Predictions,
                      responses=refusals, openapi_extra=_body("array"), dependencies=guarded)  # fmt: skip
    app.add_api_route("/health", service.health, response_model=answers.Health)
    app.add_api_route("/metrics", service.counters, response_class=_Text, responses=few, dependencies=guarded)
    if page:
        app.add_api_route("/look", service.look, methods=["POST"], response_model=answers.Look,
                          responses=refusals, openapi_extra=_body("one"), dependencies=guarded)  # fmt: skip
        app.add_api_route(
            "/model", service.describe, response_model=answers.About, responses=few, dependencies=guarded
        )
        for path, (name, kind) in PAGE.items():
            app.add_api_route(path, _asset(name, kind), include_in_schema=False)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization"],
        )
    app.add_middleware(Guard, metrics=service.metrics, say=say)
    return app


class _Text(Response):
    media_type = "text/plain"


def _json(value: object) -> Response:
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")


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


def _bearer(token: str) -> Callable[[Request], Any]:
    async def check(request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), token.encode()):
            raise HTTPException(401, "no bearer token, or another one", {"WWW-Authenticate": "Bearer"})

    return check


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = (
        {"Retry-After": "1"}
        if error.status == 429
        else {"Connection": "close"}
        if error.status == 408
        else None
    )
    return refusal(error.status, str(error), headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where, got = first["loc"][-1], printable(repr(first.get("input")))[:80]
    return refusal(422, f"{where}: got {got}; allowed: {first['msg'].removeprefix('Input should be ')}")


def _body(many: str) -> dict[str, Any]:
    """Return the description of a body of one picture or an "array" of them, which is read by hand."""
    one = {"type": "string", "format": "binary"}
    file = {"type": "array", "items": one, "minItems": 1} if many == "array" else one
    form = {"type": "object", "properties": {"file": file}, "required": ["file"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}, **_RAW}}}
