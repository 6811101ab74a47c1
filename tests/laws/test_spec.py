"""Law 1: a Spec and its JSON are one value. And the twin differs in one field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepskip.describe import zoo
from deepskip.describe.spec import Block, Conv, Spec, Stage, Stem
from deepskip.errors import InputError
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


def test_names_and_families_are_one_value() -> None:
    assert zoo.get("resnet56_cifar") == zoo.get("resnet_cifar", depth=56) == zoo.cifar(56)
    assert zoo.get("plain56_cifar") == zoo.get("resnet56_cifar").plain()
    assert zoo.get("resnet38_cifar").name == "resnet38_cifar"
    for entry in zoo.ZOO:
        assert entry.spec.name == entry.name
        assert zoo.published_depth(entry.spec, entry.counts) == entry.depth
