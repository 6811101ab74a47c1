"""Pictures in a stream: the answers are those of one at a time, in order, and only a few are held."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import deepskip as ds
from deepskip.deploy import stream
from deepskip.deploy.ways import named, unnamed
from deepskip.errors import InputError
from deepskip.model import Model
from deepskip.scoring import predict_logits
from tests.laws.strategies import scrambled
from tests.unit.pictures import cut_short, noise, save

SPEC = ds.zoo.get("resnet8_cifar", input=(1, 8, 8))


@pytest.fixture(scope="module")
def model() -> Model:
    made = unnamed(SPEC)
    scrambled(made.net)
    return made


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [save(noise(i, 20 + i, 24), tmp_path / "pictures" / f"{i:02}.png") for i in range(11)]


@pytest.mark.parametrize("batch", [1, 4, 11, 100])
def test_answers_are_those_of_one_at_a_time_in_order(model: Model, files: list[Path], batch: int) -> None:
    found = list(stream.predict(model, iter(files), len(files), batch=batch, top=10))
    one_by_one = [model.predict([file])[0] for file in files]
    assert [one.file for one in found] == [str(file) for file in files]
    for one, alone in zip(found, one_by_one, strict=True):
        assert list(one.probabilities) == list(alone.probabilities)
        assert list(one.probabilities.values()) == pytest.approx(list(alone.probabilities.values()), abs=1e-6)
    assert [len(one.probabilities) for one in stream.predict(model, iter(files), 11, top=3)] == [3] * 11


def test_what_is_broken_is_told_and_the_others_keep_their_answers(model: Model, files: list[Path]) -> None:
    whole = {one.file: one.label for one in stream.predict(model, iter(files), 11)}
    for i in (0, 5, 10):
        cut_short(files[i])
    told: list[str] = []
    found = list(stream.predict(model, iter(files), 11, batch=3, skipped=lambda error: told.append(str(error))))
    assert {one.file: one.label for one in found} == {
        name: label for name, label in whole.items() if Path(name) not in (files[0], files[5], files[10])
    }
    assert [str(files[i]) in line for i, line in zip((0, 5, 10), told, strict=True)] == [True] * 3
    with pytest.raises(InputError, match="05.png"):
        list(stream.predict(model, iter(files[1:]), 10))
    assert list(stream.predict(model, iter(files[:1]), 1, skipped=lambda error: None)) == []


def test_flips_are_the_mean_of_both_pictures(model: Model, files: list[Path]) -> None:
    pixels = np.stack([one.picture for one in stream.decoded(files, model.preprocessing, batch=4)])
    runner = named("channels-last").make(model, batch=11)
    both = [torch.from_numpy(runner(some)).softmax(1) for some in (pixels, np.flip(pixels, 2).copy())]
    wanted = sum(both) / 2
    assert not torch.allclose(*both, atol=1e-3)
    found = stream.predict_logits(runner, pixels, flips=True)
    assert torch.allclose(found.softmax(1), wanted, atol=1e-6)
    assert torch.allclose(found.exp(), wanted, atol=1e-6)  # a loss can be taken of them as they are
    best = [one.probability for one in stream.predict(model, iter(files), 11, flips=True)]
    assert best == pytest.approx(wanted.max(1).values.tolist(), abs=1e-6)


def test_few_pictures_are_held_and_threads_end(model: Model, files: list[Path]) -> None:
    opened = 0

    def endless() -> Iterator[Path]:
        nonlocal opened
        while True:
            opened += 1
            yield files[opened % len(files)]

    before = set(threading.enumerate())
    found = stream.predict(model, endless(), 10**9, batch=5, way="channels-last")
    for i in range(1, 41):
        next(found)
        assert opened <= i + 5 * (2 + stream.AHEAD)
    found.close()
    assert set(threading.enumerate()) == before


def test_evaluating_a_split_gives_scorings_logits(model: Model) -> None:
    split = ds.data.open("digits").val
    wanted = predict_logits(model.net, split, model.preprocessing)
    assert torch.equal(stream.evaluate(model, split), wanted)
    assert torch.allclose(stream.evaluate(model, split, batch=7), wanted, atol=1e-4)
    seen: list[tuple[int, int]] = []
    stream.evaluate(model, split, batch=100, progress=lambda what, done, total: seen.append((done, total)))
    assert seen == [(100, 360), (200, 360), (300, 360), (360, 360)]
