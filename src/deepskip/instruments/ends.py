"""How the signal and its gradient are at the two ends of a network: vanishing and exploding as numbers.

After He et al. 2015, arXiv:1512.03385, §4.1 and figure 7, who rule out that the gradients of plain nets with
batch normalisation vanish; Glorot and Bengio 2010 measure the same layer by layer.
"""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from deepskip.data.batches import normalise, train_batches
from deepskip.data.dataset import Dataset
from deepskip.data.variation import Variation
from deepskip.nets.network import Network

COLUMNS = ("grad_first", "grad_last", "rms_first", "rms_last")
BATCH = 128  # images that are measured, at most
DIGITS = 5


def measure(net: Network, data: Dataset, seed: int) -> dict[str, float | None]:
    """Return what one batch of training images, drawn by `seed`, does at the first and the last block of `net`.

    `grad_first`, `grad_last`: Euclidean norm of the mean loss's gradient by the block's parameters;
    `rms_first`, `rms_last`: root mean square of the block's output [n, c, h, w]. None for what is not finite.
    Normalisers take the batch's statistics, as in training. The network is left as it was.
    """
    probe = copy.deepcopy(net).train().requires_grad_(True)
    blocks = list(probe.blocks())
    outputs: dict[str, float] = {}
    handles = [
        block.register_forward_hook(_rms(outputs, f"rms_{end}"))
        for end, block in (("first", blocks[0]), ("last", blocks[-1]))
    ]
    first = next(net.parameters())
    device, own = first.device, first.dtype
    batches = train_batches(data.train, data.preprocessing, Variation(augment="none"), BATCH, seed, 0)
    with contextlib.closing(batches):
        batch = next(batches)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        logits = probe(normalise(batch.images.to(device), data.preprocessing, own))
        nn.functional.cross_entropy(logits, batch.labels.to(device)).backward()  # type: ignore[no-untyped-call]
    for handle in handles:
        handle.remove()
    found = {"grad_first": _gradient(blocks[0]), "grad_last": _gradient(blocks[-1]), **outputs}
    return {name: _rounded(found[name]) for name in COLUMNS}


def _rms(outputs: dict[str, float], name: str) -> Any:
    def seen(module: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs[name] = float(output.detach().double().square().mean().sqrt())

    return seen


def _gradient(block: nn.Module) -> float:
    squares = [p.grad.double().square().sum() for p in block.parameters() if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


def _rounded(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
