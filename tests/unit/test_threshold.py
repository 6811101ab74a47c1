"""The probability from which on a net is right often enough: against a search through every one there is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepskip.deploy.threshold import threshold
from deepskip.errors import InputError


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 5), st.floats(1, 100), st.booleans())
def test_it_is_the_lowest_that_will_do(seed: int, n: int, classes: int, wanted: float, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=generator) * 2
    if ties:
        logits = logits.round()
    labels = torch.randint(classes, (n,), generator=generator)
    probability, predicted = logits.double().softmax(1).max(1)
    will_do = {}
    for at in probability.tolist():
        taken = probability >= at
        right = int((predicted == labels)[taken].sum())
        if 100 * right >= wanted * int(taken.sum()):
            will_do[at] = (int(taken.sum()), right)
    found = threshold(logits, labels, wanted)
    if not will_do:
        assert found is None
        return
    assert found is not None
    n_taken, right = will_do[min(will_do)]
    assert (found.probability, found.n) == (min(will_do), n_taken)
    assert found.coverage == pytest.approx(100 * n_taken / n)
    assert found.precision == pytest.approx(100 * right / n_taken)
    assert found.precision_low <= found.precision <= found.precision_high


def test_what_is_no_percentage() -> None:
    for wanted in (0.0, -1.0, 100.1, float("nan")):
        with pytest.raises(InputError, match="a percentage above 0 and up to 100"):
            threshold(torch.eye(2), torch.arange(2), wanted)
