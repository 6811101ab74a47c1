"""CIFAR-10 by the paper's recipe: ResNets trained for 64,000 steps, several seeds, beside table 6.

    DEEPSKIP_DATA=FOLDER python benchmarks/paper_cifar.py [--nets resnet20_cifar,resnet56_cifar] [--seeds 3]

Recipe `he2015_cifar` (He et al. 2015, arXiv:1512.03385, §4.2) on all 50,000 training images; the error is the
last epoch's on the 10,000 test images, which decide nothing. Runs share the GPU, `--together` at a time (on a
processor one), each a process of its own with a run folder in `--runs`, which goes on where it was when the
script is started again; with `--seconds` the script ends in time, and the table has what is done. Writes
`results/paper-cifar10-<hardware>.md`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from hardware import graphics, processor

import deepskip as ds
from deepskip.training.recipe import RECIPES
from deepskip.training.rundir import read_rows
from deepskip.training.way import Way, usual

TABLE_6 = {
    "resnet20_cifar": 8.75,
    "resnet32_cifar": 7.51,
    "resnet44_cifar": 7.17,
    "resnet56_cifar": 6.97,
    "resnet110_cifar": 6.43,
}


def one(net: str, seed: int, folder: Path, way: Way, max_steps: int | None) -> None:
    """Train one net to its end, or on from where it was."""
    data = ds.data.open("cifar10")
    recipe = RECIPES["he2015_cifar"]
    recipe = recipe if max_steps is None else recipe.replace(max_steps=max_steps)
    spec = ds.zoo.get(net, input=data.input, classes=len(data.classes))
    for _ in ds.fit(ds.build(spec, seed), data, recipe, out=folder, seed=seed, way=way, resume=True):
        pass


def fast() -> Way:
    """Return the way to compute that is good for a small net and a long training."""
    if torch.cuda.is_available():
        return Way(precision="bf16", replay=True)
    return usual(torch.device("cpu"), 32).replace(compile="whole")


def main() -> int:
    """Train what is not trained and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="resnet20_cifar,resnet56_cifar")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--together", type=int, default=3 if torch.cuda.is_available() else 1)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--way", default=fast().to_json(), help="a way to compute, as JSON")
    parser.add_argument("--max-steps", type=int, help="end earlier: for a try")
    parser.add_argument("--runs", type=Path, default=Path("runs/paper-cifar10"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        net, seed = given.one.split(":")
        one(net, int(seed), given.runs / f"{net}-{seed}", Way.from_json(given.way), given.max_steps)
        return 0
    given.runs.mkdir(parents=True, exist_ok=True)
    waiting = [(net, seed) for net in given.nets.split(",") for seed in range(given.seeds)]
    running: dict[tuple[str, int], subprocess.Popen[bytes]] = {}
    until = time.monotonic() + given.seconds
    while (waiting or running) and time.monotonic() < until:
        while waiting and len(running) < given.together:
            net, seed = waiting.pop(0)
            running[net, seed] = subprocess.Popen([sys.executable, *sys.argv, f"--one={net}:{seed}"])
        time.sleep(0.5)
        for key in [key for key, process in running.items() if process.poll() is not None]:
            process = running.pop(key)
            print(*key, "ended with", process.returncode, flush=True)
    for process in running.values():
        process.terminate()
    for process in running.values():
        process.wait()
    name = graphics() if torch.cuda.is_available() else processor()
    path = given.out / f"paper-cifar10-{name}.md"
    path.write_text("\n".join(table(given)) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))
    return 0


def table(given: argparse.Namespace) -> list[str]:
    """Return the lines of the file."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    way = Way.from_json(given.way)
    how = f"{way.precision}, compiled: {way.compile}, " + (
        f"recorded steps: {way.replay}" if torch.cuda.is_available() else f"{way.threads} threads"
    )
    lines = [
        "# CIFAR-10 by the paper's recipe",
        "",
        f"{where}, {how}; torch {torch.__version__}. Written by `benchmarks/paper_cifar.py`, which says what",
        "is done. Test error in percent at the last epoch, mean ± standard deviation over seeds; none is left",
        "out that ended.",
        "",
        "| net | n | test error | each | train error | table 6 | minutes each, together |",
        "|---|--:|---|---|---|--:|--:|",
    ]
    for net in given.nets.split(","):
        rows = ended(net, given)
        if not rows:
            lines.append(f"| {net} | 0 | not ended | | | {TABLE_6.get(net, '')} | |")
            continue
        errors, train = ([row[key] for row in rows] for key in ("val_error", "train_error"))
        minutes = statistics.mean(row["seconds"] for row in rows) / 60
        each = ", ".join(f"{error:.2f}" for error in errors)
        cells = (net, len(rows), spread(errors), each, spread(train), TABLE_6.get(net, ""), f"{minutes:.1f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def ended(net: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the last epoch's row of every run of the net that is over, seed by seed."""
    found = []
    for seed in range(given.seeds):
        folder = given.runs / f"{net}-{seed}"
        rows = read_rows(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
        model = ds.load(folder) if rows else None
        if model and model.header.provenance["step"] == model.header.provenance["steps"]:
            found.append(rows[-1])
    return found


def spread(values: list[float]) -> str:
    """Return mean ± standard deviation."""
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
