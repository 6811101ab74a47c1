"""Peak memory and time of a training step against depth, for each thing that a step can keep.

    python benchmarks/memory.py [--depths 56,110,218,434,1202] [--batch 128]

CIFAR nets at 32 by 32 pixels, float32, SGD with momentum; each cell in a process of its own. *Peak* is the most
memory that the process held in two steps, less what it held before them, with gradients and momentum already
there and nothing else: what an earlier step had freed was given back. *Time* is the second step's, over that of
the same net that stores everything. The exponents are those of a power law through the peaks. Writes
`results/memory-<cpu>.md` and draws the peaks, `results/memory-<cpu>.svg`.
"""

from __future__ import annotations

import argparse
import ctypes
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
from deepskip.figures.colour import shade
from deepskip.figures.labels import End, label_ends
from deepskip.figures.style import MARKERS, Picture, heading, language, panel, write
from deepskip.training.heap import kept_for
from deepskip.training.way import Way

SERIES = (
    ("resnet_cifar", "store"),
    ("resnet_cifar", "recompute"),
    ("revnet_cifar", "store"),
    ("revnet_cifar", "reversible"),
)


def step(family: str, memory: str, depth: int, batch: int) -> dict[str, float]:
    """Return the peak in bytes of two steps at `batch` images, and the seconds of the second."""
    spec = ds.zoo.get(family, depth=depth)
    way = Way(memory=memory)  # type: ignore[arg-type]
    with kept_for(spec, batch, way, torch.device("cpu")):
        return _steps(way, way.prepare(ds.build(spec)), batch)


def _steps(way: Way, net: ds.Network, batch: int) -> dict[str, float]:
    call = way.sparing(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)
    storing = way.memory == "store"
    for parameter in () if storing else net.parameters():
        parameter.grad = torch.zeros_like(parameter)  # as ds.fit does
    before = seconds = 0.0
    for images in (2, batch, batch):
        pixels = torch.randn(images, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(10, (images,))
        started = time.perf_counter()
        optimiser.zero_grad(set_to_none=storing)
        functional.cross_entropy(call(pixels), labels).backward()
        optimiser.step()
        seconds = time.perf_counter() - started
        if images == 2:
            ctypes.CDLL(None).malloc_trim(0)
            before = psutil.Process().memory_info().rss
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found
    return {"peak": int(found[1]) * 1024 - before, "seconds": seconds}


Found = dict[tuple[str, str], dict[int, dict[str, float]]]
"""Peak and seconds by net and what is kept, and by depth."""


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
    found: Found = {}
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
    print(write(drawn(found, given.batch), path.with_suffix(".svg"), "python benchmarks/memory.py"))
    return 0


@language()
def drawn(found: Found, batch: int) -> Picture:
    """Return the peaks against depth, both logarithmic: a power law is a line, and its exponent the slope."""
    exponents = {
        series: slope([(depth, row["peak"]) for depth, row in rows.items()])
        for series, rows in found.items()
        if len(rows) > 1
    }
    picture = Picture(
        (6.0, 3.7),
        title="Peak memory against depth",
        caption=f"Peak memory of a training step at batch {batch}, 32 by 32 pixels, float32, above what the "
        "process held before it, by number of layers (both logarithmic).",
        alt="A line chart: peak memory against depth. "
        + " ".join(f"{net}, {kept}: to the power {e:.2f}." for (net, kept), e in exponents.items()),
    )
    axes = panel(picture, 0.62, 0.5, 3.35, 2.5)
    heading(axes, "What a step keeps", "peak, MiB")
    axes.set_xscale("log")
    axes.set_yscale("log")
    depths = sorted({depth for (net, _), rows in found.items() if net == "resnet_cifar" for depth in rows})
    axes.set_xticks(depths, [f"{depth:,}" for depth in depths])
    axes.set_yticks([100, 1000, 10_000], ["100", "1,000", "10,000"])
    axes.minorticks_off()
    peaks = [row["peak"] / 2**20 for rows in found.values() for row in rows.values()]
    axes.set_ylim(min(100, *peaks), 1.2 * max(peaks))
    axes.set_xlim(min(depth for rows in found.values() for depth in rows) / 1.1, 1.1 * max(depths))
    axes.set_xlabel("layers")
    ends = []
    for (net, kept), rows in found.items():
        if (net, kept) == ("revnet_cifar", "store"):
            continue  # on the other net's line
        colour = shade("plain" if kept == "store" else "residual", 0.85 if kept == "reversible" else 0.45)
        xs, ys = list(rows), [row["peak"] / 2**20 for row in rows.values()]
        axes.plot(xs, ys, color=colour, clip_on=False, **MARKERS["residual"])
        exponent = f", depth to the {exponents[net, kept]:.2f}" if (net, kept) in exponents else ""
        ends.append(End(xs[-1], ys[-1], f"{kept}{exponent}", colour))
    label_ends(axes, ends)
    return picture


def table(found: Found, batch: int) -> list[str]:
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
