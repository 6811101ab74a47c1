"""The server against hostile bodies: empty, cut short, bombs, polyglots, and what chance makes of them.

    python benchmarks/serve_fuzz.py [--bodies 10000] [--seed 7]

What the test does 300 times (`tests/end_to_end/hostile.py`), more often, from several threads at once. Writes
`results/serve-fuzz-<cpu>.md`. Exit code 1 when an answer is none of the right ones, or the server is gone.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from hardware import processor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for tests
from tests.end_to_end import hostile
from tests.end_to_end.serving import Program, ask, program, saved, small

THREADS = 8


def main() -> int:
    """Ask, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = small()
        with program(saved(model, Path(folder, "model.safetensors"))) as running:
            return _fuzz(running, given)


def _fuzz(running: Program, given: argparse.Namespace) -> int:
    wrong: list[str] = []
    statuses: Counter[int] = Counter()
    slowest = 0.0

    def answer(body: hostile.Body) -> None:
        nonlocal slowest
        started = time.perf_counter()
        try:
            found = ask(running.url, "/predict", body.content, body.kind)
        except OSError as error:  # no answer at all
            wrong.append(f"{body.name}: {type(error).__name__}")
            return
        slowest = max(slowest, time.perf_counter() - started)
        statuses[found.status] += 1
        if found.status not in body.may:
            wrong.append(f"{body.name}: {found.status} {found.content[:120]!r}")

    resident = psutil.Process(running.process.pid).memory_info
    before, started = resident().rss, time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(answer, itertools.islice(hostile.bodies(given.seed), given.bodies)):
            pass
    seconds, after = time.perf_counter() - started, resident().rss
    alive = running.process.poll() is None and ask(running.url, "/health").status == 200
    counted = re.findall(r'status="5\d\d"\} (\S+)', ask(running.url, "/metrics").content.decode())
    fine = alive and not wrong and not counted
    path = given.out / f"serve-fuzz-{processor()}.md"
    told = ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items()))
    row = (
        f"{given.bodies:,}",
        told,
        str(len(wrong)),
        str(given.bodies - sum(statuses.values())),
        f"{slowest:.2f} s",
        f"{before / 2**20:.0f}, {after / 2**20:.0f} MiB",
        "never 5xx, never gone" if fine else "NOT AS IT SHOULD BE",
    )
    where = f"{processor()}; `python benchmarks/serve_fuzz.py --bodies {given.bodies} --seed {given.seed}`"
    lines = (
        "# Hostile bodies",
        "",
        f"{where}, {THREADS} threads that ask.",
        "",
        "| bodies | answers by status | wrong answers | none | slowest | memory before and after | verdict |",
        "|--:|---|--:|--:|--:|--:|---|",
        f"| {' | '.join(row)} |",
        *(["", *(f"- {line}" for line in wrong[:50])] if wrong else []),
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(), f"{seconds:.0f} s")
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
