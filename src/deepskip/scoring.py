"""How good a network is on a split: loss, top-1 and top-5 error, per class, confusion, calibration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepskip.data.batches import eval_batches, normalise
from deepskip.data.dataset import Split, UniformImages
from deepskip.describe.preprocessing import Preprocessing

BATCH = 256
PIXELS = 2**20
"""Of a channel, that a GPU is given at once: less is over before the next is asked for."""
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Score:
    """What `score` measured on n images; errors in percent."""

    n: int
    loss: float
    """Mean cross-entropy, in nats."""
    error: float
    """Images whose most probable class is wrong."""
    top5_error: float
    """Images whose class is not among the five most probable; 0 with at most five classes."""
    calibration_error: float
    """Expected calibration error over 15 equal bins of confidence, in percent (Guo et al. 2017,
    arXiv:1706.04599, equation 3)."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts: rows are true classes, columns predicted ones."""

    def classes(self, names: Iterable[str]) -> list[dict[str, object]]:
        """Return one row a class: `class`, `n` images and `error` in percent (null for a class without)."""
        rows: list[dict[str, object]] = []
        for i, name in enumerate(names):
            n = sum(self.confusion[i])
            rows.append({"class": name, "n": n, "error": 100 * (1 - self.confusion[i][i] / n) if n else None})
        return rows


@torch.no_grad()
def predict_logits(
    net: nn.Module, split: Split, preprocessing: Preprocessing, *, batch: int | None = None
) -> Tensor:
    """Return the logits [n, classes] of every image in `split`, in order, on the CPU.

    The network is in evaluation mode meanwhile, and every module in its own mode afterwards. Always in the
    network's own precision, so that a score does not depend on how the network was trained. By default 256 at a
    time, and on a GPU more of them where they are small.
    """
    device = next(net.parameters()).device
    batch = batch or (max(BATCH, PIXELS // preprocessing.size**2) if device.type == "cuda" else BATCH)
    dtype = next(net.parameters()).dtype
    held = None if isinstance(split.images, UniformImages) else preprocessing  # kept with a margin to train on
    modes, cudnn = [(module, module.training) for module in net.modules()], torch.backends.cudnn
    net.eval()
    try:
        # TF32 would round the convolutions' inputs to ten bits on a GPU: a score there is float32 as well.
        with cudnn.flags(enabled=cudnn.enabled, deterministic=cudnn.deterministic, allow_tf32=False):
            parts = [
                net(normalise(one.images.to(device), preprocessing, dtype)).float().cpu()
                for one in eval_batches(split, batch, held)
            ]
    finally:
        for module, training in modes:
            module.training = training
    return torch.cat(parts)


def score(net: nn.Module, split: Split, preprocessing: Preprocessing, *, batch: int | None = None) -> Score:
    """Return the score of `net` on every image of `split`, each counted once."""
    return score_logits(predict_logits(net, split, preprocessing, batch=batch), split.labels)


def score_logits(logits: Tensor, labels: Tensor) -> Score:
    """Return the score of `logits` [n, classes] against `labels` [n]."""
    n, classes = logits.shape
    predicted = logits.softmax(1).max(1).indices
    right = predicted == labels
    top = logits.topk(min(5, classes), dim=1).indices
    confusion = torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)
    return Score(
        n=n,
        loss=float(functional.cross_entropy(logits.double(), labels)),
        error=_percent(n - int(right.sum()), n),
        top5_error=_percent(n - int((top == labels[:, None]).sum()), n),
        calibration_error=reliability(logits, labels).error,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole


class Reliability(NamedTuple):
    """Sums over the images of each of 15 equal bins of confidence, the probability of the best class."""

    counts: Tensor
    """int64 [15]: images whose confidence is in the bin, above its lower edge and up to its upper one."""
    confidence: Tensor
    """float64 [15]: the sum of their confidences, 0 to 1 each."""
    right: Tensor
    """int64 [15]: how many of them are right."""

    @property
    def error(self) -> float:
        """The expected calibration error, in percent (Guo et al. 2017, arXiv:1706.04599, equation 3)."""
        return 100 * float((self.right - self.confidence).abs().sum()) / int(self.counts.sum())


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    """Return what `logits` [n, classes] are worth against `labels` [n], by confidence."""
    confidence, predicted = logits.softmax(1).max(1)
    confidence = confidence.double()
    bins = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
    right = bins[predicted == labels]
    return Reliability(
        counts=bins.bincount(minlength=CALIBRATION_BINS),
        confidence=torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, confidence),
        right=right.bincount(minlength=CALIBRATION_BINS),
    )
