"""Does depth pay? Plain and residual nets at several depths, several seeds, on one data set.

After He et al. 2015, arXiv:1512.03385, figures 1 and 6: the training error of plain nets rises with depth,
that of residual nets does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar, Literal

from deepskip.data.dataset import Dataset
from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import InputError
from deepskip.studies.cell import Row
from deepskip.studies.study import Result, Study, check_seeds_and_depths
from deepskip.studies.verdict import judge
from deepskip.training.recipe import Recipe

DEPTHS = (8, 20, 32, 56, 110)
SEEDS = 3

Kind = Literal["plain", "residual"]


class DepthStudy(Study):
    """A depth study in its folder."""

    name: ClassVar[str] = "depth"
    usual: ClassVar[str] = "depth"

    def __init__(
        self,
        data: Dataset,
        *,
        out: Path | str,
        depths: Sequence[int] = DEPTHS,
        seeds: int = SEEDS,
        family: str = "resnet_cifar",
        **how: Any,
    ) -> None:
        """Plan the study; `how` is `Study`'s. Raises InputError, also for an impossible depth."""
        check_seeds_and_depths(seeds, depths, DEPTHS)
        super().__init__(data, out=out, **how)
        self.depths, self.seeds = tuple(sorted(set(depths))), seeds
        self.grid = f"plain and residual × {len(self.depths)} depths × {seeds} seeds"
        self.cells = [
            self.cell(kind, spec, seed, depth=depth)
            for depth in self.depths
            for kind, spec in self._specs(family, depth)
            for seed in range(seeds)
        ]

    def _specs(self, family: str, depth: int) -> Iterator[tuple[Kind, Spec]]:
        net = zoo.get(family, depth=depth, classes=len(self.data.classes), input=self.data.input)
        if net.is_plain:
            raise InputError("net", repr(family), "a residual family; its plain twin is trained beside it")
        yield "plain", net.plain()
        yield "residual", net

    def judge(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what the rows say of degradation and of the depth that pays."""
        return judge(rows, data=self.data.name, command=self.command, epochs=self.epochs, seeds=self.seeds)


def run(
    data: Dataset,
    *,
    out: Path | str,
    depths: Sequence[int] = DEPTHS,
    seeds: int = SEEDS,
    recipe: Recipe | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    threads: int | None = None,
) -> Result:
    """Run a depth study to its end and return its result; what earlier runs have done is not done again.

    Its trainings run on `executor` where one is given, any `concurrent.futures.Executor`: see `grid.run_grid`.
    """
    study = DepthStudy(data, out=out, depths=depths, seeds=seeds, recipe=recipe)
    return study.finish(workers=workers, executor=executor, threads=threads)
