"""The spectrum of depth, measured: which ingredient first trains how deep a net, on one data set.

After He's lectures: at five layers everything trains; past ten, initial values and normalisation decide; past
thirty, skip connections; past a hundred, identity skip connections. The five ingredients: PyTorch's layers as
they are; delta-orthogonal values (Xiao et al. 2018, arXiv:1806.05393); batch normalisation (Ioffe and Szegedy
2015, arXiv:1502.03167); He et al. 2015, arXiv:1512.03385; He et al. 2016, arXiv:1603.05027.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar

from deepskip.data.dataset import Dataset
from deepskip.describe import zoo
from deepskip.describe.spec import Spec
from deepskip.errors import InputError, choices, nearest
from deepskip.studies.cell import Row
from deepskip.studies.reach import judge
from deepskip.studies.study import Result, Study, check_seeds_and_depths
from deepskip.training.recipe import Recipe

DEPTHS = (5, 8, 14, 20, 32, 56, 110, 218, 434)
SEEDS = 1
FAMILIES = ("resnet_cifar", "resnet")
INGREDIENTS: dict[str, dict[str, Any]] = {
    "nothing": {"plain": True, "norm": "none", "initial": "pytorch"},
    "initial": {"plain": True, "norm": "none", "initial": "delta_orthogonal"},
    "norm": {"plain": True},
    "skips": {},
    "identity": {"order": "pre"},
}
"""What is added, each to the one before, as fields of a Spec. Batch normalisation comes with He et al.'s
values, as in their papers; identity skip connections are pre-activation."""


class SpectrumStudy(Study):
    """A spectrum study in its folder."""

    name: ClassVar[str] = "spectrum"
    usual: ClassVar[str] = "spectrum"

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
        if family not in FAMILIES:
            raise InputError("net", repr(family), choices(FAMILIES), nearest(family, FAMILIES))
        super().__init__(data, out=out, **how)
        self.depths, self.seeds, self.family = tuple(sorted(set(depths))), seeds, family
        self.grid = f"{len(INGREDIENTS)} ingredients × {len(self.depths)} depths × {seeds} seeds"
        self.cells = [
            self.cell(ingredient, self._spec(depth, fields), seed, depth=depth, measure="ends")
            for ingredient, fields in INGREDIENTS.items()
            for depth in self.depths
            for seed in range(seeds)
        ]

    def _spec(self, depth: int, fields: dict[str, Any]) -> Spec:
        """Return the net of `depth` layers, with blocks that an ingredient does not change."""
        shape: dict[str, Any] = {"classes": len(self.data.classes), "input": self.data.input}
        if self.family == "resnet":
            return zoo.imagenet(depth, **shape, **fields)
        # CIFAR nets of 6n + 2 layers have two convolutions a skip, as He et al.'s; others, such as the 5 layers
        # that the spectrum begins with, one. Pre-activation does not turn into bottlenecks.
        each = 2 if (depth - 2) % 6 == 0 else 1
        return zoo.cifar(depth, block="basic", layers_per_skip=each, **shape, **fields)

    def judge(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what the rows say of how deep each ingredient reaches."""
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
    """Run a spectrum study to its end and return its result; what earlier runs have done is not done again.

    Its trainings run on `executor` where one is given, any `concurrent.futures.Executor`: see `grid.run_grid`.
    """
    study = SpectrumStudy(data, out=out, depths=depths, seeds=seeds, recipe=recipe)
    return study.finish(workers=workers, executor=executor, threads=threads)
