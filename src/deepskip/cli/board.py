"""The live display of a study: a line for each kind and depth, in the study's order, a column for each seed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from deepskip.cli.show import columns

if TYPE_CHECKING:
    from rich.table import Table

    from deepskip.studies.cell import Cell
    from deepskip.studies.grid import CellEnded, CellProgress


class Board:
    """A table that is redrawn as cells go on; it draws nothing unless `live`."""

    def __init__(self, cells: Sequence[Cell], epochs: int, *, live: bool) -> None:
        self.cells = {cell.hash: cell for cell in cells}
        self.texts = dict.fromkeys(self.cells, "[dim]·[/dim]")
        self.epochs = epochs
        self.live = live
        self.done = 0

    def __enter__(self) -> Self:
        if self.live:
            from rich.console import Console
            from rich.live import Live

            self.display = Live(
                self._table(), console=Console(file=sys.stderr), refresh_per_second=4, transient=True
            )
            self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.display.stop()

    def update(self, event: CellProgress | CellEnded) -> None:
        """Show that `event` happened."""
        from deepskip.studies.grid import CellEnded

        if isinstance(event, CellEnded):
            self.done += 1
            row = event.row
            self.texts[event.cell.hash] = (
                f"{row['train_error']:5.1f} │ {row['val_error']:5.1f}"
                if row["status"] == "ok"
                else f"[red]{row['status'].replace('_', ' ')}[/red]"
            )
        elif event.rows:
            last = event.rows[-1]
            filled = round(8 * last["epoch"] / self.epochs)
            self.texts[event.cell.hash] = (
                f"[cyan]{'━' * filled}[/cyan][dim]{'━' * (8 - filled)}[/dim] {last['train_error']:5.1f}"
            )
        if self.live:
            self.display.update(self._table())

    def _table(self) -> Table:
        seeds = sorted({cell.seed for cell in self.cells.values()})
        headers = [f"seed {seed}" for seed in seeds]
        table = columns("net", "layers", *headers, numbers=("layers", *headers))
        table.title = f"{self.done} of {len(self.cells)} trainings · train error │ validation error, %"
        table.title_justify = "left"
        lines: dict[tuple[str, int], dict[int, str]] = {}
        for key, cell in self.cells.items():
            lines.setdefault((cell.kind, cell.depth), {})[cell.seed] = self.texts[key]
        kinds = list(dict.fromkeys(cell.kind for cell in self.cells.values()))
        for (kind, depth), texts in sorted(
            lines.items(), key=lambda line: (kinds.index(line[0][0]), line[0][1])
        ):
            table.add_row(kind, str(depth), *(texts.get(seed, "") for seed in seeds))
        return table
