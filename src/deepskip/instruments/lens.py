"""Where the answer appears: after every block, what the net's own head and a linear probe make of the stream.

Alain and Bengio 2016, arXiv:1610.01644, put linear probes behind every layer; nostalgebraist 2020,
"interpreting GPT: the logit lens", reads the stream of a transformer by its own last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.instruments import images as pictures
from deepskip.instruments import taps
from deepskip.instruments.columns import short
from deepskip.instruments.intervals import wilson
from deepskip.nets.network import Network
from deepskip.seeds import derive

IMAGES, BATCH = 2000, 125
FOLDS = 5
"""Parts of a split, where it is all there is: the probe is scored on each, fitted on the others."""
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""What the probe may choose from: the weight of its squared weights, for each image fitted on."""
DECIDED = 90.0
"""Percent of the images whose last answer the head has, from where on the net is called decided."""


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    fit_images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each block of `net`, in order, of two readings of the stream after it:

    - `block`, `stage`, `index` (from 1), `shortcut`;
    - `lens_head_error`: top-1 error, in percent, when the net's own head follows the block at once;
      `lens_head_low`, `lens_head_high`: its 95% interval (Wilson); `lens_head_same`: how many images get the
      answer so that they get in the end, in percent. Null where the block has other channels than the head
      takes;
    - `lens_probe_error`, `lens_probe_low`, `lens_probe_high`: the same of a linear probe, on the mean of each
      channel over the image. Null where the stream is not finite;
    - `lens_n`: images these are of; `lens_fitted`: images that a probe was fitted on.

    The probe is fitted on training images of a data set (at most `fit_images`) and scored on validation images
    (at most `images`), each drawn by `seed`. Of a split alone it is fitted on four fifths of its images and
    scored on the others, in turn. It is a ridge regression of the one-hot labels on standardised channels
    (Alain and Bengio have a logistic one), its penalty that of `PENALTIES` with the least squared error in
    leaving one out: it has one solution, and fits behind 600 blocks in seconds.

    In evaluation mode. An image whose logits are not all finite is wrong. Of an image nothing is kept but the
    means of the blocks' channels. The network is left as it was. Raises InputError.
    """
    draw = partial(pictures.drawn, net, batch=batch, labelled=True)
    scored = draw(data, images=images, seed=seed)
    n = pictures.taken(data, images)
    total, fitting, fit_n = -(-n // batch), None, 0
    if isinstance(data, Dataset):
        fitting = draw(data.train, images=fit_images, seed=derive(seed, "lens", "fit"))
        fit_n = pictures.taken(data.train, fit_images)
        total += -(-fit_n // batch)
    with taps.at_rest(net), torch.no_grad():
        told = _teller(progress, total)
        read = _read(net, scored, n, told, heads=True)
        learnt = _read(net, fitting, fit_n, told) if fitting else None
    classes, folds = net.spec.classes, min(FOLDS, n)
    rows = []
    for i, name in enumerate(taps.names(net)):
        if learnt:
            wrong = _wrong(learnt.features[i], learnt.labels, read.features[i], read.labels, classes)
            fitted = len(learnt.labels)
        else:
            wrong = _cross_fitted(read.features[i], read.labels, classes, folds)
            fitted = n - -(-n // folds)
        head, last = read.answers[i], read.answers[-1]
        missed = None if head is None else int((head != read.labels).sum())
        same = None if head is None or last is None else 100 * float((head == last).double().mean())
        rows.append(
            {
                **name,
                **_errors("lens_head", missed, n),
                "lens_head_same": short(same),
                **_errors("lens_probe", wrong, n),
                "lens_n": n,
                "lens_fitted": fitted,
            }
        )
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return where the answer appears: errors in percent, the names of blocks; null where there is none.

    - `probe_first`, `probe_last`: the probe's error after the first and the last block; `probe_halfway`: the
      first block from which on it is no further from its last than half of the way;
    - `head_last`: the net's own error; `decided`: the first block from which on the head gives 90% of the
      images the answer that they get in the end.
    """
    probe, same = [row["lens_probe_error"] for row in rows], [row["lens_head_same"] for row in rows]
    first, last = probe[0], probe[-1]
    halfway = None
    if first is not None and last is not None and last < first:
        halfway = _since(rows, [error is not None and error <= (first + last) / 2 for error in probe])
    return {
        "probe_first": first,
        "probe_last": last,
        "probe_halfway": halfway,
        "head_last": rows[-1]["lens_head_error"],
        "decided": _since(rows, [part is not None and part >= DECIDED for part in same]),
    }


def _since(rows: Sequence[dict[str, Any]], held: Sequence[bool]) -> str | None:
    """Return the block from which on all of `held` is so."""
    found = None
    for row, so in zip(reversed(rows), reversed(held), strict=True):
        if not so:
            break
        found = row["block"]
    return found


def _errors(name: str, wrong: int | None, n: int) -> dict[str, float | None]:
    error, low, high = (None,) * 3 if wrong is None else (100 * wrong / n, *wilson(wrong, n))
    return {f"{name}_error": short(error), f"{name}_low": short(low), f"{name}_high": short(high)}


# --- reading --------------------------------------------------------------------------------------------------


class _Reading(NamedTuple):
    """What was read of n images after each block."""

    features: list[Tensor]
    """[n, channels], on the CPU."""
    answers: list[Tensor | None]
    """int64 [n]: what the head answers, -1 where logits are not finite; None where it does not fit."""
    labels: Tensor
    """int64 [n]."""


def _teller(progress: Progress | None, total: int) -> Callable[[], None]:
    done = count(1)
    return lambda: progress("reading the stream", next(done), total) if progress else None


def _read(
    net: Network, drawn: Iterator[pictures.Drawn], n: int, told: Callable[[], None], *, heads: bool = False
) -> _Reading:
    """Return what is read of the `n` images in `drawn`."""
    blocks = list(net.blocks())
    channels = [site.outputs.channels for site in net.spec.sites()]
    # Made at once: small tensors made among large ones, and kept, would keep their place from being used again.
    features = [torch.empty(n, width, dtype=next(net.parameters()).dtype) for width in channels]
    answers = [torch.empty(n, dtype=torch.int64) if heads and c == channels[-1] else None for c in channels]
    labels, start = torch.empty(n, dtype=torch.int64), 0
    for x, own, _ in drawn:
        now = slice(start, start + len(x))
        x = net.stem(x)
        for block, means, answer in zip(blocks, features, answers, strict=True):
            x = block(x)
            means[now] = x.mean((2, 3))
            if answer is not None:
                logits = net.head(x)
                answer[now] = torch.where(logits.isfinite().all(1), logits.argmax(1), -1)
        labels[now] = own
        start = now.stop
        told()
    return _Reading(features, answers, labels)


# --- the probe ------------------------------------------------------------------------------------------------


def _cross_fitted(features: Tensor, labels: Tensor, classes: int, folds: int) -> int | None:
    """Return how many images are wrong when each part is scored by a probe fitted on the others."""
    part, wrong = torch.arange(len(labels)) % folds, 0
    for fold in range(folds):
        out = part == fold
        found = _wrong(features[~out], labels[~out], features[out], labels[out], classes)
        if found is None:
            return None
        wrong += found
    return wrong


def _wrong(x: Tensor, labels: Tensor, others: Tensor, their_labels: Tensor, classes: int) -> int | None:
    """Return how many of `others` [m, d] a probe fitted on `x` [n, d] gets wrong; None where there is none."""
    if not (len(x) and x.isfinite().all() and others.isfinite().all()):
        return None
    return int((fit(x, labels, classes)(others).argmax(1) != their_labels).sum())


def fit(x: Tensor, labels: Tensor, classes: int) -> Callable[[Tensor], Tensor]:
    """Return the linear probe of features `x` [n, d] for `labels` [n]: [m, d] → scores [m, classes].

    Ridge regression with an intercept on the one-hot labels; what a penalty leaves out in leaving each image
    out follows from the one fit (Allen 1974, Technometrics 16: residual / (1 - leverage)).
    """
    x, y = x.double(), functional.one_hot(labels, classes).double()
    n, mean, middle = len(x), x.mean(0), y.mean(0)
    spread = (x - mean).square().mean(0).sqrt()
    spread = torch.where(spread > 1e-9 * x.abs().amax(0), spread, 1.0)  # a channel that is constant
    z, y = (x - mean) / spread, y - middle
    values, vectors = torch.linalg.eigh(z.T @ z)
    turned = z @ vectors
    inner = turned.T @ y

    def missed(penalty: float) -> float:
        shrink = 1 / (values.clamp(min=0) + n * penalty)
        leverage = 1 / n + turned.square() @ shrink
        return float(((y - turned @ (shrink[:, None] * inner)) / (1 - leverage)[:, None]).square().sum())

    penalty = n * min(PENALTIES, key=missed)
    weights = vectors @ (inner / (values.clamp(min=0) + penalty)[:, None])
    return lambda other: (other.double() - mean) / spread @ weights + middle
