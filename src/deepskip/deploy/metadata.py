"""What an exported file says beside its graph: the model file's own header, and how it was exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import torch

from deepskip._version import __version__
from deepskip.deploy.graph import BATCH, INPUTS, OUTPUT, Scaling
from deepskip.describe.value import Value
from deepskip.errors import InputError
from deepskip.model import Model
from deepskip.weights.store import KEY, Header

EXPORT_KEY = "deepskip_export"
KEYS = (KEY, EXPORT_KEY)
"""Where a file's metadata holds the header, as in `model.safetensors`, and the export."""


class Export(Value):
    """How a model was exported. Stored as JSON under the metadata key "deepskip_export"."""

    format: int = 1
    """Version of this layout."""
    to: str
    """The kind of file."""
    scaling: Scaling
    """Whether `(x / 255 - mean) / std` is in the graph, "inside", or left to who calls it, "outside"."""
    precision: Literal["float32", "int8"] = "float32"
    inputs: dict[str, str]
    """Name and shape of the input: "pixels" is uint8, "images" float32. None in a file of weights alone."""
    outputs: dict[str, str]
    """Name and shape of the output, float32."""
    versions: dict[str, str]
    """Of deepskip, PyTorch and the format's own library."""
    int8: dict[str, Any] | None = None
    """What quantising cost, measured: images, errors in percent, drop in points; None without."""


class Metadata(Value):
    """All that an exported file says."""

    header: Header
    """The Spec of the net that was exported, classes in the order of the logits, preprocessing, provenance."""
    export: Export


def describe(model: Model, to: str, scaling: Scaling, versions: Mapping[str, str], **fields: Any) -> Metadata:
    """Return what a file of kind `to` says of `model`; `fields` are the Export's own."""
    size, channels = model.preprocessing.size, model.preprocessing.channels
    shape = (size, size, channels) if scaling == "inside" else (channels, size, size)
    export = {
        "to": to,
        "scaling": scaling,
        "inputs": {INPUTS[scaling]: _shape(*shape)},
        "outputs": {OUTPUT: _shape(len(model.classes))},
        "versions": {"deepskip": __version__, "torch": torch.__version__, **versions},
        **fields,
    }
    return Metadata(header=model.header, export=Export(**export))


def to_texts(metadata: Metadata) -> dict[str, str]:
    """Return what a file holds, by key: JSON in ASCII, which every format keeps as it is."""
    values = zip(KEYS, (metadata.header, metadata.export), strict=True)
    return {key: json.dumps(value.model_dump(mode="json")) for key, value in values}


def from_texts(where: object, texts: Mapping[str, str]) -> Metadata:
    """Return what `to_texts` wrote. Raises InputError at `where` when it is not there."""
    for key in KEYS:
        if key not in texts:
            raise InputError(where, f"a file without {key} metadata", "a file that `deepskip export` wrote")
    return Metadata(header=Header.from_json(texts[KEY]), export=Export.from_json(texts[EXPORT_KEY]))


def _shape(*sizes: int) -> str:
    return f"[{', '.join((BATCH, *map(str, sizes)))}]"
