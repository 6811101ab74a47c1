"""Pictures of any number through a net: decoded ahead by threads, computed in batches, answered in order."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepskip.data.ahead import ahead, reported
from deepskip.data.dataset import Pixels, Progress, Split, UniformImages
from deepskip.data.decode import preprocess_file
from deepskip.deploy.choosing import USUAL, Choice, choose
from deepskip.deploy.runner import Runner
from deepskip.deploy.ways import Source
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from deepskip.model import Model, Prediction

AHEAD = 2
"""Batches of pictures that are decoded, or being decoded, while one is computed."""
CALIBRATION = 128
"""Pictures by which a way in eight bits chooses its ranges: the first ones."""
Skipped = Callable[[InputError], None]
Told = Callable[[Choice], None]


class Read(NamedTuple):
    """A file, and its picture, uint8 [size, size, c]."""

    file: Path
    picture: Pixels


def predict(
    model: Model,
    files: Iterable[Path],
    total: int,
    *,
    way: str = "auto",
    batch: int = 32,
    top: int = 5,
    flips: bool = False,
    skipped: Skipped | None = None,
    told: Told | None = None,
    progress: Progress | None = None,
) -> Generator[Prediction, None, None]:
    """Yield a prediction for each of `files`, in order, with its `top` most probable classes.

    There may be any number of files: a few batches are in memory. `total` is how many there are, so that a
    faster way is only looked for where it pays (`choosing.choose`, to which `way` goes; `told` is told what
    it chose). With `flips` each probability is the mean of those of a picture and of its mirror image. A
    picture that cannot be read raises its InputError, or is told to `skipped` and left out. Threads end with
    the iterator: exhaust it or close it.
    """
    pictures = decoded(files, model.preprocessing, batch=batch)
    with contextlib.closing(pictures):
        read = _readable(reported(pictures, "predicting", total, progress), skipped)
        wanted = batch if way in ("auto", USUAL.name) else max(batch, CALIBRATION)
        first = list(itertools.islice(read, wanted))
        if not first:
            return
        sample = np.stack([one.picture for one in first])
        choice = choose(Source(model, sample), sample, batch=batch, images=total, wanted=way)
        with contextlib.closing(choice.runner):
            if told is not None:
                told(choice)
            every = itertools.chain(first, read)
            yield from computed(model, choice.runner, every, batch=batch, top=top, flips=flips)


def computed(
    model: Model,
    runner: Runner,
    pictures: Iterator[Read],
    *,
    batch: int,
    top: int = 5,
    flips: bool = False,
) -> Iterator[Prediction]:
    """Yield a prediction for each of `pictures`, in order; a runner of the model computes `batch` at once."""
    while some := list(itertools.islice(pictures, batch)):
        logits = predict_logits(runner, np.stack([one.picture for one in some]), flips=flips)
        values, order = logits.softmax(1).sort(descending=True, stable=True)
        best = zip(some, order[:, :top].tolist(), values[:, :top].tolist(), strict=True)
        for one, labels, likely in best:
            names = (model.classes[label] for label in labels)
            yield Prediction(str(one.file), dict(zip(names, likely, strict=True)))


def evaluate(
    model: Model,
    split: Split,
    *,
    way: str = "auto",
    batch: int = 256,
    flips: bool = False,
    told: Told | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Return the logits [n, classes] of every image of a validation split, in order.

    With `flips` they are those of the mean of two probabilities. Raises InputError when its pictures are not
    final inputs.
    """
    if not isinstance(split.images, UniformImages):
        raise InputError("split", "training pictures, kept with a margin", "a validation split's")
    pixels, step = split.images.pixels, max(1, len(split) // max(batch, CALIBRATION))
    sample = np.array(
        pixels[::step][: max(batch, CALIBRATION)]
    )  # from all classes: they come one after the other
    choice = choose(Source(model, sample), sample, batch=batch, images=len(split), wanted=way)
    with contextlib.closing(choice.runner):
        if told is not None:
            told(choice)
        parts = []
        for start in range(0, len(split), batch):
            # A copy: a mapped file is read here, and not by the library that computes.
            parts.append(predict_logits(choice.runner, np.array(pixels[start : start + batch]), flips=flips))
            if progress is not None:
                progress("evaluating", min(start + batch, len(split)), len(split))
        return torch.cat(parts)


def decoded(
    files: Iterable[Path], preprocessing: Preprocessing, *, batch: int, threads: int | None = None
) -> Generator[Read | InputError, None, None]:
    """Yield every picture, or why there is none, in order; threads decode a few times `batch` of them ahead."""
    read = functools.partial(_read, preprocessing)
    return ahead(read, files, threads=threads or os.cpu_count() or 1, window=(1 + AHEAD) * batch)


def predict_logits(runner: Runner, pixels: Pixels, *, flips: bool = False) -> Tensor:
    """Return logits [n, classes] of uint8 pictures [n, size, size, c].

    With `flips` they are the logarithms of the mean of two probabilities: of the picture and of its mirror
    image.
    """
    logits = torch.from_numpy(runner(pixels))
    if not flips:
        return logits
    mirrored = torch.from_numpy(runner(np.ascontiguousarray(pixels[:, :, ::-1])))
    return torch.stack([logits, mirrored]).log_softmax(2).logsumexp(0) - math.log(2)


def _read(preprocessing: Preprocessing, file: Path) -> Read | InputError:
    try:
        return Read(file, preprocess_file(file, preprocessing))
    except InputError as error:
        return error


def _readable(found: Iterable[Read | InputError], skipped: Skipped | None) -> Iterator[Read]:
    for one in found:
        if not isinstance(one, InputError):
            yield one
        elif skipped is None:
            raise one
        else:
            skipped(one)
