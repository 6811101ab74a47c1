"""From an application to a program that listens, and ends when it is asked to, with everything answered."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from deepskip.deploy.serve.connection import Connection
from deepskip.errors import InputError, WorkError

GRACE = 5
"""Seconds beyond a request's own that a server waits for requests when it ends."""
KEPT = 30  # seconds that a connection may take for a request's head, from its beginning or the last answer
HEAD = 64 * 1024  # bytes of a request's head


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens at `host` and `port`; 0 takes a free one.

    Raises InputError for a host that is none of this machine's, or a number that is no port; WorkError for a
    port that is taken.
    """
    if not 0 <= port <= 65535:  # the system would take it modulo 65536
        raise InputError("--port", port, "0 to 65535", 8000)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError, OverflowError) as error:
        raise InputError("--host", repr(host), "an address of this machine", "127.0.0.1") from error
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        reason = (error.strerror or type(error).__name__).lower()
        raise WorkError("--port", f"{port} ({reason})", "a free port; 0 takes any", 0) from error
    return listening


def address(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_private(listening: socket.socket) -> bool:
    """Return whether only this machine can reach the socket."""
    host = str(listening.getsockname()[0])
    return host.startswith("127.") or host == "::1"


def names(listening: socket.socket, host: str, origins: Sequence[str]) -> tuple[str, ...]:
    """Return the names by which a server is called that only this machine can reach: its own, and those of
    `origins`, whose pages may use it and behind whose proxy it may stand.
    """
    sites = (urlsplit(origin).hostname or "" for origin in origins)
    own = str(listening.getsockname()[0])
    return tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", own, host.lower(), *sites)))


def configured(app: FastAPI, *, seconds: float) -> uvicorn.Config:
    """Return how an application is served, no request of which may take more than `seconds`."""
    return uvicorn.Config(
        app,
        http=Connection,  # h11's, also where a faster one is installed: limits and ends are written for it
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=math.ceil(seconds) + GRACE,
        h11_max_incomplete_event_size=HEAD,
    )


def run(app: FastAPI, listening: socket.socket, *, seconds: float) -> int:
    """Serve until Ctrl-C or TERM, then answer what was let in; a second Ctrl-C ends at once.

    No request may take more than `seconds`. Returns how many requests that were let in got no answer because
    the end came before it. Raises WorkError.
    """
    # It warns of every form that is none, and those who send such could fill a disk with it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    server = uvicorn.Server(configured(app, seconds=seconds))
    try:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn passes the signal on when all is answered
            server.run(sockets=[listening])
    finally:
        listening.close()
    if not server.started:
        raise WorkError("deepskip serve", "a server that did not start", "what was said above, mended")
    return int(app.state.left)
