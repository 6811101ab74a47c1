"""The loss around a net's weights, along random directions that are as long, filter by filter, as the net.

After Li et al. 2018, arXiv:1712.09913: equation 1 for one direction and two, §4 for how long directions are. A
ReLU net whose filters are multiplied in one layer and divided in the next computes the same; steps in units of
each filter's norm leave it the same landscape too, so that nets can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.errors import InputError
from deepskip.instruments import taps
from deepskip.instruments.images import drawn
from deepskip.nets.network import Network
from deepskip.seeds import derive

SPAN = 1.0
LINE, PLANE = 31, 13
IMAGES, BATCH = 200, 100
RISE = 1.0  # nats
DIGITS = 6

Weights = dict[str, Tensor]
Batches = Sequence[tuple[Tensor, Tensor]]


def measure(
    net: Network,
    data: Dataset | Split,
    beside: Network | None = None,
    *,
    span: float = SPAN,
    line: int = LINE,
    plane: int = PLANE,
    images: int = IMAGES,
    batch: int = BATCH,
    statistics: taps.Statistics = "running",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each point around the weights θ of `net`, and then of `beside` (its plain twin, say):

    - `which`: 1 for `net`, 2 for `beside`; `net`: its name; `kind`: "residual" or "plain".
    - `dimensions`: 1 for the `line` points θ + x δ, 2 for the `plane` × `plane` points θ + x δ + y η.
    - `x`, `y`: where, from -`span` to `span` in units of each filter's norm; `y` is null on the line. 0 is θ.
    - `loss`: mean cross-entropy in nats; `error`: percent of images whose most probable class is wrong; both
      null where a logit is not finite. `n`: images, drawn by `seed` from the validation pictures, the same for
      all points and nets.

    δ and η are drawn by `seed` and the weights' names, so that nets whose weights have the same names begin
    with the same numbers; see `directions`. Normalisers divide by their running `statistics`, as in evaluation
    and in the paper; "batch" takes those of each batch. The weights are never written to. Raises InputError for
    a number of points that is neither odd nor 0 (left out), and for a span that is not above 0.
    """
    for where, count in (("line", line), ("plane", plane)):
        if count != 0 and (count < 3 or count % 2 == 0):
            raise InputError(where, count, "an odd number from 3, or 0 for none", max(3, count + 1))
    if not (span > 0 and math.isfinite(span)):
        raise InputError("span", span, "a finite number above 0", SPAN)
    points: list[tuple[float, float | None]] = [(x, None) for x in _axis(line, span)]
    points += [(x, y) for y in _axis(plane, span) for x in _axis(plane, span)]
    nets = [net] if beside is None else [net, beside]
    rows: list[dict[str, Any]] = []
    for which, one in enumerate(nets, 1):
        found = drawn(one, data, images=images, batch=batch, seed=seed, labelled=True)
        batches = [(x, labels) for x, labels, _ in found]
        deltas = [directions(one, seed, axis) for axis in ("x", "y")]
        named = {"which": which, "net": one.spec.name, "kind": "plain" if one.spec.is_plain else "residual"}
        with taps.at_rest(one, statistics):
            for x, y in points:
                loss, error = _score(one, moved(one, deltas, (x, y or 0.0)), batches)
                n = sum(len(labels) for _, labels in batches)
                place = {"dimensions": 1 if y is None else 2, "x": x, "y": y}
                rows.append({**named, **place, "loss": loss, "error": error, "n": n})
                if progress is not None:
                    progress("the loss around the weights", len(rows), len(nets) * len(points))
    return rows


@torch.no_grad()
def directions(net: Network, seed: int, axis: str) -> Weights:
    """Return a random direction in the space of the weights: a tensor for each parameter that moves.

    Gaussian numbers, drawn by `seed`, `axis` and the parameter's name, and scaled so that each filter of the
    direction (what one output channel or class is computed with) has the norm of the net's own: d ‖θ‖ / ‖d‖,
    §4. Biases, and weights of normalisers, gates' and Fixup's scalars do not move: as in the authors' program,
    whatever is no matrix or kernel has a direction of zero, and is left out here.
    """
    found: Weights = {}
    for name, weight in net.named_parameters():
        if weight.dim() < 2:
            continue
        generator = torch.Generator().manual_seed(derive(seed, "landscape", axis, name))
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        scale = _norms(weight) / _norms(drawn)
        drawn *= scale.reshape(-1, *[1] * (weight.dim() - 1))
        found[name] = torch.empty_like(weight).copy_(drawn)
    return found


@torch.no_grad()
def moved(net: Network, deltas: Sequence[Weights], steps: Sequence[float]) -> Weights:
    """Return the net's weights, each plus its `deltas` times the `steps`, in tensors of their own."""
    held = dict(net.named_parameters())
    found: Weights = {}
    for name in deltas[0]:
        found[name] = held[name].detach().clone()
        for delta, step in zip(deltas, steps, strict=True):
            if step:  # at 0 the weights are the net's own bit for bit
                found[name].add_(delta[name], alpha=step)
    return found


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return `landscape`: for each net its `which`, `net`, `kind`, and what its rows say:

    - `loss`, `error`: at the weights themselves.
    - `width`: the distance along the line, in norms of filters, at which the loss has risen by one nat, to the
      side where that is nearer, interpolated between points, or at which it is not finite; null where neither
      happens within the span.
    - `lower`: by how many nats the lowest point that was measured is below the weights; 0 when none is.
    """
    nets: list[dict[str, Any]] = []
    for which in sorted({row["which"] for row in rows}):
        own = [row for row in rows if row["which"] == which]
        centre = next(row for row in own if row["x"] == 0 and not row["y"])
        losses = [row["loss"] for row in own if row["loss"] is not None]
        base = centre["loss"]
        nets.append(
            {
                **{name: centre[name] for name in ("which", "net", "kind", "loss", "error")},
                "width": None if base is None else _width(own, base),
                "lower": None if base is None else _rounded(base - min(losses)),
            }
        )
    return {"landscape": nets}


def _width(rows: Sequence[Mapping[str, Any]], base: float) -> float | None:
    line = sorted((row for row in rows if row["dimensions"] == 1), key=lambda row: abs(row["x"]))
    found: list[float] = []
    for side in (-1, 1):
        before = (0.0, base)
        for row in (row for row in line if row["x"] * side > 0):
            x, loss = abs(row["x"]), row["loss"]
            if loss is None or loss >= base + RISE:
                share = 1.0 if loss is None else (base + RISE - before[1]) / (loss - before[1])
                found.append(before[0] + share * (x - before[0]))
                break
            before = (x, loss)
    return _rounded(min(found)) if found else None


def _axis(count: int, span: float) -> list[float]:
    half = count // 2
    return [_rounded(span * i / half) for i in range(-half, half + 1)] if count else []


def _norms(weight: Tensor) -> Tensor:
    """Return the Euclidean norm of each filter, float64 [filters] on the CPU."""
    norms: Tensor = weight.detach().cpu().double().flatten(1).norm(dim=1)
    return norms


@torch.no_grad()
def _score(net: Network, weights: Weights, batches: Batches) -> tuple[float | None, float | None]:
    loss, wrong, n = 0.0, 0, 0
    for x, labels in batches:
        logits = functional_call(net, weights, (x,)).cpu().double()
        if not bool(logits.isfinite().all()):
            return None, None
        labels = labels.cpu()
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
        wrong += int((logits.argmax(1) != labels).sum())
        n += len(labels)
    return _rounded(loss / n), _rounded(100 * wrong / n)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
