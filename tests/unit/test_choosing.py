"""The way to run a net: chosen by what was measured, where it pays, and where its answers are the net's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import deepskip as ds
from deepskip.deploy import choosing
from deepskip.deploy.choosing import USUAL, Agreement, Choice, choose, compare
from deepskip.deploy.ways import WAYS, Source, Way, unnamed
from deepskip.errors import InputError, WorkError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
SPEC = ds.zoo.get("resnet8_cifar", input=(1, 8, 8))


class Fake:
    """A runner whose logits are the usual ones and something more."""

    def __init__(self, name: str, error: float) -> None:
        self.name, self.threads, self.error, self.closed = name, 1, error, False

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert not self.closed
        logits = pixels.reshape(len(pixels), -1)[:, :10].astype(np.float32) / 255 + 1
        logits[:, 0] += self.error
        return logits

    def close(self) -> None:
        self.closed = True


class Ways:
    """All ways, made up: pictures a second of each, and how wrong it is."""

    def __init__(self) -> None:
        self.rates = dict.fromkeys((way.name for way in WAYS), 1.0) | {"openvino": 3.0, "openvino-bf16": 9.0}
        self.errors = dict.fromkeys(self.rates, 0.0) | {"openvino-bf16": 0.01}
        self.made: list[Fake] = []

    def make(self, way: Way, source: Any, *, batch: int, threads: int | None = None) -> Fake:
        if self.rates[way.name] == 0:
            raise WorkError(way.name, "no such thing", "another")
        self.made.append(Fake(way.name, self.errors[way.name]))
        return self.made[-1]

    def names(self) -> list[str]:
        return [runner.name for runner in self.made]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    fake = Ways()
    monkeypatch.setattr(Way, "make", lambda way, *args, **options: fake.make(way, *args, **options))
    monkeypatch.setattr(Way, "lacking", lambda way, device: None)
    monkeypatch.setattr(choosing, "measured", lambda runner, pixels: fake.rates[runner.name])
    return fake


def pick(images: int = 10**6, classes: int = 10, **options: Any) -> Choice:
    source = Source(unnamed(SPEC.replace(classes=classes)), options.pop("calibration", None))
    return choose(source, PIXELS, batch=4, images=images, **options)


def test_the_fastest_exact_way_is_chosen_and_remembered(ways: Ways) -> None:
    first = pick(classes=11)
    assert first.way.name == "openvino"
    assert {one.way.numbers for one in first.tried} == {"float32"}
    assert [runner.name for runner in ways.made if not runner.closed] == ["openvino"]
    ways.made.clear()
    again = pick(classes=11)
    assert (again.way.name, again.tried, ways.names()) == ("openvino", (), [USUAL.name, "openvino"])
    assert pick(classes=12).tried  # another net


def test_a_remembered_way_is_compared_again(ways: Ways) -> None:
    assert pick(classes=13).way.name == "openvino"
    ways.errors["openvino"] = 0.01  # with other weights it is not exact
    assert pick(classes=13).way is USUAL


def test_what_is_not_exact_has_to_be_asked_for(ways: Ways) -> None:
    ways.errors["openvino"] = 2.1e-4  # of logits up to 2
    assert pick(classes=14).way is USUAL
    ways.errors["openvino"] = 1e-4
    assert pick(classes=15).way.name == "openvino"
    asked = pick(classes=16, wanted="fastest")
    assert asked.way.name == "openvino-bf16"
    assert not asked.agreement.exact
    assert asked.agreement.n == len(PIXELS)
    assert pick(wanted="openvino-bf16").way.name == "openvino-bf16"


def test_a_float32_way_with_other_answers_is_wrong_and_not_fast(ways: Ways) -> None:
    ways.rates["openvino"], ways.errors["openvino"] = 20.0, 0.5
    assert pick(classes=22, wanted="fastest").way.name == "openvino-bf16"
    ways.rates["onnxruntime"] = 2.0  # no way is measured by a wrong one
    assert pick(classes=23).way.name == "onnxruntime"


def test_logits_that_are_not_finite_are_not_exact(ways: Ways) -> None:
    ways.errors["openvino"] = float("nan")
    assert pick(classes=17).way is USUAL


def test_a_way_that_fails_is_not_taken_and_noise_is_no_reason(ways: Ways) -> None:
    ways.rates["openvino"] = 0.0
    ways.rates["onnxruntime"] = 1.04
    assert pick(classes=18).way is USUAL
    with pytest.raises(WorkError, match="no such thing"):
        pick(wanted="openvino")


def test_nothing_is_looked_for_where_it_cannot_pay(ways: Ways) -> None:
    assert pick(images=4).way is USUAL  # one batch
    ways.rates[USUAL.name] = 2.0
    assert pick(images=9).way is USUAL  # a few seconds
    assert set(ways.names()) == {USUAL.name}
    ways.rates[USUAL.name] = 1.0
    tried = [[one.way.name for one in pick(images=images, classes=19).tried] for images in (10, 20, 1000)]
    assert tried == [
        [USUAL.name, "openvino"],
        [USUAL.name, "openvino", "onnxruntime"],
        [USUAL.name, "openvino", "onnxruntime", "inductor"],
    ]


def test_eight_bits_need_pictures_to_be_calibrated_on(ways: Ways) -> None:
    ways.rates["openvino-int8"] = 20.0
    assert pick(classes=20, wanted="fastest").way.name == "openvino-bf16"
    assert pick(classes=21, wanted="fastest", calibration=PIXELS).way.name == "openvino-int8"


def test_unknown_ways(ways: Ways) -> None:
    with pytest.raises(
        InputError, match="--way: got 'fast'; allowed: auto, fastest, eager, .*nearest: fastest"
    ):
        pick(wanted="fast")
    assert not ways.made


def test_agreement_by_hand() -> None:
    reference = np.array([[1.0, 2.0, -4.0], [3.0, 0.0, 1.0]], np.float32)
    found = reference + np.array([[0.0, -1.5, 0.0], [0.0, 0.1, 0.0]], np.float32)
    assert compare(reference, found) == Agreement(2, 1, pytest.approx(1.5 / 4))
    assert compare(np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)).difference == 1
