"""Real pictures to measure with: drawn from a data set, as the network takes them."""

from __future__ import annotations

import numpy as np
import torch

from deepskip.data.dataset import Split
from deepskip.deploy.runner import Pixels
from deepskip.errors import InputError
from deepskip.instruments.images import pixels
from deepskip.seeds import derive


def drawn(split: Split, *counts: int) -> list[Pixels]:
    """Return pictures of `split`, uint8 [n, size, size, c], for each of `counts`: other ones for each.

    The same ones every time; fewer where there are not so many, but one at least. Raises InputError when there
    is no picture.
    """
    if not len(split):
        raise InputError("data", "no readable picture", "one or more")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(derive("samples")))
    found, start = [], 0
    for count in counts:
        some = order[start : start + count]
        start += len(some)
        found.append(np.stack(pixels(split, (some if len(some) else order[:1]).tolist())))
    return found
