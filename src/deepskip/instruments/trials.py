"""Variants of a network beside the network itself, on the same images: how many more are wrong, how surely."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.instruments import images as pictures
from deepskip.instruments import taps
from deepskip.instruments.intervals import paired, wilson
from deepskip.nets.network import Network

COLUMNS = ("error", "low", "high", "loss", "change", "change_low", "change_high")
DIGITS = 6  # behind the point

Part = Callable[[Tensor], Tensor]
"""What computes in the place of a block, [n, c, h, w] → [n, c', h', w']; the block itself is one."""


class Variant(NamedTuple):
    """A network that is the original up to block number `start` (from 0), and then `parts` and the head."""

    start: int
    parts: Sequence[Part]


def variant(blocks: Sequence[Part], parts: Sequence[Part]) -> Variant:
    """Return the variant of a network of `blocks` that has `parts`, as many, in their places."""
    differing = (i for i, (own, new) in enumerate(zip(blocks, parts, strict=True)) if own is not new)
    start = next(differing, len(blocks) - 1)
    return Variant(start, parts[start:])


def compare(
    net: Network,
    data: Dataset | Split,
    variants: Sequence[Variant | None],
    *,
    what: str,
    images: int,
    batch: int,
    seed: int,
    progress: Progress | None = None,
    prefix: str = "",
) -> list[dict[str, Any]]:
    """Return the columns of each of `variants`, null (but for the last two) for those that are None.

    - `error`: top-1 error in percent; `low` and `high`, its 95% interval (Wilson); `loss`: mean cross-entropy,
      in nats, null where it is not finite;
    - `change`: that error minus the network's, in points; `change_low`, `change_high`, its 95% interval, of the
      same images seen twice (Bonett and Price 2012);
    - `intact`: the network's own error, in percent; `n`: images.

    In evaluation mode. An image whose logits are not all finite is wrong. What comes before a variant's start
    is computed once for all of them, and no more than one block's input is held. Raises InputError.
    """
    tallies, intact = [_Tally() for _ in variants], _Tally()
    starting: dict[int, list[tuple[_Tally, Variant]]] = {}
    for tally, one in zip(tallies, variants, strict=True):
        if one is not None:
            starting.setdefault(one.start, []).append((tally, one))
    drawn = pictures.drawn(net, data, images=images, batch=batch, seed=seed, labelled=True)
    done, total = 0, sum(map(len, starting.values())) * -(-pictures.taken(data, images) // batch)
    with taps.at_rest(net), torch.no_grad():
        for x, labels, _ in drawn:
            judge = _Judge(net(x), labels)
            intact.add(judge.whole)
            x = net.stem(x)
            for i, block in enumerate(net.blocks()):
                for tally, one in starting.get(i, ()):
                    tally.add(judge(_rest(net, one.parts, x)))
                    done += 1
                    if progress:
                        progress(what, done, total)
                x = block(x)
    return [_columns(tally, intact, prefix) for tally in tallies]


def _rest(net: Network, parts: Sequence[Part], x: Tensor) -> Tensor:
    for part in parts:
        x = part(x)
    logits: Tensor = net.head(x)
    return logits


class _Judged(NamedTuple):
    """Counts of images: all, wrong, wrong only here, wrong only in the whole network; and their summed loss."""

    n: int
    wrong: int
    broken: int
    mended: int
    loss: float


class _Judge:
    """Compares logits [b, classes] with a batch's labels [b], and with the `whole` network's logits."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.labels = labels
        self.right = self._right(logits)
        self.whole = self(logits)

    def _right(self, logits: Tensor) -> Tensor:
        return (logits.argmax(1) == self.labels) & logits.isfinite().all(1)

    def __call__(self, logits: Tensor) -> _Judged:
        right = self._right(logits)
        wrong, broken, mended = torch.stack([~right, self.right & ~right, right & ~self.right]).sum(1).tolist()
        loss = functional.cross_entropy(logits.double(), self.labels, reduction="sum")
        return _Judged(len(right), wrong, broken, mended, float(loss))


class _Tally:
    """Sums of what was judged, over batches."""

    def __init__(self) -> None:
        self.sum = _Judged(0, 0, 0, 0, 0.0)

    def add(self, judged: _Judged) -> None:
        one, other = self.sum, judged
        self.sum = _Judged(
            n=one.n + other.n,
            wrong=one.wrong + other.wrong,
            broken=one.broken + other.broken,
            mended=one.mended + other.mended,
            loss=one.loss + other.loss,
        )


def _columns(tally: _Tally, intact: _Tally, prefix: str) -> dict[str, Any]:
    n, wrong, broken, mended, loss = tally.sum
    values: list[float | None] = [None] * len(COLUMNS)
    if n:
        change = 100 * (broken - mended) / n
        values = [100 * wrong / n, *wilson(wrong, n), loss / n, change, *paired(broken, mended, n)]
    columns = {name: rounded(value) for name, value in zip(COLUMNS, values, strict=True)}
    own = {"intact": rounded(100 * intact.sum.wrong / intact.sum.n), "n": intact.sum.n}
    return {f"{prefix}{name}": value for name, value in {**columns, **own}.items()}


def rounded(value: float | None) -> float | None:
    """Return `value` with six digits behind the point; None where it is no finite number."""
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)
