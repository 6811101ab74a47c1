"""What a deep step frees goes back to the system in time, and no more often than it has to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import deepskip as ds
from deepskip.training import relief
from deepskip.training.glibc import glibc

_HOLES = """
import ctypes
from deepskip.training.glibc import glibc
from deepskip.training.relief import Relief, resident

library = glibc()
library.mallopt(-3, 2**31 - 1)  # from the heap, all of it
relieve = Relief(64 * 2**20)

def taken(size):
    place = library.malloc(size)
    ctypes.memset(place, 1, size)
    return place

pieces, pins = [], []
for _ in range(200):  # a small piece after every large one: what is freed between them is not the heap's end
    pieces.append(taken(2**20))
    pins.append(taken(2**11))
for piece in pieces:
    library.free(piece)
before = resident()
relieve()
after = resident()
relieve()
print(before - after, relieve.times)
"""


@pytest.mark.skipif(glibc() is None, reason="the C library is not glibc")
def test_holes_in_the_heap_go_back_to_the_system_once() -> None:
    found = subprocess.run(
        [sys.executable, "-c", _HOLES],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(ds.__file__).parents[1])},
    )
    given_back, times = map(int, found.stdout.split())
    assert given_back > 150 * 2**20
    assert times == 1


def test_it_waits_until_the_process_has_grown_by_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    held = 1000 * 2**20
    trims: list[int] = []

    class Library:
        def malloc_trim(self, pad: int) -> None:
            nonlocal held
            trims.append(held >> 20)
            held -= 80 * 2**20

    monkeypatch.setattr(relief, "glibc", Library)
    monkeypatch.setattr(relief, "resident", lambda: held)
    relieve = relief.Relief(100 * 2**20)
    for grown in (-300, 90, 20, 90, -50, 90, 20, 90, 90):  # MiB
        held += grown * 2**20
        relieve()
    # From the least it ever held, 700; then from the 730 and the 780 that the returns left.
    assert trims == [810, 860, 890]


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relief, "glibc", lambda: None)
    monkeypatch.delattr(relief, "resident")
    relieve = relief.Relief(1)
    relieve()
    assert relieve.times == 0
