"""How strong the signal is: every layer's response, what comes to the junctions, and how the stream grows.

He et al. 2015, arXiv:1512.03385, §4.2 and figure 7: the layers of residual nets respond less than those of
plain ones, and less the deeper the net. De and Smith 2020, arXiv:2002.10444, §2: where nothing normalises the
stream, its variance grows with every block.
"""

from __future__ import annotations

import math
import statistics as stats
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.instruments import images as pictures
from deepskip.instruments import taps
from deepskip.instruments.columns import short
from deepskip.nets.block import ResidualBlock
from deepskip.nets.network import Network
from deepskip.nets.parts import BranchOnly, SqueezeExcitation

IMAGES, BATCH = 1024, 128


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    statistics: taps.Statistics = "running",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each block of `net`, in order:

    - `block`, `stage`, `index` (from 1), `shortcut`;
    - `response_std`: a list, the standard deviation of each layer's response, in the order of the branch. A
      layer is a convolution; its response is what there is before the next ReLU or the end of the branch,
      after the normaliser if one stands there (figure 7), and before a squeeze-and-excitation;
    - `branch_rms`, `shortcut_rms`: root mean square of what comes to the junction by the branch and by the
      shortcut, before gates and scales; the latter null in a plain net;
    - `stream_std`: standard deviation of the block's output; `stream_rms`: its root mean square.

    Each is over all images, channels and places, [n, c, h, w], in the units of the activations; null where it
    is not finite. In evaluation mode; an untrained net has no running `statistics` to speak of: "batch" takes
    those of each batch. At most `images` pictures, drawn by `seed`; of a data set its validation pictures.
    Nothing is kept of a tensor but three sums. The network is left as it was. Raises InputError.
    """
    names = taps.names(net)
    places = [f"stages.{name['block']}" for name in names]
    blocks = [cast("ResidualBlock", block) for block in net.blocks()]
    responses = [
        [f"{place}.branch.{part}" for part in _responding(block.branch)]
        for place, block in zip(places, blocks, strict=True)
    ]
    wanted = [name for some in responses for name in some]
    wanted += [f"{place}{part}" for place in places for part in ("", ".branch", ".shortcut")]
    drawn = pictures.drawn(net, data, images=images, batch=batch, seed=seed)
    total = -(-pictures.taken(data, images) // batch)
    with taps.at_rest(net, statistics), torch.no_grad(), taps.tap(net, wanted, _sums) as seen:
        for done, (x, _, _) in enumerate(drawn, 1):
            net(x)
            if progress:
                progress("measuring the signal", done, total)
    found = {name: _Moments(sums) for name, sums in seen.items()}
    return [
        {
            **name,
            "response_std": [found[layer].std for layer in layers],
            "branch_rms": found[f"{place}.branch"].rms,
            "shortcut_rms": None if isinstance(block.junction, BranchOnly) else found[f"{place}.shortcut"].rms,
            "stream_std": found[place].std,
            "stream_rms": found[place].rms,
        }
        for name, place, block, layers in zip(names, places, blocks, responses, strict=True)
    ]


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what `measure`'s rows say of the net; null where there is no such number.

    - `plain`: whether no block has a shortcut; `layers`, how many the branches have; `response_median`,
      `response_low` and `response_high`: the median of their `response_std`, the least and the largest;
    - `branch_to_shortcut`: the median over blocks of `branch_rms` / `shortcut_rms`;
    - `stages`: for each stage its `stage`, `blocks`, `stream_first` and `stream_last` (`stream_std` after its
      first and its last block), and `growth`: the slope of the natural logarithm of the stream's variance
      against the number of the block, by least squares, null of one block. 0 is a stream that stays as it is;
      one whose blocks all add as much to it grows by 1 / l at its l-th.
    """
    layers = [std for row in rows for std in row["response_std"]]
    responses = [std for std in layers if std is not None]
    ratios = [
        row["branch_rms"] / row["shortcut_rms"]
        for row in rows
        if row["branch_rms"] is not None and row["shortcut_rms"]
    ]
    return {
        "plain": all(row["shortcut"] == "none" for row in rows),
        "layers": len(layers),
        "response_median": _median(responses),
        "response_low": min(responses, default=None),
        "response_high": max(responses, default=None),
        "branch_to_shortcut": _median(ratios),
        "stages": [_stage(name, list(some)) for name, some in groupby(rows, lambda row: row["stage"])],
    }


def _responding(branch: nn.Module) -> list[str]:
    """Return the names of the parts of `branch` that give its layers' responses."""
    found: list[str] = []
    last: str | None = None
    for name, part in branch.named_children():
        if isinstance(part, nn.ReLU | SqueezeExcitation):
            found += [last] if last else []
            last = None
        elif last or isinstance(part, nn.Conv2d):
            last = name
    return [*found, last] if last else found


def _sums(x: Tensor) -> tuple[int, float, float]:
    """Return the number of values in `x`, their sum and the sum of their squares.

    As numbers: a small tensor that stays where large ones come and go keeps their place from being used again.
    """
    square = torch.linalg.vector_norm(x, dtype=torch.float64).square()
    total, squares = torch.stack([x.sum(dtype=torch.float64), square]).tolist()
    return x.numel(), total, squares


class _Moments:
    """What the sums of all batches come to."""

    def __init__(self, sums: list[tuple[int, float, float]]) -> None:
        count, total, squares = (sum(each) for each in zip(*sums, strict=True))
        mean, square = total / count, squares / count
        self.rms = short(math.sqrt(square) if square >= 0 else math.nan)
        variance = square - mean * mean
        self.std = short(math.sqrt(max(variance, 0.0)) if math.isfinite(variance) else math.nan)


def _stage(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    logs = {i: 2 * math.log(row["stream_std"]) for i, row in enumerate(rows) if row["stream_std"]}
    whole = len(rows) > 1 and len(logs) == len(rows)
    return {
        "stage": name,
        "blocks": len(rows),
        "stream_first": rows[0]["stream_std"],
        "stream_last": rows[-1]["stream_std"],
        "growth": short(stats.linear_regression(list(logs), list(logs.values())).slope) if whole else None,
    }


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return short(stats.median(found)) if found else None
