"""The lens, against scikit-learn's ridge regression and standard scaler, and the head applied by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import deepskip as ds
from deepskip.describe import zoo
from deepskip.instruments import images, lens
from deepskip.instruments.intervals import wilson
from deepskip.nets.builder import build
from deepskip.seeds import derive
from tests.laws.strategies import scrambled

SMALL = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> ds.data.Dataset:
    return ds.data.open("digits")


def sklearn_scores(x: np.ndarray, labels: np.ndarray, other: np.ndarray, classes: int) -> np.ndarray:
    ridge = RidgeCV(alphas=[len(x) * penalty for penalty in lens.PENALTIES])
    return make_pipeline(StandardScaler(), ridge).fit(x, np.eye(classes)[labels]).predict(other)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(4, 60), st.integers(1, 12))
def test_the_probe_is_scikit_learns_ridge(seed: int, classes: int, n: int, d: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = rng.normal(size=(n, d)) * 10.0 ** rng.integers(-3, 4, d) + rng.normal(size=d)
    x[:, 0] += labels  # something to be found
    other = rng.normal(size=(7, d))
    found = lens.fit(torch.from_numpy(x), torch.from_numpy(labels), classes)(torch.from_numpy(other))
    assert np.allclose(found.numpy(), sklearn_scores(x, labels, other, classes), rtol=1e-6, atol=1e-7)


def test_a_probe_of_channels_that_are_constant_takes_the_most_frequent_class() -> None:
    labels = torch.tensor([2, 2, 0, 1, 2])
    scores = lens.fit(torch.full((5, 3), 0.1), labels, 4)(torch.full((2, 3), 0.1))
    assert scores.tolist() == [pytest.approx([0.2, 0.2, 0.6, 0.0])] * 2


@torch.no_grad()
def stream(net, data, n: int, seed: int) -> tuple[list[torch.Tensor], np.ndarray]:
    """Return what leaves each block, and the labels."""
    x, labels, _ = next(images.drawn(net, data, images=n, batch=n, seed=seed))
    blocks = list(net.eval().blocks())
    found = [torch.nn.Sequential(net.stem, *blocks[: i + 1])(x) for i in range(len(blocks))]
    return found, labels.numpy()


@pytest.mark.parametrize("order", ["post", "pre"])
def test_rows_are_what_their_words_say(order: str, digits) -> None:
    net = scrambled(build(zoo.cifar(14, input=SMALL).replace(order=order), dtype=torch.float64)).eval()
    rows = lens.measure(net, digits, images=60, fit_images=90, batch=32, seed=5)
    own, labels = stream(net, digits.val, 60, 5)
    others, theirs = stream(net, digits.train, 90, derive(5, "lens", "fit"))
    with torch.no_grad():
        answers = [net.head(x).argmax(1).numpy() for x in own[-2:]]
    for i, row in enumerate(rows):
        scores = sklearn_scores(others[i].mean((2, 3)).numpy(), theirs, own[i].mean((2, 3)).numpy(), 10)
        error = 100 * np.mean(scores.argmax(1) != labels)
        assert row["lens_probe_error"] == pytest.approx(error, rel=1e-5)
        bounds = [row["lens_probe_low"], row["lens_probe_high"]]
        assert bounds == pytest.approx(wilson(round(error * 0.6), 60), rel=1e-5)
        assert (row["lens_n"], row["lens_fitted"]) == (60, 90)
        if row["stage"] != "s3":
            assert row["lens_head_error"] is row["lens_head_low"] is row["lens_head_same"] is None
    for row, answer in zip(rows[-2:], answers, strict=True):
        assert row["lens_head_error"] == pytest.approx(100 * np.mean(answer != labels), rel=1e-5)
        assert row["lens_head_same"] == pytest.approx(100 * np.mean(answer == answers[-1]), rel=1e-5)


def test_of_a_split_alone_no_image_is_scored_by_a_probe_that_has_seen_it(digits) -> None:
    net = scrambled(build(zoo.cifar(8, input=SMALL), dtype=torch.float64))
    rows = lens.measure(net, digits.val, images=53, seed=2)
    own, labels = stream(net, digits.val, 53, 2)
    part = np.arange(53) % 5
    for x, row in zip(own, rows, strict=True):
        features, wrong = x.mean((2, 3)).numpy(), 0
        for fold in range(5):
            out = part == fold
            scores = sklearn_scores(features[~out], labels[~out], features[out], 10)
            wrong += int((scores.argmax(1) != labels[out]).sum())
        assert row["lens_probe_error"] == pytest.approx(100 * wrong / 53, rel=1e-5)
        assert (row["lens_n"], row["lens_fitted"]) == (53, 42)
    alone = lens.measure(net, digits.val, images=1)[0]
    assert alone["lens_probe_error"] is None
    assert alone["lens_n"] == 1


def test_labels_that_say_nothing_are_at_chance_in_cross_fitting() -> None:
    """A probe scored on what it was fitted on would be right."""
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(100, 80, generator=generator), torch.randint(2, (100,), generator=generator)
    assert 30 < lens._cross_fitted(x, labels, 2, 5) < 70
    assert lens._wrong(x, labels, x, labels, 2) < 20


def test_what_is_not_finite_is_null_or_wrong(digits) -> None:
    net = build(zoo.cifar(14, input=SMALL))
    with torch.no_grad():
        list(net.blocks())[-1].branch.norm2.bias.fill_(float("nan"))
    rows = lens.measure(net, digits, images=40, fit_images=40)
    assert rows[-1]["lens_probe_error"] is None
    assert rows[-1]["lens_head_error"] == 100
    assert rows[-2]["lens_head_error"] < 100
    assert lens.summarise(rows)["probe_halfway"] is None


def test_a_summary_says_where_the_answer_appears() -> None:
    rows = [
        {"block": f"b{i}", "lens_probe_error": probe, "lens_head_error": probe, "lens_head_same": same}
        for i, (probe, same) in enumerate(
            [(60.0, None), (20.0, 95.0), (50.0, 60.0), (30.0, 90.0), (10.0, 100.0)]
        )
    ]
    assert lens.summarise(rows) == {
        "probe_first": 60.0, "probe_last": 10.0, "probe_halfway": "b3", "head_last": 10.0, "decided": "b3",
    }  # fmt: skip
    assert lens.summarise(rows[::-1])["probe_halfway"] is None


def test_progress_counts_both_splits(digits) -> None:
    told: list[tuple[str, int, int]] = []
    net = build(zoo.cifar(8, input=SMALL))
    lens.measure(net, digits, images=20, fit_images=30, batch=10, progress=lambda *one: told.append(one))
    assert [one[1:] for one in told] == [(i, 5) for i in range(1, 6)]
