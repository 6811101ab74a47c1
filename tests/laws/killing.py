"""Train once, then again with kills at random moments: `python killing.py KILLS SEED RECIPE RANKS`.

In RANKS processes that train together, each a fork of this one, which has imported everything and computed
nothing, so that an attempt costs its training alone. The runs are in `whole/` and `run/` of the current folder;
how many attempts were killed is printed.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time

import torch

import deepskip as ds
from deepskip.training import distributed, engine
from deepskip.training.recipe import Recipe


def train(recipe: Recipe, out: str) -> None:
    """Train in `out`; in `run/` with a state after every step, from wherever the attempt before was killed."""
    if out == "run":
        engine.SAVE_EVERY = engine.SAVE_WITHIN = 0.0
        engine.SAVE_SHARE = float("inf")
    data = ds.data.open("digits")
    net = ds.build(ds.zoo.get("resnet8_cifar", input=(1, 8, 8)))
    for _ in ds.fit(net, data, recipe, out=out, resume=True):
        pass
    distributed.leave()


def begun(recipe: Recipe, out: str, ranks: int) -> list[int]:
    """Return the processes of an attempt."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if ranks > 1:  # as torchrun tells it
                    told = (rank, ranks, "127.0.0.1", port)
                    os.environ |= dict(zip(distributed.LAUNCHED, map(str, told), strict=True))
                train(recipe, out)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return children


def ended(children: list[int]) -> float | None:
    """Wait for an attempt; return the first one's seconds of computing, None when it was killed."""
    signalled, seconds = False, 0.0
    for child in children:
        _, status, used = os.wait4(child, 0)
        seconds = seconds or used.ru_utime + used.ru_stime
        signalled = signalled or os.WIFSIGNALED(status)
        if os.waitstatus_to_exitcode(status) > 0 and not signalled:
            raise SystemExit("an attempt failed")
    return None if signalled else seconds


def main(kills: int, seed: int, recipe: Recipe, ranks: int) -> int:
    """Let one training end, and kill `kills` attempts of another until one may end; return how many were."""
    torch.set_num_threads(1)
    ds.data.open("digits")
    seconds = ended(begun(recipe, "whole", ranks))
    assert seconds is not None
    moments, killed = random.Random(seed), 0
    while True:
        children = begun(recipe, "run", ranks)
        if killed < kills:
            # So short that all of them together do not come to the run's end, however fast the machine is.
            time.sleep(moments.uniform(0, seconds / kills))
            for child in children:
                os.kill(child, signal.SIGKILL)
        if ended(children) is not None:
            return killed
        killed += 1


if __name__ == "__main__":
    kills, seed, recipe, ranks = sys.argv[1:]
    sys.stdout.write(f"{main(int(kills), int(seed), Recipe.from_json(recipe), int(ranks))}\n")
