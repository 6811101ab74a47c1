"""Nets of thousands of layers: what they begin as, and that a step moves all of them by little."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import deepskip as ds
from deepskip.describe.spec import Spec
from deepskip.training.events import Stepped
from deepskip.training.recipe import named

DIGIT = (1, 8, 8)
NAMES = {depth: f"preresnet{depth}_skipinit_w8_cifar" for depth in (1004, 10004)}


@pytest.mark.parametrize("depth", NAMES)
def test_their_names_say_how_many_layers_they_have(depth: int) -> None:
    spec = ds.zoo.get(NAMES[depth], input=DIGIT)
    ledger = ds.count(spec)
    assert spec.layers == depth
    assert ledger.blocks == (depth - 2) / 2
    # The goal of docs/depth.md: what 120 images keep and the weights, with half of 8 GB to spare.
    assert ledger.activation_bytes(120) + 12 * ledger.params < 4e9


def _begin(spec: Spec) -> tuple[Tensor, Tensor]:
    """Return the logits of a new net, and the gradient of its first convolution."""
    net = ds.build(spec)
    logits = net(torch.randn(4, *DIGIT, generator=torch.Generator().manual_seed(1)))
    functional.cross_entropy(logits, torch.arange(4)).backward()
    gradient = next(net.stem.parameters()).grad
    assert gradient is not None
    return logits.detach(), gradient


def test_they_begin_as_the_net_of_one_block_a_stage() -> None:
    deep = ds.zoo.get(NAMES[1004], input=DIGIT)
    shallow = deep.replace(stages=tuple(stage.replace(blocks=stage.blocks[:1]) for stage in deep.stages))
    assert shallow.layers == 8
    for one, other in zip(_begin(deep), _begin(shallow), strict=True):
        assert torch.equal(one, other)


def test_a_step_moves_every_block_and_the_clipped_gradient_bounds_how_far() -> None:
    data = ds.data.open("digits")
    net = ds.build(ds.zoo.get(NAMES[1004], input=data.input))
    recipe = named("thousands").replace(max_steps=3, batch=8, warmup=0.0)
    losses = [event.loss for event in ds.fit(net, data, recipe, each_step=True) if isinstance(event, Stepped)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[0] == pytest.approx(math.log(10), abs=0.5)
    scales = torch.stack([block.get_parameter("junction.scale").detach() for block in net.blocks()])
    assert scales.count_nonzero() == len(scales)
    # Three steps of at most lr each, the gradient's norm being one, and Nesterov's momentum behind them.
    assert scales.norm() < recipe.lr * (1.9 + 2.71 + 3.44)
