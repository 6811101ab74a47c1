"""Milliseconds a training step on a GPU, by way: computed as asked, recorded and replayed, compiled.

    python benchmarks/gpu_steps.py [--nets resnet20_cifar,resnet56_cifar] [--batch 128] [--seconds 2]

Steps are those of `ds.fit`, on one batch of random bytes in pinned memory, in bf16. *CPU* is what Python needs
to ask for a step: where it is more than the step, the GPU waits. *First* is the time to the eighth step,
compilation included. Writes `results/gpu-steps-<gpu>.md`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from hardware import graphics

import deepskip as ds
from deepskip.data.batches import Batch
from deepskip.training.distributed import World
from deepskip.training.recipe import Recipe
from deepskip.training.stepper import Stepper
from deepskip.training.way import Way

GPU = torch.device("cuda")
USUAL = Way(precision="bf16")
WAYS = (
    USUAL,
    USUAL.replace(replay=True),
    USUAL.replace(compile="whole"),
    USUAL.replace(compile="whole", replay=True),
)
WARM = 8  # steps
TURN = 16  # steps between looks at the clock; as many as between looks at the loss


def row(net_name: str, way: Way, batch: int, seconds: float) -> str:
    """Return the table's line for a net trained in a way."""
    spec = ds.zoo.get(net_name)
    size = spec.input[1]
    preprocessing = ds.Preprocessing(size=size, resize=size, colour="RGB", mean=(0.5,) * 3, std=(0.25,) * 3)
    started = time.perf_counter()
    net = way.prepare(ds.build(spec, device=GPU)).train()
    stepper = Stepper(net, preprocessing, Recipe(batch=batch), way, World(), seed=0, weights=None)
    stepper.begin()
    images = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    given = Batch(images, torch.randint(0, 10, (batch,)), total=batch).pinned()
    for number in range(WARM):
        stepper.step(given, number, 1e-3)
    torch.cuda.synchronize()
    first, steps, started = time.perf_counter() - started, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(TURN):
            stepper.step(given, steps, 1e-3)
            steps += 1
    torch.cuda.synchronize()
    step, started = (time.perf_counter() - started) / steps, time.perf_counter()
    for _ in range(TURN - 1):  # after a step that was looked at, and before the next one that is
        stepper.step(given, steps, 1e-3)
    asking = (time.perf_counter() - started) / (TURN - 1)
    cells = (
        net_name,
        str(way),
        f"{1e3 * step:.2f}",
        f"{batch / step:,.0f}",
        f"{1e3 * asking:.2f}",
        f"{first:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="resnet20_cifar,resnet56_cifar,resnet110_cifar")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    lines = [
        "# What a training step costs on a GPU",
        "",
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; `benchmarks/gpu_steps.py`, which says",
        f"what is measured. Batch {given.batch}.",
        "",
        "| net | way | ms a step | images/s | CPU, ms | first, s |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for net in given.nets.split(","):
        for way in WAYS:
            lines.append(row(net, way, given.batch, given.seconds))
            print(lines[-1], flush=True)
    (given.out / f"gpu-steps-{graphics()}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
