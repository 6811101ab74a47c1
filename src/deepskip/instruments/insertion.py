"""What new blocks do to a trained net before it is trained on: are they the identity, do its outputs stay?"""

from __future__ import annotations

import math
from typing import Any

import torch

from deepskip.data.dataset import Dataset
from deepskip.instruments import identity
from deepskip.nets.network import Network
from deepskip.scoring import predict_logits

COLUMNS = ("images", "same_outputs", "output_change", "new_equal")
IMAGES = 256
DIGITS = 3


def measure(net: Network, trained: Network, data: Dataset, seed: int) -> dict[str, Any]:
    """Return the columns of `net`, which was made of `trained` by putting blocks in; both are left as they are.

    `images`: how many validation images there are; `same_outputs`: for how many of them all logits of both nets
    are the same bit for bit, in evaluation mode; `output_change`: the largest difference of a logit, null where
    it is not finite; `new_equal`: how many of the new blocks return their input bit for bit, on at most 256
    validation images drawn by `seed`.
    """
    before, after = (predict_logits(one, data.val, data.preprocessing) for one in (trained, net))
    change = float((after - before).abs().max())
    held = {site.name.removeprefix("stages.") for site in trained.spec.sites()}
    blocks = identity.measure(net, data, images=IMAGES, seed=seed)
    return {
        "images": len(before),
        # As integers: by value NaN would differ from itself, and 0 not from -0.
        "same_outputs": int((before.view(torch.int32) == after.view(torch.int32)).all(1).sum()),
        "output_change": float(f"{change:.{DIGITS}g}") if math.isfinite(change) else None,
        "new_equal": sum(row["equal"] for row in blocks if row["block"] not in held),
    }
