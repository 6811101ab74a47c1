"""A data set from a folder of pictures: `train/<class>/*` with `val/<class>/*`, or one folder of classes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from deepskip.data.dataset import Dataset, Progress, Split, label_map
from deepskip.data.decode import read_header
from deepskip.data.listing import Listing, class_folders, list_images, stratified
from deepskip.data.store import Kind, Store, open_store
from deepskip.data.variation import Augment
from deepskip.describe.preprocessing import Colour, Preprocessing
from deepskip.errors import InputError

VAL_FOLDERS = ("val", "valid", "validation", "test")
"""Names of the folder beside `train/`; the first that exists is used."""
SAMPLE = 200
"""Pictures whose headers are read to choose size and colour."""
SIZES = ((40, 32), (96, 64), (200, 128))
"""Input sizes by the sample's median shorter side: up to 40 pixels 32, and so on; above the last, 224."""
CROP = 0.875
"""The part of a resized picture that the centre crop keeps: 224 of 256."""
LARGE = 64
"""Inputs at least this large are resized, cropped and augmented as photographs, smaller ones as CIFAR is."""


@dataclass(frozen=True)
class Part:
    """Where one split's pictures are: all of `<root>/<class>/*`, or one side of its stratified split."""

    root: Path
    classes: tuple[str, ...]
    side: Literal["all", "train", "val"] = "all"

    def list(self) -> Listing:
        """Return its pictures. Raises InputError when a class has none."""
        listing = list_images(self.root, self.classes)
        if self.side == "all":
            return listing
        train, val = stratified(listing)
        return train if self.side == "train" else val


def open_folder(
    path: Path,
    *,
    size: int | None = None,
    preprocessing: Preprocessing | None = None,
    classes: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Return the pictures in `path` as a data set.

    Without `preprocessing` the training pictures are decoded now, for their mean and standard deviation; size
    (unless given) and colour are chosen from a sample of them. With a model's `preprocessing` and `classes`
    these are used as they are, nothing is decoded yet, and a `val/` alone is enough. Raises InputError,
    naming the folder, when its layout, a class or every picture of a class is unusable.
    """
    train, val = parts(path, known=classes is not None)
    if classes is None:
        assert train is not None  # or parts would have raised
        classes = _trainable(train)
    # Training pictures have their labels when they are read: whoever only measures needs none of them.
    chosen, labels = classes, label_map(val.root, val.classes, classes)
    if not labels:
        raise InputError(val.root, "no folders of images", "one for each class, with pictures in it")
    if preprocessing is None:
        if train is None:
            raise InputError(path, "no train/", "train/<class>/*, or a model's preprocessing")
        preprocessing = _measured(train, size, progress)
    elif size not in (None, preprocessing.size):
        raise InputError("size", size, f"the model's, {preprocessing.size}", preprocessing.size)
    fixed, augment = preprocessing, _augment_for(preprocessing)

    def load_train() -> Split:
        if train is None:
            raise InputError(path, "no train/", "train/<class>/* to train on")
        known = label_map(train.root, train.classes, chosen)
        return _load(train, fixed, _kind_for(augment), known, "train", progress)

    def load_val() -> Split:
        return _load(val, fixed, "input", labels, "val", progress)

    source = path.resolve()
    return Dataset(source.name, str(source), chosen, fixed, augment, load_train, load_val)


def parts(path: Path, *, known: bool) -> tuple[Part | None, Part]:
    """Return where training and validation pictures are; a lone `val/` will do when classes are `known`."""
    folders = class_folders(path)
    val = next((path / name for name in VAL_FOLDERS if name in folders), None)
    if "train" in folders:
        root = path / "train"
        if val is not None:
            return Part(root, class_folders(root)), Part(val, class_folders(val))
    elif val is not None and set(folders) <= set(VAL_FOLDERS):
        if not known:
            raise InputError(path, f"{val.name}/ without train/", "train/<class>/* beside it")
        return None, Part(val, class_folders(val))
    else:
        root = path  # flat; a class may be called "test" when others beside it are not
    found = class_folders(root)
    return Part(root, found, "train"), Part(root, found, "val")


def _trainable(train: Part) -> tuple[str, ...]:
    if len(train.classes) < 2:
        got = f"only one class, {train.classes[0]!r}" if train.classes else "no folders of images"
        allowed = "two or more classes: train/<class>/* and val/<class>/*, or <class>/*"
        raise InputError(train.root, got, allowed)
    return train.classes


def _measured(train: Part, size: int | None, progress: Progress | None) -> Preprocessing:
    """Return the preprocessing for training pictures: size and colour chosen, mean and std measured."""
    listing = train.list()
    usual, colour = _sampled(listing)
    size = usual if size is None else size
    channels = len(colour)
    draft = Preprocessing(
        size=size,
        resize=round(size / CROP) if size >= LARGE else size,
        colour=colour,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )
    store = _stored(train, listing, draft, _kind_for(_augment_for(draft)), "train", progress)
    return draft.replace(mean=store.mean, std=store.std)


def _sampled(listing: Listing) -> tuple[int, Colour]:
    """Return the usual input size and the colours for these pictures, from the headers of some."""
    sides: list[int] = []
    grey = True
    step = -(-len(listing) // SAMPLE)
    for file in listing.files[::step]:
        try:
            height, width, mode = read_header(listing.root / file)
        except InputError:
            continue  # decoding will name it
        sides.append(min(height, width))
        grey = grey and (mode in ("1", "L", "LA") or mode.startswith("I"))
    median = statistics.median(sides) if sides else 0
    size = next((size for most, size in SIZES if median <= most), 224)
    return size, "L" if grey and sides else "RGB"


def _augment_for(preprocessing: Preprocessing) -> Augment:
    return "photo" if preprocessing.size >= LARGE else "crop_flip"


def _kind_for(augment: Augment) -> Kind:
    return "margin" if augment == "photo" else "input"


def _load(
    part: Part,
    preprocessing: Preprocessing,
    kind: Kind,
    labels: dict[str, int],
    purpose: str,
    progress: Progress | None,
) -> Split:
    listing = part.list()
    store = _stored(part, listing, preprocessing, kind, purpose, progress)
    positions = store.positions.tolist()
    return Split(
        images=store.images,
        labels=torch.tensor([labels[listing.class_of(position)] for position in positions]),
        files=tuple(listing.files[position] for position in positions),
        hashes=store.hashes,
        broken=store.broken,
    )


def _stored(
    part: Part,
    listing: Listing,
    preprocessing: Preprocessing,
    kind: Kind,
    purpose: str,
    progress: Progress | None,
) -> Store:
    """Open a part's store. Raises InputError when no picture of some class could be read."""
    store = open_store(listing, preprocessing, kind, purpose=purpose, progress=progress)
    readable = {listing.class_of(position) for position in store.positions.tolist()}
    for name in part.classes:
        if (
            name not in readable and purpose == "train"
        ):  # a class can be measured on nothing, not learnt from it
            reason = next((entry for entry in store.broken if entry.startswith(f"{name}/")), None)
            got = f"no readable image ({reason})" if reason else "no readable image"
            raise InputError(part.root / name, got, "one or more")
    return store
