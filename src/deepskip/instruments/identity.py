"""How far is each block from the identity? What it adds, against what it is given; how alike in and out are.

Veit et al. 2016, arXiv:1605.06431, and Greff et al. 2017, arXiv:1612.07771, read a residual net as a sum of
small steps that refine one representation; this measures how small the steps are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deepskip.data.dataset import Dataset, Split
from deepskip.instruments import images as pictures
from deepskip.instruments import taps
from deepskip.nets.network import Network
from deepskip.nets.parts import BranchOnly

IMAGES, BATCH = 1024, 128
LEAST = 4  # images that the unbiased estimate needs


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    statistics: taps.Statistics = "running",
) -> list[dict[str, Any]]:
    """Return a row for each block of `net`, in order, from validation images, in evaluation mode:

    - `block`, `stage`, `index` (from 1), `shortcut` ("identity", "pad", "projection", "none"), `n` images;
    - `ratio`: ‖F(x)‖ / ‖x‖, the mean over images. x is what the shortcut brings to the junction, F(x) what the
      junction adds to that, so that gates and learned scales count; in a plain net x is the block's input and
      F(x) what its branch makes of it.
    - `cosine`: of the block's input and output, each image's tensor as one vector, the mean over images.
    - `cka`: linear CKA of the block's inputs and outputs (Kornblith et al. 2019, arXiv:1905.00414), each
      image's tensor as its features. By the unbiased estimate of HSIC (Song et al. 2012, JMLR 13), averaged
      over batches before dividing (Nguyen et al. 2021, arXiv:2010.15327): the usual estimate tends to 1 where
      images have more features than there are images, as here; this one can fall a little outside of 0 to 1.
    - `equal`: whether every image's output is its input, bit for bit.

    Null stands where there is no such number: `cosine` where dimensions change, `ratio` too in a plain net, a
    quotient by zero, `cka` of fewer than four images a batch. At most `images` pictures are taken, drawn by
    `seed`. An untrained net has no running `statistics` to speak of: "batch" takes those of each batch. The
    network is left as it was. Raises InputError for data that the network does not take.
    """
    tally = _Tally([_Block() for _ in net.blocks()], [_is_plain(block) for block in net.blocks()])
    n = 0
    with taps.watched(net, tally, statistics):
        for x, _, _ in pictures.drawn(net, data, images=images, batch=batch, seed=seed):
            net(x)
            n += len(x)
    return [{**name, **block.row(), "n": n} for name, block in zip(taps.names(net), tally.blocks, strict=True)]


def _is_plain(block: Any) -> bool:
    return isinstance(block.junction, BranchOnly)


@dataclass
class _Block:
    ratios: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    inner: list[float] = field(default_factory=list)
    """HSIC of inputs and outputs, a number a batch."""
    inputs: list[float] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)
    equal: bool = True

    def row(self) -> dict[str, float | bool | None]:
        scale = math.sqrt(max(sum(self.inputs), 0.0) * max(sum(self.outputs), 0.0))
        return {
            "ratio": _mean(self.ratios),
            "cosine": _mean(self.cosines),
            "cka": sum(self.inner) / scale if scale > 0 and math.isfinite(scale) else None,
            "equal": self.equal,
        }


@dataclass
class _Tally:
    blocks: list[_Block]
    plain: list[bool]

    def joined(self, i: int, shortcut: Tensor, out: Tensor) -> None:
        if shortcut.shape == out.shape:
            s, joined = _flat(shortcut), _flat(out)
            added = joined if self.plain[i] else joined - s
            self.blocks[i].ratios += _quotients(added.norm(dim=1), s.norm(dim=1))

    def passed(self, i: int, x: Tensor, y: Tensor) -> None:
        block, same = self.blocks[i], x.shape == y.shape
        block.equal = block.equal and torch.equal(x, y)
        x, y = _flat(x), _flat(y)
        if same:
            block.cosines += _quotients((x * y).sum(1), x.norm(dim=1) * y.norm(dim=1))
        if len(x) >= LEAST:
            k, l = x @ x.T, y @ y.T  # noqa: E741 - the papers' K and L
            block.inner.append(hsic(k, l))
            block.inputs.append(hsic(k, k))
            block.outputs.append(hsic(l, l))


def hsic(k: Tensor, l: Tensor) -> float:  # noqa: E741
    """Return the unbiased estimate of HSIC from two kernel matrices [n, n], n ≥ 4 (Song et al. 2012, HSIC₁).

    The mean of k_ij (l_ij + l_qr - 2 l_iq) over all i, j, q, r that differ; adding one vector to all images'
    features does not change it.
    """
    n = len(k)
    k, l = (m - torch.diag(m.diagonal()) for m in (k, l))  # noqa: E741
    rows, columns = k.sum(0), l.sum(0)
    whole = (k * l).sum() + rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 * (rows @ columns) / (n - 2)
    return float(whole) / (n * (n - 3))


def _flat(x: Tensor) -> Tensor:
    """Return [n, c, h, w] as [n, features] in float64: of large numbers small differences are taken."""
    return x.detach().double().flatten(1)


def _quotients(above: Tensor, below: Tensor) -> list[float]:
    """Return the quotients of two [n], without those by zero."""
    return (above / below)[below > 0].tolist()


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values and all(map(math.isfinite, values)) else None
