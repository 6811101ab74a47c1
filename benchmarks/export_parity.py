"""Parity of exported nets: the zoo's families as ONNX, OpenVINO and exported program, on 500 real pictures.

    python benchmarks/export_parity.py [--only WORD] [--images 500] [--photos imagenette2-160/val]

Each net gets values that are as after training where that matters: what begins at zero is drawn, and
normalisers have the statistics of real pictures. `deepskip.deploy.export` then writes the files and proves
them: the largest difference of a picture's logits over the largest of them, and for how many the most probable
class is another. CIFAR's nets see CIFAR-10's test images, ImageNet's the folder `--photos` at 224 pixels. A
table goes to `results/export-parity-<cpu>.md`; with `--only`, the other rows stay as they are there. Exit code
1 when a row fails.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from hardware import processor
from torch import nn

from deepskip.data.batches import normalise
from deepskip.data.sources import open_dataset
from deepskip.deploy.export import FORMATS, export
from deepskip.deploy.pictures import shown
from deepskip.describe import zoo
from deepskip.describe.preprocessing import Preprocessing
from deepskip.errors import WorkError
from deepskip.model import Model
from deepskip.nets.builder import build
from deepskip.weights.store import Header

NETS = (
    "resnet8_cifar",
    "resnet56_cifar",
    "resnet110_cifar",
    "resnet1202_cifar",
    "plain20_cifar",
    "plain56_cifar",
    "preresnet110_cifar",
    "preresnet164_cifar",
    "preresnet1001_cifar",
    "resnet110_sd_cifar",
    "wrn16_8_cifar",
    "revnet38_cifar",
    "revnet110_cifar",
    "resnet110_fixup_cifar",
    "resnet110_rezero_cifar",
    "preresnet110_skipinit_cifar",
    "preresnet1004_skipinit_w8_cifar",
    "resnet18",
    "resnet50",
    "resnet50_v1",
    "plain18",
    "preresnet18",
    "preresnet50",
    "wide_resnet50_2",
    "resnext50_32x4d",
    "seresnet50",
    "resnet50_c",
    "resnet26_d",
    "resnet50_gn",
)
TO = ("onnx", "openvino", "torch")
WITHIN = 1e-4


class Row(NamedTuple):
    """One net."""

    net: str
    images: int
    differences: dict[str, float | None]
    """By kind of file; None where the export was refused."""
    seconds: dict[str, float]
    size: dict[str, int]
    """Bytes."""
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether every file agrees."""
        return all(d is not None and d <= WITHIN for d in self.differences.values())


def model_of(name: str, pictures: np.ndarray, preprocessing: Preprocessing, classes: tuple[str, ...]) -> Model:
    """Return the zoo's net with values that are as after training."""
    net = build(zoo.get(name), 0)
    generator = torch.Generator().manual_seed(1)
    blocks = sum(1 for _ in net.spec.sites())
    with torch.no_grad():
        for tensor in net.parameters():
            if not tensor.any():  # biases, and what ends a branch: small, so that deep nets stay finite
                spread = (
                    0.1 if tensor.dim() == 1 else (tensor[0].numel() ** -0.5 if tensor.dim() else blocks**-0.5)
                )
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the mean of what comes
        if norms:
            net.train()
            for start in range(0, min(len(pictures), 192), 64):
                images = torch.from_numpy(pictures[start : start + 64]).permute(0, 3, 1, 2)
                net(normalise(images, preprocessing))
    header = Header(spec=net.spec, classes=classes, preprocessing=preprocessing)
    return Model(net.eval(), header)


def measure(name: str, images: int, photos: Path) -> Row:
    """Export one net in every way, and prove each file."""
    spec = zoo.get(name)
    if spec.input[1] == 32:
        data = open_dataset("cifar10")
        preprocessing, classes = data.preprocessing, data.classes
    else:
        preprocessing = Preprocessing(
            size=224, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        )
        classes = tuple(f"class {i}" for i in range(spec.classes))
    blank = Model(build(spec), Header(spec=spec, classes=classes, preprocessing=preprocessing))
    pictures = shown(blank, "cifar10" if spec.input[1] == 32 else photos, images)
    model = model_of(name, pictures, preprocessing, classes)
    row = Row(name, len(pictures), {}, {}, {})
    for to in TO:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            try:
                done = export(model, to, Path(folder) / f"net{FORMATS[to].SUFFIX}", images=pictures)
            except WorkError as error:
                row = row._replace(note=f"{row.note} {to}: {error.got}".strip())
                row.differences[to] = None
                continue
            row.differences[to] = done.agreement.difference
            row.size[to] = done.size
            row.seconds[to] = time.perf_counter() - began
            print(f"{name} {to}: {done.agreement} {row.seconds[to]:.1f} s", flush=True)
    return row


def line(row: Row) -> str:
    """Return a row of the table."""
    found = []
    for to in TO:
        difference = row.differences[to]
        found.append("refused" if difference is None else f"{difference:.1e}")
    same = row.note or "all"
    size = row.size.get("onnx", 0) / 2**20
    return f"| {row.net} | {row.images} | {' | '.join(found)} | {same} | {size:.1f} |"


def old_rows(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the rows that are in the file already, by net."""
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            if (match := re.match(r"\| (\w+) \| \d", text)) is not None:
                yield match[1], text


def main() -> int:
    """Measure, write the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", default="", help="nets whose name holds this; a name with = before it exactly"
    )
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--photos", type=Path, default=Path("imagenette2-160/val"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    path = options.out / f"export-parity-{processor()}.md"
    rows, passed = dict(old_rows(path)), True
    word = options.only
    for name in NETS:
        if (name == word[1:]) if word.startswith("=") else (word in name):
            row = measure(name, options.images, options.photos)
            rows[name], passed = line(row), passed and row.passed
            write(path, rows)
    return 0 if passed else 1


def write(path: Path, rows: dict[str, str]) -> None:
    """Write the table of `rows`, in the zoo's order."""
    head = f"""# Parity of exported nets

`python benchmarks/export_parity.py`, PyTorch {torch.__version__}, {processor()}. For each net: the largest
difference of a picture's logits from the net's own, over the largest of them, and whether the most probable
class of every picture is the same. At most {WITHIN:.0e} and all pass; an export that does not is refused.

| net | pictures | ONNX Runtime | OpenVINO float32 | exported program | same class | ONNX, MiB |
|---|---|---|---|---|---|---|
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + "\n".join(rows[name] for name in NETS if name in rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
