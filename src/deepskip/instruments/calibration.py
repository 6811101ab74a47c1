"""Whether the net is as often right as it is sure: reliability, calibration error, and one temperature for it.

Guo et al. 2017, arXiv:1706.04599: modern nets are surer than they are right (figures 1 and 4), and dividing
their logits by one number, fitted on images that they were not trained on, mends most of it (§4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.instruments import images as pictures
from deepskip.instruments import taps
from deepskip.instruments.columns import short
from deepskip.instruments.intervals import wilson
from deepskip.nets.network import Network
from deepskip.scoring import CALIBRATION_BINS, reliability

IMAGES, BATCH = 5000, 125
FOLDS = 5
LEAST, MOST = 0.01, 100.0
"""Temperatures are looked for between these: no finite one is best where all images are right."""


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each of 15 bins of equal width in confidence, of the net as it is and then scaled:

    - `scaled`: whether the logits are divided by a temperature; `temperature`: 1, or the one that gives all
      images the least cross-entropy, from 0.01 to 100;
    - `bin` (from 1), `low`, `high`: which confidences are in it, above `low` and up to `high`, in percent;
    - `n`: images in it; `confidence`: their mean confidence, `accuracy`: how many of them are right, in
      percent, `accuracy_low`, `accuracy_high`: its 95% interval (Wilson); null of an empty bin.

    A confidence is the probability of the most probable class. No image is scaled by a temperature that was
    fitted on it: there are five parts, and each is divided by what is best for the other four. Null where there
    are too few images for that. An image whose logits are not all finite is in no bin. At most `images`
    pictures, drawn by `seed`; of a data set its validation pictures. In evaluation mode. The network is left as
    it was. Raises InputError.
    """
    drawn = pictures.drawn(net, data, images=images, batch=batch, seed=seed, labelled=True)
    n, start = pictures.taken(data, images), 0
    logits, truth = torch.empty(n, net.spec.classes), torch.empty(n, dtype=torch.int64)
    with taps.at_rest(net), torch.no_grad():
        for done, (x, labels, _) in enumerate(drawn, 1):
            now = slice(start, start + len(x))
            logits[now], truth[now] = net(x), labels
            start = now.stop
            if progress:
                progress("weighing confidence", done, -(-n // batch))
    finite = logits.isfinite().all(1)
    logits, truth = logits[finite], truth[finite]
    folds = min(FOLDS, len(logits))
    scaled = cross_scaled(logits, truth, folds) if folds > 1 else None
    best = fit_temperature(logits, truth) if folds > 1 else None
    return [*_rows(logits, truth, 1.0, scaled=False), *_rows(scaled, truth, best, scaled=True)]


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what `measure`'s rows come to, of the net as it is and `scaled`; null where there is no image.

    - `n`; `accuracy` and `confidence`: the means over all images, in percent; their difference says whether the
      net is too sure;
    - `calibration_error`, `scaled_calibration_error`: the expected calibration error, in percent (equation 3);
    - `temperature`: above 1 where the net is too sure.
    """
    own, scaled = ([row for row in rows if row["scaled"] == kind] for kind in (False, True))
    return {
        "n": sum(row["n"] for row in own),
        "accuracy": _mean(own, lambda row: row["accuracy"]),
        "confidence": _mean(own, lambda row: row["confidence"]),
        "calibration_error": _mean(own, _gap),
        "scaled_calibration_error": _mean(scaled, _gap),
        "temperature": scaled[0]["temperature"] if scaled else None,
    }


def cross_scaled(logits: Tensor, labels: Tensor, folds: int) -> Tensor:
    """Return `logits` [n, classes], each of `folds` parts divided by the best temperature for the others."""
    part, scaled = torch.arange(len(logits)) % folds, logits.clone()
    for fold in range(folds):
        out = part == fold
        scaled[out] /= fit_temperature(logits[~out], labels[~out])
    return scaled


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T by which `logits` [n, classes] are divided for the least mean cross-entropy, 0.01 to 100.

    The cross-entropy is convex in 1 / T: its slope, the mean over images of the expected logit less that of the
    true class, rises, and is halved in upon.
    """
    logits = logits.double()
    true = logits.gather(1, labels[:, None]).mean()
    low, high = math.log(1 / MOST), math.log(1 / LEAST)
    for _ in range(60):
        middle = (low + high) / 2
        expected = ((logits * math.exp(middle)).softmax(1) * logits).sum(1).mean()
        low, high = (low, middle) if expected > true else (middle, high)
    return math.exp(-low)


def _rows(
    logits: Tensor | None, labels: Tensor, temperature: float | None, *, scaled: bool
) -> list[dict[str, Any]]:
    if logits is None:
        empty = dict.fromkeys(("confidence", "accuracy", "accuracy_low", "accuracy_high"))
        values = [{"n": 0, **empty}] * CALIBRATION_BINS
    else:
        found = reliability(logits, labels)
        values = [_bin(*sums) for sums in zip(*(sums.tolist() for sums in found), strict=True)]
    width = 100 / CALIBRATION_BINS
    return [
        {
            "scaled": scaled,
            "temperature": short(temperature),
            "bin": i,
            "low": short((i - 1) * width),
            "high": short(i * width),
            **value,
        }
        for i, value in enumerate(values, 1)
    ]


def _bin(n: int, confidence: float, right: int) -> dict[str, Any]:
    low, high = wilson(right, n) if n else (None, None)
    return {
        "n": n,
        "confidence": short(100 * confidence / n) if n else None,
        "accuracy": short(100 * right / n) if n else None,
        "accuracy_low": short(low),
        "accuracy_high": short(high),
    }


def _mean(rows: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]) -> float | None:
    """Return the mean over the images of all bins."""
    n = sum(row["n"] for row in rows)
    return short(sum(row["n"] * of(row) for row in rows if row["n"]) / n) if n else None


def _gap(row: dict[str, Any]) -> float:
    return abs(float(row["accuracy"]) - float(row["confidence"]))
