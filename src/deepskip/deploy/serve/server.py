"""From an application to a program that listens, and ends when it is asked to, with everything answered."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket

import uvicorn
from fastapi import FastAPI

from deepskip.errors import InputError, WorkError

GRACE = 5
"""Seconds beyond a request's own that a server waits for requests when it ends."""
KEPT = 30  # seconds that a connection may say nothing between two requests
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


def run(app: FastAPI, listening: socket.socket, *, seconds: float) -> None:
    """Serve until Ctrl-C or TERM, then answer what was let in and return; a second Ctrl-C ends at once.

    No request may take more than `seconds`.
    """
    # It warns of every form that is none, and those who send such could fill a disk with it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
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
    server = uvicorn.Server(config)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn passes the signal on when all is answered
            server.run(sockets=[listening])
    finally:
        listening.close()
    if not server.started:
        raise WorkError("deepskip serve", "a server that did not start", "what was said above, mended")
