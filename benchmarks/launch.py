"""What depth alone costs: milliseconds a block of everything that is done to a net, against its depth.

    python benchmarks/launch.py [--depths 110,1004,10004] [--net resnet_cifar] [--batch 64] [--threads 1]

Images of 8 by 8 pixels, as digits are, where arithmetic is little and time is overhead: what is linear has the
same number in every column. Each depth in a process of its own. *describe* is the table and its totals, *draw*
all views there are, into SVG files; *step* is the median step of `ds.fit`'s own stepper, float32, momentum and
clipping included; *average* what a moving average adds to one, *check* the search for what is not finite at the
end of an epoch, *state* writing what resuming needs, and *resume* reading it. Writes `results/launch-<cpu>.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hardware import processor

import deepskip as ds
from deepskip.cli.nets import describe
from deepskip.data.batches import Batch
from deepskip.figures.drawings import draw, views
from deepskip.figures.style import write
from deepskip.training.average import Average
from deepskip.training.distributed import World
from deepskip.training.rundir import RunFolder
from deepskip.training.stepper import Stepper
from deepskip.training.way import Way
from deepskip.weights import store

STEPS = 5
PREPROCESSING = ds.Preprocessing(size=8, resize=8, colour="L", mean=(0.5,), std=(0.5,))


def cell(family: str, depth: int, batch: int) -> dict[str, float]:
    """Return the blocks of the net and the seconds that each thing takes."""
    found: dict[str, float] = {}

    def timed(what: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        found[what] = time.perf_counter() - started
        return result

    draw(ds.zoo.get("resnet8_cifar"), "net")  # what is imported on the way is no part of any
    ds.build(ds.zoo.get("resnet8_cifar"))
    spec = timed("spec", lambda: ds.zoo.get(family, depth=depth, input=(1, 8, 8)))
    found["blocks"] = ds.count(spec).blocks
    timed("JSON", lambda: ds.Spec.from_json(spec.to_json()))
    with contextlib.redirect_stdout(io.StringIO()):
        timed("describe", lambda: describe(family, depth=depth))
    net = timed("build", lambda: ds.build(spec))
    header = store.Header(spec=spec, classes=tuple("0123456789"), preprocessing=PREPROCESSING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        timed("draw", lambda: [write(draw(spec, view), folder / f"{view}.svg") for view in views(spec)])
        timed("save", lambda: store.save(folder / store.FILE, net, header))
        timed("load", lambda: ds.load(folder / store.FILE))
        stepper = _stepper(net, batch)
        images = torch.randint(0, 256, (batch, 1, 8, 8), dtype=torch.uint8)
        data = Batch(images, torch.randint(0, 10, (batch,)), total=batch)
        steps = [timed("step", lambda i=i: stepper.step(data, i, 1e-4)) or found["step"] for i in range(STEPS)]
        found["step"] = statistics.median(steps[1:])
        average = Average(net, 0.9)
        timed("average", lambda: average.update(1))
        timed("check", stepper.broken)
        (folder / "state").mkdir()
        run = RunFolder(folder)
        timed("state", lambda: run.save_state(stepper.state(), 1))
        timed("resume", lambda: stepper.load_state(run.load_state()[0] or {}))
    return found


def _stepper(net: Any, batch: int) -> Stepper:
    way = Way()
    stepper = Stepper(
        way.prepare(net).train(),
        PREPROCESSING,
        ds.Recipe(batch=batch, clip=1.0),
        way,
        World(),
        seed=0,
        weights=None,
    )
    stepper.begin()
    return stepper


def main() -> int:
    """Measure every depth and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", default="110,1004,10004")
    parser.add_argument("--net", default="resnet_cifar")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--cell", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        torch.set_num_threads(given.threads)
        sys.stdout.write(json.dumps(cell(given.net, given.cell, given.batch)) + "\n")
        return 0
    rows: dict[int, dict[str, float]] = {}
    options = f"--batch={given.batch}", f"--threads={given.threads}"
    for depth in map(int, given.depths.split(",")):
        run = subprocess.run(
            [sys.executable, __file__, f"--cell={depth}", f"--net={given.net}", *options],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows[depth] = json.loads(run.stdout)
        sys.stderr.write(f"{depth} {run.stdout}")
    path = given.out / f"launch-{processor()}.md"
    path.write_text("\n".join(table(rows, given)) + "\n", encoding="utf-8")
    sys.stdout.write(path.read_text(encoding="utf-8"))
    return 0


def table(rows: dict[int, dict[str, float]], given: argparse.Namespace) -> list[str]:
    """Return the lines of the file."""
    depths, last = list(rows), list(rows)[-1]
    threads = f"{given.threads} thread{'s' if given.threads > 1 else ''}"
    said = (
        f"{processor()}, {threads}, torch {torch.__version__}; `python benchmarks/launch.py`, which says what "
        f"is measured. {given.net}, digits' size, batch {given.batch}. Milliseconds a block, and the seconds "
        "of the deepest."
    )
    lines = [
        "# What depth alone costs",
        "",
        said,
        "",
        f"| layers | {' | '.join(f'{depth:,}' for depth in depths)} | {last:,}, seconds |",
        f"|---|{'--:|' * (len(depths) + 1)}",
        f"| blocks | {' | '.join(format(row['blocks'], ',') for row in rows.values())} | |",
    ]
    for what in rows[last]:
        if what != "blocks":
            each = (f"{1000 * row[what] / row['blocks']:.3f}" for row in rows.values())
            lines.append(f"| {what} | {' | '.join(each)} | {rows[last][what]:.2f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
