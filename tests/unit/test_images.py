"""What instruments look at: every picture once at most, as evaluation sees it, with its own label."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import deepskip as ds
from deepskip.data.batches import eval_batches, normalise
from deepskip.data.dataset import RaggedImages, Split, UniformImages
from deepskip.errors import InputError
from deepskip.instruments import images

SMALL = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


@pytest.fixture(scope="module")
def net() -> ds.Network:
    return ds.build(ds.zoo.cifar(8, input=SMALL))


def test_pictures_come_with_their_labels_in_even_batches(net, digits) -> None:
    whole = normalise(next(eval_batches(digits.val, len(digits.val))).images, digits.preprocessing)
    batches = list(images.drawn(net, digits, images=50, batch=16, seed=3))
    assert [len(one.x) for one in batches] == [13, 13, 12, 12]
    indices = torch.cat([one.indices for one in batches])
    assert len(set(indices.tolist())) == 50
    assert torch.equal(torch.cat([one.x for one in batches]), whole[indices])
    assert torch.equal(torch.cat([one.labels for one in batches]), digits.val.labels[indices])
    assert indices.tolist() != sorted(indices.tolist())  # folders are sorted by class
    again, other = (torch.cat([one.indices for one in _drawn(net, digits, seed)]) for seed in (3, 4))
    assert torch.equal(again, indices)
    assert not torch.equal(other, indices)


def _drawn(net: ds.Network, data: ds.data.Dataset, seed: int) -> list[images.Drawn]:
    return list(images.drawn(net, data, images=50, batch=50, seed=seed))


def test_a_split_says_how_its_pictures_become_inputs(net, digits) -> None:
    assert digits.val.preprocessing == digits.train.preprocessing == digits.preprocessing
    one, other = (next(images.drawn(net, d, images=9, batch=9, seed=0)) for d in (digits, digits.val))
    assert all(map(torch.equal, one, other))
    assert (
        len(torch.cat([b.x for b in images.drawn(net, digits.train, images=10**6, batch=500, seed=0)])) == 1437
    )
    moved = digits.preprocessing.replace(mean=(0.25,))
    assert dataclasses.replace(digits, preprocessing=moved).val.preprocessing == moved


def test_pictures_with_a_margin_are_seen_as_evaluation_sees_them(net, digits) -> None:
    rng = np.random.default_rng(0)
    shapes = np.array([[12, 9], [8, 8], [20, 31]], np.int32)
    sizes = shapes.prod(1).astype(np.int64)
    pixels = rng.integers(0, 256, sizes.sum(), np.uint8)
    ragged = RaggedImages(pixels, np.concatenate([[0], sizes.cumsum()]), shapes, 1)
    split = Split(ragged, torch.arange(3), preprocessing=digits.preprocessing)
    wanted = normalise(next(eval_batches(split, 3, digits.preprocessing)).images, digits.preprocessing)
    found = next(images.drawn(net, split, images=3, batch=3, seed=0))
    assert torch.equal(found.x, wanted[found.indices])


def test_they_come_in_the_networks_precision(digits) -> None:
    net = ds.build(ds.zoo.cifar(8, input=SMALL), dtype=torch.float64)
    assert next(images.drawn(net, digits, images=2, batch=2, seed=0)).x.dtype == torch.float64


def test_what_the_network_does_not_take_is_refused_at_once(net, digits) -> None:
    bare = Split(digits.val.images, digits.val.labels)
    empty = Split(
        UniformImages(np.zeros((0, 8, 8, 1), np.uint8)), torch.arange(0), preprocessing=digits.preprocessing
    )
    few = ds.build(ds.zoo.cifar(8, input=SMALL, classes=9))
    colour = ds.build(ds.zoo.cifar(8))
    for at, data, message in (
        (net, bare, "data: got a split without preprocessing"),
        (net, empty, "data: got no picture"),
        (colour, digits, "data: got 1 channels; allowed: 3"),
        (few, digits, "data: got labels 0 to 9; allowed: 0 to 8"),
    ):
        with pytest.raises(InputError, match=message):
            images.drawn(at, data, images=5, batch=5, seed=0, labelled=True)
    images.drawn(few, digits, images=5, batch=5, seed=0)
    for wrong in (0, -1, True, 2.5):
        with pytest.raises(InputError, match="images: got"):
            images.drawn(net, digits, images=wrong, batch=5, seed=0)
        with pytest.raises(InputError, match="batch: got"):
            images.drawn(net, digits, images=5, batch=wrong, seed=0)
