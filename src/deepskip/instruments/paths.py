"""How long the paths are that carry gradient: a residual net of n blocks is 2ⁿ paths, most carry next to none.

Veit et al. 2016, arXiv:1605.06431, §3 (the paths, their lengths) and §4.3 (figure 6: how much gradient comes
through paths of each length).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor
from torch.nn import functional

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.describe import ledger
from deepskip.errors import InputError
from deepskip.instruments import images as pictures
from deepskip.instruments import taps
from deepskip.instruments.columns import DIGITS, short
from deepskip.instruments.intervals import Z
from deepskip.nets.block import ResidualBlock
from deepskip.nets.network import Network
from deepskip.seeds import derive

IMAGES, BATCH = 1024, 128
LENGTHS = 64
"""Lengths that are sampled, at most."""
MOST = 12
"""Blocks of a net all of whose paths can be gone through, at most: 2¹² times."""
SHARE = 95.0
"""Percent of the gradient that the paths have which are called effective."""
_MEMORY = 2**30
"""Bytes that a batch may hold, about; batches are smaller where they would hold more."""


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    exact: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each length k = 0 … n that a path through `net` of n blocks can have, in branches.

    A path takes at every block either the branch or the shortcut. Its gradient is what comes back by it alone,
    from an image's loss to the image, while all activations are those of the whole net; the gradients of all
    paths add up to that of the net.

    - `length`: k; `paths`: how many paths have it (from the ledger; a whole number of any size);
      `share`: of all paths, in percent;
    - `gradient`: Euclidean norm of a path's gradient by the image, the mean over the images and paths seen;
      null where there is no path; `gradient_low`, `gradient_high`: its 95% interval, over images;
    - `seen`: how many paths of this length were gone back through, images times paths;
    - `contribution`: `paths` times `gradient` (figure 6c), in percent of the sum over all lengths; `effective`:
      whether the length is in the narrowest range of lengths that holds 95% of that sum; null where one of the
      gradients is no finite number.

    At each length every image has a random path of its own, where the paper draws one for a whole batch; with
    `exact` all paths of all images are gone through, which nets of up to 12 blocks allow. In nets of 64 blocks
    and more some lengths are sampled and `gradient` is interpolated between them, on a logarithmic scale
    (`seen` is 0). In evaluation mode, on at most `images` pictures drawn by `seed`, of a data set from its
    validation pictures. The network is left as it was. Raises InputError.
    """
    n, counts = sum(1 for _ in net.blocks()), ledger.count(net.spec).paths()
    if exact and n > MOST:
        raise InputError("exact", f"a net of {n} blocks", f"{MOST} or fewer: there are 2ⁿ paths", False)
    lengths = [k for k in _lengths(n) if counts[k]]
    batch = min(batch, max(1, _MEMORY // _bytes(net, len(lengths), exact)))
    drawn = pictures.drawn(net, data, images=images, batch=batch, seed=seed, labelled=True)
    count = pictures.taken(data, images)
    chance = torch.rand(count, n, generator=Generator().manual_seed(derive(seed, "paths")))
    order = iter(chance.argsort(1).argsort(1))  # a path of k branches takes an image's blocks below k in it
    total = -(-count // batch)
    # Made at once: small tensors made among large ones, and kept, would keep their place from being used again.
    found, start = {k: torch.empty(count, dtype=torch.float64) for k in lengths}, 0
    with taps.at_rest(net):
        net.requires_grad_(False)  # only activations are gone back through
        for done, (x, labels, _) in enumerate(drawn, 1):
            way = _WayBack(net, x, labels)
            if exact:
                norms = way.all_paths(counts)
            else:
                norms = way.some_paths(lengths, torch.stack([next(order) for _ in x]))
            for k in lengths:
                found[k][start : start + len(x)] = norms[k]
            start += len(x)
            if progress:
                progress("going back through paths", done, total)
    return _rows(counts, found, exact)


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what `measure`'s rows say of the net; lengths in branches, null where there is no gradient.

    - `blocks`, `paths` (how many); `length_mean` and `length_low` to `length_high`: the mean length of all
      paths, and the narrowest range of lengths that holds 95% of them;
    - `effective_mean`, `effective_low`, `effective_high`: the same of the gradient that comes through them;
    - `effective_share`: how many of all paths have a length in that range, in percent.
    """
    shares = [row["share"] for row in rows]
    low, high = _range(shares)
    effective = [row["length"] for row in rows if row["effective"]]
    parts = [row["contribution"] for row in rows] if effective else None
    return {
        "blocks": len(rows) - 1,
        "paths": sum(row["paths"] for row in rows),
        "length_mean": _mean(shares),
        "length_low": low,
        "length_high": high,
        "effective_mean": parts and _mean(parts),
        "effective_low": effective[0] if effective else None,
        "effective_high": effective[-1] if effective else None,
        "effective_share": short(sum(shares[k] for k in effective)) if effective else None,
    }


def _mean(shares: Sequence[float]) -> float:
    return round(sum(k * share for k, share in enumerate(shares)) / sum(shares), DIGITS)


def _range(shares: Sequence[float]) -> tuple[int, int]:
    """Return the narrowest range of places that holds 95% of `shares`, from its first place to its last."""
    total, inside, low, best = sum(shares), 0.0, 0, (0, len(shares) - 1)
    for high, share in enumerate(shares):
        inside += share
        while inside - shares[low] >= total * SHARE / 100:
            inside -= shares[low]
            low += 1
        if inside >= total * SHARE / 100 and high - low < best[1] - best[0]:
            best = (low, high)
    return best


# --- going back -----------------------------------------------------------------------------------------------


class _Fork:
    """A block at a batch's activations: the gradient goes back by its shortcut or by its branch, many times."""

    def __init__(self, block: ResidualBlock, x: Tensor) -> None:
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            h = block.before(self.x.view_as(self.x))  # never the leaf itself, where all parts are identities
            self.ways = (block.shortcut(h), block.branch(h))
            self.ends = [way.detach().requires_grad_() for way in self.ways]
            joined = block.junction(*self.ends)
            self.out = block.after(joined.view_as(joined))

    def back(self, gradient: Tensor, branch: Tensor) -> Tensor:
        """Return the gradient by the input, of that by the output, both [b, …]; `branch` [b] says which way."""
        arrived = torch.autograd.grad(self.out, self.ends, gradient, retain_graph=True, allow_unused=True)
        outs, gradients = [], []
        for out, one, taken in zip(self.ways, arrived, (~branch, branch), strict=True):
            if one is not None and bool(taken.any()):
                outs.append(out)
                gradients.append(one * taken.view(-1, *[1] * (one.dim() - 1)))
        if not outs:
            return torch.zeros_like(self.x)
        (found,) = torch.autograd.grad(outs, self.x, gradients, retain_graph=True)
        return found


class _WayBack:
    """From the loss of each image of a batch [b, …] back to the image, along chosen paths.

    Gradients are scaled on the way, and the logarithm of what they would be is kept beside them, because those
    of long paths are smaller than any number of float32.
    """

    def __init__(self, net: Network, images: Tensor, labels: Tensor) -> None:
        self.net, self.images, self.labels = net, images, labels
        self.blocks = [cast("ResidualBlock", block) for block in net.blocks()]
        self.inputs: list[Tensor] = []
        with torch.no_grad():
            x = net.stem(images)
            for block in self.blocks:
                self.inputs.append(x)
                x = block(x)
        self.last = x

    def _begin(self) -> tuple[Tensor, Tensor]:
        x = self.last.detach().requires_grad_()
        with torch.enable_grad():
            # In float64: where a net is sure, float32 rounds the gradient away.
            loss = functional.cross_entropy(self.net.head(x).double(), self.labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        return _scaled(gradient, torch.zeros(len(x), dtype=torch.float64, device=x.device))

    def _end(self, gradients: dict[Any, tuple[Tensor, Tensor]]) -> dict[Any, Tensor]:
        x = self.images.detach().requires_grad_()
        with torch.enable_grad():
            out = self.net.stem(x)
        return {
            key: (log + _norm(*torch.autograd.grad(out, x, one, retain_graph=True)).log()).cpu()
            for key, (one, log) in gradients.items()
        }

    def some_paths(self, lengths: Sequence[int], order: Tensor) -> dict[int, Tensor]:
        """Return, for each length k, the logarithm of the norm [b] of each image's path of k branches.

        It takes those branches whose number in `order`, int64 [b, n], is below k.
        """
        order = order.to(self.images.device)
        at = dict.fromkeys(lengths, self._begin())
        for i in reversed(range(len(self.blocks))):
            fork = _Fork(self.blocks[i], self.inputs[i])
            for k, (gradient, log) in at.items():
                at[k] = _scaled(fork.back(gradient, order[:, i] < k), log)
        return self._end(at)

    def all_paths(self, counts: Sequence[int]) -> dict[int, Tensor]:
        """Return, for each length, the logarithm of the mean norm [b] of each image's paths of that length."""
        forks = [_Fork(block, x) for block, x in zip(self.blocks, self.inputs, strict=True)]
        branch = torch.ones(len(self.images), dtype=torch.bool, device=self.images.device)

        def walk(i: int, gradient: Tensor, log: Tensor, length: int) -> Iterator[tuple[int, Tensor]]:
            if i < 0:
                yield length, self._end({0: (gradient, log)})[0]
                return
            yield from walk(i - 1, *_scaled(forks[i].back(gradient, ~branch), log), length)
            yield from walk(i - 1, *_scaled(forks[i].back(gradient, branch), log), length + 1)

        found: dict[int, list[Tensor]] = {}
        for length, log in walk(len(forks) - 1, *self._begin(), 0):
            found.setdefault(length, []).append(log)
        return {
            k: torch.stack(logs).logsumexp(0) - math.log(counts[k]) for k, logs in found.items() if counts[k]
        }


def _norm(gradient: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)
    return norm


def _scaled(gradient: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
    """Return `gradient` [b, …] with a norm near 1 for each image, and the logarithm [b] of what undoes that."""
    scale = (1 / _norm(gradient)).clamp(max=1e30)  # of zeros too, which stay zeros
    return gradient * scale.to(gradient.dtype).view(-1, *[1] * (gradient.dim() - 1)), log - scale.log()


# --- counting -------------------------------------------------------------------------------------------------


def _lengths(n: int) -> list[int]:
    """Return the lengths to measure: all, or some that lie closer where paths are short."""
    if n < LENGTHS:
        return list(range(n + 1))
    return sorted({round(n * (i / (LENGTHS - 1)) ** 2) for i in range(LENGTHS)})


def _bytes(net: Network, lengths: int, exact: bool) -> int:
    """Return about how many bytes an image holds: the blocks' inputs, and a gradient for each length."""
    width, sites = next(net.parameters()).element_size(), list(net.spec.sites())
    if exact:
        return ledger.count(net.spec).activation_bytes(1, width)
    inputs = [site.inputs.values for site in sites]
    return width * (sum(inputs) + lengths * max(inputs))


def _rows(counts: Sequence[int], found: dict[int, Tensor], exact: bool) -> list[dict[str, Any]]:
    """Return the rows, of each length's logarithms of norms, float64 [images]."""
    means = {k: float(logs.logsumexp(0)) - math.log(len(logs)) for k, logs in found.items()}
    logs = [_between(means, k) if count else -math.inf for k, count in enumerate(counts)]
    parts = [math.log(count) + log if count else -math.inf for count, log in zip(counts, logs, strict=True)]
    top, total = max(parts), sum(counts)
    whole = sum(math.exp(part - top) for part in parts) if math.isfinite(top) else math.nan
    known = not math.isnan(whole)
    shares = [math.exp(part - top) / whole if known else math.nan for part in parts]
    first, last = _range(shares) if known else (0, 0)
    rows = []
    for k, count in enumerate(counts):
        seen = len(found[k]) * (count if exact else 1) if k in found else 0
        low, high = _interval(found[k], means[k]) if k in found else (None, None)
        rows.append(
            {
                "length": k,
                "paths": count,
                "share": short(100 * count / total),
                "gradient": short(_exp(logs[k])) if count else None,
                "gradient_low": low,
                "gradient_high": high,
                "seen": seen,
                "contribution": short(100 * shares[k]),
                "effective": first <= k <= last if known else None,
            }
        )
    return rows


def _between(means: dict[int, float], k: int) -> float:
    """Return the logarithm at `k`, on the straight line between its measured neighbours."""
    if k in means:
        return means[k]
    low, high = max(m for m in means if m < k), min(m for m in means if m > k)
    return means[low] + (means[high] - means[low]) * (k - low) / (high - low)


def _interval(logs: Tensor, log: float) -> tuple[float | None, float | None]:
    """Return the 95% interval of the mean norm whose logarithm is `log`, over images."""
    if len(logs) < 2 or not math.isfinite(log):
        return None, None
    reach = Z * float((logs - log).exp().std()) / math.sqrt(len(logs))
    return short(max(1 - reach, 0.0) * _exp(log)), short((1 + reach) * _exp(log))


def _exp(log: float) -> float:
    return math.exp(log) if log < 700 else math.inf
