"""What is done to training pictures, as a value; `batches.py` does it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from deepskip.describe.value import Value

Augment = Literal["none", "crop_flip", "photo"]
Alpha = Annotated[float, Field(ge=0, le=100)]


class Variation(Value):
    """What is done to training pictures, in this order: `augment`, `trivial`, `erase`, then one mixture.

    Only `augment` is done by default. Every part draws from a stream of its own, so that switching one on
    leaves what the others draw as it was.
    """

    augment: Augment
    """Which part of a picture is shown: all of it; a crop of the padded picture, half of them mirrored (He et
    al. 2015, section 4.2); a resized random part, half of them mirrored (Szegedy et al. 2015)."""
    trivial: bool = False
    """Whether each picture goes through one random operation of random strength: TrivialAugment (Müller and
    Hutter 2021, arXiv:2103.10158)."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a random box of a picture is painted over (Zhong et al. 2017, arXiv:1708.04896)."""
    mixup: Alpha = 0.0
    """Alpha of the Beta distribution that weighs two pictures laid over each other (Zhang et al. 2018,
    arXiv:1710.09412); 0 for none."""
    cutmix: Alpha = 0.0
    """Alpha of the Beta distribution of the share that a picture keeps when a box of another is pasted into
    it (Yun et al. 2019, arXiv:1905.04899); 0 for none. With `mixup` too, a batch gets one of them, evenly."""
    size: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Height and width of the pictures, in pixels, where "photo" shall make them larger or smaller than the
    network's usual input; None for the usual."""
