"""Law 7 by force: a run killed with -9 at random moments ends bit for bit as one that was never killed.

    python benchmarks/kills.py [--kills 200] [--seed 1]

What the test does 20 times (`tests/laws/killing.py`), more often: a state after every step, every setting of
the recipe on, and at the end weights and metrics compared. Writes `results/kills-<cpu>.md`. Exit code 1 when a
bit differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from hardware import processor
from safetensors.torch import load_file

from deepskip.training.recipe import Recipe
from deepskip.training.rundir import read_rows

KILLER = Path(__file__).parents[1] / "tests" / "laws" / "killing.py"
RECIPE = Recipe(
    batch=240,
    lr=0.05,
    hold_lr=0.01,
    hold_error=95.0,
    ema=0.9,
    mixup=0.4,
    cutmix=1.0,
    erase=0.5,
    trivial=True,
    accumulate=2,
    clip=1.0,
    label_smoothing=0.1,
    class_weights="balanced",
)
TIMES = ("seconds", "images_per_second")


def main() -> int:
    """Kill, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    recipe = RECIPE.replace(epochs=max(4, given.kills))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(given.kills), str(given.seed), recipe.to_json(), "1"]
        done = subprocess.run(
            [sys.executable, str(KILLER), *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        kills = int(done.stdout)
        whole, found = (load_file(Path(folder, name, "model.safetensors")) for name in ("whole", "run"))
        different = [name for name, tensor in whole.items() if not torch.equal(tensor, found[name])]
        rows, again = (read_rows(Path(folder, name, "metrics.jsonl")) for name in ("whole", "run"))
    same = [{k: v for k, v in row.items() if k not in TIMES} for row in rows] == [
        {k: v for k, v in row.items() if k not in TIMES} for row in again
    ]
    verdict = "every bit equal" if same and not different else f"DIFFERENT: {different or 'metrics'}"
    path = given.out / f"kills-{processor()}.md"
    lines = (
        "# Killed and resumed",
        "",
        f"{processor()}, one thread, torch {torch.__version__}; `python benchmarks/kills.py`.",
        "",
        "| kills | steps of the run | tensors compared | epochs' metrics compared | verdict |",
        "|--:|--:|--:|--:|---|",
        f"| {kills} | {recipe.epochs * 6} | {len(found)} | {len(rows)} | {verdict} |",
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(), f"{time.perf_counter() - started:.0f} s")
    return int(bool(different) or not same)


if __name__ == "__main__":
    sys.exit(main())
