"""The way a run computes: numbers, memory order, compilation, threads. It decides speed, and the last bits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from deepskip.describe.value import Value
from deepskip.errors import InputError
from deepskip.nets.network import Network
from deepskip.training.precision import Precision, choose_precision
from deepskip.training.recompute import Recomputed, Reversed

Memory = Literal["store", "recompute", "reversible"]


class Way(Value):
    """How a network is computed in training: the same net, recipe, seed and way give the same bits here."""

    precision: Precision = "float32"
    """Numbers of the forward and backward pass; weights and updates are float32."""
    memory_format: Literal["channels_last", "contiguous"] = "channels_last"
    """Order of an image tensor's values in memory: [n, h, w, c] or [n, c, h, w]."""
    compile: Literal["none", "whole"] = "none"
    """Whether the whole net is compiled (TorchInductor)."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the processor that compute; sums are split among them, so the last bits depend on it."""
    replay: bool = False
    """On a GPU: whether what computes a step's gradient is recorded once and launched as one (CUDA graph)."""

    memory: Memory = "store"
    """What a step keeps for its backward pass: everything; the inputs of about √depth segments of blocks, which
    are computed again; nothing of reversible blocks, whose inputs are computed from their outputs."""

    @model_validator(mode="after")
    def _agree(self) -> Way:
        if self.memory != "store" and self.compile != "none":
            raise InputError("compile", self.compile, f"none with memory {self.memory}", "none")
        if self.memory != "store" and self.replay:
            raise InputError("replay", self.replay, f"false with memory {self.memory}", "false")
        return self

    def keeping(self, memory: Memory) -> Way:
        """Return this way with another `memory`, and without what does not go with that."""
        changes = {} if memory == "store" else {"compile": "none", "replay": False}
        return self.replace(memory=memory, **changes)

    def prepare(self, net: nn.Module) -> nn.Module:
        """Return `net` in this way's memory order, in place."""
        order = torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format
        return net.to(memory_format=order)  # type: ignore[call-overload, no-any-return]

    def sparing(self, net: Network) -> nn.Module:
        """Return what to call instead of `net`, to keep what `memory` says."""
        kinds: dict[Memory, type[Recomputed | Reversed]] = {"recompute": Recomputed, "reversible": Reversed}
        return net if self.memory == "store" else kinds[self.memory](net)

    def compiled(self, net: nn.Module) -> nn.Module:
        """Return what to call instead of `net`."""
        if self.compile == "none":
            return net
        compiled: Any = torch.compile(net, dynamic=False)
        made: nn.Module = compiled
        return made

    def __str__(self) -> str:
        words = [self.precision, self.memory_format.replace("_", " ")]
        words += ["compiled"] if self.compile == "whole" else []
        words += ["replayed"] if self.replay else []
        words += [self.memory] if self.memory != "store" else []
        words += [f"{self.threads} thread{'s' if self.threads > 1 else ''}"] if self.threads else []
        return ", ".join(words)


def usual(device: torch.device, size: int, precision: str = "auto") -> Way:
    """Return the way that is chosen by rule, without a measurement. Raises InputError for a wrong precision."""
    threads = torch.get_num_threads() if device.type == "cpu" else None
    return Way(precision=choose_precision(precision, device, size), threads=threads)
