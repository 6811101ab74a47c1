"""The server under load: as fast as the net alone, and at twice its capacity an answer for everybody.

    python benchmarks/serve_load.py [--net resnet50] [--way auto] [--seconds 60] [--rounds 3] [--batch 16]

Throughput: rounds in turn of the runner alone (whole batches in this process) and of `deepskip serve` with 32
clients, each of which asks again when it is answered; both do it the same way, on the same cores, and so does
the program that asks. Then twice as many requests a second as it has answered, for a minute, whether answers
come or not: all are counted, and so is the server's memory. JPEGs of the size that the net resizes to, so that
decoding costs what it must. Writes `results/serve-load-<cpu>.md`. Exit code 1 when a request got no answer, or
one that is neither 200 nor 429.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import torch
from hardware import processor
from PIL import Image

import deepskip as ds
from deepskip.data.decode import preprocess_file
from deepskip.deploy.choosing import choose
from deepskip.deploy.ways import Source, unnamed
from deepskip.model import Model

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests
from tests.end_to_end.serving import Program, ask, program, saved

CLIENTS = 32
PICTURES = 32
WARM = 3.0  # seconds of clients that are not counted


class Connection(asyncio.Protocol):
    """A keep-alive connection that asks one thing at a time; as little work for each answer as can be."""

    def __init__(self) -> None:
        self.free = True
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; return its answer's status, 0 where the connection ends without one."""
        self.free, self._got = False, b""
        self._answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._transport.write(request)  # type: ignore[attr-defined]
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._got.index(b"content-length: ") + 16
        if len(self._got) >= head + 4 + int(self._got[at : self._got.index(b"\r", at)]):
            self.free = True
            self._answer.set_result(int(self._got[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        """Give up."""
        self.free = False
        if hasattr(self, "_answer") and not self._answer.done():
            self._answer.set_result(0)


async def connected(url: str) -> Connection:
    """Return a new connection to the server."""
    host, port = urlsplit(url).netloc.split(":")
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
    return connection


async def clients(
    url: str, requests: Sequence[bytes], seconds: float
) -> tuple[float, list[float], Counter[int]]:
    """Return answers a second, their times and statuses, of `CLIENTS` that always wait for one."""
    begun, end = time.perf_counter() + WARM, time.perf_counter() + WARM + seconds
    times: list[float] = []
    statuses: Counter[int] = Counter()

    async def client(number: int) -> None:
        connection, i = await connected(url), number
        while (asked := time.perf_counter()) < end:
            status = await connection.ask(requests[i % len(requests)])
            i += 1
            answered = time.perf_counter()
            if begun <= answered < end:
                times.append(answered - asked)
                statuses[status] += 1

    await asyncio.gather(*map(client, range(CLIENTS)))
    return statuses[200] / seconds, times, statuses


async def flood(
    running: Program, requests: Sequence[bytes], rate: float, seconds: float
) -> tuple[dict[int, list[float]], list[float]]:
    """Ask `rate` times a second, answers or no answers; return times by status, and the server's memory."""
    free: list[Connection] = []
    times: dict[int, list[float]] = {}
    memory: list[float] = []
    process = psutil.Process(running.process.pid)

    async def one(i: int) -> None:
        while free and not free[-1].free:  # the server has closed it
            free.pop()
        connection = free.pop() if free else await connected(running.url)
        asked = time.perf_counter()
        status = await connection.ask(requests[i % len(requests)])
        times.setdefault(status, []).append(time.perf_counter() - asked)
        free.append(connection)

    waiting: set[asyncio.Task[None]] = set()
    started, i = time.perf_counter(), 0
    while (now := time.perf_counter() - started) < seconds:
        while i < now * rate:
            task = asyncio.create_task(one(i))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            i += 1
        if now > len(memory):
            memory.append(process.memory_info().rss / 2**20)
        await asyncio.sleep(0.01)
    await asyncio.wait(waiting, timeout=60)
    times.setdefault(0, []).extend([60.0] * (i - sum(map(len, times.values()))))
    return times, memory


def alone(
    model: Model, pictures: Sequence[bytes], way: str, batch: int
) -> tuple[str, Callable[[float], float]]:
    """Return the way's name, and a function that tells the runner's pictures a second in whole batches."""
    pixels = np.stack([preprocess_file(one, model.preprocessing) for one in pictures])
    choice = choose(Source(model), pixels, batch=batch, images=1000, wanted=way)

    def rate(seconds: float) -> float:
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            choice.runner(pixels[:batch])
            count += batch
        return count / spent

    return choice.way.name, rate


def jpegs(side: int) -> list[bytes]:
    """Return different pictures, as smooth as photographs are."""
    found = []
    for seed in range(PICTURES):
        coarse = np.random.default_rng(seed).integers(0, 256, (24, 24, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


def main() -> int:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet50")
    parser.add_argument("--way", default="auto")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--round-seconds", type=float, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    model = unnamed(ds.zoo.get(given.net))
    pictures = jpegs(model.preprocessing.resize)
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: "
    requests = [f"{head}{len(one)}\r\n\r\n".encode() + one for one in pictures]
    with tempfile.TemporaryDirectory() as folder:
        path = saved(model, Path(folder, "model.safetensors"))
        way, rate = alone(model, pictures, given.way, given.batch)
        with program(path, "--batch", given.batch, "--way", way, "--api-only") as running:
            direct, served, times = [], [], []
            for _ in range(given.rounds):
                direct.append(rate(given.round_seconds))
                answered, some, statuses = asyncio.run(clients(running.url, requests, given.round_seconds))
                assert set(statuses) == {200}, statuses
                served.append(answered)
                times += some
                print(f"{direct[-1]:.1f} alone, {answered:.1f} served", flush=True)
            capacity = statistics.median(served)
            found, memory = asyncio.run(flood(running, requests, 2 * capacity, given.seconds))
            counters = ask(running.url, "/metrics").content.decode()
            alive = running.process.poll() is None
    lost, odd = len(found.pop(0)), sum(len(v) for k, v in found.items() if k not in (200, 429))
    fine = alive and not lost and not odd
    share = statistics.median(b / a for a, b in zip(direct, served, strict=True))
    lines = _told(given, way, direct, served, share, times, found, memory, lost)
    path = given.out / f"serve-load-{processor()}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text())
    print(
        "\n".join(line for line in counters.splitlines() if line.startswith("deepskip_batch_pictures_bucket"))
    )
    return int(not fine)


def _told(
    given: argparse.Namespace,
    way: str,
    direct: Sequence[float],
    served: Sequence[float],
    share: float,
    times: Sequence[float],
    found: dict[int, list[float]],
    memory: Sequence[float],
    lost: int,
) -> tuple[str, ...]:
    def ms(values: Sequence[float], q: float) -> str:
        return f"{1000 * float(np.quantile(values, q)):,.0f}" if len(values) else "–"

    def span(values: Sequence[float]) -> str:
        return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"

    quarter = max(1, len(memory) // 4)
    first, last = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
    command = f"python benchmarks/serve_load.py --net {given.net} --way {given.way} --batch {given.batch}"
    where = f"{processor()}, {psutil.cpu_count()} cores, torch {torch.__version__}; `{command}`"
    rounds = f"{given.rounds} rounds of {given.round_seconds:g} s, in turn"
    much = f"{given.seconds:g} s at {2 * statistics.median(served):.1f} requests/s"
    return (
        "# The server under load",
        "",
        f"{where}: {given.net}, {way}; clients, server and runner share the cores.",
        "",
        f"| {rounds} | images/s, median (least to most) | p50, ms | p95, ms |",
        "|---|--:|--:|--:|",
        f"| the runner alone, whole batches | {span(direct)} | | |",
        f"| served, {CLIENTS} clients | {span(served)} | {ms(times, 0.5)} | {ms(times, 0.95)} |",
        f"| share, median of the rounds | {100 * share:.1f}% | | |",
        "",
        f"| {much} | requests | p50, ms | p95, ms | longest, ms |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {status} | {len(values):,} | {ms(values, 0.5)} | {ms(values, 0.95)} | {ms(values, 1)} |"
            for status, values in sorted(found.items())
        ),
        f"| no answer | {lost} | | | |",
        "",
        f"Memory, MiB: {first:.0f} in the first quarter, {last:.0f} in the last, {max(memory):.0f} at most.",
    )


if __name__ == "__main__":
    sys.exit(main())
