"""What a request may bring, how long it may take, and how many are let in: whoever sends it may mean harm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from deepskip.data.decode import LARGEST
from deepskip.describe.value import Value
from deepskip.errors import InputError

MIB = 1024**2
Count = Annotated[int, Field(ge=1)]


class Limits(Value):
    """What the server takes at most.

    Beyond `body`, `pixels` and `pictures` a request is refused for good (413); beyond `queue` and `memory` for
    now (429); after `seconds` it is given up (408 or 504).
    """

    body: Count = 32 * MIB
    """Bytes of one request's body."""
    pixels: Annotated[int, Field(ge=1, le=LARGEST)] = 50_000_000
    """Pixels of one picture, as its header says; no bomb is unpacked to count them."""
    pictures: Count = 16
    """Pictures in one request."""
    queue: Count = 64
    """Pictures that were let in and are not answered yet, those that are still being received included."""
    memory: Count = 256 * MIB
    """Bytes of the bodies of all requests that were let in and are not answered yet."""
    seconds: Annotated[float, Field(gt=0)] = 30.0
    """From the arrival of a request's head to its answer."""

    @model_validator(mode="after")
    def _agree(self) -> Limits:
        if self.pictures > self.queue:
            raise InputError("pictures", self.pictures, f"at most queue = {self.queue}", self.queue)
        if self.body > self.memory:
            raise InputError("body", self.body, f"at most memory = {self.memory} bytes", self.memory)
        return self


class RefusedError(Exception):
    """A request gets no answer but this one: an HTTP status, and a line that says why."""

    def __init__(
        self, status: int, where: object, got: object, allowed: object, nearest: object | None = None
    ) -> None:
        super().__init__(str(InputError(where, got, allowed, nearest)))
        self.status = status


class Gate:
    """Counts what was let in and is not answered yet. For the event loop's thread alone."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pictures = 0
        self.bytes = 0

    @contextlib.contextmanager
    def visit(self, pictures: int = 1) -> Iterator[Visit]:
        """Let a request in that brings at least so many pictures; it is out again when the block ends.

        Raises RefusedError (429) where that is too much for now.
        """
        visit = Visit(self)
        try:
            visit.hold(pictures=pictures)
            yield visit
        finally:
            self.pictures -= visit.pictures
            self.bytes -= visit.bytes


class Visit:
    """What one request holds of the server."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.pictures = 0
        self.bytes = 0
        self.received = False
        """Whether its body has arrived."""

    def hold(self, *, pictures: int = 0, bytes: int = 0) -> None:  # noqa: A002 - the field's own name
        """Hold at least so many pictures and bytes. Raises RefusedError (429) where that is too much now."""
        gate, limits = self.gate, self.gate.limits
        more = max(0, pictures - self.pictures), max(0, bytes - self.bytes)
        if gate.pictures + more[0] > limits.queue:
            raise RefusedError(
                429, "queue", f"{gate.pictures} pictures waiting", f"{limits.queue}; try again soon"
            )
        if gate.bytes + more[1] > limits.memory:
            raise RefusedError(429, "memory", f"{gate.bytes} bytes waiting", f"{limits.memory}; try again soon")
        self.pictures += more[0]
        self.bytes += more[1]
        gate.pictures += more[0]
        gate.bytes += more[1]
