"""Parts of a network that a fine-tuning leaves as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from deepskip.errors import InputError, choices, nearest


class Frozen:
    """The named parts of `net`: their parameters have no gradient, their normalisers use what they have.

    A normaliser in training mode would change its running statistics, and with them what the frozen part
    computes; so the parts stay in evaluation mode. Raises InputError for a name that is no part.
    """

    def __init__(self, net: nn.Module, names: Sequence[str]) -> None:
        modules = dict(net.named_modules())
        parts = [name for name in modules if name and name.count(".") <= 2 and not name.endswith("relu")]
        for name in names:
            if not name or name not in modules:
                known = [part for part in parts if part.count(".") <= (1 if "." not in name else 2)]
                raise InputError(
                    "freeze", repr(name), f"parts of the net: {choices(known)}", nearest(name, parts)
                )
        self.parts = [modules[name] for name in names]
        frozen = {id(p) for part in self.parts for p in part.parameters()}
        self.parameters = [p for p in net.parameters() if id(p) in frozen and p.requires_grad]
        if names and all(id(p) in frozen for p in net.parameters()):
            raise InputError("freeze", ", ".join(names), "a part of the net; this is all of it")

    def hold(self) -> None:
        """Freeze the parts; to be called again whenever the network was put into training mode."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        for part in self.parts:
            part.eval()

    def release(self) -> None:
        """Let the parts be trained again."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Freeze the parts for a block."""
        self.hold()
        try:
            yield
        finally:
            self.release()
