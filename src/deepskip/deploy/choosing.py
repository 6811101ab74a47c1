"""The fastest way to run a net here: measured in a few seconds, checked on real pictures, remembered."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from deepskip.data.store import data_folder
from deepskip.deploy.runner import Logits, Pixels, Runner, in_batches
from deepskip.deploy.ways import WAYS, Source, Way, named
from deepskip.errors import InputError, WorkError, choices, nearest
from deepskip.files import read_json, write_json
from deepskip.seeds import derive
from deepskip.training.precision import cpu_capabilities

USUAL = named("channels-last")
"""What is compared with, and what is left where nothing else is better."""
EXACT = 1e-4
"""Largest difference of two logits, over the largest logit, of ways that count as the same."""
SHARE = 0.2
"""How much of the time that the work would take is spent on looking for a faster way, at most."""
LEAST = 5.0
"""Seconds of work below which nothing is looked for."""
GAIN = 1.05
"""A way must be this much faster than the usual one: less is noise."""
ENOUGH = 0.6
"""Seconds of calls that suffice to know a way's rate."""


class Agreement(NamedTuple):
    """How a way's answers compare with the usual way's, on `n` pictures."""

    n: int
    same: int
    """Pictures with the same most probable class."""
    difference: float
    """The largest difference of two logits, over the largest logit."""

    @property
    def exact(self) -> bool:
        """Whether they differ by rounding alone."""
        return self.difference <= EXACT

    def __str__(self) -> str:
        return f"same class on {self.same:,} of {self.n:,} pictures, logits within {self.difference:.1g}"


class Tried(NamedTuple):
    """A way that was measured."""

    way: Way
    rate: float
    """Pictures a second."""
    agreement: Agreement


class Choice(NamedTuple):
    """The way to run a net, ready, and why."""

    way: Way
    runner: Runner
    agreement: Agreement
    """On the pictures that it was chosen with."""
    tried: tuple[Tried, ...]
    """What was measured, the usual way first; empty when nothing was."""


def choose(
    source: Source,
    pixels: Pixels,
    *,
    batch: int,
    images: int,
    wanted: str = "auto",
    threads: int | None = None,
) -> Choice:
    """Return the way to run a net on `images` pictures, `batch` at once.

    `pixels`, uint8 [n, h, w, c], are some of them: by these ways are measured and compared. `wanted` is "auto",
    the fastest exact way (its logits differ from PyTorch's float32 by 1e-4 of the largest at most);
    "fastest", the fastest whatever numbers it computes in; or a way's name. Only looked for when the work is
    long enough to pay for it, then remembered by machine, net, batch and versions. Raises InputError and
    WorkError.
    """
    check(wanted)
    batch = min(batch, images)
    usual = USUAL.make(source, batch=batch, threads=threads)
    itself = Agreement(len(pixels), len(pixels), 0.0)
    if wanted == USUAL.name or (wanted == "auto" and images <= batch):  # in one batch nothing can be gained
        return Choice(USUAL, usual, itself, ())
    reference = in_batches(usual, pixels, batch)
    if wanted not in ("auto", "fastest"):
        usual.close()
        runner = named(wanted).make(source, batch=batch, threads=threads)
        return Choice(named(wanted), runner, compare(reference, in_batches(runner, pixels, batch)), ())
    rate = measured(usual, pixels[:batch])
    work = images / rate
    if work < LEAST:
        return Choice(USUAL, usual, itself, ())
    place = data_folder() / "ways" / f"{_key(source, batch, wanted, work, usual.threads)}.json"
    held = _read(place)
    tried = [Tried(USUAL, rate, itself)]
    best, to_beat = Choice(USUAL, usual, itself, ()), GAIN * rate
    for way in _candidates(source, wanted, work) if held is None else (held,):
        found = None if way is USUAL else _try(way, source, pixels, reference, batch, threads)
        if found is None:
            continue
        runner, one = found
        faster = held is not None or one.rate > to_beat
        tried.append(one)
        # A way that computes in float32 and has other answers is a wrong one, however fast.
        if faster and (one.agreement.exact or (wanted == "fastest" and way.numbers != "float32")):
            best.runner.close()
            best, to_beat = Choice(way, runner, one.agreement, ()), one.rate
        else:
            runner.close()
    if held is None:
        _remember(place, best.way)
        best = best._replace(tried=tuple(tried))
    return best


def check(wanted: str) -> None:
    """Raise InputError unless `wanted` is "auto", "fastest" or a way's name."""
    names = ("auto", "fastest", *(way.name for way in WAYS))
    if wanted not in names:
        raise InputError("--way", repr(wanted), choices(names), nearest(wanted, names))


def compare(reference: Logits, found: Logits) -> Agreement:
    """Return how `found` compares with `reference`, both [n, classes]."""
    largest = float(np.abs(reference).max())
    difference = float(np.abs(found - reference).max()) / largest if largest > 0 else float(np.abs(found).max())
    same = int((found.argmax(1) == reference.argmax(1)).sum())
    return Agreement(len(reference), same, difference)


def measured(runner: Runner, pixels: Pixels) -> float:
    """Return pictures a second of warm calls with `pixels`, the best of a few."""
    best, spent = 0.0, 0.0
    while spent < ENOUGH:
        started = time.perf_counter()
        runner(pixels)
        seconds = time.perf_counter() - started
        best, spent = max(best, len(pixels) / seconds), spent + seconds
    return best


def _candidates(source: Source, wanted: str, work: float) -> Iterator[Way]:
    """Yield the ways worth trying, those that are made soonest first."""
    layers, left = source.model.net.spec.layers, SHARE * work
    for way in sorted(WAYS, key=lambda way: way.preparing):
        if way is USUAL or way.name == "eager" or (wanted == "auto" and way.numbers != "float32"):
            continue
        if way.numbers == "int8" and source.calibration is None:
            continue
        if way.lacking(source.device) is None and way.preparing * layers < left:
            left -= way.preparing * layers
            yield way


def _try(
    way: Way, source: Source, pixels: Pixels, reference: Logits, batch: int, threads: int | None
) -> tuple[Runner, Tried] | None:
    try:
        runner = way.make(source, batch=batch, threads=threads)
        agreement = compare(reference, in_batches(runner, pixels, batch))
        return runner, Tried(way, measured(runner, pixels[:batch]), agreement)
    except Exception:  # compilers and converters fail in as many ways as they have parts: one not to take
        return None


def _key(source: Source, batch: int, wanted: str, work: float, threads: int) -> str:
    device = source.device
    name = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_capabilities().get("cpu_name", "")
    )
    # Which ways were worth trying, and which could be.
    tried = [way.name for way in _candidates(source, wanted, work)]
    versions = [_version(package) for package in ("torch", "openvino", "onnxruntime", "nncf")]
    about = source.model.net.spec.digest(), batch, str(device), str(name), threads, wanted
    return f"predict-{derive(*about, *tried, *versions):016x}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _read(place: Path) -> Way | None:
    try:
        found = read_json(place)
        return named(str(found["way"])) if isinstance(found, dict) else None
    except (InputError, KeyError):  # not there, or another version's: measured anew
        return None


def _remember(place: Path, way: Way) -> None:
    try:
        write_json(place, {"way": way.name})
    except WorkError:  # a cache that cannot be written only costs the next run its few seconds
        return
