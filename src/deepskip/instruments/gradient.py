"""How the gradient is at every block, at the net as it is and at its initial values, and whether it is noise.

He et al. 2015, arXiv:1512.03385, §4.1, rule out that gradients vanish in plain nets with batch normalisation.
Balduzzi et al. 2017, arXiv:1702.08591, see what is wrong with them instead: gradients at different inputs are
hardly correlated at the first layers of deep plain nets, where those of residual nets still are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.errors import InputError
from deepskip.instruments import images as pictures
from deepskip.instruments import taps
from deepskip.instruments.columns import short
from deepskip.nets.builder import build
from deepskip.nets.network import Network

IMAGES, BATCH = 512, 64
SETTLING = 128
"""Images a batch whose statistics the initial net takes."""
_MEMORY = 2**30
"""Bytes that the blocks' inputs of a batch may take; batches are smaller where they would take more."""


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    initial_seed: int | None = 0,
    statistics: taps.Statistics = "running",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each block of `net`, in order; nothing is trained:

    - `block`, `stage`, `index` (from 1), `shortcut`;
    - `grad_norm`: Euclidean norm of the gradient of the images' mean cross-entropy by the block's parameters,
      frozen ones too;
    - `grad_correlation`: how alike gradients at different images are (Balduzzi et al. 2017, §3). The gradient
      of the sum of an image's logits by the block's input, all its values as one vector, has a cosine with that
      of each other image; this is the mean over all pairs. That is the paper's R(i, j), its expectations taken
      over the neurons of one net. 1 where the net is linear from here on, near 0 where gradients are noise;
    - `grad_norm_initial`, `grad_correlation_initial`: the same of the net that the Spec and `initial_seed`
      begin with; null when that is None.

    Null where it is not finite, or no two images have a gradient. With "running" `statistics` normalisers
    divide by what they remember of the training, so that an image's gradient is its own; those of the initial
    net, which has seen none, by the statistics of these images. With "batch" they take those of each batch and
    gradients go through them, as in training: an image's is then that of the whole batch's sum by its own
    values.

    At most `images` pictures, drawn by `seed`; of a data set its validation pictures. Blocks are computed again
    on the way back, so that of a batch no more than their inputs is held, and batches are smaller where that
    would be above a GiB. The network is left as it was. Raises InputError.
    """
    sites = list(net.spec.sites())
    held = next(net.parameters()).element_size() * sum(site.inputs.values for site in sites)
    draw = partial(pictures.drawn, net, data, images=images, seed=seed, labelled=True)
    batch = min(batch, max(1, _MEMORY // held))
    drawn = draw(batch=batch)
    count = pictures.taken(data, images)
    smallest = count // -(-count // batch) if statistics == "batch" else count
    if net.spec.norm in ("batch", "folded") and smallest < 2:
        raise InputError("images", f"{count}, {batch} a batch", "two a batch or more, for its statistics")
    told = _Told(progress, -(-count // batch) * (1 if initial_seed is None else 2))
    now = _measured(net, drawn, statistics, told)
    then = None
    if initial_seed is not None:
        weight = next(net.parameters())
        start = build(net.spec, initial_seed, dtype=weight.dtype, device=weight.device)
        if statistics == "running":
            _settle(start, draw(batch=SETTLING))
        then = _measured(start, draw(batch=batch), statistics, told)
    return [
        {
            **name,
            "grad_norm": now[i].norm,
            "grad_correlation": now[i].correlation,
            "grad_norm_initial": then and then[i].norm,
            "grad_correlation_initial": then and then[i].correlation,
        }
        for i, name in enumerate(taps.names(net))
    ]


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what `measure`'s rows say of the net, as it is and (with `_initial`) as it began; null as there.

    - `grad_fall`: `grad_norm` of the last block over that of the first: above 1 gradients vanish on their way;
    - `grad_range`: the largest over the smallest;
    - `grad_correlation_first`: `grad_correlation` at the first block's input.
    """
    found: dict[str, Any] = {}
    for end in ("", "_initial"):
        norms = [row[f"grad_norm{end}"] for row in rows]
        known = None not in norms
        found[f"grad_fall{end}"] = short(norms[-1] / norms[0]) if known and norms[0] else None
        found[f"grad_range{end}"] = short(max(norms) / min(norms)) if known and min(norms) else None
        found[f"grad_correlation_first{end}"] = rows[0][f"grad_correlation{end}"]
    return found


class _Told:
    """Tells how many batches of all are done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def __call__(self) -> None:
        self._done += 1
        if self._progress:
            self._progress("going back through blocks", self._done, self._total)


def _settle(net: Network, drawn: Iterable[pictures.Drawn]) -> None:
    """Let the batch normalisers of `net` remember the mean of the batches' statistics, and nothing else."""
    with taps.at_rest(net), torch.no_grad():
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # None: every batch counts as much
        for x, _, _ in drawn:
            net(x)


class _Block:
    """What comes back to a block: gradients by its parameters, and directions of those by its input, summed."""

    def __init__(self, block: nn.Module) -> None:
        self.compute = block
        self.parameters = list(block.parameters())
        self._gradients = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]
        self._directions: Tensor | None = None
        self._images = 0
        self.norm: float | None = None
        self.correlation: float | None = None

    def add(self, gradients: Sequence[Tensor], by_input: Tensor) -> None:
        """Take the summed loss's gradient by each parameter, and each image's by its input [b, c, h, w]."""
        for whole, gradient in zip(self._gradients, gradients, strict=True):
            whole += gradient
        flat = by_input.double().flatten(1)
        norms = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
        if self._directions is None:
            self._directions = torch.zeros_like(flat[0])
        self._directions += torch.where(norms == 0, 0.0, flat / norms).sum(0)
        self._images += int((norms != 0).sum())

    def close(self, images: int) -> None:
        """Make of the sums over all `images` the two numbers, and let go of what was held for them."""
        squares = torch.stack([gradient.square().sum() for gradient in self._gradients])
        self.norm = short(math.sqrt(float(squares.sum())) / images)
        n, directions = self._images, self._directions
        if n > 1 and directions is not None:
            # Of unit vectors, the sum's square is n and all the cosines of two different ones.
            self.correlation = short((float(directions.square().sum()) - n) / (n * (n - 1)))
        self._gradients, self._directions = [], None


def _measured(
    net: Network, drawn: Iterable[pictures.Drawn], statistics: taps.Statistics, told: Callable[[], None]
) -> list[_Block]:
    """Return what comes back to each block of `net` from all images."""
    images = 0
    with taps.at_rest(net, statistics):
        net.requires_grad_(True)
        blocks = [_Block(block) for block in net.blocks()]
        for x, labels, _ in drawn:
            _go_back(net, blocks, x, labels)
            images += len(x)
            told()
    for block in blocks:
        block.close(images)
    return blocks


def _go_back(net: Network, blocks: Sequence[_Block], x: Tensor, labels: Tensor) -> None:
    """Add to `blocks` what a batch brings: block by block from the last, each computed again from its input."""
    with torch.no_grad():
        stream = [net.stem(x)]
        for block in blocks:
            stream.append(block.compute(stream[-1]))
    with torch.enable_grad():
        end = stream.pop().requires_grad_()
        logits = net.head(end)
        (by_loss,) = _gradients(functional.cross_entropy(logits, labels, reduction="sum"), [end])
        (by_sum,) = _gradients(logits.sum(), [end])
        for block in reversed(blocks):
            x = stream.pop().requires_grad_()
            y = block.compute(x)
            by_loss, *by_parameters = _gradients(y, [x, *block.parameters], by_loss)
            (by_sum,) = _gradients(y, [x], by_sum)
            block.add(by_parameters, by_sum)


def _gradients(y: Tensor, by: Sequence[Tensor], gradient: Tensor | None = None) -> Sequence[Tensor]:
    """Return the gradients of `y`, each a zero where it does not depend on what it is by; the graph stays."""
    return torch.autograd.grad(y, by, gradient, retain_graph=True, allow_unused=True, materialize_grads=True)
