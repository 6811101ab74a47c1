"""A trained network with what it needs to be used: classes, preprocessing, provenance."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepskip.data import sources
from deepskip.data.batches import normalise
from deepskip.data.dataset import Dataset
from deepskip.data.decode import preprocess_file
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import InputError
from deepskip.hub import addresses, repository
from deepskip.nets.builder import build
from deepskip.nets.network import Network
from deepskip.scoring import BATCH, Score, score
from deepskip.weights import store

HEAD = "head.linear."
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Prediction:
    """What the network says of one picture."""

    file: str
    probabilities: dict[str, float]
    """Probability of each class, most probable first."""

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """Probability of that class, 0 to 1."""
        return self.probabilities[self.label]

    def to_dict(self, top: int = 5) -> dict[str, Any]:
        """Return `file`, `class`, `probability` and the `top` most probable classes."""
        best = list(self.probabilities.items())[:top]
        return {
            "file": self.file,
            "class": self.label,
            "probability": self.probability,
            "top": [{"class": name, "probability": value} for name, value in best],
        }


@dataclass(frozen=True)
class Model:
    """A network, in evaluation mode, and the header of its file."""

    net: Network
    header: store.Header

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.header.classes

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes the network's input."""
        return self.header.preprocessing

    @classmethod
    def from_pretrained(
        cls, name: Path | str, *, revision: str | None = None, device: torch.device | str = "cpu"
    ) -> Self:
        """Return the model in a folder or file, at an address, or in the Hub's repository `owner/name`.

        `revision` is a branch, a tag or a commit of a repository. Raises as `load` does.
        """
        path: Path | str = name
        if not Path(name).exists() and not addresses.is_address(name):
            if _REPOSITORY.fullmatch(str(name)) is None:
                raise InputError("from_pretrained", repr(str(name)), "a folder, an address, or owner/name")
            path = f"hf://{name}"
        if revision is not None:
            if Path(name).exists():
                raise InputError("revision", repr(revision), f"none: {name} is on this machine")
            path = f"{path}@{revision}"
        found = load(path, device=device)
        return cls(found.net, found.header)

    def save_pretrained(self, folder: Path | str, *, licence: str | None = None) -> None:
        """Write the model as the Hub has it: `model.safetensors`, `config.json`, and a card, `README.md`.

        The card says what the header says, and the `licence` that is given (the Hub's identifier, as "mit"). A
        README.md that somebody wrote is kept. Raises InputError for a folder with another's `config.json`.
        """
        repository.write(Path(folder), self.net, self.header, licence=licence)

    def push_to_hub(
        self,
        name: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        message: str | None = None,
        licence: str | None = None,
        token: str | None = None,
    ) -> str:
        """Write the same into the Hub's repository `owner/name`, made unless it is there; return its address.

        `revision` is a branch, `message` the commit's, `token` by default the one that `hf auth login` stored
        or `HF_TOKEN`. Needs huggingface_hub (`pip install 'deepskip[hub]'`). Raises InputError, and WorkError
        for what the Hub refuses and without a network.
        """
        return repository.push(
            self.net,
            self.header,
            name,
            private=private,
            revision=revision,
            message=message,
            licence=licence,
            token=token,
        )

    @torch.no_grad()
    def predict(
        self,
        files: Sequence[Path | str],
        *,
        batch: int = BATCH,
        skipped: Callable[[InputError], None] | None = None,
    ) -> list[Prediction]:
        """Return a prediction for each picture, in order.

        A picture that cannot be read raises InputError, naming the file; with `skipped`, that is called with
        the error instead, and the picture is left out.
        """
        predictions: list[Prediction] = []
        for start in range(0, len(files), batch):
            names, pixels = self._read(files[start : start + batch], skipped)
            if names:
                rows = self._probabilities(torch.from_numpy(np.stack(pixels)))
                predictions += [
                    Prediction(name, self._ranked(row)) for name, row in zip(names, rows, strict=True)
                ]
        return predictions

    def _read(
        self, files: Sequence[Path | str], skipped: Callable[[InputError], None] | None
    ) -> tuple[list[str], list[npt.NDArray[np.uint8]]]:
        names, pixels = [], []
        for file in files:
            try:
                pixels.append(preprocess_file(Path(file), self.preprocessing))
                names.append(str(file))
            except InputError as error:
                if skipped is None:
                    raise
                skipped(error)
        return names, pixels

    def _probabilities(self, pixels: Tensor) -> Tensor:
        """Return softmax probabilities [n, classes] of uint8 pictures [n, h, w, c]."""
        weight = next(self.net.parameters())
        images = pixels.permute(0, 3, 1, 2).to(weight.device)
        logits: Tensor = self.net(normalise(images, self.preprocessing, weight.dtype))
        return logits.softmax(1).cpu()

    def evaluate(self, data: Dataset | str | Path) -> Score:
        """Return the score on the validation split of `data`: a data set, a built-in name or a folder."""
        if not isinstance(data, Dataset):
            data = self.open(data)
        return score(self.net, data.val, self.preprocessing)

    def open(self, data: str | Path, *, progress: Any = None) -> Dataset:
        """Open `data` as this model sees it: its preprocessing, its classes. Raises InputError."""
        return sources.open_dataset(
            data, preprocessing=self.preprocessing, classes=self.classes, progress=progress
        )

    def adapted(self, data: Dataset, seed: int = 0) -> tuple[Network, list[str]]:
        """Return a network for `data` that begins with this one's values, in training mode, and notes.

        With the same classes in the same order it is this network; with others the body is kept and a new head
        starts from `seed`. The input may have another size, not other colours. Raises InputError.
        """
        channels = self.net.spec.input[0]
        if data.input[0] != channels:
            raise InputError(
                f"{data.name}: channels", data.input[0], f"{channels}, as {self.net.spec.name} has"
            )
        net = build(self.net.spec.replace(input=data.input, classes=len(data.classes)), seed)
        state = self.net.state_dict()
        if data.classes == self.classes:
            net.load_state_dict(state)
            return net, []
        net.load_state_dict({**state, **{k: v for k, v in net.state_dict().items() if k.startswith(HEAD)}})
        return net, [
            f"other classes than the model's: a new head for {len(data.classes)} of them (seed {seed})"
        ]

    def _ranked(self, probabilities: Tensor) -> dict[str, float]:
        values, order = probabilities.sort(descending=True, stable=True)
        return {self.classes[i]: p for i, p in zip(order.tolist(), values.tolist(), strict=True)}


def load(path: Path | str, *, device: torch.device | str = "cpu") -> Model:
    """Return the model in a run folder or a `model.safetensors`, or at an address.

    Addresses: `torchvision://resnet50`, `hf://timm/resnet18.a1_in1k`; they are downloaded once, and checked.
    Raises InputError when there is none, WorkError, naming the URL, when there is no network.
    """
    if addresses.is_address(path):
        made = addresses.load(path)
        net, header = made.net.to(device), made.header
    else:
        net, header = store.load(path, device=device)
    return Model(net.to(memory_format=torch.channels_last), header)  # type: ignore[call-overload]
