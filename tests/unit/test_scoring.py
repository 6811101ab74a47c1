"""Scores agree with scikit-learn's, which knows nothing of ours; calibration with a count done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

import deepskip as ds
from deepskip.scoring import predict_logits, score, score_logits


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(20, 200))
def test_agrees_with_scikit_learn(seed: int, classes: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator) * 3
    labels = torch.randint(classes, (n,), generator=generator)
    found = score_logits(logits, labels)
    probabilities = logits.double().softmax(1).numpy()
    y, names = labels.numpy(), np.arange(classes)
    assert found.error == pytest.approx(100 * (1 - accuracy_score(y, probabilities.argmax(1))))
    assert found.loss == pytest.approx(log_loss(y, probabilities, labels=names), rel=1e-6)
    assert found.confusion == tuple(
        map(tuple, confusion_matrix(y, probabilities.argmax(1), labels=names).tolist())
    )
    if classes > 5:
        top5 = top_k_accuracy_score(y, probabilities, k=5, labels=names)
        assert found.top5_error == pytest.approx(100 * (1 - top5))
    elif classes <= 5:
        assert found.top5_error == 0
    rows = found.classes(map(str, names))
    assert sum(row["n"] for row in rows) == n
    assert all(row["error"] is None for row in rows if row["n"] == 0)


def test_calibration_by_hand() -> None:
    # Four images at confidence 0.9 of which two are right; four at 0.6 of which three are right.
    high, low = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.6, 0.4]).log()
    logits = torch.stack([high] * 4 + [low] * 4)
    labels = torch.tensor([0, 0, 1, 1, 0, 0, 0, 1])
    wanted = 100 * (4 / 8 * abs(0.5 - 0.9) + 4 / 8 * abs(0.75 - 0.6))
    assert score_logits(logits, labels).calibration_error == pytest.approx(wanted, rel=1e-6)


def test_perfect_and_hopeless() -> None:
    labels = torch.arange(6)
    right = score_logits(torch.eye(6) * 100, labels)
    assert (right.error, right.top5_error, right.calibration_error) == (0, 0, pytest.approx(0, abs=1e-6))
    assert score_logits(-torch.eye(6) * 100, labels).top5_error == 100


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_network_as_it_was(training: bool) -> None:
    data = ds.data.open("digits")
    net = ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8))).train(training)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    once = score(net, data.val, data.preprocessing)
    assert net.training == training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert score(net, data.val, data.preprocessing) == once
    small = predict_logits(net, data.val, data.preprocessing, batch=7)
    assert torch.allclose(small, predict_logits(net, data.val, data.preprocessing), atol=1e-5)
