"""`deepskip export`: a model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deepskip.cli.show import Output, Whole, check_new, size
from deepskip.errors import InputError, choices, nearest

if TYPE_CHECKING:
    from deepskip.deploy.export import Exported
    from deepskip.deploy.quantize import Cost
    from deepskip.model import Model

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "torchvision": "-torchvision.safetensors"}


def export(
    model: Path,
    /,
    *,
    to: str,
    out: Path | None = None,
    data: str | None = None,
    images: Whole | None = None,
    scaling: str = "inside",
    int8: bool = False,
    calibration: Whole | None = None,
    limit: float | None = None,
    seed: Whole | None = None,
    force: bool = False,
    output: Output = Output(),
) -> None:
    """Write a model for other programs, after proving that it computes the same there.

    The net as it is in evaluation, in float32, batch normalisers folded into convolutions, for any number of
    pictures at once; classes, preprocessing and provenance are in the file. What was written is run on real
    pictures: where a class or a logit differs from the net's own, no file is left behind.

    Examples:

    - `deepskip export runs/r56 --to onnx`
    - `deepskip export runs/r18 --to openvino --data photos/`
    - `deepskip export runs/r18 --to openvino --int8 --data photos/ --out r18-int8.xml`

    Parameters
    ----------
    model
        A run folder, a `model.safetensors` or an address.
    to
        `onnx`, `openvino`, `torch` (an exported program) or `torchvision` (a state dict under its names).
    out
        The file to write; by default beside the model, called as it is.
    data
        Real pictures to prove it on: a folder of them or a built-in name; with `--int8` a data set. By default
        the built-in set that the model was trained on.
    images
        At most so many of them; 500 by default. With `--int8` also how many of all validation images are
        measured on; all by default.
    scaling
        `inside`: the input is `pixels`, uint8 [n, h, w, c], from 0 to 255. `outside`: it is `images`, float32
        [n, c, h, w], scaled with the model's mean and standard deviation already.
    int8
        Round weights and activations to 8 bits, residual additions too; with `--to openvino`.
    calibration
        Training pictures, drawn by `--seed`, that the ranges of int8 are from; 300 by default.
    limit
        Points of accuracy that int8 may lose on the validation images; 0.5 by default.
    seed
        Draws the pictures for `--calibration`; 0 by default.
    force
        Overwrite the file when it is there already.
    """
    if to not in SUFFIXES:
        raise InputError("--to", repr(to), choices(SUFFIXES), nearest(to, SUFFIXES))
    if int8 and to != "openvino":
        raise InputError("--int8", f"--to {to}", "--to openvino", "openvino")
    _only_with_int8(int8, calibration=calibration, limit=limit, seed=seed)
    place = out or _place(model, to, int8=int8)
    for file in (place, place.with_suffix(".bin")) if to == "openvino" else (place,):
        check_new("--out", file, force=force)

    from deepskip.deploy.export import IMAGES, find
    from deepskip.deploy.export import export as write
    from deepskip.deploy.graph import scaling_of
    from deepskip.deploy.pictures import shown, trained_on
    from deepskip.deploy.quantize import CALIBRATION, LIMIT, export_int8
    from deepskip.model import load

    chosen = scaling_of(scaling)
    find(to, place)
    loaded = load(model)
    with output.counting() as progress:
        if int8:
            opened = loaded.open(data or trained_on(loaded), progress=progress)
            made, cost = export_int8(
                loaded,
                place,
                opened,
                calibration=CALIBRATION if calibration is None else calibration,
                limit=LIMIT if limit is None else limit,
                seed=seed or 0,
                images=images,
                scaling=chosen,
                progress=progress,
            )
            return _tell(output, loaded, made, cost)
        broken: list[InputError] = []
        most = IMAGES if images is None else images
        pictures = shown(loaded, data, most, broken=broken.append, progress=progress)
    output.broken(broken, len(pictures) + len(broken))
    output.note(f"running {loaded.net.spec.name} and its export on {len(pictures)} pictures")
    return _tell(output, loaded, write(loaded, to, place, images=pictures, scaling=chosen), None)


def _only_with_int8(int8: bool, **options: object) -> None:
    for name, value in options.items():
        if value is not None and not int8:
            raise InputError(f"--{name}", value, "this with --int8 alone", "--int8")


def _place(model: Path, to: str, *, int8: bool) -> Path:
    """Return where the file goes when nothing is said: beside the model; here, where that has an address."""
    from deepskip.hub.addresses import is_address

    name = "model" if model.is_dir() else model.stem
    folder = Path() if is_address(model) else model if model.is_dir() else model.parent
    return folder / f"{name}{'-int8' if int8 else ''}{SUFFIXES[to]}"


def _tell(output: Output, model: Model, made: Exported, cost: Cost | None) -> None:
    agreement, said = made.agreement, made.metadata.export
    if output.json:
        return output.result(
            {
                "out": str(made.files[0]),
                "files": [str(file) for file in made.files],
                "bytes": made.size,
                "to": said.to,
                "precision": said.precision,
                "scaling": said.scaling,
                "inputs": said.inputs,
                "outputs": said.outputs,
                "images": agreement.images,
                "difference": agreement.difference,
                "int8": said.int8,
            }
        )
    output.say(f"{model.net.spec}")
    for word, tensors in (("input", said.inputs), ("output", said.outputs)):
        for name, shape in tensors.items():
            kind = "uint8" if name == "pixels" else "float32"
            output.say(f"{word} {name}: {kind} {shape}")
    if cost:
        output.say(
            f"error {cost.error_before:.2f}% in float32, {cost.error_after:.2f}% in int8, n = {cost.n:,}; "
            f"{cost.drop:.2f} points lost (95% interval {cost.drop_low:.2f} to {cost.drop_high:.2f}), "
            f"another answer for {cost.other}"
        )
    else:
        output.say(
            f"proved on {agreement.images} pictures: every answer the same, "
            f"logits within {agreement.difference:.0e} of the net's own"
        )
    return output.say(f"{', '.join(map(str, made.files))} ({size(made.size)})")
