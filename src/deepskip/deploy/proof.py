"""Law 8: an exported net agrees with the original on real pictures, or there is no file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from deepskip.data.dataset import Split, UniformImages
from deepskip.deploy.runner import Logits, Pixels, Runner, in_batches
from deepskip.errors import WorkError
from deepskip.model import Model
from deepskip.scoring import predict_logits

WITHIN = 1e-4
"""Largest difference of a picture's logits that passes, over the largest of them."""
BATCH = 64


@dataclass(frozen=True)
class Agreement:
    """How two programs' logits of the same pictures compare."""

    images: int
    difference: float
    """The largest of any picture: of its logits the largest difference over the largest."""
    other: int
    """Pictures whose most probable class is another one."""


def reference(model: Model, pixels: Pixels) -> Logits:
    """Return the logits [n, classes] of `pixels` [n, h, w, c] by the net itself, in evaluation.

    In its own precision and on its own device; it is left as it is. Raises WorkError when they are not finite.
    """
    split = Split(UniformImages(pixels), torch.zeros(len(pixels), dtype=torch.int64))
    logits: Logits = predict_logits(model.net, split, model.preprocessing, batch=BATCH).numpy()
    if not np.isfinite(logits).all():
        raise WorkError(model.net.spec.name, "outputs that are not finite", "a whole model")
    return logits


def compare(found: Logits, wanted: Logits) -> Agreement:
    """Return how `found` agrees with `wanted`, [n, classes] each."""
    apart = np.abs(found.astype(np.float64) - wanted).max(1)
    size = np.abs(wanted).max(1).astype(np.float64)
    # All logits of a net can be zero, when its head is.
    relative = np.divide(apart, size, out=np.where(apart > 0, np.inf, 0.0), where=size > 0)
    other = int((found.argmax(1) != wanted.argmax(1)).sum())
    return Agreement(len(wanted), float(np.where(np.isnan(relative), np.inf, relative).max()), other)


def prove(
    where: object, runner: Runner, pixels: Pixels, wanted: Logits, *, within: float = WITHIN
) -> Agreement:
    """Return how the logits that `runner` computes of `pixels` [n, h, w, c] agree with `wanted` [n, classes].

    In batches and, of the first picture, alone. Raises WorkError at `where` when a logit differs by more than
    `within`, a picture's most probable class is another one, or there are not as many logits.
    """
    found = in_batches(runner, pixels, BATCH)
    alone = runner(pixels[:1])
    for logits, like in ((found, wanted), (alone, wanted[:1])):
        if logits.shape != like.shape:
            raise WorkError(where, f"logits {list(logits.shape)}", f"{list(like.shape)}, as the net itself has")
        agreement = compare(logits, like)
        if agreement.other:
            got = f"another most probable class for {agreement.other} of {agreement.images} pictures"
            raise WorkError(where, got, "the net's own for every picture; nothing was written")
        if not agreement.difference <= within:
            got = f"logits that differ by {agreement.difference:.1e}, relatively"
            raise WorkError(where, got, f"{within:.0e} at most; nothing was written")
    return compare(found, wanted)
