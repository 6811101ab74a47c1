"""A test that leaves torch otherwise than it found it is told so, and the next one finds it as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests import conftest, process


def leave_no_gradients() -> None:
    torch.set_grad_enabled(False)


def leave_no_mkldnn() -> None:
    torch.backends.mkldnn.enabled = False


@pytest.mark.parametrize(
    ("leave", "words"),
    [
        (lambda: torch.set_num_threads(3), "threads: 3, found 1"),
        (lambda: torch.set_flush_denormal(True), "numbers below normal ones taken as zero: True, found False"),
        (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms: 2, found 0"),
        (lambda: torch.set_default_dtype(torch.float64), "default dtype: torch.float64, found torch.float32"),
        (leave_no_gradients, "gradients: False, found True"),
        (lambda: torch.set_float32_matmul_precision("medium"), "precision of matrix products: medium, found "),
        (leave_no_mkldnn, "mkldnn: False, found True"),
    ],
)
def test_what_is_left_behind_is_said_and_put_right(leave: Callable[[], object], words: str) -> None:
    assert process.left() == ""
    leave()
    assert process.left().startswith(words)
    assert process.left() == ""
    assert {name: read() for name, (read, _) in process.HELD.items()} == process.FOUND


def test_the_test_that_leaves_it_fails() -> None:
    ending = conftest.pytest_runtest_teardown()
    next(ending)
    torch.set_num_threads(2)
    with pytest.raises(pytest.fail.Exception, match="left behind in torch: threads: 2, found 1"):
        next(ending)
