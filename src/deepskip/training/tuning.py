"""The fastest way to train a net on this machine, measured in a few seconds and remembered."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional

from deepskip.data.batches import Batch
from deepskip.data.store import data_folder
from deepskip.describe.spec import Spec
from deepskip.errors import WorkError
from deepskip.files import write_json
from deepskip.nets.builder import build
from deepskip.seeds import derive
from deepskip.training.heap import kept_for
from deepskip.training.memory import free_bytes, is_out_of_memory, needed_bytes
from deepskip.training.precision import autocast, cpu_capabilities, has_bf16
from deepskip.training.recipe import Recipe
from deepskip.training.replay import WARM, Replayed
from deepskip.training.way import Memory, Way, usual

WORTH = 60.0  # seconds of training below which measuring cannot pay
COMPILING = 1200.0  # and below which compiling is not tried
COMPILING_LAYER = 10.0  # nor below this much a layer: compiling takes about a second for each
STEPS = 3  # timed steps a way, after one to warm up
ENOUGH = 3.0  # seconds of timed steps that suffice, where a step is slow
GAIN = 1.03  # a way must be this much faster than the usual one: less is noise


class Timed(NamedTuple):
    """A way, and what a step in it costs."""

    way: Way
    step: float
    """Seconds a step of the whole batch, the best of a few."""
    first: float
    """Seconds of the first step, compilation included."""


class Choice(NamedTuple):
    """The way to train, and why."""

    way: Way
    timed: tuple[Timed, ...]
    """What was measured, the usual way first; empty when nothing was."""
    remembered: bool
    """Whether the measurement is an earlier one's."""


def choose(
    spec: Spec,
    recipe: Recipe,
    steps: int,
    device: torch.device,
    *,
    precision: str = "auto",
    memory: Memory = "store",
    images: int | None = None,
    again: bool = False,
) -> Choice:
    """Return the fastest way to train `spec` for `steps` steps of the recipe's batch on `device`.

    `memory` is what steps keep, in every way, and `images` how many are computed at once (by default the
    recipe's batch in its parts; data may have fewer). Precision is only chosen when `precision` is "auto", and
    half precision only where the hardware has it. Not measured when the run is shorter than a minute, or does
    not fit; compilation only tried for one of more than 20, and of more than 10 seconds a layer. Remembered by
    machine, shape and versions; `again` measures all the same. Numbers that are measured on a busy machine can
    differ: what was chosen stands in the run's `config.json`, and resuming uses that.
    """
    rule = usual(device, min(spec.input[1:]), precision).replace(memory=memory)
    images = images or -(-recipe.batch // recipe.accumulate)
    place = data_folder() / "ways" / f"{_key(spec, images, device, (precision, memory), steps)}.json"
    if not again and (held := _read(place)) is not None:
        return Choice(held, (), remembered=True)
    timed: list[Timed] = []
    compiling = max(COMPILING, COMPILING_LAYER * spec.layers)
    for way in _candidates(rule, device, precision):
        if timed and timed[0].step * recipe.accumulate * steps < (
            compiling if way.compile != "none" else WORTH
        ):
            continue
        # Where there is more memory to be had than there is, a process that takes it is killed.
        found = None
        if needed_bytes(spec, images, way) <= free_bytes(device):
            with kept_for(spec, images, way, device):
                found = _time(spec, way, images, device)
        if found is None and not timed:  # the usual way itself does not fit: the run will say so
            return Choice(rule, (), remembered=False)
        timed += [found] if found else []
    best = min(
        timed, key=lambda t: t.step * recipe.accumulate * steps + (t.first if t.way.compile != "none" else 0)
    )
    chosen = best.way if best.step * GAIN < timed[0].step else rule
    if len(timed) > 1:
        _remember(place, chosen)
    return Choice(chosen, tuple(timed), remembered=False)


def _candidates(rule: Way, device: torch.device, precision: str) -> Iterator[Way]:
    yield rule
    yield rule.replace(memory_format="contiguous")
    if precision == "auto" and (has_bf16(device) or device.type == "cuda"):
        other = "float32" if rule.precision != "float32" else "bf16" if has_bf16(device) else "fp16"
        yield rule.replace(precision=other)
    if rule.memory != "store":
        return
    if device.type == "cuda":
        yield rule.replace(replay=True)
    if device.type == "cuda" or shutil.which("g++") or shutil.which("clang++"):
        yield rule.replace(compile="whole")
    if device.type == "cuda":
        yield rule.replace(compile="whole", replay=True)


def _time(spec: Spec, way: Way, images: int, device: torch.device) -> Timed | None:
    """Return what a step costs, on random images and a fresh net; None when the way does not work here."""
    try:
        net = build(spec, device=device)
        way.prepare(net)
        call = way.compiled(way.sparing(net))
        optimiser = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, fused=True)
        generator = torch.Generator().manual_seed(derive("tuning"))
        pixels = torch.randn(images, *spec.input, generator=generator).to(device)
        if way.memory_format == "channels_last":
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(spec.classes, (images,), generator=generator).to(device)

        def gradient(batch: Batch) -> None:
            with autocast(way.precision, device):
                logits = call(batch.images)
            functional.cross_entropy(logits.float(), batch.labels).backward()  # type: ignore[no-untyped-call]

        compute = Replayed(gradient, list(net.parameters()), device) if way.replay else gradient
        unlike = WARM + 1 if way.replay else 1  # steps that are not as the others will be
        seconds: list[float] = []
        for _ in range(STEPS + unlike):
            started = time.perf_counter()
            optimiser.zero_grad(set_to_none=True)
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                compute(Batch(pixels, labels, total=images))
            optimiser.step()
            _finish(device)
            seconds.append(time.perf_counter() - started)
            if len(seconds) > unlike and sum(seconds[unlike:]) > ENOUGH:
                break
        if isinstance(compute, Replayed) and compute.why is not None:
            return None
        return Timed(way, min(seconds[unlike:]), sum(seconds[:unlike]))
    except Exception as error:
        # Compilers fail in as many ways as they have parts; a way that fails is one that is not taken.
        if way.compile == "none" and not is_out_of_memory(error):
            raise
        return None


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _key(spec: Spec, images: int, device: torch.device, asked: tuple[str, str], steps: int) -> str:
    long = "long" if steps > 1000 else "short"  # whether compilation was worth trying
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_capabilities().get("cpu_name", "")
    )
    parts = (
        spec.digest(),
        images,
        str(device),
        str(name),
        torch.get_num_threads(),
        torch.__version__,
        *asked,
    )
    return f"{derive(*parts, long):016x}"


def _read(place: Path) -> Way | None:
    try:
        return Way.from_json(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or another version's: measured anew
        return None


def _remember(place: Path, way: Way) -> None:
    try:
        write_json(place, json.loads(way.to_json()))
    except WorkError:  # a cache that cannot be written only costs the next run its few seconds
        return
