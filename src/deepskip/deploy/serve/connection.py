"""A connection that nobody can hold for ever, and no more of them than there is room for."""

from __future__ import annotations

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from deepskip.deploy.serve.limits import RefusedError

CONNECTIONS = 512
"""Open connections, at most: half of the files that a program may usually have open."""


class Connection(H11Protocol):
    """uvicorn's connection, with an end to each of its states.

    Without a whole head of a request it ends after the time of a kept connection, however many bytes came: a
    head may come drop by drop, and so may the rest of a body that was refused. With one it ends a little after
    the request's own time, so that nobody holds it by not reading the answer. Where there are too many
    connections, the one that has waited longest for a head makes room.
    """

    _end: asyncio.TimerHandle | None = None
    _waiting_since: float | None = None
    """When it began to wait for a head; None where a request is being answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; make room where there is none."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > CONNECTIONS:
            others = [one for one in self.connections if isinstance(one, Connection)]
            waiting = [(since, one) for one in others if (since := one._waiting_since) is not None]
            min(waiting, key=lambda pair: pair[0])[1]._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        super().connection_lost(exc)
        if self._end is not None:
            self._end.cancel()

    def handle_events(self) -> None:
        """Read what came; where it completes a head, the request's time begins."""
        super().handle_events()
        if self._waiting_since is not None and self.cycle is not None and not self.cycle.response_complete:
            self._waiting_since = None
            self._within(self.config.timeout_graceful_shutdown)

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, whatever is left to come of this request's body."""
        self._wait()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP; where something else was answered already, end."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._abort()
            return
        detail = str(RefusedError(400, "request", "what is no HTTP", "HTTP/1.1"))
        headers = [("Content-Type", "application/json"), ("Connection", "close")]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=json.dumps({"detail": detail}).encode()),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait(self) -> None:
        self._waiting_since = self.loop.time()
        self._within(self.timeout_keep_alive)

    def _within(self, seconds: float | None) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = None if seconds is None else self.loop.call_later(seconds, self._abort)

    def _abort(self) -> None:
        self._waiting_since = None
        self.transport.abort()  # not close(), which waits until all is read that was written
