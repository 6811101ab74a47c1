"""Law 2: the ledger equals the built network."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deepskip.describe import ledger, zoo
from deepskip.describe.spec import Junction, Spec
from deepskip.nets.builder import build
from tests.laws.strategies import specs


@given(specs(coupled=True))
def test_parameters_layers_and_multiplications(spec: Spec) -> None:
    cost, net = ledger.count(spec), build(spec).eval()
    assert cost.params == sum(p.numel() for p in net.parameters())
    main = [
        module
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and not {"shortcut", "junction", "squeeze"} & set(name.split("."))
    ]
    assert cost.layers == len(main) == spec.layers
    with FlopCounterMode(display=False) as flops:
        net(torch.zeros(2, *spec.input))
    assert (
        cost.macs * 2 * 2 == flops.get_total_flops()
    )  # two images; it counts a multiplication and an addition


@given(specs(coupled=True))
def test_shapes_line_by_line(spec: Spec) -> None:
    net = build(spec).eval()
    seen: dict[str, tuple[int, ...]] = {}
    for line in ledger.count(spec).lines:
        net.get_submodule(line.name).register_forward_hook(
            lambda module, inputs, output, name=line.name: seen.__setitem__(name, tuple(output.shape[1:]))
        )
    net(torch.zeros(2, *spec.input))
    for line in ledger.count(spec).lines:
        wanted = tuple(line.outputs) if line.name != "head" else (spec.classes,)
        assert seen[line.name] == wanted
        assert line.params == sum(p.numel() for p in net.get_submodule(line.name).parameters())


@given(specs(coupled=True))
def test_activation_bytes_are_what_autograd_keeps(spec: Spec) -> None:
    net, batch = build(spec), 7
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # Parameters and per-channel statistics do not grow with the batch; views share their storage.
        if tensor.ndim in (2, 4) and tensor.shape[0] == batch and not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = net(torch.randn(batch, *spec.input))
    assert logits.shape == (batch, spec.classes)
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    found = sum(t.numel() * t.element_size() for pointer, t in kept.items() if pointer not in weights)
    assert ledger.count(spec).activation_bytes(batch) == found


@settings(max_examples=30)
@given(specs(coupled=True))
def test_receptive_field_is_what_gradients_reach(spec: Spec) -> None:
    # Group statistics and gates of the whole image would reach everywhere.
    pure = {
        "norm": "batch",
        "initial": "he_fan_out",
        "squeeze": None,
        "squeeze_multiple": 1,
        "junction": Junction(),
        "zero_last": False,
    }
    wide = spec.replace(input=(spec.input[0], 1, 4001), **pure)
    reach = ledger.count(wide).receptive_field
    if reach > 1500:
        return
    net = build(wide).double().eval()
    for parameter in net.parameters():
        parameter.data.abs_()  # nothing can cancel
    if wide.stem.pool:
        net.stem.pool = nn.AvgPool2d(3, stride=2, padding=1)  # the same window; the maximum has one source
    image = torch.rand(1, *wide.input, dtype=torch.float64, requires_grad=True)
    x = net.stem(image)
    for block in net.blocks():
        x = block(x)
    x[..., x.shape[-1] // 2].sum().backward()
    assert image.grad is not None
    touched = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert int(touched.max() - touched.min()) + 1 == reach


def test_paths_are_all_the_subsets_of_blocks() -> None:
    spec = zoo.cifar(8)
    blocks = ledger.count(spec).blocks
    lengths = Counter(sum(taken) for taken in itertools.product((0, 1), repeat=blocks))
    assert ledger.count(spec).paths() == [lengths[k] for k in range(blocks + 1)]
    assert sum(ledger.count(zoo.cifar(110)).paths()) == 2**54
    assert ledger.count(spec.plain()).paths() == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("name", "params", "millions"),
    [
        # He et al. 2015, table 6; the exact numbers are those of the public CIFAR checkpoints.
        ("resnet20_cifar", 269_722, "0.27"),
        ("resnet32_cifar", 464_154, "0.46"),
        ("resnet44_cifar", 658_586, "0.66"),
        ("resnet56_cifar", 853_018, "0.85"),
        ("resnet110_cifar", 1_727_962, "1.7"),
        ("resnet1202_cifar", 19_421_274, "19.4"),
        # torchvision's documentation of its weights, "num_params".
        ("resnet18", 11_689_512, "11.7"),
        ("resnet34", 21_797_672, "21.8"),
        ("resnet50", 25_557_032, "25.6"),
        ("resnet101", 44_549_160, "44.5"),
        ("resnet152", 60_192_808, "60.2"),
    ],
)
def test_published_parameters(name: str, params: int, millions: str) -> None:
    found = ledger.count(zoo.get(name)).params
    assert found == params
    assert f"{found / 1e6:.{len(millions.split('.')[1])}f}" == millions
