"""A cell of a study: one training, as a value that says everything that decides its result."""

from __future__ import annotations

import abc
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import SerializeAsAny

from deepskip.data.dataset import Dataset
from deepskip.describe.spec import Spec
from deepskip.describe.value import Value
from deepskip.errors import InputError
from deepskip.nets.network import Network
from deepskip.training.recipe import Recipe

Row = dict[str, Any]
Column = tuple[str, str | int | float | bool | None]
LATER = ("memory", "begin", "columns", "measure")
"""Fields of a Cell that came after its first studies: not hashed where they say nothing, so that those keep
their cells."""


class Begin(Value, abc.ABC):
    """What a cell's net begins from, where that is what another cell has trained."""

    cell: str
    """The other cell's hash."""

    @abc.abstractmethod
    def net(self, trained: Network, spec: Spec, seed: int) -> Network:
        """Return the net of `spec`, made of what the other cell `trained` and what `seed` decides."""

    columns: ClassVar[tuple[str, ...]] = ()
    """What `measure` finds."""

    def measure(self, net: Network, trained: Network, data: Dataset, seed: int) -> Row:
        """Return what the row says of `net`, not yet trained on, beside what the other cell `trained`."""
        return {}


class Cell(Value):
    """One training of a study: everything that decides its result."""

    study: str
    kind: str
    """"plain" or "residual" in a depth study; what tells the lines of a figure apart."""
    depth: int
    seed: int
    spec: Spec
    recipe: Recipe
    fingerprint: str
    """The data's."""
    device: str
    precision: str
    memory: str = "auto"
    """What its steps keep, as `fit` has it."""
    begin: SerializeAsAny[Begin] | None = None
    """What its net begins from, if not from its own initial values."""
    columns: tuple[Column, ...] = ()
    """What else its row says, as names and values."""
    measure: Literal["nothing", "ends", "summary"] = "nothing"
    """The instrument that measures its net before and after the training: columns `…_start` and `…_end`."""

    @functools.cached_property
    def hash(self) -> str:
        """The name of the cell's folder: 16 hexadecimal digits."""
        silent = {name for name in LATER if getattr(self, name) == Cell.model_fields[name].default}
        return self.digest(leave_out=silent)[:16]

    @property
    def title(self) -> str:
        """The cell in words, for messages."""
        return f"{self.kind}, {self.depth} layers, seed {self.seed}"


def in_order(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells in their order, but each after the one it begins from. Raises InputError."""
    by_hash = {cell.hash: cell for cell in cells}

    def before(cell: Cell) -> int:
        many = 0
        while cell.begin is not None:  # in no circle: a hash holds the hash it begins from
            if cell.begin.cell not in by_hash:
                raise InputError(
                    f"{cell.title}: begin", cell.begin.cell, "the hash of a cell of the same study"
                )
            cell, many = by_hash[cell.begin.cell], many + 1
        return many

    return sorted(cells, key=before)
