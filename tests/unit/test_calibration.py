"""Calibration, against a count by hand and SciPy's minimiser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import deepskip as ds
from deepskip.describe import zoo
from deepskip.instruments import calibration
from deepskip.nets.builder import build
from deepskip.scoring import predict_logits, score_logits
from tests.laws.strategies import scrambled


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def drawn(seed: int, n: int = 300, classes: int = 4, sharper: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits that say the truth about the labels drawn from them, `sharper` times too large."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return logits * sharper, labels


@given(st.integers(0, 2**32), st.floats(0.2, 8))
def test_the_temperature_is_the_one_of_least_loss(seed: int, sharper: float) -> None:
    logits, labels = drawn(seed, sharper=sharper)
    z, y = logits.double().numpy(), labels.numpy()

    def loss(log: float) -> float:
        scaled = z / math.exp(log)
        return float(np.mean(np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(y)), y]))

    best = minimize_scalar(
        loss, bounds=(math.log(0.01), math.log(100)), method="bounded", options={"xatol": 1e-9}
    )
    assert calibration.fit_temperature(logits, labels) == pytest.approx(math.exp(best.x), rel=1e-4)


def test_what_is_three_times_too_sure_is_divided_by_three() -> None:
    logits, labels = drawn(0, n=20_000, sharper=3.0)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.05)
    own, scaled = score_logits(logits, labels), calibration.cross_scaled(logits, labels, 5)
    assert own.calibration_error > 10
    assert score_logits(scaled, labels).calibration_error < 1.5


def test_temperatures_end_where_there_is_no_best() -> None:
    labels = torch.tensor([0, 1])
    assert calibration.fit_temperature(torch.eye(2), labels) == pytest.approx(0.01)
    assert calibration.fit_temperature(-torch.eye(2), labels) == pytest.approx(100)
    assert calibration.fit_temperature(torch.zeros(2, 2), labels) > 0


def test_an_image_does_not_scale_itself() -> None:
    logits, labels = drawn(1, n=50)
    scaled = calibration.cross_scaled(logits, labels, 5)
    others = labels.clone()
    others[::5] = (others[::5] + 1) % 4
    changed = calibration.cross_scaled(logits, others, 5)
    assert torch.equal(scaled[::5], changed[::5])
    assert not torch.equal(scaled[1::5], changed[1::5])
    ratio = logits[1::5] / scaled[1::5]
    assert torch.allclose(ratio, ratio[:1, :1].expand_as(ratio), rtol=1e-4)
    kept = torch.arange(50) % 5 != 1
    assert float(ratio[0, 0]) == pytest.approx(
        calibration.fit_temperature(logits[kept], labels[kept]), rel=1e-4
    )


def test_bins_are_counted_as_by_hand(digits) -> None:
    net = scrambled(build(zoo.cifar(8, input=(1, 8, 8))))
    raw = predict_logits(net, digits.val, digits.preprocessing)
    net.head.linear.bias.data -= raw.mean(0)
    for tensor in net.head.linear.parameters():
        tensor.data *= 2 / (raw - raw.mean(0)).std()
    rows = calibration.measure(net, digits)
    assert [(row["scaled"], row["bin"]) for row in rows] == [
        (s, b) for s in (False, True) for b in range(1, 16)
    ]
    logits, labels = predict_logits(net, digits.val, digits.preprocessing), digits.val.labels.numpy()
    chances = logits.softmax(1).numpy()
    sure, right = 100 * chances.max(1), chances.argmax(1) == labels
    for row in rows[:15]:
        inside = (sure > row["low"]) & (sure <= row["high"])
        assert row["n"] == inside.sum()
        assert row["temperature"] == 1
        if inside.any():
            assert row["confidence"] == pytest.approx(sure[inside].mean(), rel=1e-4)
            assert row["accuracy"] == pytest.approx(100 * right[inside].mean(), rel=1e-4)
            assert row["accuracy_low"] < row["accuracy"] + 1e-9
            assert row["accuracy_high"] > row["accuracy"] - 1e-9
        else:
            assert row["confidence"] is row["accuracy"] is row["accuracy_low"] is None
    assert len([row for row in rows[:15] if row["n"]]) > 3
    found = calibration.summarise(rows)
    own = ds.score(net, digits.val, digits.preprocessing)
    assert found["calibration_error"] == pytest.approx(own.calibration_error, rel=1e-4)
    assert found["accuracy"] == pytest.approx(100 - own.error, rel=1e-4)
    assert found["confidence"] == pytest.approx(sure.mean(), rel=1e-4)
    assert found["n"] == len(digits.val) == sum(row["n"] for row in rows[15:])
    assert found["temperature"] == pytest.approx(
        calibration.fit_temperature(logits, digits.val.labels), rel=1e-3
    )
    assert found["scaled_calibration_error"] < found["calibration_error"]


def test_without_finite_logits_there_is_nothing_to_count(digits) -> None:
    net = build(zoo.cifar(8, input=(1, 8, 8)))
    net.head.linear.bias.data[3] = math.nan
    rows = calibration.measure(net, digits, images=20)
    assert len(rows) == 30
    assert {row["n"] for row in rows} == {0}
    assert set(calibration.summarise(rows).values()) == {0, None}
    one = calibration.measure(build(net.spec), digits, images=1)
    assert sum(row["n"] for row in one[:15]) == 1
    assert {(row["n"], row["temperature"]) for row in one[15:]} == {(0, None)}
