"""Kill a training at random moments until it has ended all the same: `python killing.py KILLS SEED RECIPE`.

Every attempt is a fork of this process, which has imported everything and computed nothing, so that an attempt
costs its training alone. The run is in `run/` of the current folder; the moments of the kills are printed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import torch

import deepskip as ds
from deepskip.training import engine
from deepskip.training.recipe import Recipe

LONGEST = 0.4  # seconds that an attempt lives, at most


def attempt(recipe: Recipe) -> None:
    """Train in `run/`, with a state after every step, from wherever the attempt before was killed."""
    engine.SAVE_EVERY = engine.SAVE_WITHIN = 0.0
    engine.SAVE_SHARE = float("inf")
    data = ds.data.open("digits")
    net = ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)))
    for _ in ds.fit(net, data, recipe, out="run", resume=True):
        pass


def main(kills: int, seed: int, recipe: Recipe) -> int:
    """Kill `kills` attempts, then let one end; return how many were killed."""
    torch.set_num_threads(1)
    ds.data.open("digits")
    moments, killed = random.Random(seed), 0
    while True:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                attempt(recipe)
                code = 0
            finally:
                os._exit(code)
        if killed < kills:
            time.sleep(moments.uniform(0, LONGEST))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            continue
        if os.WEXITSTATUS(status):
            raise SystemExit(f"an attempt failed after {killed} kills")
        return killed


if __name__ == "__main__":
    sys.stdout.write(f"{main(int(sys.argv[1]), int(sys.argv[2]), Recipe.from_json(sys.argv[3]))}\n")
