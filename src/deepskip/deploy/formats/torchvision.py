"""A state dict under torchvision's names, for its `load_state_dict`: one `.safetensors` file."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from deepskip.data.batches import normalise
from deepskip.deploy.metadata import Metadata, from_texts, to_texts
from deepskip.deploy.runner import Closing, Logits, Pixels, Proof
from deepskip.errors import InputError
from deepskip.files import replacing
from deepskip.model import Model
from deepskip.nets.builder import assemble
from deepskip.weights.adapters.translate import from_foreign, to_foreign

SUFFIX = ".safetensors"
PACKAGES = ()


def write(path: Path, model: Model, metadata: Metadata, proved: Proof) -> None:
    """Write the tensors of `model` to `path`, whole and `proved` or not at all; normalisers stay.

    Raises InputError when torchvision has no such net, and WorkError.
    """
    state = {name: tensor.detach().cpu() for name, tensor in model.net.state_dict().items()}
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in to_foreign(model.net.spec, state, "torchvision").items()
    }
    with replacing(path) as beside:
        save_file(tensors, beside, metadata={"format": "pt", **to_texts(metadata)})
        proved(beside)


def read(path: Path) -> Metadata:
    """Return what the file says of itself. Raises InputError."""
    try:
        with safe_open(path, framework="pt") as opened:
            return from_texts(path, opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        got = f"no readable safetensors file ({type(error).__name__})"
        raise InputError(path, got, "a .safetensors file") from error


class Runner(Closing):
    """The net that a state dict under torchvision's names means, by PyTorch on the processor."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        self.metadata = read(path)
        self.name, self.threads = "torchvision", torch.get_num_threads()
        spec = self.metadata.header.spec
        self._net = assemble(spec)
        self._net.load_state_dict(from_foreign(spec, load_file(path), "torchvision", where=path))
        self._net.eval()

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> Logits:
        """Return the logits [n, classes] of `pixels` [n, h, w, c]."""
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        logits: Logits = self._net(normalise(images, self.metadata.header.preprocessing)).numpy()
        return logits
