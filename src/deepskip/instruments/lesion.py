"""What a network loses with a block: each deleted, several at once, neighbours swapped, all in another order.

Veit et al. 2016, arXiv:1605.06431, §4.1 and 4.2 (figures 3 and 5): a residual net behaves like an ensemble of
paths, so that deleting one block, which leaves half of the paths, does little; a plain net has one path.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from deepskip.data.dataset import Dataset, Progress, Split
from deepskip.describe.spec import Site
from deepskip.errors import InputError, nearest
from deepskip.instruments import taps
from deepskip.instruments.trials import Part, compare, rounded, variant
from deepskip.nets.block import ResidualBlock
from deepskip.nets.network import Network
from deepskip.seeds import derive

IMAGES, BATCH = 2000, 125
COUNTS = (1, 2, 3, 5, 8, 12, 20, 30)
"""How many blocks are deleted, or pairs swapped, in turn."""
DRAWS = 3


def measure(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each block of `net`, in order: what the net does when that block alone is deleted.

    Deleting takes the branch away: a residual block then passes on what its shortcut brings, through its
    junction and what follows; in a plain net, where nothing goes past the branch, the block itself goes.

    - `block`, `stage`, `index` (from 1), `shortcut`;
    - `lesion_error`: top-1 error without the block, in percent; `lesion_low` and `lesion_high`, its 95%
      interval (Wilson); `lesion_loss`: mean cross-entropy, in nats; null where it is not finite;
    - `lesion_change`: that error minus the whole net's, in points; `lesion_change_low`, `lesion_change_high`,
      its 95% interval, of the same images seen twice (Bonett and Price 2012);
    - `lesion_intact`: the whole net's error, in percent; `lesion_n`: images.

    All but the last two are null where nothing can stand in the block's place: a plain block that changes the
    dimensions. In evaluation mode, on at most `images` pictures drawn by `seed`. The network is left as it was.
    Raises InputError.
    """
    blocks = _blocks(net)
    sites = list(net.spec.sites())
    parts = [_without(site, block) if can_go(site) else None for site, block in zip(sites, blocks, strict=True)]
    variants = [part and variant(blocks, [*blocks[:i], part, *blocks[i + 1 :]]) for i, part in enumerate(parts)]
    found = compare(net, data, variants, what="deleting blocks", images=images, batch=batch, seed=seed,
                    progress=progress, prefix="lesion_")  # fmt: skip
    return [{**name, **columns} for name, columns in zip(taps.names(net), found, strict=True)]


def swap(
    net: Network,
    data: Dataset | Split,
    *,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return a row for each block of `net`: what the net does when the block and the next one change places.

    `block`, `stage`, `index`, `shortcut`, and the columns of `measure` with `swap_` for `lesion_`: null, but
    for two, where the next block is of another shape, or there is none. Raises InputError.
    """
    blocks, shapes = _blocks(net), _shapes(net)
    variants = [
        variant(blocks, [*blocks[:i], blocks[i + 1], blocks[i], *blocks[i + 2 :]])
        if shapes[i : i + 1] == shapes[i + 1 : i + 2]
        else None
        for i in range(len(blocks))
    ]
    found = compare(net, data, variants, what="swapping neighbours", images=images, batch=batch, seed=seed,
                    progress=progress, prefix="swap_")  # fmt: skip
    return [{**name, **columns} for name, columns in zip(taps.names(net), found, strict=True)]


def delete(
    net: Network,
    data: Dataset | Split,
    *,
    counts: Sequence[int] = COUNTS,
    draws: int = DRAWS,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return what `net` does without several blocks (figure 5a): a row for each draw and each of `counts`.

    A draw is a random order of all blocks that can be deleted; its rows are without the first ones of it.

    - `deleted`: how many; `draw` (from 1); `blocks`: which, in the order of the net;
    - `error` in percent, `low`, `high`, `loss`, `change`, `change_low`, `change_high`, `intact`, `n`, as the
      columns of `measure`.

    Counts above the number of blocks are left out. Raises InputError.
    """
    counts = _counts(counts)
    blocks, sites, names = _blocks(net), list(net.spec.sites()), taps.names(net)
    possible = [i for i, site in enumerate(sites) if can_go(site)]
    rows: list[dict[str, Any]] = []
    variants = []
    for draw in range(1, draws + 1):
        order = random.Random(derive(seed, "lesion", "delete", draw)).sample(possible, len(possible))
        for count in (count for count in counts if count <= len(possible)):
            gone = sorted(order[:count])
            parts: list[Part] = list(blocks)
            for i in gone:
                parts[i] = _without(sites[i], blocks[i])
            rows.append({"deleted": count, "draw": draw, "blocks": [names[i]["block"] for i in gone]})
            variants.append(variant(blocks, parts))
    found = compare(net, data, variants, what="deleting several blocks", images=images, batch=batch, seed=seed,
                    progress=progress)  # fmt: skip
    return [{**row, **columns} for row, columns in zip(rows, found, strict=True)]


def shuffle(
    net: Network,
    data: Dataset | Split,
    *,
    counts: Sequence[int] = COUNTS,
    draws: int = DRAWS,
    images: int = IMAGES,
    batch: int = BATCH,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Return what `net` does with its blocks in another order (figure 5b): a row for each draw and of `counts`.

    A draw swaps random pairs of blocks of one shape, one pair after another; its rows are after so many.

    - `swapped`: how many pairs; `draw` (from 1); `order`: the blocks as they compute;
    - `tau`: Kendall's rank correlation of that order with the net's own, 1 where they are the same;
    - `error` and the others, as in `delete`.

    A net without two blocks of one shape has no rows. Raises InputError.
    """
    counts = _counts(counts)
    blocks, shapes, names = _blocks(net), _shapes(net), taps.names(net)
    pairs = [(i, j) for j in range(len(blocks)) for i in range(j) if shapes[i] == shapes[j]]
    rows: list[dict[str, Any]] = []
    variants = []
    for draw in range(1, draws + 1) if pairs else ():
        chance, order = random.Random(derive(seed, "lesion", "shuffle", draw)), list(range(len(blocks)))
        for count in range(1, counts[-1] + 1):
            i, j = chance.choice(pairs)
            order[i], order[j] = order[j], order[i]
            if count in counts:
                own = {"order": [names[i]["block"] for i in order], "tau": rounded(kendall(order))}
                rows.append({"swapped": count, "draw": draw, **own})
                variants.append(variant(blocks, [blocks[i] for i in order]))
    found = compare(net, data, variants, what="shuffling blocks", images=images, batch=batch, seed=seed,
                    progress=progress)  # fmt: skip
    return [{**row, **columns} for row, columns in zip(rows, found, strict=True)]


def kendall(order: Sequence[int]) -> float:
    """Return Kendall's tau between `order`, a permutation, and the order of the numbers; 1 of a single one."""
    n = len(order)
    turned = sum(order[i] > order[j] for j in range(n) for i in range(j))
    return 1 - 4 * turned / (n * (n - 1)) if n > 1 else 1.0


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what `measure`'s rows say of the net; errors in percent, changes in points, null without a block.

    - `intact`: the whole net's error; `deleted`: how many blocks were; `harmless`: how many of those have an
      interval of their change that reaches down to 0;
    - `worst`, `worst_change`, `least`, `least_change`: the blocks whose deletion changes the error most, least;
    - `identity_median`: the median change over blocks that keep the dimensions, `dimensions_median` over
      those that change them.
    """
    cut = [row for row in rows if row["lesion_error"] is not None]
    worst = max(cut, key=lambda row: row["lesion_change"], default=None)
    least = min(cut, key=lambda row: row["lesion_change"], default=None)
    kept = [row["lesion_change"] for row in cut if row["shortcut"] in ("identity", "none")]
    changed = [row["lesion_change"] for row in cut if row["shortcut"] in ("pad", "projection")]
    return {
        "intact": rows[0]["lesion_intact"],
        "deleted": len(cut),
        "harmless": sum(row["lesion_change_low"] <= 0 for row in cut),
        "worst": worst and worst["block"],
        "worst_change": worst and worst["lesion_change"],
        "least": least and least["block"],
        "least_change": least and least["lesion_change"],
        "identity_median": rounded(statistics.median(kept)) if kept else None,
        "dimensions_median": rounded(statistics.median(changed)) if changed else None,
    }


@contextlib.contextmanager
def cut(net: Network, blocks: Sequence[str]) -> Iterator[None]:
    """Have `net` compute without `blocks`, named as in rows (`s2.b3`), while inside, as `measure` deletes one.

    Afterwards the network computes what it did before. Raises InputError for what is no block, or cannot go.
    """
    rows = zip(taps.names(net), net.spec.sites(), _blocks(net), strict=True)
    every = {row["block"]: (site, block) for row, site, block in rows}
    with contextlib.ExitStack() as changed:
        for name in dict.fromkeys(blocks):
            if name not in every:
                raise InputError("cut", repr(name), "a block, as s1.b1", nearest(name, every))
            site, block = every[name]
            if not can_go(site):
                raise InputError(
                    "cut", repr(name), "a block that a plain net can do without: of equal dimensions"
                )
            changed.enter_context(taps.computing(block, _without(site, block)))
        yield


def _blocks(net: Network) -> list[ResidualBlock]:
    return [cast("ResidualBlock", block) for block in net.blocks()]


def _counts(counts: Sequence[int]) -> list[int]:
    wrong = next((one for one in counts if isinstance(one, bool) or not isinstance(one, int) or one < 1), None)
    if wrong is not None or not counts:
        raise InputError("counts", repr(wrong) if counts else "none", "whole numbers from 1", 1)
    return sorted(set(counts))


def can_go(site: Site) -> bool:
    """Return whether something can stand in a block's place; not in a plain one's that changes dimensions."""
    return site.shortcut != "none" or site.inputs == site.outputs


def _without(site: Site, block: ResidualBlock) -> Part:
    """Return what is left of `block` without its branch."""
    if site.shortcut == "none":
        return _same
    share = 1 if site.block.reads == "all" else 2

    def cut(x: Tensor) -> Tensor:
        shortcut = block.shortcut(block.before(x))
        nothing = torch.zeros_like(shortcut[:, : shortcut.shape[1] // share])
        out: Tensor = block.after(block.junction(shortcut, nothing))
        return out

    return cut


def _same(x: Tensor) -> Tensor:
    return x


def _shapes(net: Network) -> list[object]:
    """Return, for each block, what two blocks that can change places have in common, and no other two."""
    return [site.inputs if site.inputs == site.outputs else site.name for site in net.spec.sites()]
