"""The kept heap: memory of a step is there for the next one, no bit changes, and elsewhere nothing happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import deepskip as ds
from deepskip.training import heap
from deepskip.training.glibc import glibc
from deepskip.training.recipe import Recipe
from deepskip.training.way import Way

SIZE = 48 * 1024**2  # more than glibc's own threshold ever grows to: without help it is mapped anew each time


_FAULTS = """
import resource
import torch
from deepskip.training import heap

def fill():
    torch.empty({size}, dtype=torch.uint8).fill_(1)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with heap.kept(2 * {size}):
    quiet = 0
    for _ in range(60):  # the library takes turns with a few places, and each is new once
        before = faults()
        fill()
        quiet = quiet + 1 if faults() - before < 100 else 0
    print(quiet)
"""


@pytest.mark.skipif(glibc() is None, reason="the C library is not glibc")
def test_what_is_freed_is_there_again_without_a_page_fault() -> None:
    # A process of its own: one whose malloc has failed before takes memory from lesser heaps.
    found = subprocess.run(
        [sys.executable, "-c", _FAULTS.format(size=SIZE)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(ds.__file__).parents[1])},
    )
    assert int(found.stdout) > 30  # times in a row; pages of 4 KiB would be 12,000 faults a time


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory in use is read as Linux tells it")
@pytest.mark.skipif(glibc() is None, reason="the C library is not glibc")
def test_it_goes_back_to_the_system_at_the_end() -> None:
    import psutil

    process = psutil.Process()
    with heap.kept(2 * SIZE):
        torch.empty(4 * SIZE, dtype=torch.uint8).fill_(1)
        inside = process.memory_info().rss
    assert inside - process.memory_info().rss > 2 * SIZE


class _Library:
    """glibc before 2.35, whose thresholds are these; by their numbers in malloc.h."""

    def __init__(self) -> None:
        self.thresholds = {heap._MMAP_THRESHOLD: 128 * 1024, heap._TRIM_THRESHOLD: 128 * 1024}

    def mallopt(self, name: int, value: int) -> int:
        if name == heap._MMAP_THRESHOLD and value > 32 * 1024**2:  # "Forbid setting the threshold too high."
            return 0
        self.thresholds[name] = value
        return 1

    def malloc(self, size: int) -> int:
        return 0

    def malloc_trim(self, pad: int) -> int:
        return 0


def test_an_older_glibc_keeps_as_much_as_it_lets(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses the one threshold, and with the other set leaves the first where it is."""
    library = _Library()
    monkeypatch.setattr(heap, "glibc", lambda: library)
    with heap.kept(SIZE):
        assert library.thresholds[heap._MMAP_THRESHOLD] == 32 * 1024**2
        assert library.thresholds[heap._TRIM_THRESHOLD] > 2**30
    assert library.thresholds[heap._TRIM_THRESHOLD] == 64 * 1024**2


def test_blocks_that_end_out_of_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterators that take turns: the heap is kept until the second has ended, whichever that is."""
    library = _Library()
    monkeypatch.setattr(heap, "glibc", lambda: library)
    one, other = heap.kept(SIZE), heap.kept(SIZE)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert library.thresholds[heap._TRIM_THRESHOLD] > 2**30
    other.__exit__(None, None, None)
    assert library.thresholds[heap._TRIM_THRESHOLD] == 64 * 1024**2


def test_nothing_happens_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "glibc", lambda: None)
    with heap.kept(2**60):
        assert torch.ones(3).sum() == 3


def test_more_room_than_there_is_is_no_error() -> None:
    with heap.kept(2**62):
        assert torch.ones(3).sum() == 3


def test_only_steps_that_store_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(heap, "kept", lambda expected: seen.append(expected))
    spec = ds.zoo.get("resnet8_cifar")
    heap.kept_for(spec, 8, Way(memory="recompute"), torch.device("cpu"))
    heap.kept_for(spec, 8, Way(), torch.device("meta"))
    assert not seen
    heap.kept_for(spec, 8, Way(), torch.device("cpu"))
    assert seen[0] > 0


def test_no_bit_of_a_training_depends_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ds.data.open("digits")
    spec = ds.zoo.get("resnet8_cifar", input=data.input, classes=len(data.classes))
    nets = []
    for library in (glibc(), None):
        monkeypatch.setattr(heap, "glibc", lambda library=library: library)
        nets.append(ds.build(spec))
        list(ds.fit(nets[-1], data, Recipe(max_steps=4, epochs=1)))
    for one, other in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True):
        assert torch.equal(one, other)
