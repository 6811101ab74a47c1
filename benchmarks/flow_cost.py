"""What recording how signals flow costs a training: the same steps with and without, in turns, in one run.

    python benchmarks/flow_cost.py [--rounds 40] [--threads 1]

ResNet-56 and others on random images of the size of CIFAR's and of digits, float32, and bf16 where the
processor has it. Each net is trained by `ds.fit`'s own stepper on one batch: each round takes a step that is
recorded, its row written, and one that is not, in an order that changes from round to round, so that a noisy
machine is equally noisy to both. The clock is the process's processor time, to which other work on the machine
adds little. A run records one step in `LEAST`, or fewer: the median over rounds of the paired difference, by so
many steps, is the dearest that "auto" can be. It goes to `results/flow-cost-<cpu>.md`. Exit code 1 past 3%.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from hardware import processor

import deepskip as ds
from deepskip.data.batches import Batch
from deepskip.training.distributed import World
from deepskip.training.flow import LEAST, ROWS, Flow
from deepskip.training.precision import Precision, has_bf16
from deepskip.training.recipe import Recipe
from deepskip.training.rundir import RunFolder
from deepskip.training.stepper import Stepper
from deepskip.training.way import Way

MOST = 3.0  # percent of the training time


class Task(NamedTuple):
    """A net on images."""

    name: str
    spec: ds.Spec
    batch: int
    precision: Precision


class Cost(NamedTuple):
    """Seconds of a step without recording; the cost in percent, median over the pairs and its 95% interval."""

    task: Task
    step: float
    percent: float
    low: float
    high: float


def tasks() -> list[Task]:
    """Return what is measured here."""
    cifar = ds.zoo.get("resnet56_cifar")
    digits = cifar.replace(input=(1, 8, 8))
    found = [
        Task("ResNet-56, 32 px", cifar, 64, "float32"),
        Task("ResNet-56, digits", digits, 128, "float32"),
        Task("plain 56, digits", digits.plain(), 128, "float32"),
        Task("ResNet-218, digits", ds.zoo.get("resnet_cifar", depth=218, input=(1, 8, 8)), 128, "float32"),
    ]
    return found + ([Task("ResNet-56, 32 px", cifar, 64, "bf16")] if has_bf16(torch.device("cpu")) else [])


def measure(task: Task, rounds: int, folder: RunFolder) -> Cost:
    """Return what one recorded step in `LEAST` costs, in pairs of steps."""
    way = Way(precision=task.precision)
    net = way.prepare(ds.build(task.spec)).train()
    channels, size, _ = task.spec.input
    mean = (0.5,) * channels
    prepared = ds.Preprocessing(
        size=size, resize=size, colour="RGB" if channels == 3 else "L", mean=mean, std=mean
    )
    stepper = Stepper(net, prepared, Recipe(batch=task.batch), way, World(), seed=0, weights=None)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (task.batch, *task.spec.input), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, task.spec.classes, (task.batch,), generator=generator)
    batch = Batch(images, labels, total=task.batch)
    flow = Flow(net, LEAST, rounds * LEAST)
    ratios, usual = [], []
    for number in range(-1, rounds):
        seconds = {}
        for recording in (True, False) if number % 2 else (False, True):
            started = time.process_time()
            stepper.step(batch, number + 1, 1e-3, flow if recording else None)
            if rows := flow.drain():
                folder.add_flow(rows, flow.blocks)
            seconds[recording] = time.process_time() - started
        if number >= 0:  # the first pair warms up
            ratios.append(100 * (seconds[True] / seconds[False] - 1) / LEAST)
            usual.append(seconds[False])
    ratios.sort()
    reach = 0.98 * math.sqrt(rounds)  # ranks around the median, by the normal approximation of the binomial
    low, high = max(math.floor(rounds / 2 - reach), 0), min(math.ceil(rounds / 2 + reach), rounds - 1)
    return Cost(task, statistics.median(usual), statistics.median(ratios), ratios[low], ratios[high])


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for i, task in enumerate(tasks()):
            place = Path(folder, str(i))
            place.mkdir()
            costs.append(measure(task, given.rounds, RunFolder(place)))
            sys.stderr.write(json.dumps(costs[-1]._replace(task=task.name)._asdict()) + "\n")  # type: ignore[arg-type]
    name = processor()
    worst = max(cost.percent for cost in costs)
    rows = [
        f"| {c.task.name} | {c.task.precision} | {c.task.batch} | {1000 * c.step:.0f} | {c.percent:+.1f} "
        f"| {c.low:+.1f} to {c.high:+.1f} |"
        for c in costs
    ]
    said = (
        f"{name}, {given.threads} thread{'s' if given.threads > 1 else ''}, torch {torch.__version__}; "
        f"`python benchmarks/flow_cost.py`. One step in {LEAST} recorded and written, the dearest that `--flow "
        f"auto` can be (a run of more than {ROWS * LEAST} steps records fewer), against none: median over "
        f"{given.rounds} pairs of steps, and its 95% interval, in processor time. At most {MOST:.0f}% "
        "is wanted."
    )
    lines = (
        "# What recording how signals flow costs",
        "",
        said,
        "",
        "| net | precision | batch | ms a step | cost, % of the training time | 95% interval |",
        "|---|---|--:|--:|--:|--:|",
        *rows,
    )
    path = given.out / f"flow-cost-{name}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(path.read_text(encoding="utf-8"))
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
