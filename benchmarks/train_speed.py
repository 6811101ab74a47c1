"""Training speed, end to end with data: deepskip's loop beside torchvision's and timm's, in one run.

Run with a Python that has the peers, on CIFAR-10 and a folder of photographs (`train/`, `val/`):

    PYTHONPATH=src python benchmarks/train_speed.py --cifar FOLDER --photos FOLDER [--only resnet18]

Contenders train the same net on the same images at the same batch, with SGD and momentum:

- `torchvision`: its reference loop's defaults: contiguous float32, its transforms on Pillow images, its data
  sets, PyTorch's DataLoader with a worker for each core;
- `timm`: the same with timm's loader and transforms (photographs only);
- `tuned`: torchvision's loop tuned by hand: channels last, bf16 where the processor has it, fused SGD;
- `deepskip`: `ds.fit` in the way that `deepskip train` measures, from its store, second epoch on.

Each in a process of its own, they take turns: a few steps each, several rounds, so that a noisy machine is
equally noisy to all; between turns all are silent, and the first steps of a turn, whose batches were loaded
before, are not timed. The medians over rounds and their ratios go to `results/train-speed-<cpu>.md`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from hardware import processor
from timm.data import create_loader, create_transform
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

import deepskip as ds
from deepskip.data.batches import steps_per_epoch
from deepskip.training.events import Stepped
from deepskip.training.precision import has_bf16
from deepskip.training.tuning import choose

CPU = torch.device("cpu")
WORKERS = os.cpu_count() or 1
SETTLE = 3.0  # seconds before a turn, in which the loaders of the turn before fill up and fall silent
UNTIMED = 2 * WORKERS + 1  # batches that a DataLoader holds ready, and the one in work


@dataclass(frozen=True)
class Task:
    """A net on a data set."""

    name: str
    net: str
    data: str
    size: int
    batch: int
    steps: int
    """Timed steps a turn."""


TASKS = (
    Task("ResNet-20, 32 px", "resnet20_cifar", "cifar", 32, 128, 12),
    Task("ResNet-18, 128 px", "resnet18", "photos", 128, 32, 8),
    Task("ResNet-50, 128 px", "resnet50", "photos", 128, 16, 8),
)


class Cifar(Dataset[Any]):
    """CIFAR-10's training images as torchvision gives them: Pillow images, from memory."""

    def __init__(self, folder: Path, transform: Callable[[Any], Any]) -> None:
        records = [
            np.fromfile(folder / "cifar-10-batches-bin" / f"data_batch_{i}.bin", np.uint8) for i in range(1, 6)
        ]
        rows = np.concatenate(records).reshape(-1, 3073)
        self.labels = rows[:, 0].astype(int).tolist()
        self.pixels = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def dataset(task: Task, folder: Path) -> ds.data.Dataset:
    """Return the task's images, as deepskip opens them."""
    return ds.data.open("cifar10") if task.data == "cifar" else ds.data.open(folder, size=task.size)


def peer_net(task: Task, classes: int) -> nn.Module:
    """Return torchvision's net; of the CIFAR net, which it has not, ours as a plain module."""
    if task.data == "photos":
        return getattr(torchvision.models, task.net)(weights=None, num_classes=classes)  # type: ignore[no-any-return]
    return ds.build(ds.zoo.get(task.net))


def torchvision_loader(task: Task, folder: Path) -> DataLoader[Any]:
    """Return the reference's loader: its transforms for training, a worker for each core."""
    tail = [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5,) * 3, (0.25,) * 3),
    ]
    if task.data == "cifar":
        data: Any = Cifar(folder, transforms.Compose([transforms.RandomCrop(32, padding=4), *tail]))
    else:
        crop = transforms.RandomResizedCrop(task.size, antialias=True)
        data = datasets.ImageFolder(str(folder / "train"), transforms.Compose([crop, *tail]))
    return DataLoader(
        data, task.batch, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True
    )


def timm_loader(task: Task, folder: Path) -> Any:
    """Return timm's loader with its own transforms, without its GPU prefetcher."""
    data = datasets.ImageFolder(str(folder / "train"))
    data.transform = create_transform(task.size, is_training=True, auto_augment=None)
    return create_loader(
        data, (3, task.size, task.size), task.batch, is_training=True, use_prefetcher=False, num_workers=WORKERS
    )


def peer(task: Task, loader: Any, *, tuned: bool, classes: int) -> Iterator[None]:
    """Train as the reference loops do; yield after every step."""
    net = peer_net(task, classes).train()
    if tuned:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    half = tuned and has_bf16(CPU)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4, fused=tuned)
    while True:
        for images, labels in loader:
            images = images.to(memory_format=torch.channels_last) if tuned else images
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = functional.cross_entropy(net(images), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
            yield


def ours(task: Task, data: ds.data.Dataset) -> Iterator[None]:
    """Train by `ds.fit`; yield after every step."""
    spec = ds.zoo.get(task.net, input=data.input, classes=len(data.classes))
    recipe = ds.Recipe(epochs=1000, batch=task.batch, lr=0.01, weight_decay=1e-4)
    steps = 30 * steps_per_epoch(len(data.train), task.batch)
    way = choose(spec, recipe, steps, CPU).way
    print(f"{task.name}: {way}", flush=True)
    for event in ds.fit(ds.build(spec), data, recipe, way=way, each_step=True):
        if isinstance(event, Stepped):
            yield


def contender(name: str, task: Task, folder: Path) -> Iterator[None]:
    """Return the steps of the contender called `name`."""
    data = dataset(task, folder)
    if name == "deepskip":
        return ours(task, data)
    loader = timm_loader(task, folder) if name == "timm" else torchvision_loader(task, folder)
    return peer(task, loader, tuned=name == "tuned", classes=len(data.classes))


def serve(name: str, task: Task, folder: Path, asked: Connection) -> None:
    """Take turns in a process of its own, as it would run: what one sets there is no help to another."""
    steps = contender(name, task, folder)
    while asked.recv():
        for _ in range(UNTIMED):
            next(steps)
        started = time.perf_counter()
        for _ in range(task.steps):
            next(steps)
        asked.send(task.batch * task.steps / (time.perf_counter() - started))
    steps.close()  # type: ignore[attr-defined]


def measure(task: Task, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return images/s of every turn of every contender."""
    names = ["torchvision", "tuned", "deepskip", *(["timm"] if task.data == "photos" else [])]
    found: dict[str, list[float]] = {name: [] for name in names}
    spawning = multiprocessing.get_context("spawn")
    asking = {}
    for name in names:
        asking[name], asked = spawning.Pipe()
        spawning.Process(target=serve, args=(name, task, folder, asked)).start()
    for turn in range(rounds + 1):
        # There and back again: a processor's matrix units slow down with use, and one turn weighs on the next.
        for name in names if turn % 2 else reversed(names):
            time.sleep(SETTLE)
            asking[name].send(True)
            rate = asking[name].recv()
            if turn:  # the first warms up
                found[name].append(rate)
        print(task.name, {name: f"{rates[-1]:.1f}" for name, rates in found.items() if rates}, flush=True)
    for connection in asking.values():
        connection.send(False)
    return found


def pipeline(task: Task, data: ds.data.Dataset) -> float:
    """Return images/s of deepskip's data alone, one pass over the training images or 20 s of it."""
    from deepskip.data.batches import train_batches
    from deepskip.data.variation import Variation

    seen, started = 0, time.perf_counter()
    variation = Variation(augment=data.augment)
    for batch in train_batches(data.train, data.preprocessing, variation, task.batch, 0, 1):
        seen += len(batch.labels)
        if time.perf_counter() - started > 20:
            break
    return seen / (time.perf_counter() - started)


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="the folder with cifar-10-batches-bin/")
    parser.add_argument("--photos", type=Path, required=True, help="a folder with train/ and val/")
    parser.add_argument("--only", default="", help="measure the nets whose name has this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    os.environ["DEEPSKIP_DATA"] = str(given.cifar)
    lines = []
    for task in TASKS:
        if given.only in task.net:
            lines += measured(task, given.cifar if task.data == "cifar" else given.photos, given.rounds)
    path = given.out / f"train-speed-{processor()}.md"
    path.write_text("\n".join([*head(), *lines]) + "\n", encoding="utf-8")
    print(path)
    return 0


def measured(task: Task, folder: Path, rounds: int) -> list[str]:
    """Return the table's lines for one net."""
    found = measure(task, folder, rounds)
    alone = pipeline(task, dataset(task, folder))
    own = statistics.median(found["deepskip"])
    lines = []
    for name, rates in found.items():
        ratios = [ours / theirs for ours, theirs in zip(found["deepskip"], rates, strict=True)]
        spread = f"{min(rates):,.1f} to {max(rates):,.1f}"
        ratio = f"{statistics.median(ratios):.2f}"
        lines.append(
            f"| {task.name}, {task.batch} | {name} | {statistics.median(rates):,.1f} | {spread} | {ratio} |"
        )
    return [
        *lines,
        f"| {task.name}, {task.batch} | deepskip's data | {alone:,.0f} | | {alone / own:.1f} × training |",
    ]


def head() -> list[str]:
    """Return the lines above the table."""
    half, threads = "bf16" if has_bf16(CPU) else "no bf16", torch.get_num_threads()
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in (torch, torchvision, timm))
    text = f"""# Training speed, end to end

{processor()}, {WORKERS} cores, {half}, {threads} threads; {versions}.
Written by `benchmarks/train_speed.py`, which says what the contenders are. *Ratio* is deepskip's rate
over the contender's, median over turns of the same round.

| net, batch | loop | images/s | least to most | ratio |
|---|---|--:|---|--:|"""
    return text.splitlines()


if __name__ == "__main__":
    sys.exit(main())
