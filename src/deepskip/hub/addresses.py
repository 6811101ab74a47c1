"""Trained networks by address: `torchvision://resnet50`, `hf://timm/resnet18.a1_in1k`."""

from __future__ import annotations

import re
from pathlib import Path

from deepskip.errors import InputError
from deepskip.hub import huggingface, published
from deepskip.hub.architectures import find
from deepskip.hub.download import fetch, models_folder
from deepskip.hub.importing import Imported, import_file

_ADDRESS = re.compile(r"(?P<place>[a-z]{2,}):/{1,2}(?P<name>.+)")  # a Path has taken one slash away


def is_address(path: Path | str) -> bool:
    """Return whether `path` is an address and no file or folder."""
    return not Path(path).exists() and _ADDRESS.fullmatch(str(path)) is not None


def load(address: Path | str) -> Imported:
    """Return the network at `address`, downloaded into the cache folder unless it is there, and checked.

    `torchvision://NET` is torchvision's newest weights, `torchvision://NET@v1` its first; `hf://OWNER/NAME` a
    repository of timm's or transformers' on the Hugging Face Hub. Raises InputError for an unknown address,
    WorkError, naming the URL, when there is no network.
    """
    match = _ADDRESS.fullmatch(str(address))
    if match is None or match["place"] not in ("torchvision", "hf"):
        raise InputError(address, "no known address", "torchvision://NET or hf://OWNER/NAME")
    if match["place"] == "hf":
        return huggingface.load(match["name"])
    weights = published.find(match["name"])
    path = fetch(f"{published.FOLDER}/{weights.file}", models_folder() / weights.file, weights.sha256)
    origin = f"torchvision://{weights.net}@{weights.version}"
    return import_file(path, find(weights.net), "torchvision", resize=weights.resize, origin=origin)
