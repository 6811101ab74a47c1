"""What the server's paths do: a model, and what stands between a request and the network's thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect

from deepskip._version import __version__
from deepskip.deploy.serve.body import received
from deepskip.deploy.serve.decoder import Decoder
from deepskip.deploy.serve.limits import Gate, Limits, RefusedError, Visit
from deepskip.deploy.serve.look import about, look
from deepskip.deploy.serve.metrics import Metrics
from deepskip.deploy.serve.query import LONGEST, TOP, At, Cut, Explained, Top
from deepskip.deploy.serve.queue import Probabilities, Queue, Run, check
from deepskip.errors import InputError, nearest
from deepskip.model import Model

T = TypeVar("T")
LOOK = 4
"""Pictures that one look counts as: it computes the network three times, and once backwards."""


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
        self.classes = frozenset(model.classes)

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
            files = await self._files(request, visit)
            rows = await _while_there(request, self._rows(files))
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
        async with self._visit(min(LOOK, self.limits.queue)) as visit:
            await self._check(cut, at, explained)
            files = await self._files(request, visit)
            if len(files) > 1:  # none of them is decoded
                raise RefusedError(413, "body", f"{len(files)} pictures", "one")
            asked = functools.partial(look, self.model, cut=cut, at=at, target=explained, top=top)
            try:
                return _json(await _while_there(request, self._looked(files, asked)))
            except InputError as error:
                raise RefusedError(422, error.where, error.got, error.allowed) from error

    async def describe(self) -> Response:
        """Describe the model: the net, its blocks, its classes."""
        return _json(self.about)

    async def health(self) -> Response:
        """Say that the server is there, and what it serves."""
        return _json(
            {
                "status": "ok",
                "model": self.about["name"],
                "way": self.way,
                "waiting": self.gate.pictures,
                "version": __version__,
            }
        )

    async def alive(self) -> Response:
        """Say that the server is there, and no more: it needs no token, and what is served is told for one."""
        return _json({"status": "ok"})

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

    async def _files(self, request: Request, visit: Visit) -> list[bytes]:
        length = request.headers.get("content-length", "")
        announced = int(length) if length.isdecimal() else None
        kind = request.headers.get("content-type", "")
        files = await received(request.stream(), kind, announced, self.limits, visit)
        visit.received = True
        return files

    async def _rows(self, files: Sequence[bytes]) -> Probabilities:
        return await self.queue.ask(await self.decoder.decode(files))

    async def _looked(self, files: Sequence[bytes], asked: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        (pixels,) = await self.decoder.decode(files)
        return await self.queue.call(functools.partial(asked, pixels))

    def _prediction(self, row: Probabilities, top: int) -> dict[str, Any]:
        best = [
            {"class": self.model.classes[i], "probability": float(row[i])}
            for i in np.argsort(-row, kind="stable")[:top].tolist()
        ]
        return {**best[0], "top": best}

    async def _check(self, cut: Sequence[str], at: str | None, explained: str | None) -> None:
        """Raise RefusedError, before anything is read, for what is no block that can be cut, or no class.

        Thousands of names are compared in a thread: it takes a second, and others are answered meanwhile.
        """
        for where, name in (*(("cut", name) for name in cut), ("at", at)):
            if name is not None and name not in self.blocks:
                near = await asyncio.to_thread(nearest, name[:LONGEST], self.blocks)
                known = near or next(iter(self.blocks))
                raise RefusedError(422, where, repr(name[:LONGEST]), f"a block, as {known}")
        fixed = next((name for name in cut if not self.blocks[name]), None)
        if fixed is not None:
            raise RefusedError(422, "cut", repr(fixed), "a block of equal dimensions, in a plain net")
        if explained is not None and explained not in self.classes:
            near = await asyncio.to_thread(nearest, explained, self.model.classes)
            known = near or self.model.classes[0]
            raise RefusedError(422, "class", repr(explained), f"a class of the model's, as {known}")


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` gives; when the client leaves before that, give it up. Raises ClientDisconnect.

    A page that asks again at every step of a slider leaves a trail of questions whose answers nobody reads.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Return when the client of a request whose body was read is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(value: object) -> Response:
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")
