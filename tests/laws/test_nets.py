"""Laws 3, 4 and 5: the twin, the identity, and initial values."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from deepskip.describe import zoo
from deepskip.describe.spec import Block, Conv, Junction, Spec, Stem
from deepskip.nets.block import ResidualBlock
from deepskip.nets.builder import build
from deepskip.nets.initial import initialise
from tests.laws.strategies import scrambled, specs


@given(specs(), st.integers(0, 2**40))
def test_the_twin_has_the_same_tensors_without_the_shortcuts(spec: Spec, seed: int) -> None:
    net, twin = build(spec, seed).state_dict(), build(spec.plain(), seed).state_dict()
    # Gates and learned scales are the junction's own, which a plain net has not.
    assert list(twin) == [name for name in net if ".shortcut." not in name and ".junction." not in name]
    for name, tensor in twin.items():
        gain = _branch_gain(spec, name)
        if gain == 1:
            assert torch.equal(tensor, net[name]), name
        elif spec.is_plain or gain == 0:  # the exception: a plain net begins with branches that carry a signal
            assert tensor.any(), name
        else:
            torch.testing.assert_close(net[name], tensor * gain)


def _branch_gain(spec: Spec, name: str) -> float:
    """Return what zero_last and Fixup multiply an initial tensor by in a residual net, inside branches."""
    site = next((site for site in spec.sites() if name.startswith(f"{site.name}.branch.")), None)
    if site is None:
        return 1
    last, (layer, kind) = len(site.block.convs), name.split(".")[-2:]
    drawn = kind == "weight" or (kind == "bias" and spec.initial == "pytorch" and layer.startswith("conv"))
    if not drawn:
        return 1
    if spec.initial == "fixup" and layer.startswith("conv"):
        blocks = len(list(spec.sites()))
        return 0 if layer == f"conv{last}" else blocks ** (-1 / (2 * last - 2))
    normed = spec.norm not in ("none", "folded") and spec.order in ("post", "relu_only")
    ends = "norm" if normed else "conv"
    return 0 if spec.zero_last and spec.initial != "fixup" and layer == f"{ends}{last}" else 1


def test_a_plain_net_ignores_zero_last() -> None:
    zero, usual = zoo.cifar(8, zero_last=True), zoo.cifar(8)
    for name, tensor in build(zero.plain()).state_dict().items():
        assert torch.equal(tensor, build(usual.plain()).state_dict()[name]), name


def test_the_twin_computes_something_else() -> None:
    spec, x = zoo.cifar(20), torch.randn(2, 3, 32, 32)
    assert not torch.allclose(build(spec).eval()(x), build(spec.plain()).eval()(x))


def _silence(block: ResidualBlock) -> None:
    """Put the branch's last normaliser to zero, or its last convolution where no normaliser follows."""
    last = [m for m in block.branch if isinstance(m, nn.BatchNorm2d | nn.Conv2d)][-1]
    last.weight.data.zero_()
    if isinstance(last, nn.BatchNorm2d):
        last.bias.data.zero_()


ORDERS = st.sampled_from(("post", "pre", "relu_before", "relu_only"))  # "norm_after" normalises the sum
PURE = {
    "shortcut": "B",
    "norm": "batch",
    "initial": "he_fan_out",
    "junction": Junction(),
    "squeeze": None,
    "squeeze_multiple": 1,
    "survival": 1.0,  # stochastic depth scales every branch by its place among all blocks
    "zero_last": False,
    "first": "shared",
}


@given(specs(**PURE), ORDERS, st.booleans(), st.integers(0, 99))
def test_a_silent_block_is_the_identity_bit_for_bit(spec: Spec, order: str, training: bool, seed: int) -> None:
    spec = spec.replace(order=order)
    net = scrambled(build(spec), seed).train(training)
    for site, block in zip(spec.sites(), net.blocks(), strict=True):
        if site.shortcut != "identity":
            continue
        _silence(block)
        x = torch.randn(3, *site.inputs, generator=torch.Generator().manual_seed(seed)) * 1e3
        x = x.relu() if spec.order == "post" else x  # a post-activation block's input is never negative
        # Where the first activation is shared, what the block leaves alone is what comes after it.
        wanted = block.before(x) if site.shared else x
        assert torch.equal(block(x), wanted)


def test_a_post_activation_block_is_not_the_identity_below_zero() -> None:
    block = next(build(zoo.cifar(8)).eval().blocks())
    _silence(block)
    x = -torch.ones(1, 16, 8, 8)
    assert not torch.equal(block(x), x)


@settings(max_examples=40)
@given(specs(), st.data())
def test_extra_silent_blocks_leave_outputs_unchanged_bit_for_bit(spec: Spec, data: st.DataObject) -> None:
    spec = spec.replace(order=data.draw(ORDERS), **PURE)
    net = scrambled(build(spec)).eval()
    x = torch.randn(2, *spec.input)
    at = data.draw(st.integers(0, len(spec.stages) - 1))
    stage = spec.stages[at]
    convs = tuple(conv.replace(stride=1, groups=1) for conv in stage.blocks[-1].convs)
    new = Block(id="extra", convs=convs)
    stages = (*spec.stages[:at], stage.replace(blocks=(*stage.blocks, new)), *spec.stages[at + 1 :])
    grown = scrambled(build(spec.replace(stages=stages)), 1).eval()
    loaded = grown.load_state_dict(net.state_dict(), strict=False)
    assert not loaded.unexpected_keys  # every id stayed its own
    _silence(grown.stages[stage.id]["extra"])
    assert torch.equal(grown(x), net(x))


@given(specs(), st.integers(0, 2**40))
def test_initial_values_depend_on_rule_seed_and_name_alone(spec: Spec, seed: int) -> None:
    net = build(spec, seed)
    torch.manual_seed(1234)
    torch.rand(7)
    again = build(spec, seed)
    for one, other in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    double = build(spec, seed, dtype=torch.float64).state_dict()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, double[name].to(tensor.dtype)), name


def test_initial_values_do_not_depend_on_the_order_of_building() -> None:
    spec = zoo.cifar(20)
    net = build(spec, 3)
    # The same tensor built alone, under its own qualified name, has the same values.
    holder = nn.ModuleDict({"stem": nn.Sequential()})
    holder["stem"].add_module("conv1", nn.Conv2d(3, 16, 3, padding=1, bias=False))
    initialise(holder, spec, 3)
    assert torch.equal(holder["stem"].conv1.weight, net.stem.conv1.weight)
    before = torch.random.get_rng_state()
    build(spec, 4)
    assert torch.equal(before, torch.random.get_rng_state())  # the global generator is not touched


def test_initial_values_are_equal_in_another_process() -> None:
    code = (
        "import deepskip as ds, hashlib; net = ds.build(ds.zoo.get('resnet20_cifar'), 5);"
        "print(hashlib.sha256(b''.join(t.numpy().tobytes() for t in net.state_dict().values())).hexdigest())"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        for _ in range(2)
    ]
    assert len(runs[0]) == 65
    assert runs[0] == runs[1]


@pytest.mark.parametrize("rule", ["he_fan_out", "he_fan_in"])
def test_initial_variance_is_the_papers(rule: str) -> None:
    spec = zoo.imagenet(18).replace(initial=rule)
    conv = build(spec).stages["s2"]["b1"].branch.conv1  # 64 → 128 channels, 3×3
    fan = 9 * (128 if rule == "he_fan_out" else 64)
    assert conv.weight.var().item() == pytest.approx(2 / fan, rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0, abs=3 * (2 / fan / conv.weight.numel()) ** 0.5)


def test_a_delta_orthogonal_net_keeps_every_length() -> None:
    """Of a plain stack of 3×3 convolutions without ReLU, √2 aside: Xiao et al. 2018, §2.3."""
    net = build(zoo.cifar(20, norm="none", plain=True, initial="delta_orthogonal")).double()
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 19
    for conv in convs:
        rows, columns = conv.weight.shape[:2]
        centre = conv.weight[:, :, 1, 1].detach() / math.sqrt(2)
        small = centre.T @ centre if rows >= columns else centre @ centre.T
        assert torch.allclose(small, torch.eye(len(small)).double(), atol=1e-6)
        assert conv.weight.count_nonzero() == centre.count_nonzero()
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    y = x
    for conv in convs[1:7]:  # the first stage's, which keep the dimensions
        y = nn.functional.conv2d(y, conv.weight / math.sqrt(2), padding=1)
    assert torch.allclose(y.norm(dim=1), x.norm(dim=1), rtol=1e-5)


def test_groups_are_orthogonal_each() -> None:
    spec = zoo.imagenet(50, groups=32, width=4 * 32, initial="delta_orthogonal")
    conv = build(spec).stages["s1"]["b1"].branch.conv2
    for part in conv.weight[:, :, 1, 1].detach().double().chunk(32):
        assert torch.allclose(part.T @ part, 2 * torch.eye(4).double(), atol=1e-6)


def test_pytorchs_rule_is_what_its_layers_begin_with() -> None:
    net = build(zoo.imagenet(18).replace(norm="none", initial="pytorch"))
    for module in net.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        torch.manual_seed(0)
        like = type(module).__new__(type(module))
        like.__dict__.update(module.__dict__)
        like._parameters = {n: nn.Parameter(torch.empty_like(p)) for n, p in module.named_parameters()}
        like.reset_parameters()
        for name, ours in module.named_parameters():
            own, other, n = ours.detach(), like._parameters[name].detach(), ours.numel()
            # Uniform within the same bounds: the largest of n values misses the bound by about 1 / n of it.
            assert own.abs().max().item() == pytest.approx(other.abs().max().item(), rel=12 / n + 1e-3)
            assert abs(own.mean()) < 4 * other.abs().max() / n**0.5


def test_a_branch_that_begins_silent_has_no_bias() -> None:
    net = build(zoo.cifar(8, norm="none", zero_last=True, initial="pytorch"))
    for block in net.blocks():
        assert not block.branch.conv2.bias.any()
        assert block.branch.conv1.bias.any()


def test_different_seeds_and_names_give_different_values() -> None:
    spec = zoo.cifar(20)
    one, other = build(spec, 0), build(spec, 1)
    assert not torch.equal(one.stem.conv1.weight, other.stem.conv1.weight)
    blocks = one.stages["s1"]
    assert not torch.equal(blocks["b1"].branch.conv1.weight, blocks["b2"].branch.conv1.weight)


@given(specs(), st.integers(0, 20))
def test_any_net_trains_a_step(spec: Spec, seed: int) -> None:
    net = build(spec, seed)
    net(torch.randn(3, *spec.input)).square().mean().backward()
    if not spec.is_plain:
        assert all(p.grad is not None for p in net.parameters())


def _roomy(spec: Spec) -> Spec:
    """Return `spec` with eight times the channels and without strides, so that no ReLU is dead by chance."""

    def convs(given: tuple[Conv, ...]) -> tuple[Conv, ...]:
        return tuple(conv.replace(channels=8 * conv.channels, stride=1) for conv in given)

    stages = tuple(
        stage.replace(blocks=tuple(block.replace(convs=convs(block.convs)) for block in stage.blocks))
        for stage in spec.stages
    )
    first, *others = convs(spec.stem.convs)  # the picture's channels stay as they are
    return spec.replace(
        stem=Stem(convs=(first, *others), pool=False), stages=stages, input=(spec.input[0], 6, 6)
    )


@settings(max_examples=30)
@given(specs(), st.integers(0, 20))
def test_every_branch_of_any_net_trains(spec: Spec, seed: int) -> None:
    spec = _roomy(spec)
    torch.manual_seed(seed)  # of stochastic depth and dropout
    net = build(spec, seed, dtype=torch.float64)  # in which the smallest step is seen
    x, goal = torch.randn(3, *spec.input).double(), torch.randn(3, spec.classes).double()
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-2)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    for _ in range(8):  # from zero, the head or α moves first, then a branch's end, then its beginning
        optimiser.zero_grad()
        (net(x) - goal).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimiser.step()
    still = [
        name
        for name, p in net.named_parameters()
        if ".branch." in name and ".conv" in name and name.endswith("weight") and torch.equal(p, before[name])
    ]
    assert still == []


@pytest.mark.parametrize("first", ["shared", "own"])
@pytest.mark.parametrize("order", ["pre", "relu_only"])
@torch.no_grad()
def test_the_first_unit_shares_its_activation(order: str, first: str) -> None:
    """He et al. 2016, appendix: the first activation right after conv1 and before splitting into two paths."""
    net = scrambled(build(zoo.cifar(8, order=order, first=first), dtype=torch.float64)).eval()
    tensors, block = net.state_dict(), "stages.s1.b1"

    def norm(x: Tensor, name: str) -> Tensor:
        scale, shift, mean, var = (
            tensors[f"{name}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(x: Tensor, i: int) -> Tensor:
        return functional.conv2d(x, tensors[f"{block}.branch.conv{i}.weight"], padding=1)

    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    x = functional.conv2d(images, tensors["stem.conv1.weight"], padding=1)
    if order == "pre":
        h = norm(x, f"{block}.before.norm" if first == "shared" else f"{block}.branch.norm1").relu()
        branch = conv(norm(conv(h, 1), f"{block}.branch.norm2").relu(), 2)
    else:
        x = norm(x, "stem.norm1")
        h = x.relu()
        branch = norm(conv(norm(conv(h, 1), f"{block}.branch.norm1").relu(), 2), f"{block}.branch.norm2")
    wanted = (h if first == "shared" else x) + branch
    torch.testing.assert_close(net.stages["s1"]["b1"](net.stem(images)), wanted, rtol=1e-10, atol=1e-10)


def test_full_backward_hooks_reach_every_part() -> None:
    net, seen = build(zoo.cifar(8, order="pre")), []
    for block in net.blocks():
        for part in ("before", "branch", "shortcut", "junction", "after"):
            block.get_submodule(part).register_full_backward_hook(
                lambda module, into, out, part=part: seen.append(part)
            )
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    assert {part: seen.count(part) for part in seen} == dict.fromkeys(
        ("before", "branch", "shortcut", "junction", "after"), 3
    )
