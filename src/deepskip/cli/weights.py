"""`deepskip import`: a foreign checkpoint becomes a model file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deepskip.cli.show import Output, Seed, Whole, check_new, count
from deepskip.errors import InputError, choices, nearest

Given = Annotated[str, Parameter(name="--from")]


def import_(
    file: Path,
    /,
    *,
    net: str,
    depth: Whole | None = None,
    source: Given = "auto",
    classes_from: Path | None = None,
    out: Path = Path("model.safetensors"),
    size: Whole | None = None,
    resize: Whole | None = None,
    interpolation: str | None = None,
    seed: Seed = 0,
    force: bool = False,
    output: Output = Output(),
) -> None:
    """Make a model file of a checkpoint from torchvision, timm, transformers or the CIFAR repositories.

    No code in the checkpoint is run. What the file does not say is taken as usual for its source: ImageNet's
    class names for 1000 classes, 224 pixels cut from 256; CIFAR-10's names and 32 pixels for its nets.

    Examples:

    - `deepskip import resnet50-11ad3fa6.pth --net resnet50`
    - `deepskip import resnet20-12fca82f.th --net resnet20_cifar --out r20.safetensors`
    - `deepskip import resnet50d.bin --net resnet50_d --resize 235 --interpolation bicubic`

    Parameters
    ----------
    file
        A `.pth`, `.th`, `.pt`, `.bin` or `.safetensors` file.
    net
        The net it holds: a zoo name (see `deepskip nets`), a family with `--depth`, or its library's own name.
    depth
        Number of layers, with a family's name.
    source
        `torchvision`, `timm`, `transformers`, `cifar` or `auto`: by the names of its tensors.
    classes_from
        A text file with a class name a line. Another number of them than the file has classes keeps the body
        and starts a new, untrained head.
    out
        The model file to write.
    size
        Height and width of the net's input, in pixels.
    resize
        Length of a picture's shorter side before the crop, in pixels.
    interpolation
        `bilinear` or `bicubic`.
    seed
        Seed of a new head's initial values.
    force
        Overwrite the model file when it is there already.
    """
    from deepskip.hub.architectures import find
    from deepskip.hub.importing import import_tensors, read_class_names
    from deepskip.weights.adapters.translate import SOURCES, detect
    from deepskip.weights.foreign import read_tensors
    from deepskip.weights.store import save

    check_new("--out", out, force=force)
    if source != "auto" and source not in SOURCES:
        raise InputError("--from", repr(source), choices([*SOURCES, "auto"]), nearest(source, SOURCES))
    classes = read_class_names(classes_from) if classes_from else None
    find(net, depth, source)  # a wrong name is said before a large file is read
    tensors = read_tensors(file)
    known = detect(tensors, where=file) if source == "auto" else source
    made = import_tensors(
        tensors,
        find(net, depth, known),
        known,
        path=file,
        classes=classes,
        size=size,
        resize=resize,
        interpolation=interpolation,
        seed=seed,
    )
    save(out, made.net, made.header)
    for note in made.notes:
        output.warn(note)
    params = sum(parameter.numel() for parameter in made.net.parameters())
    prepared = made.header.preprocessing
    if output.json:
        return output.result(
            {
                "out": str(out),
                "name": made.net.spec.name,
                "source": known,
                "params": params,
                "classes": made.net.spec.classes,
                "preprocessing": prepared.model_dump(mode="json"),
                "sha256": made.header.provenance["sha256"],
                "notes": made.notes,
            }
        )
    output.say(f"{made.net.spec}")
    output.say(
        f"{count(params)} parameters from {known} ({file}); pictures: {prepared.size} pixels "
        f"of {prepared.resize}, {prepared.interpolation}\n{out}"
    )
    return None
