"""Training speed on a GPU: deepskip's steps beside timm's, ResNet-50 at 224 pixels, in one run.

    python benchmarks/gpu_speed.py [--photos FOLDER] [--batch 256] [--rounds 5]

Contenders train ResNet-50 with SGD and momentum at the same batch, on one GPU, in bf16 where float32 is not
said:

- `timm`: the step of timm's training script as it is with `--amp`: its net, loss and optimiser, contiguous
  images, the GPU awaited after every step;
- `timm, channels last`: the same with `--channels-last`;
- `timm, compiled`: that with `--torchcompile`;
- `deepskip`: the steps of `ds.fit` in the way that `deepskip train` measures for a long run;
- `deepskip, its store`: `ds.fit` itself on photographs (`--photos`: a folder with `train/` and `val/`), their
  pictures cut, resized and flipped on the way; the first steps of an epoch, which wait for the first batches,
  are not counted: ImageNet has 5,000 an epoch.

The others have one random batch that stays on the GPU; all have as many classes as the photographs. They take
turns in one process, several rounds; medians and ratios go to `results/gpu-speed-<gpu>.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from hardware import graphics
from timm.optim import create_optimizer_v2
from torch import nn

import deepskip as ds
from deepskip.data.batches import Batch
from deepskip.training.distributed import World
from deepskip.training.events import Stepped
from deepskip.training.recipe import Recipe
from deepskip.training.stepper import Stepper
from deepskip.training.tuning import choose
from deepskip.training.way import Way

GPU = torch.device("cuda")
SIZE = 224
WARM = 6  # steps before the first that count: compilation, and a recording
SKIPPED = 10  # of an epoch, of photographs: what is loaded ahead, and the wait for it
PUBLISHED = 2790  # images/s of an H100 SXM5, mixed precision, as NVIDIA publishes them


def peer(batch: int, classes: int, *, last: bool, compiled: bool) -> Callable[[], None]:
    """Return timm's step."""
    net: Any = timm.create_model("resnet50", num_classes=classes).to(GPU).train()
    images = torch.randn(batch, 3, SIZE, SIZE, device=GPU)
    labels = torch.randint(classes, (batch,), device=GPU)
    if last:
        net, images = (
            net.to(memory_format=torch.channels_last),
            images.contiguous(memory_format=torch.channels_last),
        )
    optimiser = create_optimizer_v2(net, opt="sgd", lr=0.01, weight_decay=1e-4, momentum=0.9)
    net = torch.compile(net) if compiled else net
    criterion = nn.CrossEntropyLoss()

    def step() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = criterion(net(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        torch.cuda.synchronize()

    return step


def ours(batch: int, classes: int, way: Way) -> Callable[[], None]:
    """Return the step that `ds.fit` takes, on a batch of bytes as its data give it."""
    spec = ds.zoo.get("resnet50", classes=classes)
    preprocessing = ds.Preprocessing(
        size=SIZE, resize=SIZE, colour="RGB", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    net = way.prepare(ds.build(spec, device=GPU)).train()
    recipe = Recipe(batch=batch, lr=0.01, weight_decay=1e-4)
    stepper = Stepper(net, preprocessing, recipe, way, World(), seed=0, weights=None)
    stepper.begin()
    images = torch.randint(0, 256, (batch, SIZE, SIZE, 3), dtype=torch.uint8, device=GPU).permute(0, 3, 1, 2)
    given = Batch(images, torch.randint(classes, (batch,), device=GPU), total=batch)
    taken = iter(range(10**9))
    return lambda: stepper.step(given, next(taken), 0.01)


def rate(step: Callable[[], None], batch: int, steps: int) -> float:
    """Return images/s of `steps` steps."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return batch * steps / (time.perf_counter() - started)


def on_photographs(data: ds.data.Dataset, batch: int, way: Way, seconds: float) -> Iterator[float]:
    """Yield images/s of `ds.fit`, epoch by epoch."""
    spec = ds.zoo.get("resnet50", input=data.input, classes=len(data.classes))
    recipe = Recipe(epochs=1000, batch=batch, lr=0.01, weight_decay=1e-4)
    full, began, started = len(data.train) // batch, time.monotonic(), 0.0
    events = ds.fit(ds.build(spec), data, recipe, device="cuda", way=way, each_step=True)
    with contextlib.closing(events):
        for event in events:
            if not isinstance(event, Stepped):
                continue
            place = (event.step - 1) % -(-len(data.train) // batch) + 1
            if place in (SKIPPED, full):
                torch.cuda.synchronize()
                now = time.perf_counter()
                if place == full and event.epoch > 1:
                    yield batch * (full - SKIPPED) / (now - started)
                    if time.monotonic() - began > seconds:
                        return
                started = now


def main() -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps a turn")
    parser.add_argument("--seconds", type=float, default=30, help="of training on photographs")
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    data = ds.data.open(given.photos, size=SIZE) if given.photos else None
    classes = len(data.classes) if data else 1000
    spec = ds.zoo.get("resnet50", classes=classes)
    found = choose(spec, Recipe(batch=given.batch), 450_000, GPU, again=True)
    for timed in found.timed:
        print(
            f"{given.batch / timed.step:8,.0f} images/s  {timed.way}, the first {timed.first:.1f} s", flush=True
        )
    contenders = {
        "timm": peer(given.batch, classes, last=False, compiled=False),
        "timm, channels last": peer(given.batch, classes, last=True, compiled=False),
        "timm, compiled": peer(given.batch, classes, last=True, compiled=True),
        "deepskip": ours(given.batch, classes, found.way),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for name, step in contenders.items():
        rate(step, given.batch, WARM)
        print(name, "is warm", flush=True)
    for turn in range(given.rounds):
        for name in contenders if turn % 2 else reversed(contenders):
            rates[name].append(rate(contenders[name], given.batch, given.steps))
        print({name: f"{each[-1]:,.0f}" for name, each in rates.items()}, flush=True)
    contenders.clear()
    torch.cuda.empty_cache()
    write(rates, given, str(found.way))
    if data:
        rates["deepskip, its store"] = list(on_photographs(data, given.batch, found.way, given.seconds))
        write(rates, given, str(found.way))
    return 0


def write(rates: dict[str, list[float]], given: argparse.Namespace, way: str) -> None:
    """Write the table, and say it."""
    path = given.out / f"gpu-speed-{graphics()}.md"
    path.write_text("\n".join(table(rates, given.batch, way)) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"), flush=True)


def table(rates: dict[str, list[float]], batch: int, way: str) -> list[str]:
    """Return the lines of the file."""
    own = statistics.median(rates["deepskip"])
    lines = [
        "# Training speed on a GPU",
        "",
        f"{torch.cuda.get_device_name()}; torch {torch.__version__}, timm {timm.__version__}. ResNet-50,",
        f"{SIZE} px, batch {batch}; deepskip's way: {way}. Made by `benchmarks/gpu_speed.py`, which says what",
        "the contenders are. *Ratio* is deepskip's rate over the contender's, of medians.",
        "",
        "| loop | images/s | least to most | ratio |",
        "|---|--:|---|--:|",
    ]
    for name, each in rates.items():
        spread = f"{min(each):,.0f} to {max(each):,.0f}"
        middle = statistics.median(each)
        lines.append(f"| {name} | {middle:,.0f} | {spread} | {own / middle:.2f} |")
    share = f"deepskip has {own / PUBLISHED:.2f} of it."
    said = f"Published for an H100 (SXM5), mixed precision: {PUBLISHED:,} images/s; {share}"
    lines += ["", said]
    return lines


if __name__ == "__main__":
    sys.exit(main())
