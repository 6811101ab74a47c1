"""Law 1: a Spec and its JSON are one value. And the twin differs in one field."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepskip.describe import zoo
from deepskip.describe.spec import Block, Conv, Junction, Spec, Stage, Stem
from deepskip.errors import InputError
from deepskip.nets.builder import build
from tests.laws.strategies import specs


@given(specs())
def test_json_round_trip(spec: Spec) -> None:
    again = Spec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.digest() == spec.digest()
    assert again.to_json() == spec.to_json()


@given(specs())
def test_the_twin_differs_in_one_field(spec: Spec) -> None:
    twin = spec.plain()
    assert twin.is_plain
    assert {key for key in Spec.model_fields if getattr(spec, key) != getattr(twin, key)} <= {"shortcut"}
    assert twin.plain() == twin
    assert twin.layers == spec.layers


@given(specs(), specs())
def test_digests_tell_values_apart(one: Spec, other: Spec) -> None:
    assert (one.digest() == other.digest()) == (one == other)


@given(specs(), st.data())
def test_unknown_and_missing_fields_are_refused(spec: Spec, data: st.DataObject) -> None:
    fields = json.loads(spec.to_json())
    del fields[data.draw(st.sampled_from([key for key in fields if Spec.model_fields[key].is_required()]))]
    with pytest.raises(InputError, match="got nothing"):
        Spec.from_dict(fields)
    with pytest.raises(InputError, match="unknown field 'shortcuts'.*nearest: shortcut"):
        Spec.from_dict({**json.loads(spec.to_json()), "shortcuts": "A"})


def _net(**changes: object) -> Spec:
    block = Block(id="b1", convs=(Conv(channels=4),))
    fields = {
        "base": "n",
        "input": (3, 8, 8),
        "classes": 2,
        "stem": Stem(convs=(Conv(channels=4),)),
        "stages": (Stage(id="s1", blocks=(block,)),),
    }
    return Spec(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"classes": 0}, "Spec.classes: got 0; allowed: greater than or equal to 1"),
        ({"stages": ()}, "Spec.stages"),
        ({"shortcut": "D"}, "got 'D'; allowed: A, B, C, none"),
        ({"input": (3, 8)}, "Spec.input.2: got nothing"),
        ({"base": "Big Net"}, "Spec.base: got 'Big Net'"),
        (
            {
                "shortcut": "A",
                "stages": (Stage(id="s1", blocks=(Block(id="b1", convs=(Conv(channels=2),)),)),),
            },
            "stages.s1.b1: shortcut A pads channels: got 4 channels in and 2 out",
        ),
        (
            {"stages": (Stage(id="s1", blocks=(Block(id="b", convs=(Conv(channels=4),)),) * 2),)},
            "the id 'b' twice",
        ),
        (
            {"stages": (Stage(id="s1", blocks=(Block(id="b", convs=(Conv(channels=9, groups=3),)),)),)},
            "stages.s1.b.conv1: groups: got 3; allowed: a divisor of 4 channels in",
        ),
    ],
)
def test_impossible_nets_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        _net(**changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_impossible_convolutions_are_refused() -> None:
    with pytest.raises(InputError, match="kernel: got 4; allowed: an odd number; nearest: 5"):
        Conv(channels=4, kernel=4)
    with pytest.raises(InputError, match="groups: got 3; allowed: a divisor of channels = 4"):
        Conv(channels=4, groups=3)


@settings(max_examples=25)
@given(st.integers(-5, 400))
def test_any_depth_is_built_or_refused_with_its_neighbours(depth: int) -> None:
    for family, valid in (
        ("resnet_cifar", depth >= 8 and depth % 6 == 2),
        ("resnet", (10 <= depth < 50 and depth % 2 == 0) or (depth >= 50 and depth % 3 == 2)),
    ):
        if valid:
            assert zoo.get(family, depth=depth).layers == depth
            continue
        with pytest.raises(InputError) as caught:
            zoo.get(family, depth=depth)
        for near in str(caught.value.nearest).split(" or "):
            assert zoo.get(family, depth=int(near)).layers == int(near)


@given(st.integers(1, 6), st.integers(1, 5))
def test_layers_per_skip(layers: int, n: int) -> None:
    spec = zoo.cifar(3 * layers * n + 2, layers_per_skip=layers)
    assert all(len(block.convs) == layers for _, block in spec.blocks())
    assert len(list(spec.blocks())) == 3 * n


def test_what_is_unusual_is_said() -> None:
    assert str(zoo.cifar(20)).endswith("shortcut A, post-activation")
    odd = zoo.cifar(20, norm="group", squeeze=4, junction=Junction(kind="shortcut_gate"))
    assert str(odd).endswith("post-activation, norm group, junction shortcut_gate, squeeze /4")
    assert str(odd.plain()).endswith("plain, post-activation, norm group, squeeze /4")


CIFAR_FIELDS: dict[str, tuple[object, ...]] = {
    "block": (None, "basic", "bottleneck"),
    "layers_per_skip": (None, 1, 2, 3),
    "plain": (False, True),
    "order": ("post", "pre", "relu_only"),
    "shortcut": ("A", "B"),
    "first": ("shared", "own"),
    "norm": ("batch", "none"),
}
IMAGENET_FIELDS: dict[str, tuple[object, ...]] = {
    "block": (None, "basic", "bottleneck"),
    "width": (64, 128),
    "groups": (1, 32),
    "v1": (False, True),
    "deep_stem": (False, True),
    "plain": (False, True),
    "order": ("post", "pre"),
    "squeeze": (None, 16),
}
ANY: dict[str, tuple[object, ...]] = {
    "norm": ("batch", "group", "layer", "none"),
    "norm_groups": (32, 8),
    "projection": ("conv", "pool"),
    "squeeze": (None, 4, 16),
    "survival": (1.0, 0.5, 0.05, 5e-07),
    "zero_last": (False, True),
    "initial": ("he_fan_out", "he_fan_in"),
    "junction": (
        Junction(),
        Junction(kind="scaled", shortcut_scale=0.5),
        Junction(kind="scaled", branch_scale=0.5),
        Junction(kind="scaled", branch_scale=-0.5),
        Junction(kind="scaled", branch_scale=0.05),
        Junction(kind="scaled", branch_scale=5.0),
        Junction(kind="learned"),
        Junction(kind="exclusive_gate", gate_bias=-6.0),
        Junction(kind="exclusive_gate", gate_bias=6.0),
        Junction(kind="shortcut_gate", gate_bias=6.0),
        Junction(kind="dropout", rate=0.25),
    ),
}


def _made(
    family: Callable[..., Spec], depths: tuple[int, ...], grid: dict[str, tuple[object, ...]]
) -> list[Spec]:
    found = []
    for depth, *values in itertools.product(depths, *grid.values()):
        try:
            found.append(family(depth, **dict(zip(grid, values, strict=True))))
        except InputError:  # a depth that these arguments have not, or a contradiction
            continue
    return found


def test_no_two_nets_of_the_families_share_a_name() -> None:
    fields = [{key: (values[0], value)} for key, values in ANY.items() for value in values[1:]]
    pairs = [one | other for one, other in itertools.combinations(fields, 2) if one.keys() != other.keys()]
    made = [
        *_made(zoo.cifar, (20, 110, 164), CIFAR_FIELDS),
        *_made(zoo.imagenet, (18, 26, 50), IMAGENET_FIELDS),
        *(spec for grid in pairs for spec in _made(zoo.cifar, (8,), grid)),
        *_made(
            functools.partial(zoo.wide, widen=1), (16,), {"order": ("post", "pre"), "first": ("shared", "own")}
        ),
        *_made(functools.partial(zoo.wide, widen=4), (16,), {"order": ("post", "pre"), "shortcut": ("A", "B")}),
        zoo.cifar(8, norm="fixup", initial="fixup"),
        *(entry.spec for entry in zoo.ZOO),
    ]
    assert len(made) > 500
    named: dict[str, Spec] = {}
    for spec in made:
        assert named.setdefault(spec.name, spec) == spec, spec.name


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: zoo.cifar(56, block="bottleneck", layers_per_skip=5), "layers_per_skip: got 5; allowed: 3"),
        (lambda: zoo.imagenet(18, width=128), "width: got 128; allowed: 64 in basic blocks"),
        (lambda: zoo.imagenet(34, groups=32), "groups: got 32; allowed: 1 in basic blocks"),
        (lambda: zoo.imagenet(50, block="basic", v1=True), "v1: got True; allowed: False in basic blocks"),
        (lambda: zoo.imagenet(50, width=0), "got 0 and 1; allowed: whole numbers from 1"),
        (lambda: zoo.cifar(8, first="own"), "first: got own; allowed: shared"),
        (lambda: zoo.cifar(8, widths=(8, 16)), "widths: got (8, 16); allowed: three numbers of channels"),
        (lambda: zoo.cifar(8, widths=(8, 0, 8)), "widths: got (8, 0, 8)"),
    ],
)
def test_contradictions_are_refused(make: Callable[[], Spec], says: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert says in str(caught.value)


def test_widths_are_the_stages_and_part_of_the_name() -> None:
    spec = zoo.cifar(20, widths=(4, 8, 12), order="pre")
    assert spec.name == "preresnet20_w4_8_12_cifar"
    assert [site.outputs.channels for site in spec.sites()] == [4] * 3 + [8] * 3 + [12] * 3
    assert spec.stem.convs[0].channels == 4
    assert zoo.cifar(164, order="pre", widths=(4, 8, 12)).stages[2].blocks[0].channels == 48
    assert zoo.cifar(20, widths=(16, 32, 64)) == zoo.cifar(20)


def test_layers_per_skip_means_basic_blocks_at_any_depth() -> None:
    assert {len(b.convs) for _, b in zoo.cifar(164, order="pre", layers_per_skip=1).blocks()} == {1}
    assert zoo.cifar(56, layers_per_skip=2) == zoo.cifar(56)
    assert zoo.cifar(164, order="pre", block="bottleneck") == zoo.get("preresnet164_cifar")
    assert zoo.cifar(164, order="pre", block="basic").name == "preresnet164_basic_cifar"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"order": "relu_before", "zero_last": True},
            "order: got relu_before; allowed: another order with zero_last",
        ),
        (
            {"order": "relu_before", "norm": "fixup", "initial": "fixup"},
            "order: got relu_before; allowed: another order with initial fixup",
        ),
        (
            {"junction": Junction(kind="learned", branch_scale=0.0), "zero_last": True},
            "junction.branch_scale: got 0.0; allowed: another number with zero_last",
        ),
        (
            {"junction": Junction(kind="learned", branch_scale=0.0), "norm": "fixup", "initial": "fixup"},
            "junction.branch_scale: got 0.0; allowed: another number with initial fixup",
        ),
        ({"junction": Junction(kind="scaled", branch_scale=0.0)}, "junction.branch_scale: got 0.0"),
        (
            {"junction": Junction(kind="scaled", shortcut_scale=0.0), "zero_last": True},
            "junction.shortcut_scale: got 0.0",
        ),
    ],
)
def test_branches_that_could_never_train_are_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as caught:
        zoo.cifar(8, **fields)
    assert says in str(caught.value)
    assert caught.value.nearest is not None
    # The refusal is right: built all the same, some branch's gradient is exactly zero.
    spec = zoo.cifar(8)
    dead = Spec.model_construct(**{**{key: getattr(spec, key) for key in Spec.model_fields}, **fields})
    net = build(dead)
    for _ in range(2):
        net.zero_grad()
        (net(torch.randn(4, 3, 8, 8)) - 1).square().mean().backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= 0.01 * (0 if p.grad is None else p.grad)
    convs = [p for name, p in net.named_parameters() if ".branch.conv" in name]
    assert all(p.grad is None or not p.grad.any() for p in convs)


def test_names_and_families_are_one_value() -> None:
    assert zoo.get("resnet56_cifar") == zoo.get("resnet_cifar", depth=56) == zoo.cifar(56)
    assert zoo.get("plain56_cifar") == zoo.get("resnet56_cifar").plain()
    assert zoo.get("resnet38_cifar").name == "resnet38_cifar"
    for entry in zoo.ZOO:
        assert entry.spec.name == entry.name
        assert zoo.published_depth(entry.spec, entry.counts) == entry.depth
