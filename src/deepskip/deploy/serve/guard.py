"""Around the application: counts every request, and has an answer where nobody else has one."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepskip.deploy.serve.limits import RefusedError
from deepskip.deploy.serve.metrics import Metrics
from deepskip.deploy.serve.refusals import refusal
from deepskip.errors import choices, printable

GONE = 499  # what nginx writes of a client that left before its answer; nobody gets to see it
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The Content-Security-Policy of what is no page."""


class Guard:
    """The outermost layer: it counts every answer, and gives each the same headers.

    With `hosts` it refuses requests that call this server by another name: a page from elsewhere whose name
    was made to lead to this machine, and which a browser therefore takes for this server's own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Collection[str] | None) -> None:
        self._app = app
        self._metrics = metrics
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Content-Security-Policy", NOTHING)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._check(Headers(scope=scope).get("host"))
            await self._app(scope, receive, answered)
        except RefusedError as error:
            await refusal(error)(scope, receive, answered)
        except ClientDisconnect:
            status = GONE
        except asyncio.CancelledError:  # the server ends and waits no longer
            scope["app"].state.left += 1
            if status:
                raise
            ended = RefusedError(503, "server", "its end, before the answer", "another try when it is back")
            await refusal(ended)(scope, receive, answered)
        finally:
            route = scope.get("route")
            self._metrics.request(getattr(route, "path", "other"), status, time.perf_counter() - started)

    def _check(self, host: str | None) -> None:
        if self._hosts is None or host is None:  # a browser always says it
            return
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            name = None
        if name not in self._hosts:
            known = choices(self._hosts)
            raise RefusedError(421, "Host", repr(host[:80]), f"a name of this server: {known}")


class Net:
    """The innermost layer. What goes wrong without anybody's having foreseen it is the answer 500 and a line on
    standard error, and the server goes on.
    """

    def __init__(self, app: ASGIApp, say: Callable[[str], object]) -> None:
        self._app = app
        self._say = say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        begun = False

        async def answered(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, answered)
        except ClientDisconnect:
            raise
        except Exception as error:
            if scope["type"] != "http":
                raise
            said = f"{scope['method']} {scope['path']}: {type(error).__name__}: {error}"
            self._say(printable(said)[:400])
            if os.environ.get("DEEPSKIP_DEBUG"):
                self._say(traceback.format_exc())
            if begun:  # half an answer is on its way: only the connection's end can say so
                raise
            broken = RefusedError(500, "server", "what nobody foresaw", "none of it; its own output says what")
            await refusal(broken)(scope, receive, answered)
