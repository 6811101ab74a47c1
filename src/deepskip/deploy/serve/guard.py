"""Around the application: counts every request, and has an answer where nobody else has one."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable

from fastapi import Response
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepskip.deploy.serve.metrics import Metrics
from deepskip.errors import printable

GONE = 499  # what nginx writes of a client that left before its answer; nobody gets to see it
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""The Content-Security-Policy of what is no page."""


def refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer that says in a line why there is no other."""
    return Response(json.dumps({"detail": printable(detail)}), status, headers, "application/json")


class Guard:
    """The outermost layer. What goes wrong without anybody's having foreseen it is the answer 500 and a line on
    standard error, and the server goes on.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, say: Callable[[str], object]) -> None:
        self._app = app
        self._metrics = metrics
        self._say = say

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
            await self._app(scope, receive, answered)
        except ClientDisconnect:
            status = GONE
        except Exception as error:
            said = f"{scope['method']} {scope['path']}: {type(error).__name__}: {error}"
            self._say(printable(said)[:400])
            if os.environ.get("DEEPSKIP_DEBUG"):
                self._say(traceback.format_exc())
            if status:  # half an answer is on its way: only the connection's end can say so
                raise
            answer = refusal(500, "something went wrong here; the server's own output says what")
            await answer(scope, receive, answered)
        finally:
            route = scope.get("route")
            self._metrics.request(getattr(route, "path", "other"), status, time.perf_counter() - started)
