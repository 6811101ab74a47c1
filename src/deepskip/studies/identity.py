"""Why do residual nets work? Identity blocks put into trained nets, and how near to the identity blocks train.

The argument of He et al. 2015, arXiv:1512.03385, §3.1: a deeper net need not be worse than a shallower one if
its added layers are the identity, and with a shortcut they are when their last weights are zero. After Net2Net
(Chen et al. 2016, arXiv:1511.05641) the blocks are put into a trained net, which is trained on; a plain net,
which has no such blocks, gets the nearest ones. He et al. 2015, figure 7, and Greff et al. 2017,
arXiv:1612.07771, for the other half: what blocks add, against what passes them by.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar

from deepskip.data.dataset import Dataset
from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import ImpossibleError, InputError
from deepskip.instruments import insertion
from deepskip.nets.network import Network
from deepskip.studies.argument import judge
from deepskip.studies.cell import Begin, Cell, Row
from deepskip.studies.study import Result, Study, check_seeds_and_depths
from deepskip.surgery import growing
from deepskip.training.recipe import Recipe

DEPTHS = (8, 20, 56)
SEEDS = 3
BLOCKS = 18
STARTS: dict[str, tuple[growing.Start, ...]] = {"residual": ("silent",), "plain": ("fresh", "delta", "zero")}
"""How the new blocks of each twin begin; `surgery.grow` says what the words mean."""


class Kept(Begin):
    """The other cell's net as it is: trained on without new blocks, to compare with."""

    def net(self, trained: Network, spec: Spec, seed: int) -> Network:
        """Return `trained`."""
        return trained


class Grown(Begin):
    """The other cell's net with identity blocks put in, spread evenly."""

    columns: ClassVar[tuple[str, ...]] = insertion.COLUMNS
    blocks: int
    start: growing.Start

    def net(self, trained: Network, spec: Spec, seed: int) -> Network:
        """Return the grown net. Raises ImpossibleError where blocks cannot begin so in such a net."""
        try:
            return growing.grow(trained, self.blocks, start=self.start, seed=seed)
        except InputError as error:
            raise ImpossibleError(error.where, error.got, error.allowed, error.nearest) from error

    def measure(self, net: Network, trained: Network, data: Dataset, seed: int) -> Row:
        """Return how many of the new blocks are the identity, and how many outputs are as before."""
        return insertion.measure(net, trained, data, seed)


class IdentityStudy(Study):
    """An identity study in its folder."""

    name: ClassVar[str] = "identity"
    usual: ClassVar[str] = "depth"

    def __init__(
        self,
        data: Dataset,
        *,
        out: Path | str,
        depths: Sequence[int] = DEPTHS,
        seeds: int = SEEDS,
        family: str = "resnet_cifar",
        grow: int | None = None,
        blocks: int = BLOCKS,
        **how: Any,
    ) -> None:
        """Plan the study; `how` is `Study`'s.

        Residual nets are trained at all `depths`; that of `grow` layers (by default the middle of the depths,
        the shallower of two) gets the new `blocks`, and so does its plain twin. Raises InputError, also for an
        impossible depth.
        """
        check_seeds_and_depths(seeds, depths, DEPTHS)
        if blocks < 1:
            raise InputError("blocks", blocks, "a whole number from 1", 1)
        super().__init__(data, out=out, **how)
        self.depths, self.seeds, self.blocks = tuple(sorted(set(depths))), seeds, blocks
        self.grow = self.depths[(len(self.depths) - 1) // 2] if grow is None else grow
        self.family = family
        nets = [self._net(depth) for depth in sorted({*self.depths, self.grow})]
        twins = {"residual": self._net(self.grow), "plain": self._net(self.grow).plain()}
        begun = {
            (twin, seed): self._first(twin, spec, seed) for twin, spec in twins.items() for seed in range(seeds)
        }
        first = [self._first("residual", spec, seed) for spec in nets for seed in range(seeds)]
        first += [begun["plain", seed] for seed in range(seeds)]
        then = [
            self._then(begun[twin, seed], twin, start)
            for twin, starts in STARTS.items()
            for start in ("kept", *starts)
            for seed in range(seeds)
        ]
        self.cells = [*first, *then]
        ways = sum(1 + len(starts) for starts in STARTS.values())
        many = f"{len(nets)} depths" if len(nets) > 1 else "1 depth"
        self.grid = f"residual nets of {many} and a plain twin, trained on in {ways} ways, × {seeds} seeds"

    def _net(self, depth: int) -> Spec:
        net = zoo.get(self.family, depth=depth, classes=len(self.data.classes), input=self.data.input)
        if net.is_plain:
            raise InputError("net", repr(self.family), "a residual family; its plain twin is trained beside it")
        return net

    def _first(self, twin: str, spec: Spec, seed: int) -> Cell:
        columns = (("twin", twin), ("start", None), ("blocks", 0))
        return self.cell(twin, spec, seed, columns=columns, measure="summary")

    def _then(self, first: Cell, twin: str, start: str) -> Cell:
        blocks = 0 if start == "kept" else self.blocks
        spec = growing.grown(first.spec, blocks) if blocks else first.spec
        columns = (
            ("twin", twin),
            ("start", start),
            ("blocks", blocks),
            ("layers_before", first.depth),
            ("begins", first.hash),
        )
        begin = Grown(cell=first.hash, blocks=blocks, start=start) if blocks else Kept(cell=first.hash)
        kind = f"{twin} {start}"
        return self.cell(kind, spec, first.seed, columns=columns, begin=begin, measure="summary")

    def judge(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what the rows say of identity blocks, and of how near to the identity blocks train."""
        return judge(rows, data=self.data.name, command=self.command, epochs=self.epochs, seeds=self.seeds)


def run(
    data: Dataset,
    *,
    out: Path | str,
    depths: Sequence[int] = DEPTHS,
    seeds: int = SEEDS,
    grow: int | None = None,
    blocks: int = BLOCKS,
    recipe: Recipe | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    threads: int | None = None,
) -> Result:
    """Run an identity study to its end and return its result; what earlier runs have done is not done again.

    Its trainings run on `executor` where one is given, any `concurrent.futures.Executor`: see `grid.run_grid`.
    """
    study = IdentityStudy(data, out=out, depths=depths, seeds=seeds, grow=grow, blocks=blocks, recipe=recipe)
    return study.finish(workers=workers, executor=executor, threads=threads)
