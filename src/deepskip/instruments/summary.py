"""A net in a few columns, for the row of a study: its errors, and how far its blocks are from the identity."""

from __future__ import annotations

from typing import Any

from deepskip.data.dataset import Dataset
from deepskip.instruments import identity
from deepskip.nets.network import Network
from deepskip.scoring import score

COLUMNS = ("train_scored", "val_scored", "ratio", "equal")
IMAGES, BATCH = 256, 64
DIGITS = 5


def measure(net: Network, data: Dataset, seed: int) -> dict[str, Any]:
    """Return the columns of `net` as it is now; it is left so.

    `train_scored`, `val_scored`: error in percent over all images of the split, in evaluation mode; unlike an
    epoch's `train_error`, no image is varied and the weights do not move meanwhile. `ratio`: ‖F(x)‖ / ‖x‖ of
    every block in order, as `identity.measure` has it, over at most 256 validation images drawn by `seed`, with
    each batch's own statistics, so that a net can be compared with itself before training. `equal`: how many
    blocks return their input bit for bit.
    """
    rows = identity.measure(net, data, images=IMAGES, batch=BATCH, seed=seed, statistics="batch")
    return {
        "train_scored": score(net, data.train, data.preprocessing).error,
        "val_scored": score(net, data.val, data.preprocessing).error,
        "ratio": [row["ratio"] and float(f"{row['ratio']:.{DIGITS}g}") for row in rows],
        "equal": sum(row["equal"] for row in rows),
    }
