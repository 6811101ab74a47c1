"""Training by several processes, started by `torchrun`: who is who, sums over all, normalisers that agree.

PyTorch's own engine: gloo between processors, nccl between GPUs, gradients averaged by DistributedDataParallel.
Every process sees its share of every batch, so the same batch size means the same training with any number.
"""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from deepskip.errors import InputError, WorkError

LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets, and nobody else all of it

_LOST = ("connection", "gloo", "nccl", "peer", "socket", "timed out", "tcpstore", "rendezvous")
# PyTorch renamed the argument in 2.13, and warns of the old name.
_NAMES = inspect.signature(nn.parallel.DistributedDataParallel.__init__).parameters
_UNSHARED: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


@dataclass(frozen=True)
class World:
    """The processes that train together: `ranks` of them, this one being number `rank`."""

    rank: int = 0
    ranks: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of every process's `values`, the same on all."""
        if self.ranks > 1:
            values = values.detach().clone()
            with lost_rank():
                distributed.all_reduce(values)
        return values

    def gather(self, rows: Tensor, counts: list[int]) -> Tensor:
        """Return every process's `rows` [counts[rank], …] one after the other, on all of them."""
        if self.ranks == 1:
            return rows
        most = max(counts)
        padded = torch.zeros((most, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        with lost_rank():
            distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def share(self, value: Any) -> Any:
        """Return the first process's `value`, on all of them."""
        if self.ranks == 1:
            return value
        held = [value]
        with lost_rank("at the start"):
            distributed.broadcast_object_list(held)
        return held[0]

    def copy_first(self, net: nn.Module) -> None:
        """Let every process have the first one's buffers: their running statistics are of their own shares."""
        if self.ranks > 1:
            with lost_rank():
                for buffer in net.buffers():
                    distributed.broadcast(buffer, 0)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.ranks > 1:
            with lost_rank():
                distributed.barrier()

    @contextlib.contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the first process do the block before the others do it: what it leaves on disk they find."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


def join(device: torch.device) -> World:
    """Return the world that `torchrun` started this process in; without it, a world of one.

    Raises WorkError when the others cannot be reached.
    """
    if not distributed.is_available():
        return World()
    if not distributed.is_initialized():
        if not launched():
            return World()
        _share_cores()
        with lost_rank("at the start"):
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(leave)
    return World(distributed.get_rank(), distributed.get_world_size())


def launched() -> bool:
    """Return whether `torchrun` started this process together with others."""
    return all(name in os.environ for name in LAUNCHED) and os.environ["WORLD_SIZE"] != "1"


def own_device(device: torch.device) -> torch.device:
    """Return the GPU of this process, when there are several processes on a machine and `device` names none."""
    if device.type != "cuda" or device.index is not None or not launched():
        return device
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        got = f"{os.environ.get('LOCAL_WORLD_SIZE', '?')} processes for {torch.cuda.device_count()} GPUs"
        raise InputError("torchrun --nproc-per-node", got, "one process a GPU", torch.cuda.device_count())
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def leave() -> None:
    """Take this process out of its world; nothing when it is in none."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextlib.contextmanager
def lost_rank(where: str = "training") -> Iterator[None]:
    """Turn what PyTorch says when another process is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, WorkError) or not any(word in str(error).lower() for word in _LOST):
            raise
        raise WorkError(
            f"torchrun, {where}",
            f"no answer from another process ({str(error).strip().splitlines()[0][:120]})",
            "all of them alive; what was saved is kept, and --resume goes on from it, with any number of them",
        ) from error


def wrap(net: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Return what to call in training instead of `net`: its backward pass averages gradients over the world.

    Buffers are each process's own until they are needed (`World.copy_first`): in training nothing reads them.
    """
    if world.ranks == 1:
        return net
    ids = [device.index or 0] if device.type == "cuda" else None
    with lost_rank("at the start"):
        return nn.parallel.DistributedDataParallel(net, device_ids=ids, **_UNSHARED)


@contextlib.contextmanager
def synchronised_norms(net: nn.Module, world: World) -> Iterator[None]:
    """Let the batch normalisers of `net` use the statistics of all processes' images, inside the block.

    PyTorch's own do on GPUs; between processors they are `SynchronisedNorm`. The parameters, buffers and their
    names stay, and the normalisers are what they were after the block.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    if world.ranks > 1:
        for parent in list(net.modules()):
            for name, norm in list(parent.named_children()):
                if type(norm) is nn.BatchNorm2d:
                    replaced.append((parent, name, norm))
                    parent.add_module(name, _synchronised(norm))
    try:
        yield
    finally:
        for parent, name, norm in replaced:
            norm.train(parent.training)
            parent.add_module(name, norm)


class SynchronisedNorm(nn.BatchNorm2d):
    """Batch normalisation whose mean and variance are over every process's images (two sums in each direction).

    [n, c, h, w] → the same shape. As nn.SyncBatchNorm, which needs a GPU.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the parent's
        """Return the normalised images."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        x = at_least_float32(input)
        count = x.new_tensor([x.numel() / x.shape[1]])
        with lost_rank():
            total: Tensor = _AllSum.apply(torch.cat([x.sum((0, 2, 3)), count]))  # type: ignore[no-untyped-call]
            n, mean = total[-1], total[:-1] / total[-1]
            centred = x - mean[:, None, None]
            square: Tensor = _AllSum.apply(centred.square().sum((0, 2, 3)))  # type: ignore[no-untyped-call]
        variance = square / n
        if self.track_running_stats:  # not in a second computation of the same batch
            with torch.no_grad():
                self.num_batches_tracked += 1
                momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(square / (n - 1), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        out = centred * scale[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is in float64: sums and losses are not taken in half precision."""
    return x if x.dtype == torch.float64 else x.float()


class _AllSum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        distributed.all_reduce(gradient)
        return gradient


def _synchronised(norm: nn.BatchNorm2d) -> nn.Module:
    kind = nn.SyncBatchNorm if norm.weight.is_cuda else SynchronisedNorm
    made: Any = kind(norm.num_features, norm.eps, norm.momentum)
    made.weight, made.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers(recurse=False):
        made.register_buffer(name, buffer)
    return made.train(norm.training)  # type: ignore[no-any-return]


def _share_cores() -> None:
    """Undo torchrun's `OMP_NUM_THREADS=1`: give each process of this machine its share of the cores."""
    if os.environ.get("OMP_NUM_THREADS") == "1":
        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // local))
