"""A server to be asked: as an application in a thread of this process, or as the program that a user starts."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

import deepskip
from deepskip.deploy.serve import server
from deepskip.describe import zoo
from deepskip.describe.preprocessing import Preprocessing
from deepskip.model import Model
from deepskip.nets.builder import build
from deepskip.weights.store import Header, save
from tests.laws.strategies import scrambled

CLASSES = ("ant", "bee", "cat", "dog", "elk")
PATIENCE = float(os.environ.get("DEEPSKIP_PATIENCE", "30"))  # seconds for what is to come; less for mutants


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def ask(
    url: str, path: str, body: bytes | None = None, kind: str | None = None, method: str = "", **headers: str
) -> Answer:
    """Ask a server once, by POST where there is a body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            given["Content-Type"] = kind
        connection.request(method or ("GET" if body is None else "POST"), path, body, given)
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def small(**options: Any) -> Model:
    """Return a small net for pictures in colour, whose answers are far from even."""
    spec = zoo.cifar(14, input=(3, 16, 16), classes=len(CLASSES), **options)
    prepared = Preprocessing(size=16, resize=18, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    net = scrambled(build(spec)).eval()
    return Model(net, Header(spec=spec, classes=CLASSES, preprocessing=prepared))


def saved(model: Model, path: Path) -> Path:
    """Write the model to a file."""
    save(path, model.net, model.header)
    return path


@contextmanager
def threaded(app: FastAPI, seconds: float = 30) -> Iterator[str]:
    """Serve an application in a thread, as the program does; yield its URL."""
    listening = server.listen("127.0.0.1", 0)
    running = uvicorn.Server(server.configured(app, seconds=seconds))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.address(listening)
    finally:
        running.should_exit = True
        thread.join()
        listening.close()


class Program(NamedTuple):
    """`deepskip serve`, running."""

    url: str
    process: subprocess.Popen[str]
    said: Any
    """What it printed as JSON."""


@contextmanager
def program(model: Path, *options: object, **environment: str) -> Iterator[Program]:
    """Start `deepskip serve` on a free port and wait until it can answer; end it by force if it still runs."""
    # The package that these tests import, wherever it is.
    env = {**os.environ, "PYTHONPATH": str(Path(deepskip.__file__).parents[1]), **environment}
    command = [
        sys.executable,
        "-m",
        "deepskip",
        "serve",
        str(model),
        "--port",
        "0",
        "--json",
        *map(str, options),
    ]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            printed = ""
            while not printed.endswith("}\n"):
                line = process.stdout.readline()
                assert line, process.stderr and process.stderr.read()
                printed += line
            said = json.loads(printed)
            yield Program(said["url"], process, said)
        finally:
            process.kill()
