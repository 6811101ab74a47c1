"""The collector: off, on and as it was; what was there before a training is left out of it and comes back."""

from __future__ import annotations

import gc
import weakref

import pytest

from deepskip.garbage import MANY, paused, settled


@pytest.fixture(autouse=True)
def _nothing_settled() -> None:
    gc.unfreeze()  # as the process is that runs a mutant's test


class Loop:
    """A piece of garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


def test_paused_and_on_again_whatever_happens() -> None:
    with pytest.raises(ZeroDivisionError), paused():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_had_it_off_has_it_off() -> None:
    gc.disable()
    try:
        with paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_settled_leaves_out_what_was_there_and_finds_what_comes() -> None:
    loop = Loop()
    old = weakref.ref(loop)
    with settled(MANY):
        assert gc.get_freeze_count()
        with settled(MANY):  # a training inside another's loop
            pass
        assert gc.get_freeze_count()
        del loop
        new = weakref.ref(Loop())
        gc.collect()
        assert old() is not None
        assert new() is None
    assert not gc.get_freeze_count()
    gc.collect()
    assert old() is None


def test_small_nets_are_left_alone() -> None:
    with settled(MANY - 1):
        assert not gc.get_freeze_count()
