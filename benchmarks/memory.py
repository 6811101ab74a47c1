"""Peak memory and time of a training step against depth, for each thing that a step can keep.

    python benchmarks/memory.py [--depths 56,110,218,434,1202] [--batch 128]

CIFAR nets at 32 by 32 pixels, float32, SGD with momentum; each cell in a process of its own. *Peak* is the most
memory that the process held in a step, less what it held before it, with gradients and momentum already there.
*Time* is a step's, over the same net's that stores everything. The exponents are those of a power law through
the peaks. Writes `results/memory-<cpu>.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from hardware import processor
from torch.nn import functional

import deepskip as ds
from deepskip.training.way import Way

SERIES = (
    ("resnet_cifar", "store"),
    ("resnet_cifar", "recompute"),
    ("revnet_cifar", "store"),
    ("revnet_cifar", "reversible"),
)


def step(family: str, memory: str, depth: int, batch: int) -> dict[str, float]:
    """Return the peak in bytes and the seconds of the second step at `batch` images."""
    net = ds.build(ds.zoo.get(family, depth=depth))
    way = Way(memory=memory)  # type: ignore[arg-type]
    way.prepare(net)
    call = way.sparing(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)
    peak = seconds = 0.0
    for images in (2, batch, batch):
        pixels = torch.randn(images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(10, (images,))
        before = psutil.Process().memory_info().rss
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
        started = time.perf_counter()
        optimiser.zero_grad(set_to_none=False)
        functional.cross_entropy(call(pixels), labels).backward()
        optimiser.step()
        seconds = time.perf_counter() - started
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+)", status)
        assert found
        if images == batch:
            peak = max(peak, int(found[1]) * 1024 - before)
    return {"peak": peak, "seconds": seconds}


def slope(points: list[tuple[int, float]]) -> float:
    """Return the exponent of the power law through the points, by least squares of the logarithms."""
    xs, ys = ([math.log(value) for value in column] for column in zip(*points, strict=True))
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def main() -> int:
    """Measure every cell and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", default="56,110,218,434,1202")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--cell", nargs=3, metavar=("FAMILY", "MEMORY", "DEPTH"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        family, memory, depth = given.cell
        sys.stdout.write(json.dumps(step(family, memory, int(depth), given.batch)) + "\n")
        return 0
    found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for wanted in map(int, given.depths.split(",")):
        for family, memory in SERIES:
            depth = wanted if family == "resnet_cifar" else (wanted - 2) // 12 * 12 + 2
            cell = ["--cell", family, memory, str(depth), "--batch", str(given.batch)]
            run = subprocess.run([sys.executable, __file__, *cell], capture_output=True, text=True)
            row = json.loads(run.stdout) if run.returncode == 0 else {}
            print(family, memory, depth, row or run.stderr.strip().splitlines()[-1:], flush=True)
            if row:
                found.setdefault((family, memory), {})[depth] = row
    path = given.out / f"memory-{processor()}.md"
    path.write_text("\n".join(table(found, given.batch)) + "\n", encoding="utf-8")
    print(path)
    return 0


def table(found: dict[tuple[str, str], dict[int, dict[str, float]]], batch: int) -> list[str]:
    """Return the lines of the file."""
    lines = [
        "# Memory and time of a training step against depth",
        "",
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32, batch {batch}.",
        "Written by `python benchmarks/memory.py`, which says what is measured.",
        "",
        "| net | keeps | layers | peak, MiB | seconds | time over store |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for (family, memory), rows in found.items():
        for depth, row in rows.items():
            stored = found[family, "store"].get(depth)
            ratio = f"{row['seconds'] / stored['seconds']:.2f}" if stored else ""
            peak, seconds = f"{row['peak'] / 2**20:,.0f}", f"{row['seconds']:.2f}"
            lines.append(f"| {family} | {memory} | {depth} | {peak} | {seconds} | {ratio} |")
    lines += ["", "Exponent of the peak against the number of layers:", ""]
    for (family, memory), rows in found.items():
        if len(rows) > 1:
            exponent = slope([(depth, row["peak"]) for depth, row in rows.items()])
            lines.append(f"- {family}, {memory}: {exponent:.2f}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
