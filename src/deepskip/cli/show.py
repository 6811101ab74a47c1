"""What people and programs see: tables and results on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter, Token

from deepskip.errors import InputError

if TYPE_CHECKING:  # `--help` answers at once: what only a running command needs is imported by it
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

WIDE = 10_000  # columns assumed where there is no terminal to ask, so that nothing is cut from a pipe


def _whole(kind: object, tokens: Sequence[Token]) -> int:
    try:
        return int(tokens[0].value)
    except ValueError as error:  # the parser's own conversion would round 1.5 to 2 in silence
        raise InputError(tokens[0].keyword, repr(tokens[0].value), "a whole number") from error


Whole = Annotated[int, Parameter(converter=_whole)]
"""A whole number on the command line, and nothing that only rounds to one."""


def _seed(kind: object, tokens: Sequence[Token]) -> int:
    value = _whole(kind, tokens)
    if value < 0:
        raise InputError(tokens[0].keyword, value, "a whole number from 0", 0)
    return value


Seed = Annotated[int, Parameter(converter=_seed)]
"""A whole number that randomness begins from."""


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How a command speaks."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print the result as JSON on standard output; progress stays on standard error."""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """Print no progress."""

    def result(self, value: object) -> None:
        """Print `value` as JSON."""
        sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")  # whole, or an error and nothing

    def say(self, line: str = "") -> None:
        """Print a line of the result, unless JSON was asked for."""
        if not self.json:
            sys.stdout.write(line + "\n")

    def table(self, table: Table) -> None:
        """Print a table of the result."""
        console = _console(sys.stdout, markup=False)  # names of files and classes may hold brackets
        with console.capture() as drawn:
            console.print(table)
        sys.stdout.write(drawn.get())  # not by rich itself, which ends the program when a pipe is closed

    def note(self, line: str) -> None:
        """Print a line of progress on standard error."""
        if not self.quiet:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def warn(self, line: str) -> None:
        """Print a warning on standard error, even when quiet."""
        sys.stderr.write(f"warning: {line}\n")
        sys.stderr.flush()

    def broken(self, lines: Sequence[object], total: int) -> None:
        """Name every file that could not be read, and say how many there are and that the work goes on."""
        for line in lines:
            self.warn(str(line))
        if lines:
            self.warn(f"{len(lines)} of {total:,} files are broken and left out")

    @property
    def live(self) -> bool:
        """Whether progress may be drawn over itself: on a terminal, and not quiet."""
        return sys.stderr.isatty() and not self.quiet

    @contextlib.contextmanager
    def bars(self) -> Iterator[Progress]:
        """Yield a display of progress bars on standard error; it draws nothing where that makes no sense."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        console = _console(sys.stderr)
        with Progress(*columns, console=console, disable=not self.live, transient=True) as progress:
            yield progress

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[str, int, int], None]]:
        """Yield a function `(what, done, total)` for slow preparations: a bar, or plain lines every tenth."""
        with self.bars() as progress:
            tasks: dict[str, Any] = {}
            said: dict[str, int] = {}

            def show(what: str, done: int, total: int) -> None:
                if self.live:
                    if what not in tasks:
                        tasks[what] = progress.add_task(what, total=total, note="")
                    progress.update(tasks[what], completed=done, total=total)
                elif total and (tenth := 10 * done // total) != said.get(what):
                    said[what] = tenth
                    self.note(f"{what}: {done:,} of {total:,}")

            yield show


def _console(file: Any, *, markup: bool = True) -> Console:
    from rich.console import Console

    return Console(file=file, width=None if file.isatty() else WIDE, highlight=False, markup=markup)


def check_new(option: str, path: Path, *, force: bool) -> None:
    """Refuse to write where a folder is, or a file that nobody said may go. Raises InputError."""
    if path.is_dir():
        raise InputError(option, f"{path}, a folder", "a file")
    if (path.exists() or path.is_symlink()) and not force:
        raise InputError(option, f"{path}, a file that is there already", "a new file, or --force", "--force")
    above = next((parent for parent in path.parents if parent.exists()), None)
    if above is not None and not above.is_dir():
        raise InputError(option, f"{path}, inside {above}, which is a file", "a file in a folder")


typed: list[str] = []  # the command line's words, for reports


def command_line() -> str:
    """Return the command as it was typed."""
    return shlex.join(["deepskip", *typed])


def columns(*headers: str, numbers: Sequence[str] = ()) -> Table:
    """Return an empty table in this program's style; columns named in `numbers` are right-aligned."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, justify="right" if header in numbers else "left", no_wrap=header in numbers)
    return table


def count(value: float) -> str:
    """Return a number of things as people read it: 269,722 is 0.27M, 40,551,040 is 40.6M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * (0.1 if unit == "M" else 1):
            scaled = value / limit
            return f"{scaled:.2f}{unit}" if scaled < 10 else f"{scaled:.1f}{unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Return a number of bytes as people read it: 1,536 is 1.5 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """Return a time as people read it: 75 is 1 min 15 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
