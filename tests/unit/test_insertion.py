"""What new blocks do to a trained net, counted by image, bit and block."""

from __future__ import annotations

import pytest
import torch

import deepskip as ds
from deepskip.describe import zoo
from deepskip.instruments import insertion
from deepskip.nets.builder import build
from deepskip.surgery import grow
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def test_silent_blocks_are_the_identity_and_change_no_bit(digits: ds.data.Dataset) -> None:
    trained = scrambled(build(zoo.cifar(8, input=SMALL)))
    made = grow(trained, 4)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    found = insertion.measure(made, trained, digits, 0)
    assert found == {"images": 360, "same_outputs": 360, "output_change": 0.0, "new_equal": 4}
    assert set(found) == set(insertion.COLUMNS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def test_only_new_blocks_are_counted(digits: ds.data.Dataset) -> None:
    silent = build(zoo.cifar(14, input=SMALL, zero_last=True))  # three of its own are the identity
    assert insertion.measure(grow(silent, 2), silent, digits, 0)["new_equal"] == 2


def test_outputs_are_compared_image_by_image_and_bit_by_bit(
    digits: ds.data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan = float("nan")
    before = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0], [5.0, nan], [nan, 6.0]])
    after = torch.tensor([[1.0, 2.0], [3.0, 4.5], [-0.0, 1.0], [5.0, nan], [nan, 6.0]])
    trained = build(zoo.cifar(8, input=SMALL))
    made = grow(trained, 1)
    logits = {id(trained): before, id(made): after}
    monkeypatch.setattr(insertion, "predict_logits", lambda net, *_: logits[id(net)])
    found = insertion.measure(made, trained, digits, 0)
    assert (found["images"], found["same_outputs"], found["output_change"]) == (5, 3, None)
    before[3:], after[3:] = 0.0, 0.0
    assert insertion.measure(made, trained, digits, 0)["output_change"] == 0.5


def test_a_block_that_adds_a_little_is_seen(digits: ds.data.Dataset) -> None:
    trained = scrambled(build(zoo.cifar(8, input=SMALL)))
    made = grow(trained, 2)
    with torch.no_grad():
        made.get_submodule("stages.s1.g1.branch.norm2").weight[0] = 1e-3
    found = insertion.measure(made, trained, digits, 0)
    assert found["new_equal"] == 1
    assert found["same_outputs"] < 360
    assert 0 < found["output_change"] < 1


def test_what_is_not_finite_has_no_difference(digits: ds.data.Dataset) -> None:
    trained = build(zoo.cifar(8, input=SMALL))
    made = grow(trained, 1)
    with torch.no_grad():
        made.head.linear.bias[0] = torch.nan
    found = insertion.measure(made, trained, digits, 0)
    assert (found["same_outputs"], found["output_change"], found["new_equal"]) == (0, None, 1)
