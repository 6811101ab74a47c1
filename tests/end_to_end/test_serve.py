"""The server from outside: right answers, every refusal, hostile bodies, too many at once, and its end."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import schemathesis
import torch
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import positive_data_acceptance

import deepskip
from deepskip.data.batches import normalise
from deepskip.deploy.serve import connection, server, service
from deepskip.deploy.serve.app import create
from deepskip.deploy.serve.limits import Limits
from deepskip.model import Model
from tests.end_to_end import hostile
from tests.end_to_end.command import Command
from tests.end_to_end.serving import CLASSES, PATIENCE, Program, ask, program, saved, small, threaded
from tests.unit.pictures import noise

FUZZ = 300
Pixels = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def model() -> Model:
    return small()


@pytest.fixture(scope="module")
def running(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Yield a server that all these tests ask, and that has to be there after the last."""
    path = saved(model, tmp_path_factory.mktemp("model") / "model.safetensors")
    # In PyTorch's own way: which exact one is the fastest is measured, and its last bits are its own.
    with program(path, "--pictures", 4, "--way", "channels-last") as found:
        yield found
        assert ask(found.url, "/health").json["status"] == "ok"
        assert found.process.poll() is None


def eager(model: Model) -> Callable[[Pixels], Any]:
    @torch.no_grad()
    def run(pixels: Pixels) -> Any:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return model.net(normalise(images, model.preprocessing)).numpy()

    return run


def application(model: Model, run: Callable[[Pixels], Any] | None = None, **options: Any) -> FastAPI:
    return create(model, run or eager(model), way="eager", **options)


def picture(seed: int) -> bytes:
    return hostile.encoded(noise(seed, 40, 30), "PNG")


# --- right answers --------------------------------------------------------------------------------------------


def test_every_kind_of_picture_is_answered_as_predict_answers_it(running: Program, model: Model) -> None:
    for name, content in hostile.good().items():
        Path("one").write_bytes(content)
        expected = model.predict(["one"])[0].to_dict()
        found = ask(running.url, "/predict", content, "image/png")
        assert found.status == 200, (name, found.content)
        assert list(found.json) == ["predictions"]
        (one,) = found.json["predictions"]
        assert one.keys() == {"class", "probability", "top"}
        assert (one["class"], one["probability"]) == (
            expected["class"],
            pytest.approx(expected["probability"]),
        ), name
        assert [row["class"] for row in one["top"]] == [row["class"] for row in expected["top"]]


def test_several_pictures_in_their_order(running: Program) -> None:
    pictures = [picture(seed) for seed in range(4)]
    alone = [ask(running.url, "/predict?top=2", one).json["predictions"][0] for one in pictures]
    body, kind = hostile.form(*pictures)
    together = ask(running.url, "/predict?top=2", body, kind).json["predictions"]
    assert len({one["probability"] for one in alone}) == 4
    for one, other in zip(alone, together, strict=True):
        assert [row["class"] for row in one["top"]] == [row["class"] for row in other["top"]]
        assert one["probability"] == pytest.approx(other["probability"], rel=1e-4)
        assert len(one["top"]) == 2


def test_a_look_with_and_without_blocks(running: Program) -> None:
    whole = ask(running.url, "/look", picture(1)).json
    assert all(one["probability"] == one["intact"] for one in whole["top"])
    assert whole["at"] == ask(running.url, "/model").json["last"] == "s3.b2"
    cut = ask(running.url, "/look?cut=s1.b2&cut=s3.b2&at=s2.b1&class=dog", picture(1)).json
    assert (cut["cut"], cut["at"], cut["explained"]) == (["s1.b2", "s3.b2"], "s2.b1", "dog")
    assert {one["class"]: one["intact"] for one in cut["top"]} == {
        one["class"]: one["intact"] for one in whole["top"]
    }
    assert cut["probability"] != whole["probability"]
    assert (len(cut["map"]), len(cut["map"][0])) == (8, 8)
    assert ask(running.url, "/look", picture(1)).json == whole


def test_what_the_model_is(running: Program) -> None:
    found = ask(running.url, "/model").json
    assert (found["classes"], found["layers"], found["input"]) == (list(CLASSES), 14, [3, 16, 16])
    assert [block["block"] for block in found["blocks"]] == [f"s{s}.b{b}" for s in (1, 2, 3) for b in (1, 2)]
    assert running.said.keys() == {"url", "model", "way", "pid"}
    assert running.said["way"] == ask(running.url, "/health").json["way"] == "channels-last"
    assert ask(running.url, "/health").json["model"] == running.said["model"] == found["name"]


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/predict", b"", 400, "body: got nothing; allowed: a picture, or a multipart form with one in `file`"),
        ("/predict", b"text", 422, "picture: got not a picture; allowed: a whole JPEG, PNG"),
        ("/predict?top=0", b"x", 422, "top: got '0'; allowed: a whole number from 1 to 1000"),
        ("/predict?top=two", b"x", 422, "top: got 'two'; allowed: a whole number from 1 to 1000"),
        ("/predict?tpo=2", b"x", 422, "query: got 'tpo'; allowed: top; nearest: top"),
        ("/look?cuts=s1.b1", b"x", 422, "query: got 'cuts'; allowed: cut, at, class, top; nearest: cut"),
        ("/look?cut=s1.b9", b"x", 422, "cut: got 's1.b9'; allowed: a block, as s1.b"),
        ("/look?at=**.**.**.**", b"x", 422, "at: got '**.**.**.**'; allowed: a block"),
        ("/look?class=dgo", b"x", 422, "class: got 'dgo'; allowed: a class of the model's, as dog"),
        ("/look?at=" + 300 * "x", b"x", 422, "allowed: a block's name, of at most 200 characters"),
        ("/predikt", b"x", 404, "path: got '/predikt'; allowed: /, /health, /look, /metrics, /model, "),
        ("/predikt", b"x", 404, "; nearest: /predict"),
        ("/predict", None, 405, "method: got GET /predict; allowed: POST"),
        ("/docs", None, 404, "path: got '/docs'; allowed: /"),
    ],
)
def test_refusals_are_one_line(running: Program, path: str, body: bytes | None, status: int, says: str) -> None:
    found = ask(running.url, path, body)
    assert found.status == status
    assert says in found.json["detail"]
    assert re.fullmatch(r"[^:\n]+: got [^\n]+; allowed: [^\n]+", found.json["detail"])


def test_limits_of_a_request(running: Program) -> None:
    body, kind = hostile.form(*[picture(1)] * 5)
    assert "at most 4 a request" in ask(running.url, "/predict", body, kind).json["detail"]
    found = ask(running.url, "/predict", 33 * 1024 * 1024 * b"x")
    assert (found.status, "33554432" in found.json["detail"]) == (413, True)
    two = ask(running.url, "/look", *hostile.form(picture(1), b"no picture, which nobody will ever know"))
    assert (two.status, two.json["detail"]) == (413, "body: got 2 pictures; allowed: one")


def test_a_body_without_a_length_is_counted_too(model: Model) -> None:
    app = application(model, limits=Limits(body=1000))
    with threaded(app) as url, socket.create_connection(urlsplit(url).netloc.split(":")) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        raw.sendall(b"".join(b"190\r\n" + 400 * b"x" + b"\r\n" for _ in range(3)))
        assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_token(model: Model) -> None:
    with threaded(application(model, token="open sesame")) as url:
        for path, body in (
            ("/predict", picture(1)),
            ("/look", picture(1)),
            ("/model", None),
            ("/metrics", None),
        ):
            for given in ("", "Bearer", "Bearer open", "Basic open sesame", "Bearer open sesam\xe9"):
                found = ask(url, path, body, Authorization=given)
                assert (found.status, found.headers["www-authenticate"]) == (401, "Bearer"), given
                got = "another token" if " " in given else "no token"
                assert found.json["detail"].startswith(f"Authorization: got {got}; allowed: Bearer TOKEN")
            assert ask(url, path, body, Authorization="Bearer open sesame").status == 200
        assert [ask(url, path).status for path in ("/health", "/", "/page.js", "/openapi.json")] == [200] * 4
        assert "HTTPBearer" in ask(url, "/openapi.json").json["components"]["securitySchemes"]
        assert ask(url, "/health").json == {"status": "ok"}
        assert model.net.spec.name.encode() not in ask(url, "/openapi.json").content


def test_only_pages_that_may_can_use_it(model: Model) -> None:
    asked = {"Origin": "https://example.org", "Access_Control_Request_Method": "POST"}
    with threaded(application(model)) as url:
        assert "access-control-allow-origin" not in ask(url, "/health", **asked).headers
        assert ask(url, "/predict", method="OPTIONS", **asked).status == 405
    with threaded(application(model, origins=["https://example.org"])) as url:
        assert ask(url, "/health", **asked).headers["access-control-allow-origin"] == "https://example.org"
        assert ask(url, "/predict", method="OPTIONS", **asked).status == 200
        other = {**asked, "Origin": "https://example.com"}
        assert "access-control-allow-origin" not in ask(url, "/health", **other).headers


def test_on_this_machine_it_goes_by_names_of_this_machine(running: Program, model: Model) -> None:
    """A page from elsewhere may make its own name lead here, and would then be this server's own page."""
    port = urlsplit(running.url).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "LOCALHOST"):
        assert ask(running.url, "/health", Host=host).status == 200
    for host in (f"evil.example:{port}", "127.0.0.1.evil.example", "[::1", ""):
        found = ask(running.url, "/", Host=host)
        assert (found.status, "Host: got" in found.json["detail"]) == (421, True), host
    with threaded(application(model)) as url:  # which others may reach, by who knows what names
        assert ask(url, "/health", Host="net.example").status == 200


def test_every_answer_has_the_headers_of_one_that_nobody_frames_or_guesses(running: Program) -> None:
    for path, body in (
        ("/", None),
        ("/page.js", None),
        ("/predict", picture(1)),
        ("/predict", b""),
        ("/x", None),
    ):
        headers = ask(running.url, path, body).headers
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in headers


def test_without_the_page(model: Model) -> None:
    with threaded(application(model, page=False)) as url:
        assert [ask(url, path).status for path in ("/", "/page.js", "/model")] == [404] * 3
        assert ask(url, "/look", picture(1)).status == 404
        assert ask(url, "/predict", picture(1)).status == 200


def test_what_nobody_foresaw_is_500_and_a_line(model: Model, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []

    def broken(pixels: Pixels) -> Pixels:
        if pixels.any():
            raise RuntimeError("no\nmore")
        return np.zeros((len(pixels), 5))

    site = "https://example.org"
    with threaded(application(model, broken, say=said.append, origins=[site])) as url:
        found = ask(url, "/predict", picture(1), Origin=site)
        assert (found.status, "no more" in found.json["detail"]) == (500, False)
        assert found.headers["access-control-allow-origin"] == site  # or the page could not read why
        assert ask(url, "/health").status == 200
        assert (
            'deepskip_requests_total{path="/predict",status="500"} 1.0' in ask(url, "/metrics").content.decode()
        )
    assert said == ["POST /predict: RuntimeError: no more"]
    assert capfd.readouterr().err == ""


# --- too much at once -----------------------------------------------------------------------------------------


class Held:
    """A runner that computes when it is let, and whatever happens after the block that it is held in."""

    def __init__(self, model: Model) -> None:
        self.run, self.go, self.begun = eager(model), threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def __call__(self, pixels: Pixels) -> Any:
        if pixels.any():  # the first, empty ones only warm up
            self.sizes.append(len(pixels))
            self.begun.set()
            assert self.go.wait(30)
        return self.run(pixels)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.go.set()


def test_what_does_not_fit_into_the_queue_is_told_so_at_once(model: Model) -> None:
    held = Held(model)
    app = application(model, held, batch=2, limits=Limits(queue=5, pictures=4))
    with threaded(app) as url, ThreadPoolExecutor(8) as pool, held:
        waiting = [pool.submit(ask, url, "/predict", picture(0))]
        assert held.begun.wait(30)
        waiting += [pool.submit(ask, url, "/predict", picture(i)) for i in range(1, 4)]
        while ask(url, "/health").json["waiting"] < 4:
            time.sleep(0.01)
        body, kind = hostile.form(picture(1), picture(2))
        for found in (ask(url, "/predict", body, kind), ask(url, "/look", picture(1))):
            assert found.status == 429
            assert found.headers["retry-after"] == "1"
            assert "try again soon" in found.json["detail"]
        assert ask(url, "/health").json["waiting"] == 4  # what was refused holds nothing
        held.go.set()
        assert [one.result().status for one in waiting] == [200] * 4
        assert ask(url, "/health").json["waiting"] == 0
        assert ask(url, "/predict", body, kind).status == 200
    assert held.sizes == [1, 2, 1, 2]


def test_an_answer_that_does_not_come_in_time(model: Model) -> None:
    held = Held(model)
    with threaded(application(model, held, batch=1, limits=Limits(seconds=0.3))) as url, held:
        assert ask(url, "/predict", picture(1)).status == 504
        found = ask(url, "/predict", picture(2))
        assert (found.status, found.json["detail"]) == (504, "answer: got none; allowed: all within 0.3 s")
        held.go.set()
        while ask(url, "/predict", picture(3)).status != 200:
            pass
    assert len(held.sizes) == 2  # the second was given up before it was begun


def test_a_body_that_does_not_come_in_time(model: Model) -> None:
    app = application(model, limits=Limits(seconds=0.3))
    with threaded(app) as url, socket.create_connection(urlsplit(url).netloc.split(":")) as raw:
        raw.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nhalf")
        assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert ask(url, "/health").json["waiting"] == 0


def test_who_leaves_is_forgotten(model: Model) -> None:
    said: list[str] = []
    with threaded(application(model, say=said.append)) as url:
        for body in (b"", b"part of it"):
            with socket.create_connection(urlsplit(url).netloc.split(":")) as raw:
                raw.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n" + body)
                while not ask(url, "/health").json["waiting"]:
                    time.sleep(0.01)
        while ask(url, "/health").json["waiting"]:
            time.sleep(0.01)
        assert 'status="499"' in ask(url, "/metrics").content.decode()
    assert said == []


def test_what_nobody_waits_for_any_more_is_not_computed(model: Model) -> None:
    """A page asks again at every step of a slider, and leaves what it asked before."""
    held = Held(model)
    head = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    with threaded(application(model, held)) as url, ThreadPoolExecutor(1) as pool, held:
        waiting = pool.submit(ask, url, "/predict", picture(0))
        assert held.begun.wait(30)
        for path, pictures in ((b"predict", 1), (b"look", 4)):
            with socket.create_connection(urlsplit(url).netloc.split(":")) as raw:
                raw.sendall(head % (path, len(picture(1))) + picture(1))
                until(lambda pictures=pictures: ask(url, "/health").json["waiting"] == 1 + pictures)
            until(lambda: ask(url, "/health").json["waiting"] == 1)
        held.go.set()
        assert waiting.result().status == 200
        assert 'path="/look",status="499"' in ask(url, "/metrics").content.decode()
    assert held.sizes == [1]


def test_nobody_holds_a_connection_without_asking(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that comes drop by drop, and the rest of a body that was refused."""
    monkeypatch.setattr(server, "KEPT", 0.5)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with threaded(application(model, limits=Limits(body=10))) as url:
        for start, drop in ((b"", b""), (b"GET / HTTP/1.1\r\n", b"a: b\r\n"), (head, b"5\r\nabcde\r\n")):
            with socket.create_connection(urlsplit(url).netloc.split(":"), 30) as raw:
                raw.sendall(start)
                assert ends(raw, drop), start
        for wrong in (b"zz\r\n", b"\0"):  # and after an answer, what is no HTTP
            with socket.create_connection(urlsplit(url).netloc.split(":"), 30) as raw:
                raw.sendall(head + 3 * b"5\r\nabcde\r\n")
                assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")
                raw.sendall(wrong)
                assert ends(raw, b"")
        assert ask(url, "/health").status == 200


def test_nobody_holds_a_connection_longer_than_a_request_may_take(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACE", 0)
    held = Held(model)
    with threaded(application(model, held), seconds=1) as url, held:
        with socket.create_connection(urlsplit(url).netloc.split(":"), 30) as raw:
            body = picture(1)
            raw.sendall(
                b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            assert ends(raw, b"")
        held.go.set()


def test_connections_are_bounded_and_who_waits_longest_makes_room(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 3)
    with threaded(application(model)) as url, contextlib.ExitStack() as open_:
        place = urlsplit(url).netloc.split(":")
        idle = []
        for _ in range(3):
            idle.append(open_.enter_context(socket.create_connection(place, 30)))
            time.sleep(0.05)  # so that it is known which came first
        assert ask(url, "/health").status == 200
        assert ends(idle[0], b"")
        for one in idle[1:]:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(1000).startswith(b"HTTP/1.1 200 ")


def until(true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def ends(raw: socket.socket, drop: bytes) -> bool:
    """Send drops, and return whether the other side ends the connection before long."""
    raw.settimeout(0.05)
    end = time.monotonic() + PATIENCE / 2
    while time.monotonic() < end:
        try:
            raw.sendall(drop)
            if raw.recv(1000) == b"":
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_names_are_compared_beside_the_answering_of_others(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def compared(*_: object) -> None:
        threads.append(threading.current_thread())

    monkeypatch.setattr(service, "nearest", compared)
    loop: list[threading.Thread] = []
    app = application(model, ready=lambda: loop.append(threading.current_thread()))
    with threaded(app) as url:
        for query in ("class=dgo", "at=s9"):
            assert ask(url, f"/look?{query}", picture(1)).status == 422
    assert len(threads) == 2
    assert loop[0] not in threads


def test_many_at_once_all_get_their_own_answers(running: Program) -> None:
    pictures = [picture(seed) for seed in range(8)]
    alone = [ask(running.url, "/predict", one).json["predictions"][0] for one in pictures]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: ask(running.url, "/predict", pictures[i % 8]), range(200)))
    for i, one in enumerate(found):
        assert one.status == 200
        (given,) = one.json["predictions"]
        assert given["probability"] == pytest.approx(alone[i % 8]["probability"], rel=1e-4)
    text = ask(running.url, "/metrics").content.decode()
    assert "deepskip_waiting_pictures 0.0" in text
    assert re.search(r"^deepskip_batch_pictures_count \d", text, re.MULTILINE)


# --- hostile bodies -------------------------------------------------------------------------------------------


def test_hostile_bodies(running: Program) -> None:
    wrong = []
    for body in itertools.islice(hostile.bodies(seed=1), FUZZ):
        found = ask(running.url, "/predict", body.content, body.kind)
        if found.status not in body.may:
            wrong.append((body.name, found.status, found.content[:200]))
        if found.status == 200:
            assert all(0 <= one["probability"] <= 1 for one in found.json["predictions"])
        else:
            assert "\n" not in found.json["detail"]
    assert wrong == []
    assert 'status="5' not in ask(running.url, "/metrics").content.decode()


@pytest.mark.parametrize(
    "head",
    [
        b"\0\0\0\0\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /%00%ff%2e%2e/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /" + 200_000 * b"a",
    ],
)
def test_what_is_hardly_http(running: Program, head: bytes) -> None:
    with socket.create_connection(urlsplit(running.url).netloc.split(":")) as raw:
        raw.sendall(head)
        assert raw.recv(1000).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
    assert ask(running.url, "/health").status == 200


def test_nothing_is_written_to_a_disk(model: Model, tmp_path: Path) -> None:
    """Not even a temporary file, for a body that Starlette would have put into one."""
    Path("cwd").mkdir()
    path, large = saved(model, tmp_path / "m.safetensors"), tmp_path / "temporary"
    large.mkdir()
    with program(path, TMPDIR=str(large)) as running:
        before = set(tmp_path.rglob("*"))
        body, kind = hostile.form(picture(1) + bytes(8_000_000), picture(2) + bytes(8_000_000))
        with socket.create_connection(urlsplit(running.url).netloc.split(":")) as raw:
            raw.sendall(f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n".encode())
            raw.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
            descriptors = Path(f"/proc/{running.process.pid}/fd")
            open_files = {str(one.readlink()) for one in descriptors.iterdir()}
            raw.sendall(body[-1:])
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert not any(str(large) in one for one in open_files)
        assert set(tmp_path.rglob("*")) == before


# --- the description ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_it_does_what_its_description_says(running: Program, mode: schemathesis.GenerationMode) -> None:
    """For what fits the description and what does not; random bytes are rarely a picture and may be refused."""
    schema = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
    tried: Counter[str] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=15, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        def check(case: schemathesis.Case) -> None:
            tried[case.operation.label] += 1
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        with contextlib.suppress(Unsatisfiable):  # what takes nothing has no wrong input
            check()
    whole = {"POST /predict", "POST /look", "GET /model", "GET /health", "GET /metrics"}
    assert tried.keys() == whole if mode.is_positive else {"POST /predict", "POST /look"} <= tried.keys()


# --- beginning and end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
def test_asked_to_end_it_answers_what_it_let_in(model: Model, tmp_path: Path, signals: list[int]) -> None:
    with program(saved(model, tmp_path / "m.safetensors"), "--seconds", 20) as running:
        place = urlsplit(running.url).netloc.split(":")
        idle = socket.create_connection(place)
        late = socket.create_connection(place)
        body = picture(1)
        late.sendall(
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body[:9]
        )
        while ask(running.url, "/health").json["waiting"] != 1:
            time.sleep(0.01)
        for number in signals:
            running.process.send_signal(number)
        assert idle.recv(10) == b""  # closed
        with pytest.raises(OSError):
            socket.create_connection(place)
        late.sendall(body[9:])
        answer = b""
        while piece := late.recv(1000):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"predictions"' in answer
        assert running.process.wait(30) == 0
        assert running.process.stderr
        assert running.process.stderr.read() == "ended; all that was let in is answered\n"
        idle.close()
        late.close()


def test_an_end_by_force_does_not_say_that_all_is_answered(model: Model, tmp_path: Path) -> None:
    with program(saved(model, tmp_path / "m.safetensors")) as running:
        with socket.create_connection(urlsplit(running.url).netloc.split(":"), 30) as late:
            late.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nhalf")
            until(lambda: ask(running.url, "/health").json["waiting"] == 1)
            for _ in range(2):
                running.process.send_signal(signal.SIGINT)
                time.sleep(0.3)
            assert late.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert running.process.wait(30) == 1
        assert running.process.stderr
        said = running.process.stderr.read()
        assert "all that was let in is answered" not in said
        assert "deepskip serve: got its end, with 1 of what was let in not answered" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_before_it_can_answer(model: Model, tmp_path: Path, number: int) -> None:
    path, pipe = saved(model, tmp_path / "m.safetensors"), tmp_path / "token"
    os.mkfifo(pipe)  # at which it waits for its token
    command = [sys.executable, "-m", "deepskip", "serve", str(path), "--token-file", str(pipe)]
    env = {**os.environ, "PYTHONPATH": str(Path(deepskip.__file__).parents[1])}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process, pipe.open("wb"):
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "ended before it could answer\n")


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "without a token; allowed: a token in it"),
        (" \n", "without a token; allowed: a token in it"),
        ("s\xe9same", "with other signs in it; allowed: a token of printable ASCII"),
        ("two\nlines", "with other signs in it; allowed: a token of printable ASCII"),
    ],
)
def test_a_token_that_is_none(deepskip: Command, model: Model, tmp_path: Path, token: str, says: str) -> None:
    """Above all it must not mean that anybody may come."""
    path, file = saved(model, tmp_path / "m.safetensors"), tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    said = [deepskip("serve", path, "--token-file", file)]
    with pytest.MonkeyPatch.context() as given:
        given.setenv("DEEPSKIP_TOKEN", token)
        said.append(deepskip("serve", path, "--port", 99999))
    for one, where in zip(said, ("--token-file", "DEEPSKIP_TOKEN"), strict=True):
        assert (one.code, one.error.startswith(f"{where}: got "), says in one.error) == (2, True, True)
        assert "same" not in one.error


def test_what_cannot_be_served(deepskip: Command, model: Model, tmp_path: Path) -> None:
    path = saved(model, tmp_path / "m.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = deepskip("serve", path, "--port", port)
        assert (said.code, f"--port: got {port} (address already in use)" in said.error) == (1, True)
    for words, says in (
        (("--host", "no.such.host.invalid"), "--host: got 'no.such.host.invalid'"),
        (("--port", 99999), "--port: got 99999"),
        (("--batch", 0), "--batch: got 0"),
        (("--way", "egaer"), "nearest: eager"),
        (("--way", "openvino-int8"), "--way: got 'openvino-int8'; allowed: a way that needs no pictures"),
        (("--queue", 3), "pictures: got 16; allowed: at most queue = 3"),
        (("--seconds", 0), "seconds: got 0"),
        (("--megapixels", 0), "pixels: got 0"),
        (("--token-file", "nowhere"), "--token-file: got nowhere"),
        (("--origins", "foo"), "--origins: got 'foo'; allowed: web sites, as https://example.org"),
    ):
        free = () if "--port" in words else ("--port", 0)  # somebody may serve at the usual one
        said = deepskip("serve", path, *words, *free)
        assert (said.code, says in said.error) == (2, True), said.err
    assert deepskip("serve", "nowhere").code == 2
    with pytest.MonkeyPatch.context() as missing:
        missing.setitem(sys.modules, "prometheus_client", None)
        said = deepskip("serve", path)
        assert said.code == 2
        assert 'no package prometheus_client; allowed: pip install "deepskip[serve]"' in said.error
    broken = small()
    with torch.no_grad():
        next(broken.net.head.parameters()).fill_(float("nan"))
    said = deepskip("serve", saved(broken, tmp_path / "broken.safetensors"), "--port", 0)
    assert said.code != 0
    assert "not finite" in said.error
