"""What foreign files leave unsaid: class names by the number of classes, preprocessing by their source."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib import resources

from deepskip.data.published import CIFAR10_CLASSES
from deepskip.describe.preprocessing import Preprocessing

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)
"""The means over the three channels."""


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet-1k's classes in the usual order, that of their WordNet ids."""
    text = resources.files("deepskip.hub").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def class_names(count: int, source: str, *, trained: bool = True) -> tuple[str, ...]:
    """Return names for `count` classes: ImageNet's for 1000, CIFAR-10's for its nets, else "class 0" and on.

    A head that is not `trained` knows no class by any name.
    """
    if not trained:
        return tuple(f"class {i}" for i in range(count))
    if count == 1000:
        return imagenet_classes()
    if source == "cifar" and count == len(CIFAR10_CLASSES):
        return CIFAR10_CLASSES
    return tuple(f"class {i}" for i in range(count))


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, each that was there before followed by its position, so that no two are equal."""
    seen: dict[str, None] = {}
    for i, name in enumerate(names):
        seen[f"{name} ({i})" if name in seen else name] = None
    return tuple(seen)


def preprocessing(
    source: str,
    channels: int,
    *,
    size: int | None = None,
    resize: int | None = None,
    interpolation: str | None = None,
) -> Preprocessing:
    """Return how a picture becomes an input of `channels` channels; what is None is as usual for the source.

    The CIFAR checkpoints: 32 pixels. The others: 224 pixels cut from 256, in proportion for another `size`.
    All of them with ImageNet's mean and standard deviation, which the CIFAR checkpoints were trained with too
    (trainer.py beside their resnet.py). Raises InputError.
    """
    usual = 32 if source == "cifar" else 224
    size = usual if size is None else size
    if resize is None:
        resize = size if source == "cifar" else round(size * 256 / 224)
    grey = channels == 1
    return Preprocessing.from_dict(
        {
            "size": size,
            "resize": resize,
            "interpolation": interpolation or "bilinear",
            "colour": "L" if grey else "RGB",
            "mean": GREY_MEAN if grey else IMAGENET_MEAN,
            "std": GREY_STD if grey else IMAGENET_STD,
        }
    )
