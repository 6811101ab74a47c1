"""Whether the faster loop ends as accurate: deepskip's beside torchvision's tuned by hand.

Run with a Python that has the peers:

    PYTHONPATH=src python benchmarks/train_accuracy.py --cifar FOLDER [--epochs 4] [--seeds 3]

ResNet-20 on CIFAR-10. Both begin from the same initial values and follow the same recipe (SGD with Nesterov
momentum, one cycle up to 0.1, the same weight decay on the same tensors, crops and mirroring) with the same
numbers, in bf16 where the processor has it: `tuned` by torchvision's transforms on Pillow images, PyTorch's
DataLoader and a loop of a few lines, `deepskip` by `ds.fit`. They differ in the padding of crops (black there,
the mean colour here) and in the last, smaller batch of an epoch (left out there). Validation error of the last
epoch, over seeds, and seconds, one loop after the other. Goes to `results/train-accuracy-<cpu>.md`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import torch
import torchvision
from hardware import processor
from torch.nn import functional
from train_speed import CPU, TASKS, torchvision_loader

import deepskip as ds
from deepskip.data.batches import steps_per_epoch
from deepskip.training.distributed import World
from deepskip.training.events import Finished
from deepskip.training.optimiser import make_optimiser
from deepskip.training.precision import has_bf16
from deepskip.training.schedule import learning_rate
from deepskip.training.validation import score_together
from deepskip.training.way import usual

TASK = TASKS[0]


def tuned(folder: Path, data: ds.data.Dataset, recipe: ds.Recipe, seed: int) -> tuple[float, float]:
    """Return the validation error and the seconds of training of the hand-tuned loop."""
    torch.manual_seed(seed)
    net = ds.build(ds.zoo.get(TASK.net), seed).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(net, recipe)
    loader = torchvision_loader(TASK, folder)
    steps, step, half = recipe.epochs * len(loader), 0, has_bf16(CPU)
    mean, std = (
        torch.tensor(part).view(1, 3, 1, 1) for part in (data.preprocessing.mean, data.preprocessing.std)
    )
    started = time.perf_counter()
    for _ in range(recipe.epochs):
        net.train()
        for images, labels in loader:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, step, steps)
            images = (images * 0.25 + 0.5 - mean) / std  # the loader normalises by 0.5 and 0.25
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = net(images.to(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
    seconds = time.perf_counter() - started
    return score_together(net, data, World()).error, seconds


def ours(data: ds.data.Dataset, recipe: ds.Recipe, seed: int) -> tuple[float, float]:
    """Return the validation error and the seconds of training of `ds.fit`."""
    net, way = ds.build(ds.zoo.get(TASK.net), seed), usual(CPU, TASK.size)
    started = time.perf_counter()
    events = ds.fit(net, data, recipe, seed=seed, way=way)
    last = [event for event in events if isinstance(event, Finished)][-1]
    return last.val_error, time.perf_counter() - started


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="the folder with cifar-10-batches-bin/")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    os.environ["DEEPSKIP_DATA"] = str(given.cifar)
    data = ds.data.open("cifar10")
    recipe = ds.Recipe(epochs=given.epochs, batch=TASK.batch)
    assert steps_per_epoch(len(data.train), recipe.batch) > 300
    found: dict[str, list[tuple[float, float]]] = {"tuned": [], "deepskip": []}
    for seed in range(given.seeds):
        found["tuned"].append(tuned(given.cifar, data, recipe, seed))
        found["deepskip"].append(ours(data, recipe, seed))
        print(seed, {name: runs[-1] for name, runs in found.items()}, flush=True)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    lines = f"""# As accurate as the loop it is faster than

ResNet-20 on CIFAR-10, {given.epochs} epochs, batch {TASK.batch}; {processor()}, {versions}.
Written by `benchmarks/train_accuracy.py`, which says what the loops are. Validation error of the last epoch in
percent, mean ± sd over {given.seeds} seeds; seconds with the scoring after epochs, which the tuned loop lacks.

| loop | validation error, % | each seed | seconds |
|---|--:|---|--:|""".splitlines()
    for name, runs in found.items():
        errors = [error for error, _ in runs]
        spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
        each = ", ".join(f"{error:.2f}" for error in errors)
        seconds = statistics.median(seconds for _, seconds in runs)
        lines.append(f"| {name} | {statistics.fmean(errors):.2f} ± {spread:.2f} | {each} | {seconds:.0f} |")
    path = given.out / f"train-accuracy-{processor()}.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
