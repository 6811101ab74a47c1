"""An exponential moving average of a network's values, which often scores better than the values themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from deepskip.training.interrupt import deferred_interrupt


class Average:
    """The average of `net`'s parameters and buffers over its steps (Polyak and Juditsky 1992; as in Tan and Le
    2019, arXiv:1905.11946, §5): v ← d · v + (1 - d) · value.

    The rate d rises to `decay` as (1 + t) / (10 + t) with the step t, so that the first, untrained values are
    soon forgotten. Counters are copied.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net, self.decay = net, decay
        own = net.state_dict()  # the tensors themselves, looked up once: of a deep net that takes a while
        self.values = {name: tensor.detach().clone() for name, tensor in own.items()}
        floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
        self._averaged = [self.values[name] for name in floats], [own[name] for name in floats]
        self._copied = [(self.values[name], own[name]) for name in own.keys() - set(floats)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the network's present values in, after its step number `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._averaged, 1 - decay)
        for ours, theirs in self._copied:
            ours.copy_(theirs)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on from the `values` of another such average."""
        for name, tensor in self.values.items():
            tensor.copy_(values[name])

    @contextlib.contextmanager
    def worn(self) -> Iterator[None]:
        """Let the network have the averaged values inside the block, and its own again after it."""
        own = {name: tensor.detach().clone() for name, tensor in self.net.state_dict().items()}
        try:
            self.net.load_state_dict(self.values)
            yield
        finally:
            with deferred_interrupt():  # of a net that is half its own nobody would know
                self.net.load_state_dict(own)
