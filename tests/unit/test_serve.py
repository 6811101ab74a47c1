"""The parts of the server: who is let in, how bodies are read, how pictures wait, what a cut changes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deepskip.cli.serve import sites
from deepskip.data.decode import preprocess_file
from deepskip.deploy.serve import decoder as decoding
from deepskip.deploy.serve.body import received
from deepskip.deploy.serve.decoder import Decoder
from deepskip.deploy.serve.limits import MIB, Gate, Limits, RefusedError
from deepskip.deploy.serve.look import look
from deepskip.deploy.serve.queue import Queue, Run, check
from deepskip.describe import zoo
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError, WorkError
from deepskip.instruments import lesion, saliency
from deepskip.model import Model
from deepskip.nets.builder import build
from deepskip.weights.store import Header
from tests.laws.strategies import scrambled
from tests.unit.pictures import noise

PREPARED = Preprocessing(size=16, resize=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


# --- the gate -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9), st.integers(0, 3)), max_size=20))
def test_no_more_is_let_in_than_there_is_room_for_and_all_of_it_goes_out(wishes: list[Any]) -> None:
    gate = Gate(Limits(pictures=4, queue=8, body=10, memory=20))
    inside: list[contextlib.ExitStack] = []
    for pictures, size, leaving in wishes:
        before = (gate.pictures, gate.bytes)
        full = before[0] + pictures > 8 or before[1] + size > 20
        with contextlib.ExitStack() as entering, _refused(429 if full else None):
            visit = entering.enter_context(gate.visit())
            visit.hold(pictures=pictures, bytes=size)
            visit.hold(pictures=1, bytes=0)  # held already
            inside.append(entering.pop_all())
        assert (gate.pictures, gate.bytes) == (before if full else (before[0] + pictures, before[1] + size))
        for _ in range(min(leaving, len(inside))):
            inside.pop(0).close()
    for entered in inside:
        entered.close()
    assert (gate.pictures, gate.bytes) == (0, 0)


@contextlib.contextmanager
def _refused(status: int | None) -> Iterator[None]:
    """Expect a refusal with that status, or none."""
    if status is None:
        yield
        return
    with pytest.raises(RefusedError) as refused:
        yield
    assert refused.value.status == status


def test_limits_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match="pictures: got 65; allowed: at most queue = 64; nearest: 64"):
        Limits(pictures=65)
    with pytest.raises(InputError, match="body"):
        Limits(body=2, memory=1)
    with pytest.raises(InputError, match="pixels"):
        Limits(pixels=10**9)


# --- bodies ---------------------------------------------------------------------------------------------------

LIMITS = Limits(body=4000, pictures=3)
FORM = "multipart/form-data; boundary=XyZ"


def _form(*parts: tuple[str, bytes], boundary: str = "XyZ") -> bytes:
    whole = b""
    for name, content in parts:
        whole += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="../../x"\r\n'.encode()
        )
        whole += b"Content-Type: image/png\r\n\r\n" + content + b"\r\n"
    return whole + f"--{boundary}--\r\n".encode()


def _received(
    body: bytes,
    kind: str = FORM,
    cuts: Sequence[int] = (),
    announced: int | None = None,
    limits: Limits = LIMITS,
) -> list[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
        for start, end in itertools.pairwise(edges):
            yield body[start:end]

    with Gate(limits).visit() as visit:
        return asyncio.run(received(chunks(), kind, announced, limits, visit))


_CONTENT = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\r\n--XyZ", b"\r\n--Xy", b"--XyZ--", b"\r\n\r\n", b"\r", b"\r\n--"]),
).filter(lambda content: b"\r\n--XyZ" not in b"\r\n" + content)


@given(st.lists(_CONTENT, min_size=1, max_size=3), st.lists(st.integers(0, 1000), max_size=12))
def test_a_form_is_the_same_in_whatever_pieces_it_comes(files: list[bytes], cuts: list[int]) -> None:
    body = _form(("note", b"hello"), *(("file", file) for file in files))
    assert _received(body, cuts=cuts) == files


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_any_other_body_is_the_picture(body: bytes, cuts: list[int]) -> None:
    for kind in ("", "image/png", "application/x-www-form-urlencoded", "text/plain; boundary=x"):
        assert _received(body, kind, cuts) == [body]


@given(st.integers(0, 10_000))
def test_a_form_cut_short_anywhere_is_refused(at: int) -> None:
    body = _form(("file", b"abc"), ("file", b"defg"))
    with pytest.raises(RefusedError) as refused:
        _received(body[: at % (len(body) - 4)])
    assert refused.value.status == 400


@given(st.data())
def test_a_damaged_form_is_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(_form(("file", b"abc"), ("other", b""), ("file", b"defg")))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    kind = data.draw(
        st.sampled_from([FORM, "multipart/form-data", FORM.upper(), FORM + "\xe9", FORM + "; a=\x00"])
    )
    cuts = data.draw(st.lists(st.integers(0, 300), max_size=3))
    with contextlib.suppress(RefusedError):
        assert len(_received(bytes(body), kind, cuts)) <= 3


@pytest.mark.parametrize(
    ("status", "body", "kind", "announced", "says"),
    [
        (400, b"", "image/png", None, "body: got nothing"),
        (400, b"", FORM, None, "cut short"),
        (400, _form(), FORM, None, "got no part; allowed: one or more parts named file"),
        (400, _form(("image", b"x"), ("b", b"y")), FORM, None, "no part named file (but image, b)"),
        (400, _form(("file", b"x")), "multipart/form-data", None, "Content-Type: got a form without boundary"),
        (400, _form(("file", b"x")), "multipart/form-data; boundary=" + 300 * "x", None, "cannot be read"),
        (413, 4001 * b"x", "image/png", None, "body: got 4001 bytes or more; allowed: at most 4000"),
        (413, b"x", "image/png", 10**12, "body: got 1000000000000 bytes"),
        (413, _form(*[("file", b"x")] * 4), FORM, None, "more pictures; allowed: at most 3 a request"),
        (413, _form(*[("a", b"")] * 17), FORM, None, "more parts of other names"),
        (
            400,
            b"--XyZ\r\n" + b"A: b\r\n" * 20,
            FORM,
            None,
            "a form that cannot be read; allowed: multipart/form-data",
        ),
        (
            400,
            b"--XyZ\r\nA" + 5000 * b"a",
            FORM,
            None,
            "a form that cannot be read; allowed: multipart/form-data",
        ),
    ],
)
def test_what_is_refused(status: int, body: bytes, kind: str, announced: int | None, says: str) -> None:
    limits = LIMITS.replace(body=6000) if b"aaa" in body else LIMITS
    with pytest.raises(RefusedError) as refused:
        _received(body, kind, announced=announced, limits=limits)
    assert says in str(refused.value)
    assert refused.value.status == status


def test_bytes_of_all_bodies_are_counted_as_they_come() -> None:
    limits = Limits(body=100, memory=150)
    gate = Gate(limits)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield 10 * b"x"
            assert gate.bytes <= 150

    async def all_at_once() -> list[Any]:
        async def one() -> list[bytes]:
            with gate.visit() as visit:
                files = await received(chunks(), "", None, limits, visit)
                await asyncio.sleep(0)
                return files

        return await asyncio.gather(*(one() for _ in range(3)), return_exceptions=True)

    found = asyncio.run(all_at_once())
    assert gate.bytes == gate.pictures == 0
    assert [100 * b"x"] in found


def test_only_bytes_that_came_are_held() -> None:
    limits = Limits(body=100, memory=100)
    gate = Gate(limits)

    async def dripping() -> AsyncIterator[bytes]:
        yield 10 * b"x"
        assert gate.bytes == 10  # of the hundred that were announced
        with gate.visit() as other:
            assert await received(_chunks([80 * b"y"]), "", 80, limits, other) == [80 * b"y"]

    with gate.visit() as visit:
        assert asyncio.run(received(dripping(), "", 100, limits, visit)) == [10 * b"x"]


async def _chunks(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("kind", ["image/png", FORM])
def test_a_body_is_in_memory_once(kind: str) -> None:
    size, piece = 8 * MIB, 65536
    limits = Limits(body=2 * size)
    whole = [piece * b"x"] * (size // piece)
    head, tail = (b"", b"") if kind != FORM else _form(("file", b"|")).split(b"|")

    async def traced() -> tuple[int, int]:
        with Gate(limits).visit() as visit:
            tracemalloc.start()
            try:
                (file,) = await received(_chunks([head, *whole, tail]), kind, None, limits, visit)
                return len(file), tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    found, most = asyncio.run(traced())
    assert found == size
    assert most < 1.5 * size


# --- the queue ------------------------------------------------------------------------------------------------


def _picture(value: int) -> np.ndarray[Any, Any]:
    return np.full((2, 2, 1), value, np.uint8)


def _logits(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Logits that say which picture it was: class 0 beside class 1, whose logit is the first pixel's value."""
    value = pixels[:, 0, 0, 0].astype(np.float64)
    return np.stack([np.zeros_like(value), value / 50], 1)


def _expected(value: int) -> list[float]:
    e = float(np.exp(value / 50))
    return [1 / (1 + e), e / (1 + e)]


def _queued(runner: Run, work: Callable[[Queue], Coroutine[Any, Any, Any]], batch: int = 4) -> Any:
    """Run `work` on a queue, and close it, whatever happens."""

    async def run() -> Any:
        queue = Queue(runner, batch=batch)
        queue.start(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(30):
                return await work(queue)
        finally:
            await asyncio.to_thread(queue.close)

    return asyncio.run(run())


@given(
    st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(1, 5)
)
def test_everyone_gets_their_own_answer_whatever_the_batches(requests: list[list[int]], batch: int) -> None:
    sizes: list[int] = []

    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sizes.append(len(pixels))
        return _logits(pixels)

    async def work(queue: Queue) -> Any:
        return await asyncio.gather(*(queue.ask([_picture(v) for v in values]) for values in requests))

    found = _queued(runner, work, batch)
    assert sum(sizes) == sum(map(len, requests))
    assert max(sizes) <= batch
    for rows, values in zip(found, requests, strict=True):
        assert rows == pytest.approx(np.array([_expected(value) for value in values]))


def test_while_a_batch_is_computed_the_next_one_gathers() -> None:
    sizes: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sizes.append(len(pixels))
        begun.set()
        assert go.wait(30)
        return _logits(pixels)

    async def work(queue: Queue) -> None:
        first = asyncio.create_task(queue.ask([_picture(0)]))
        await asyncio.to_thread(begun.wait, 30)
        others = [asyncio.create_task(queue.ask([_picture(i)])) for i in range(6)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, *others)

    _queued(runner, work)
    assert sizes == [1, 4, 2]


@pytest.mark.parametrize("kind", [ValueError, MemoryError, StopIteration, KeyboardInterrupt, SystemExit])
def test_what_goes_wrong_is_the_answer_and_the_thread_goes_on(kind: type[BaseException]) -> None:
    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if 13 in pixels:
            raise kind("unlucky")
        return _logits(pixels)

    async def work(queue: Queue) -> Any:
        with pytest.raises(Exception, match="unlucky"):
            await queue.ask([_picture(13)])
        return await queue.ask([_picture(7)])

    assert _queued(runner, work)[0] == pytest.approx(_expected(7))


def test_outputs_that_are_not_finite_are_one_requests_affair() -> None:
    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        logits = _logits(pixels)
        logits[pixels[:, 0, 0, 0] == 13] = (np.inf, np.nan)
        return logits

    async def work(queue: Queue) -> Any:
        return await asyncio.gather(
            *(queue.ask([_picture(value)]) for value in (7, 13, 8)), return_exceptions=True
        )

    first, second, third = _queued(runner, work)
    assert isinstance(second, WorkError)
    assert (first[0], third[0]) == (pytest.approx(_expected(7)), pytest.approx(_expected(8)))
    with pytest.raises(WorkError, match="not finite"):
        check(lambda pixels: np.full((len(pixels), 2), np.nan), PREPARED, 3)


def test_before_anybody_asks_it_has_met_a_batch_and_one_picture() -> None:
    met: list[tuple[int, ...]] = []

    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        met.append(pixels.shape)
        return np.zeros((len(pixels), 2))

    check(runner, PREPARED, 8)
    assert met == [(8, 16, 16, 3), (1, 16, 16, 3)]


def test_what_is_given_up_is_not_computed() -> None:
    seen: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen.extend(pixels[:, 0, 0, 0].tolist())
        begun.set()
        assert go.wait(30)
        return _logits(pixels)

    async def work(queue: Queue) -> None:
        first = asyncio.create_task(queue.ask([_picture(0)]))
        await asyncio.to_thread(begun.wait, 30)
        left, stays = (asyncio.create_task(queue.ask([_picture(v), _picture(v + 1)])) for v in (10, 20))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, stays)

    _queued(runner, work)
    assert seen == [0, 20, 21]


def test_calls_and_batches_take_turns() -> None:
    order: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        order.append("batch")
        begun.set()
        assert go.wait(30)
        return _logits(pixels)

    async def work(queue: Queue) -> Any:
        waiting = [asyncio.create_task(queue.ask([_picture(0)]))]
        await asyncio.to_thread(begun.wait, 30)
        waiting += [asyncio.create_task(queue.ask([_picture(i)])) for i in range(6)]
        waiting += [asyncio.create_task(queue.call(lambda: order.append("call"))) for _ in range(4)]
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(*waiting)
        with pytest.raises(ZeroDivisionError):
            await queue.call(lambda: 1 / 0)
        return await queue.call(lambda: threading.current_thread().name)

    assert _queued(runner, work) == "deepskip-network"
    assert order == ["batch", "call", "batch", "call", "batch", "call", "call"]


def test_closing_answers_what_waits() -> None:
    go = threading.Event()

    def runner(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert go.wait(30)
        return _logits(pixels)

    async def run() -> Any:
        queue = Queue(runner, batch=2)
        queue.start(asyncio.get_running_loop())
        waiting = [asyncio.create_task(queue.ask([_picture(i)])) for i in range(7)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(queue.close))
        await asyncio.sleep(0)
        go.set()
        rows = await asyncio.gather(*waiting)
        await closing
        return rows

    assert [rows[0] for rows in asyncio.run(run())] == [pytest.approx(_expected(i)) for i in range(7)]


# --- decoding -------------------------------------------------------------------------------------------------


def _png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _decoded(files: Sequence[bytes], limits: Limits = LIMITS) -> Any:
    async def run() -> Any:
        decoder = Decoder(PREPARED, limits)
        try:
            return await decoder.decode(files)
        finally:
            decoder.close()

    return asyncio.run(run())


def test_pixels_are_those_of_every_other_command(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [_png(noise(i, 40 + i, 50)) for i in range(4)]
    expected = [preprocess_file(file, PREPARED) for file in files]
    for limit in ("LARGE_BYTES", "LARGE_PIXELS"):  # in the way of what is large, too
        assert np.array_equal(_decoded(files), expected)
        monkeypatch.setattr(decoding, limit, 10)
    assert np.array_equal(_decoded(files), expected)


def test_pictures_that_are_refused_by_number() -> None:
    good, limits = _png(noise(1)), LIMITS.replace(pixels=2000)
    damaged = "picture 2 of 3: got a picture that is damaged or cut short; allowed: a whole JPEG"
    deep = _png(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF")
    for bad, status, says in (
        (good[:90], 422, damaged),
        (b"GIF89a", 422, "picture 2 of 3: got not a picture; allowed: a whole JPEG"),
        (b"pixels", 422, "picture 2 of 3: got not a picture; allowed: a whole JPEG"),
        (_png(noise(1), "WEBP")[:200], 422, damaged),
        (deep, 422, "picture 2 of 3: got pixels in floating point; allowed: pixels whose range is known"),
        (_png(noise(2, 50, 41)), 413, "picture 2 of 3: got 50 x 41 pixels; allowed: at most 0.002 megapixels"),
        (b"P6 99999 99999 255\n", 413, "got more than 120000000 pixels; allowed: at most 0.002 megapixels"),
        (_png(noise(1), "JPEG") + 101 * SCAN, 422, "a JPEG of many scans; allowed: at most 100"),
    ):
        with pytest.raises(RefusedError, match=says) as refused:
            _decoded([good, bad, good], limits)
        assert refused.value.status == status


SCAN = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00\x00"


def test_a_film_behind_a_photograph_is_no_scans() -> None:
    """What telephones write: a JPEG, and behind its end a film, in which any two bytes are somewhere."""
    photograph = _png(noise(1, 40, 40), "JPEG")
    film = np.random.default_rng(0).bytes(50_000) + 400 * b"\xff\xda\x00\x02\xff\xda\x00\x0c\x04"
    assert np.array_equal(_decoded([photograph + film]), _decoded([photograph]))


def test_large_pictures_wait_for_a_thread_also_where_requests_were_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread cannot be stopped: what it decodes for nobody still takes a core, and memory."""
    inside, most, begun, go = [0], [0], threading.Event(), threading.Event()

    def slow(content: bytes, prepared: Preprocessing) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        begun.set()
        assert go.wait(30)
        inside[0] -= 1
        return preprocess_file(content, prepared)

    monkeypatch.setattr(decoding, "preprocess_file", slow)
    monkeypatch.setattr(decoding, "LARGE_BYTES", 10)
    file = _png(noise(1))

    async def run() -> Any:
        decoder = Decoder(PREPARED, LIMITS, threads=2)  # so one for large pictures
        try:
            first = asyncio.create_task(decoder.decode([file]))
            await asyncio.to_thread(begun.wait, 30)
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.create_task(decoder.decode([file]))
            await asyncio.sleep(0.2)
            go.set()
            return await second
        finally:
            go.set()
            decoder.close()

    assert np.array_equal(asyncio.run(run()), [preprocess_file(file, PREPARED)])
    assert most == [1]


def test_threads_are_as_many_as_this_process_has_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine with 64 a container may have three."""
    asked: list[int] = []
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", lambda threads, **_: asked.append(threads))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for cores in (1, 3, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        Decoder(PREPARED, LIMITS)
    assert asked[::2] == [2, 3, 8]


# --- the command line -----------------------------------------------------------------------------------------


def test_origins_are_as_browsers_name_them() -> None:
    given = "https://Example.org/, http://localhost:3000,https://a.b:443,http://[::1]:80/"
    assert sites(given) == ("https://example.org", "http://localhost:3000", "https://a.b", "http://[::1]")
    assert sites(None) == ()
    for wrong in (
        "foo",
        "",
        "https://a.b,",
        "https://a.b/c",
        "ftp://a.b",
        "*",
        "https://*.a.b",
        "http://a:x",
        "//a",
    ):
        with pytest.raises(
            InputError, match=r"--origins: got '.*'; allowed: web sites, as https://example.org,"
        ):
            sites(wrong)


# --- looking --------------------------------------------------------------------------------------------------


def _model(**options: Any) -> Model:
    spec = zoo.cifar(14, input=(3, 16, 16), classes=5, **options)
    return Model(
        scrambled(build(spec)).eval(), Header(spec=spec, classes=tuple("abcde"), preprocessing=PREPARED)
    )


@pytest.mark.parametrize("options", [{}, {"plain": True}, {"order": "pre", "shortcut": "B"}])
def test_a_cut_block_computes_nothing_and_afterwards_all_is_as_it_was(options: dict[str, Any]) -> None:
    model = _model(**options)
    net, x = model.net, torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = net(x)
        with lesion.cut(net, ["s1.b2", "s3.b2", "s1.b2"]):
            cut = net(x)
        assert torch.equal(net(x), before)
        # The same by hand: what is left of a block without its branch.
        y = net.stem(x)
        for stage, name, block in ((s, b, one) for s, st_ in net.stages.items() for b, one in st_.items()):
            gone = f"{stage}.{name}" in ("s1.b2", "s3.b2")
            h = block.before(y)
            left = block.after(block.junction(block.shortcut(h), 0 * block.branch(h)))
            y = (y if options.get("plain") else left) if gone else block(y)
        assert torch.equal(cut, net.head(y))
        assert not torch.equal(cut, before)
    with pytest.raises(InputError, match=r"cut: got 's9.b1'; allowed: a block, as s1.b1; nearest: s"):
        lesion.cut(net, ["s1.b2", "s9.b1"]).__enter__()
    if options.get("plain"):
        with pytest.raises(InputError, match=r"cut: got 's2.b1'"):
            lesion.cut(net, ["s2.b1"]).__enter__()
    assert all("forward" not in vars(block) for block in net.blocks())


def test_a_look_is_what_the_instruments_say() -> None:
    model = _model()
    state = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = look(model, pixels, cut=["s2.b2"], at="s2.b1", target="d", top=2)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    x = (images / 255 - 0.5) / 0.25
    with torch.no_grad():
        intact = model.net(x)[0].softmax(0)
        with lesion.cut(model.net, ["s2.b2"]):
            now = model.net(x)[0].softmax(0)
            cam = saliency.grad_cam(model.net, x, [3], "stages.s2.b1")[0]
    assert found["map"] == [[pytest.approx(v, rel=1e-3, abs=1e-9) for v in line] for line in cam.tolist()]
    assert (found["at"], found["explained"], found["cut"]) == ("s2.b1", "d", ["s2.b2"])
    assert found["class"] == "abcde"[int(now.argmax())]
    for one in found["top"]:
        i = "abcde".index(one["class"])
        assert one["probability"] == pytest.approx(float(now[i]), rel=1e-5)
        assert one["intact"] == pytest.approx(float(intact[i]), rel=1e-5)
    assert {"abcde"[i] for i in (*now.topk(2).indices, *intact.topk(2).indices)} == {
        one["class"] for one in found["top"]
    }
    assert [row["block"] for row in found["blocks"]] == ["s1.b1", "s1.b2", "s2.b1", "s2.b2", "s3.b1", "s3.b2"]
    assert [row["branch_rms"] is None for row in found["blocks"]] == [False, False, False, True, False, False]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.net.parameters())
    with pytest.raises(InputError, match="class: got 'f'"):
        look(model, pixels, target="f")
