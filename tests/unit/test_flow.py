"""How signals flow while a net trains: the numbers against their definitions, and hooks that leave no trace."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import deepskip as ds
from deepskip.data.batches import Batch, normalise
from deepskip.errors import InputError
from deepskip.nets.parts import BranchOnly
from deepskip.training.diagnosis import NotFinite
from deepskip.training.distributed import World
from deepskip.training.flow import LEAST, ROWS, Flow, interval
from deepskip.training.frozen import Frozen
from deepskip.training.recipe import Recipe
from deepskip.training.stepper import Stepper
from deepskip.training.way import Way

SPEC = ds.zoo.get("resnet8_cifar", input=(1, 8, 8))
PREPROCESSING = ds.Preprocessing(size=8, resize=8, colour="L", mean=(0.5,), std=(0.5,))


def batch_of(n: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Batch(images, torch.randint(0, 10, (n,), generator=generator), total=n)


def stepper_of(net: ds.Network, recipe: Recipe | None = None, way: Way | None = None) -> Stepper:
    recipe, way = recipe or Recipe(), way or Way()
    return Stepper(net.train(), PREPROCESSING, recipe, way, World(), seed=0, weights=None)


def recorded(net: ds.Network, recipe: Recipe | None = None, way: Way | None = None, n: int = 6):
    flow = Flow(net, 1, 10)
    stepper_of(net, recipe, way).step(batch_of(n), 3, 0.1, flow)
    (row,) = flow.drain()
    assert flow.drain() == []
    return row


def by_hand(net: ds.Network, images: Tensor, labels: Tensor, total: int):
    """Return what a row says, computed block by block without a hook."""
    x = net.stem(normalise(images, PREPROCESSING, torch.float32))
    rms, ratio = [], []
    for block in net.blocks():
        h = block.before(x)
        shortcut, branch = block.shortcut(h), block.branch(h)
        x = block.after(block.junction(shortcut, branch))
        rms.append(float(x.detach().double().square().mean().sqrt()))
        of = [float(t.detach().double().square().mean().sqrt()) for t in (branch, shortcut)]
        ratio.append(None if isinstance(block.junction, BranchOnly) else of[0] / of[1])
    (functional.cross_entropy(net.head(x), labels, reduction="sum") / total).backward()
    norms = [
        math.sqrt(sum(float(p.grad.double().square().sum()) for p in block.parameters()))
        for block in net.blocks()
    ]
    return norms, rms, ratio


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        SPEC.plain(),
        ds.zoo.get("preresnet_cifar", depth=20, input=(1, 8, 8)),
        SPEC.replace(junction=ds.Junction(kind="learned", branch_scale=0.3), norm="group"),
    ],
    ids=str,
)
def test_a_row_is_what_its_words_say(spec: ds.Spec) -> None:
    net = ds.build(spec)
    twin, batch = copy.deepcopy(net).train(), batch_of()
    row = recorded(net)
    norms, rms, ratio = by_hand(twin, batch.images, batch.labels, 6)
    assert row["step"] == 4
    assert row["grad_norm"] == pytest.approx(norms, rel=1e-4)
    assert row["rms"] == pytest.approx(rms, rel=1e-4)
    assert row["ratio"] == ([None] * len(rms) if spec.is_plain else pytest.approx(ratio, rel=1e-4))
    assert len(set(row["grad_norm"])) == len(norms), "blocks that no test could tell apart"


def test_of_a_step_in_parts_the_gradient_is_the_wholes_and_the_activations_are_the_lasts() -> None:
    net = ds.build(SPEC.replace(norm="group"))
    twins, batch = [copy.deepcopy(net).train() for _ in range(2)], batch_of(7)
    row = recorded(net, Recipe(accumulate=3, clip=1e-3), n=7)
    assert row["grad_norm"] == pytest.approx(by_hand(twins[0], batch.images, batch.labels, 7)[0], rel=1e-3)
    last = [part[-1] for part in (batch.images.tensor_split(3), batch.labels.tensor_split(3))]
    _, rms, ratio = by_hand(twins[1], *last, 7)
    assert row["rms"] == pytest.approx(rms, rel=1e-4)
    assert row["ratio"] == pytest.approx(ratio, rel=1e-4)


def test_a_loss_that_is_scaled_does_not_scale_the_gradient() -> None:
    flow = Flow(net := ds.build(SPEC).train(), 1, 10)
    for p in net.parameters():
        p.grad = torch.full_like(p, 512.0)
    flow.take(1, torch.tensor(256.0))
    (row,) = flow.drain()
    sizes = [sum(p.numel() for p in block.parameters()) for block in net.blocks()]
    assert row["grad_norm"] == pytest.approx([2 * math.sqrt(size) for size in sizes], rel=1e-4)


def test_gradients_too_small_to_square_in_float32_are_told_apart_from_zero() -> None:
    flow = Flow(net := ds.build(SPEC).train(), 1, 10)
    for p in net.parameters():
        p.grad = torch.full_like(p, 1e-30)
    flow.take(1, torch.ones(()))
    assert all(1e-30 < value < 1e-27 for value in flow.drain()[0]["grad_norm"])


def test_half_precision_is_measured_in_float32() -> None:
    exact, half = recorded(ds.build(SPEC)), recorded(ds.build(SPEC), way=Way(precision="bf16"))
    for field in ("grad_norm", "rms", "ratio"):
        assert half[field] == pytest.approx(exact[field], rel=0.1)
        assert half[field] != exact[field]


def test_what_is_not_there_or_not_finite_is_null() -> None:
    net = ds.build(SPEC)
    Frozen(net, ("stages.s1",)).hold()
    row = recorded(net)
    assert row["grad_norm"][0] is None
    assert None not in row["grad_norm"][1:] + row["rms"] + row["ratio"]
    flow = Flow(net, 1, 10, activations=False)
    stepper_of(net).step(batch_of(), 0, 0.1, flow)
    (row,) = flow.drain()
    assert row["rms"] == row["ratio"] == [None] * 3
    assert None not in row["grad_norm"][1:]
    net.stem.conv1.weight.grad = None
    next(iter(net.stages["s2"].parameters())).grad.fill_(math.inf)
    flow.take(2, torch.ones(()))
    assert flow.drain()[0]["grad_norm"][:2] == [None, None]


def _hooks(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_hooks_are_gone_before_the_backward_pass_and_after_an_exception() -> None:
    net = ds.build(SPEC)
    flow, stepper = Flow(net, 1, 10), stepper_of(net)
    during, after = [], []
    net.stem.register_forward_hook(lambda *_: during.append(_hooks(net)))
    net.head.linear.register_full_backward_hook(lambda *_: after.append(_hooks(net)))
    own = _hooks(net)
    stepper.step(batch_of(), 0, 0.1, flow)
    assert (during, after) == ([own + 6], [own])
    handle = net.head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        stepper.step(batch_of(), 1, 0.1, flow)
    handle.remove()
    net.get_parameter("stages.s2.b1.branch.norm2.weight").data.fill_(math.inf)
    with pytest.raises(NotFinite):
        stepper.step(batch_of(), 1, 0.1, flow)
    assert _hooks(net) == own
    assert [row["step"] for row in flow.drain()] == [1]


def test_blocks_that_are_computed_again_in_the_backward_pass_are_measured_once() -> None:
    from torch.utils.checkpoint import checkpoint

    class Again(nn.Module):
        def __init__(self, net: ds.Network) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            x = self.net.stem(x)
            for block in self.net.blocks():
                x = checkpoint(block, x, use_reentrant=False)
            return self.net.head(x)

    usual = recorded(ds.build(SPEC))
    net = ds.build(SPEC)
    flow, stepper = Flow(net, 1, 10), stepper_of(net)
    stepper.call = Again(net)
    stepper.step(batch_of(), 3, 0.1, flow)
    assert flow.drain() == [usual]


def test_the_first_and_the_last_step_are_recorded_and_the_rest_evenly() -> None:
    flow = Flow(ds.build(SPEC), 4, 15)
    assert [step for step in range(1, 16) if flow.wants(step)] == [1, 5, 9, 13, 15]
    for steps in (1, 18, 799, 800, 801, 64_100, 10**7):
        every = interval("auto", steps)
        assert every >= LEAST
        assert len(range(1, steps + 1, every)) <= ROWS
    assert (interval(7, 100), interval(0, 100)) == (7, 0)
    for wrong in (-1, "often", 1.5, True, None):
        with pytest.raises(InputError, match="flow: got .*; allowed: 'auto', .*; nearest: auto"):
            interval(wrong, 100)  # type: ignore[arg-type]
