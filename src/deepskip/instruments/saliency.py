"""What a network looks at in a picture: Grad-CAM at any place, and integrated gradients by pixel.

Selvaraju et al. 2017, arXiv:1610.02391: which parts of a feature map speak for a class. Sundararajan et al.
2017, arXiv:1703.01365: what each pixel adds to the class's logit, between a picture without content and this.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.errors import InputError, nearest
from deepskip.instruments import taps
from deepskip.instruments.images import drawn, shown, taken
from deepskip.nets.network import Network

Baseline = Literal["black", "mean"]
Target = Literal["predicted", "label"]
RIGHT, WRONG = 8, 8
STEPS = 64
PICTURES, POINTS = 4, 16  # that are in memory at once, with what their gradients need
IMAGES, BATCH = 10_000, 125
CELLS = 56  # lines of a map, at most
DIGITS = 4


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    at: str | None = None,
    right: int = RIGHT,
    wrong: int = WRONG,
    target: Target = "predicted",
    baseline: Baseline = "black",
    steps: int = STEPS,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each of `right` pictures that the net gets right, then of its `wrong` worst mistakes.

    At most `images` pictures, drawn by `seed`, are classified. Of those that are right the first drawn are
    taken, one of each class before a second of any; of the mistakes those of which the net is surest.

    - `image`: where in the split it is; `file`: its file, null in built-in data; `label`, `predicted`: classes
      by number; `confidence`: the probability of the predicted one, 0 to 1; `right`: whether they are the same.
    - `target`: the class that is explained, `predicted` or the `label`; `logit`: its logit.
    - `at`: a place (see `place`); `grad_cam`: the map there, a list for each line, from the top.
    - `integrated`: the integrated gradients in logits, summed over channels, a list for each line;
      `attributed`: their sum; `baseline_logit`: the logit of a picture that is all `baseline`;
      `completeness_error`: by how much `attributed` is more than the difference of the two logits, which
      infinitely many `steps` would make 0 (proposition 1 of Sundararajan et al.).

    Maps have at most 56 lines and columns: in a larger one a cell is the mean (`grad_cam`) or the sum
    (`integrated`) of a square. Their numbers have four digits; null stands for what is not finite. Normalisers
    divide by their running statistics. `images.pixels` gives the pictures, to draw them. The network is left
    as it was. Raises InputError.
    """
    _check(target, Target, "target")
    _check(baseline, Baseline, "baseline")
    for where, value in (("right", right), ("wrong", wrong)):
        if value < 0:
            raise InputError(where, value, "a whole number from 0", 0)
    at = place(net, at)
    verdicts = _verdicts(net, data, images, batch, seed, progress)
    chosen = _good(verdicts, right) + _mistakes(verdicts, wrong)
    split = data.val if isinstance(data, Dataset) else data
    rows: list[dict[str, Any]] = []
    for places in torch.tensor_split(torch.arange(len(chosen)), -(-len(chosen) // PICTURES) or 1):
        some = [chosen[i] for i in places.tolist()]
        if not some:
            continue
        x = shown(net, data, torch.tensor([one.image for one in some])).x
        classes = [one.predicted if target == "predicted" else one.label for one in some]
        cams = grad_cam(net, x, classes, at)
        sums = _integrated(net, x, classes, empty(split, x, baseline), steps)
        for one, explained, cam, integrated in zip(some, classes, cams, sums, strict=True):
            rows.append(
                {
                    "image": one.image,
                    "file": split.files[one.image] if split.files else None,
                    "label": one.label,
                    "predicted": one.predicted,
                    "confidence": _rounded(one.confidence, 6),
                    "right": one.right,
                    "target": explained,
                    "at": at,
                    "grad_cam": lines(cam),
                    **integrated,
                }
            )
        if progress is not None:
            progress("what the net looks at", len(rows), len(chosen))
    return rows


def place(net: Network, at: str | None = None) -> str:
    """Return the full name of the place `at`: a block as rows name it (`s3.b9`), or any one part.

    None stands for the last feature map, which the head averages: where the paper's method is at its best, and
    the same as its predecessor CAM (§3.1 there). Raises InputError.
    """
    blocks = [f"stages.{row['block']}" for row in taps.names(net)]
    if at is None:
        parts = [name for name, _ in net.head.named_children()]
        before = parts[: parts.index("pool")]
        return f"head.{before[-1]}" if before else blocks[-1]
    if f"stages.{at}" in blocks:
        return f"stages.{at}"
    try:
        found = list(taps.places(net, at))
    except InputError as error:
        names = [block.removeprefix("stages.") for block in blocks]
        allowed = f"a block, as {names[0]}, or a part of the net"
        raise InputError("at", error.got, allowed, nearest(at, names) or error.nearest) from error
    if len(found) > 1:
        raise InputError("at", f"{at!r}, {len(found)} places", "one place", found[-1])
    return found[0]


def grad_cam(net: Network, x: Tensor, classes: Sequence[int], at: str) -> Tensor:
    """Return the Grad-CAM of `x` [n, c, h, w] for its `classes` at the place `at`: [n, h', w'], never negative.

    ReLU(Σ_k α_k A^k), where A^k is the k-th channel there and α_k the mean over its pixels of the gradient of
    the class's logit (equations 1 and 2 of Selvaraju et al.). In evaluation mode. Raises InputError where the
    output at that place is no map.
    """
    with taps.at_rest(net), torch.enable_grad(), taps.tap(net, at, gradients=True) as seen:
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        _sum_of(net(x), classes).backward()  # type: ignore[no-untyped-call]
    (maps,), (gradients,) = seen[at], seen.gradients[at]
    if maps.dim() != 4:
        raise InputError("at", f"{at!r}, whose output has {maps.dim()} dimensions", "a part that makes maps")
    cam: Tensor = (gradients.mean((2, 3), keepdim=True) * maps).sum(1).relu()
    return cam


def integrated_gradients(
    net: Network, x: Tensor, classes: Sequence[int], baseline: Tensor, steps: int = STEPS
) -> Tensor:
    """Return the integrated gradients of `x` [n, c, h, w] for its `classes`, float64 of that shape on the CPU.

    (x - x') ∫ ∂F(x' + α (x - x'))/∂x dα from 0 to 1, F being the class's logit and x' the `baseline` (equation
    1 of Sundararajan et al.; equation 3 there sums at equal distances). The integral is taken by Gauss's and
    Legendre's rule with `steps` points. In evaluation mode. Raises InputError for less than one step.
    """
    if steps < 1:
        raise InputError("steps", steps, "a whole number from 1", 1)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    alphas, shares = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    ways, wanted = x - baseline, torch.tensor(list(classes))
    total = torch.zeros(x.shape, dtype=torch.float64)
    every = torch.cartesian_prod(torch.arange(len(x)), torch.arange(steps))
    with taps.at_rest(net), torch.enable_grad():
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        for pairs in torch.tensor_split(every, -(-len(every) // POINTS)):
            image, node = pairs.unbind(1)
            along = alphas[node].to(x)[:, None, None, None] * ways[image.to(x.device)]
            points = (baseline + along).requires_grad_()
            (gradients,) = torch.autograd.grad(_sum_of(net(points), wanted[image].tolist()), points)
            total.index_add_(0, image, shares[node][:, None, None, None] * gradients.cpu().double())
    return ways.cpu().double() * total


def empty(split: Split, x: Tensor, baseline: Baseline) -> Tensor:
    """Return an input without content, like one of `x` [n, c, h, w]: all black, or all of the mean colour."""
    assert split.preprocessing is not None
    colour = torch.zeros(x.shape[1]) if baseline == "mean" else _black(split)
    return colour.to(x)[:, None, None].expand(x.shape[1:])


class _Verdict(NamedTuple):
    image: int
    label: int
    predicted: int
    confidence: float

    @property
    def right(self) -> bool:
        return self.label == self.predicted


@torch.no_grad()
def _verdicts(
    net: Network, data: Dataset | Split, images: int, batch: int, seed: int, progress: Progress | None
) -> list[_Verdict]:
    """Return what `net` says of each image, in the order drawn; without those whose logits are not finite."""
    found: list[_Verdict] = []
    batches = drawn(net, data, images=images, batch=batch, seed=seed, labelled=True)
    with taps.at_rest(net):
        for x, labels, indices in batches:
            confidence, predicted = net(x).double().softmax(1).max(1)
            columns = (one.tolist() for one in (indices, labels, predicted, confidence))
            found += map(_Verdict._make, zip(*columns, strict=True))
            if progress is not None:
                progress("classifying", len(found), taken(data, images))
    return [one for one in found if math.isfinite(one.confidence)]


def _good(verdicts: Sequence[_Verdict], count: int) -> list[_Verdict]:
    before: Counter[int] = Counter()
    ranked: list[tuple[int, int, _Verdict]] = []
    for i, one in enumerate(one for one in verdicts if one.right):
        ranked.append((before[one.label], i, one))
        before[one.label] += 1
    return [one for *_, one in sorted(ranked)[:count]]


def _mistakes(verdicts: Sequence[_Verdict], count: int) -> list[_Verdict]:
    wrong = [one for one in verdicts if not one.right]
    return sorted(wrong, key=lambda one: (-one.confidence, one.image))[:count]


def _integrated(
    net: Network, x: Tensor, classes: Sequence[int], baseline: Tensor, steps: int
) -> list[dict[str, Any]]:
    """Return the columns of the integrated gradients of each of `x` [n, c, h, w]."""
    found = integrated_gradients(net, x, classes, baseline, steps)
    with taps.at_rest(net), torch.no_grad():
        logits = net(torch.cat([x, baseline[None]])).double().cpu()
    rows: list[dict[str, Any]] = []
    for own, logit, explained in zip(found, logits, classes, strict=False):  # the last is the baseline
        attributed, risen = float(own.sum()), float(logit[explained] - logits[-1, explained])
        rows.append(
            {
                "logit": _rounded(float(logit[explained]), 6),
                "integrated": lines(own.sum(0), summed=True),
                "attributed": _rounded(attributed, 6),
                "baseline_logit": _rounded(float(logits[-1, explained]), 6),
                "completeness_error": _rounded(attributed - risen, 6),
            }
        )
    return rows


def _sum_of(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Return the sum of each image's own logit, so that no image is in another's gradient."""
    return logits.gather(1, torch.tensor(list(classes), device=logits.device)[:, None]).sum()


def _black(split: Split) -> Tensor:
    assert split.preprocessing is not None
    mean, std = (
        torch.tensor(one, dtype=torch.float64) for one in (split.preprocessing.mean, split.preprocessing.std)
    )
    return -mean / std


def lines(values: Tensor, *, summed: bool = False) -> list[list[float | None]]:
    """Return a map [h, w] as a list for each line, with no more than `CELLS` of them, as rows have it."""
    side = -(-max(values.shape) // CELLS)
    cells = functional.avg_pool2d(
        values.detach().cpu().double()[None, None],
        side,
        ceil_mode=True,
        count_include_pad=False,
        divisor_override=1 if summed else None,
    )
    return [[_rounded(value, DIGITS) for value in line] for line in cells[0, 0].tolist()]


def _rounded(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _check(value: str, options: Any, where: str) -> None:
    first, second = get_args(options)
    if value not in (first, second):
        raise InputError(where, repr(value), f"{first} or {second}", first)
