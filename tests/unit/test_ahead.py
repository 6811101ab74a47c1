"""Threads that work ahead compute alone, and nothing else in the process does because of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import deepskip
from deepskip.data.ahead import ahead

_TEAMS = """
import os
import torch
from deepskip.data.ahead import ahead

def tasks():
    return set(os.listdir("/proc/self/task"))

def enlarge(_):
    torch.nn.functional.interpolate(torch.rand(8, 3, 128, 128), size=512, mode="bilinear")
    return len(tasks() - before)

torch.set_num_threads(2)
torch.rand(1000, 1000) @ torch.rand(1000, 1000)
before = tasks()
print(max(ahead(enlarge, range(3), threads=1, window=1)))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted as Linux lists them")
def test_a_large_picture_starts_no_team_beside_the_networks() -> None:
    path = {"PYTHONPATH": str(Path(deepskip.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", _TEAMS], capture_output=True, text=True, check=True, env={**os.environ, **path}
    )
    assert run.stdout.strip() == "1"  # the thread itself


def test_the_threads_of_others_are_as_they_were() -> None:
    seen: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert list(ahead(lambda _: torch.get_num_threads(), range(4), threads=2, window=3)) == [1] * 4
        assert torch.get_num_threads() == 3
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [3]
    finally:
        torch.set_num_threads(before)
