"""Where a training step's time goes, and how far it is from this machine's matrix rate.

    python benchmarks/step_profile.py [--only resnet18]

Trains a few steps of each net of `train_speed.py` on random images, in the way that `deepskip train` measures
(uncompiled, so that the parts can be told apart), under PyTorch's profiler. Times are of operators by
themselves, without what they call; *arithmetic* is 2 × 3 × MACs × images a second: a multiplication and an
addition for each MAC, forward once and backward twice. The matrix rate is that of a product of two 4,096 ×
4,096 matrices, before and after each net, the better of the two. Goes to `results/step-profile-<cpu>.md`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from hardware import processor
from torch.profiler import ProfilerActivity, profile

import deepskip as ds
from deepskip.data.batches import Batch
from deepskip.describe.preprocessing import Preprocessing
from deepskip.training.distributed import World
from deepskip.training.heap import kept_for
from deepskip.training.stepper import Stepper
from deepskip.training.tuning import choose

CPU = torch.device("cpu")
NETS = (("resnet20_cifar", 32, 128), ("resnet18", 128, 32), ("resnet50", 128, 16))
STEPS = 8
PARTS = {
    "convolutions, backward": ("convolution_backward",),
    "convolutions, forward": ("mkldnn_convolution", "convolution", "conv2d", "thnn_conv2d"),
    "normalisers": ("batch_norm",),
    "ReLU": ("threshold_backward", "clamp_min", "relu"),
    "sums of branch and shortcut": ("aten::add", "aten::add_"),
    "casts and copies": ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat"),
    "pooling": ("pool", "aten::mean"),
    "optimiser": ("_fused_sgd", "_foreach"),
    "memory": ("aten::empty", "aten::zeros", "aten::fill_", "aten::zero_"),
}
TYPES = {"bf16": torch.bfloat16, "float32": torch.float32}


def matrix_rate(kind: torch.dtype) -> float:
    """Return FLOP/s of a large matrix product."""
    a, b = torch.randn(4096, 4096).to(kind), torch.randn(4096, 4096).to(kind)
    best = float("inf")
    for _ in range(4):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * 4096**3 / best


def part(operator: str) -> str:
    """Return the part of a step that an operator belongs to."""
    for name, words in PARTS.items():
        if any(operator == word if word.startswith("aten::") else word in operator for word in words):
            return name
    return "the rest"


def measured(name: str, size: int, batch: int) -> list[str]:
    """Return the lines of one net."""
    spec = ds.zoo.get(name, input=(3, size, size), classes=10)
    recipe = ds.Recipe(batch=batch, lr=0.01)
    way = choose(spec, recipe, 1000, CPU).way.replace(compile="none")
    rate = matrix_rate(TYPES[way.precision])
    net = ds.build(spec)
    way.prepare(net)
    preprocessing = Preprocessing(size=size, resize=size, mean=(0.5,) * 3, std=(0.25,) * 3)
    stepper = Stepper(net, preprocessing, recipe, way, World(), seed=0, weights=None)
    stepper.begin()
    with kept_for(spec, batch, way, CPU):
        return timed(stepper, spec, batch, rate)


def timed(stepper: Stepper, spec: ds.Spec, batch: int, rate: float) -> list[str]:
    """Return the lines of a net whose matrix rate was `rate` before."""
    way, size = stepper.way, spec.input[1]
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, size, size, 3), generator=generator, dtype=torch.uint8).permute(
        0, 3, 1, 2
    )
    labels = torch.randint(10, (batch,), generator=generator)
    given = Batch(images, labels, total=batch)
    for i in range(3):
        stepper.step(given, i, 0.01)
    started = time.perf_counter()
    for i in range(STEPS):
        stepper.step(given, i, 0.01)
    bare = (time.perf_counter() - started) / STEPS
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for i in range(STEPS):
            stepper.step(given, i, 0.01)
    rate = max(rate, matrix_rate(TYPES[way.precision]))
    spent: dict[str, float] = defaultdict(float)
    for event in found.key_averages():
        spent[part(event.key)] += event.self_cpu_time_total
    total = sum(spent.values())
    arithmetic = 6 * ds.count(spec).macs * batch / bare
    shares = sorted(spent.items(), key=lambda item: -item[1])
    return [
        f"## {spec.name}, {size} px, batch {batch}",
        "",
        (
            f"{way}: {bare * 1e3:.0f} ms a step, {batch / bare:,.0f} images/s, "
            f"{arithmetic / 1e9:,.0f} GFLOP/s of arithmetic, "
            f"{100 * arithmetic / rate:.0f}% of the matrix rate ({rate / 1e9:,.0f} GFLOP/s in "
            f"{way.precision})."
        ),
        "",
        "| part | share of the step |",
        "|---|--:|",
        *(f"| {name} | {100 * seconds / total:.1f}% |" for name, seconds in shares),
        "",
    ]


def main() -> int:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measure the nets whose name has this")
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    lines = [
        "# Where a training step's time goes",
        "",
        f"{processor()}, {torch.get_num_threads()} threads; torch {torch.__version__}. Written by",
        "`benchmarks/step_profile.py`, which says what is counted where.",
        "",
    ]
    for net in NETS:
        if given.only in net[0]:
            lines += measured(*net)
            print("\n".join(lines[-16:]), flush=True)
    path = given.out / f"step-profile-{processor()}.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
