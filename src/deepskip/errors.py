"""What can go wrong, in one small family.

Every message is one line with the same four parts: where it happened, what was found there, what is
allowed, and, where there is one, the nearest valid value. The command line prints that line and exits with
the error's code; nothing else is ever shown to a user.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DeepskipError(Exception):
    """The root of the family: `WHERE: got GOT; allowed: ALLOWED; nearest: NEAREST`."""

    exit_code = 1
    status: str | None = None
    """What a study's row says of a training that ends in this error; None where the study itself ends."""

    def __init__(self, where: object, got: object, allowed: object, nearest: object | None = None) -> None:
        self.where, self.got, self.allowed, self.nearest = where, got, allowed, nearest
        tail = "" if nearest is None else f"; nearest: {nearest}"
        super().__init__(printable(f"{where}: got {got}; allowed: {allowed}{tail}"))

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders in studies; the default would rebuild from the joined message.
        return type(self), (self.where, self.got, self.allowed, self.nearest)


def printable(text: str) -> str:
    """Return `text` in one line, with escapes for what a terminal would act on and not show.

    Names of files, classes and tensors come from anywhere, and go into messages as they are.
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


class InputError(DeepskipError, ValueError):
    """The input was wrong (exit code 2): an argument, a file, a folder, a value in a Spec or a Recipe."""

    exit_code = 2


class ImpossibleError(InputError):
    """Net, data, recipe and memory do not go together: this training cannot begin, another can."""

    status = "impossible"


class TooLargeError(InputError):
    """A training step needs more memory than there is: known before it begins."""

    status = "out_of_memory"


class WorkError(DeepskipError, RuntimeError):
    """The input was right and the work failed all the same (exit code 1): a full disk, a lost worker."""


class DivergedError(WorkError):
    """Training left the finite numbers: the loss or a weight became NaN or infinite."""

    status = "diverged"


class MemoryLostError(WorkError):
    """A training step ran out of memory."""

    status = "out_of_memory"


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option spelled most like `word`, or None when none is close."""
    options = list(options)
    folded = {option.lower(): option for option in options}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def choices(options: Iterable[object], most: int = 12) -> str:
    """Return the options as a readable list, cut after `most` of them."""
    listed = [str(option) for option in options]
    if len(listed) > most:
        listed = [*listed[:most], f"… ({len(listed)} in all)"]
    return ", ".join(listed)
