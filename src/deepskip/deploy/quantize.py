"""int8: weights, activations and residual additions rounded to 8 bits by NNCF, and what that cost, measured."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from deepskip.data.dataset import Dataset, Split
from deepskip.deploy import graph, pictures
from deepskip.deploy.export import IMAGES, Exported, Later, check, files, find, versions
from deepskip.deploy.formats import openvino as form
from deepskip.deploy.graph import Scaling, fed
from deepskip.deploy.metadata import describe
from deepskip.deploy.proof import BATCH, prove, reference
from deepskip.errors import InputError, WorkError
from deepskip.extras import need
from deepskip.instruments.intervals import paired
from deepskip.model import Model

if TYPE_CHECKING:
    import openvino

CALIBRATION = 300
"""Training pictures whose activations' ranges decide how they are rounded."""
LIMIT = 0.5
"""Largest loss of accuracy that passes, in points."""
MOVING = ("Slice", "StridedSlice", "Pad", "Split", "VariadicSplit", "Concat", "MaxPool")
"""Operations of OpenVINO's that make no new values, but zeros."""
Told = Callable[[str, int, int], None]
Right: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cost:
    """What rounding cost on validation images, each seen by both nets; errors in percent."""

    n: int
    error_before: float
    error_after: float
    drop: float
    """Points of accuracy lost; negative where int8 is the better."""
    drop_low: float
    drop_high: float
    """95% interval of `drop`, the images being a sample (`instruments.intervals.paired`)."""
    other: int
    """Images whose most probable class is another one."""
    calibration: int
    """Training pictures that ranges are from."""
    seed: int
    """What drew them."""


def export_int8(
    model: Model,
    path: Path | str,
    data: Dataset,
    *,
    calibration: int = CALIBRATION,
    limit: float = LIMIT,
    seed: int = 0,
    images: int | None = None,
    scaling: Scaling = "inside",
    progress: Told = lambda what, done, total: None,
) -> tuple[Exported, Cost]:
    """Write `model`, quantised to int8, to `path` as OpenVINO's graph, and say what that cost.

    Ranges are from `calibration` training pictures of `data`, drawn by `seed`; both nets are measured on its
    validation pictures, or on `images` of them, spread evenly. The graph is proved as `export` proves it before
    it is quantised, and the written file against the graph that was measured. Raises WorkError, and nothing is
    written, when accuracy falls by more than `limit` points; InputError for `calibration` or `images` below 1
    and a `limit` below 0.
    """
    for name, number in (("calibration", calibration), ("images", images)):
        if number is not None and number < 1:
            raise InputError(name, number, "a whole number from 1", 1)
    if not limit >= 0:
        raise InputError("limit", limit, "points of accuracy, from 0", LIMIT)
    path, preprocessing = Path(path), model.preprocessing
    find("openvino", path)
    need("nncf", "--int8")
    shown = pictures.spread(data.val, min(images or IMAGES, IMAGES))
    check(model, shown)
    plain = graph.openvino_model(model, scaling)
    with form.Graph(plain, preprocessing, scaling) as before:
        prove(path, before, shown, reference(model, shown))
        drawn = pictures.drawn(data, calibration, seed)
        rounded = quantized(plain, fed(drawn, preprocessing, scaling))
        if left := [name for name, sides in sums(rounded).items() if not all(sides)]:
            raise WorkError(path, f"residual additions in float32, as {left[0]}", "all of them in int8")
        with form.Graph(rounded, preprocessing, scaling) as after:
            right = _right(before, after, data.val, images, progress)
            wanted = np.concatenate([after(shown[i : i + BATCH]) for i in range(0, len(shown), BATCH)])
    cost = _cost(*right, calibration=len(drawn), seed=seed)
    if cost.drop > limit:
        got = f"{cost.drop:.2f} points of accuracy lost on {cost.n:,} images ({interval(cost)})"
        raise WorkError(path, got, f"{limit:g} at most; nothing was written")
    said = describe(model, "openvino", scaling, versions(form, "nncf"), precision="int8", int8=asdict(cost))
    agreement = Later(form, path, shown, wanted)
    form.write_graph(path, rounded, said, agreement)
    return Exported(files(path, "openvino"), said, agreement.found), cost


def quantized(made: openvino.Model, inputs: npt.NDArray[Any]) -> openvino.Model:
    """Return OpenVINO's graph `made` with weights and activations in int8, ranges from `inputs` [n, …].

    `made` is left as it is. Both sides of every residual addition are rounded. Raises InputError without NNCF.
    """
    nncf = need("nncf", "--int8")
    given = nncf.Dataset([inputs[i : i + 1] for i in range(len(inputs))])
    with _silence():
        rounded = nncf.quantize(
            made,
            given,
            subset_size=len(inputs),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.MIXED,
        )
    return graph.plainly_named(rounded)


def interval(cost: Cost) -> str:
    """Return the interval of the drop in words."""
    return f"95% interval {cost.drop_low:.2f} to {cost.drop_high:.2f}"


def sums(made: openvino.Model) -> dict[str, tuple[bool, bool]]:
    """Return the graph's additions of two activations, by name, and which of the two are rounded to int8."""
    found = {}
    for node in made.get_ordered_ops():
        if node.get_type_name() == "Add":
            sides = [value.get_node() for value in node.input_values()]
            if not any(_is_constant(side) for side in sides):
                found[node.get_friendly_name()] = (_is_rounded(sides[0]), _is_rounded(sides[1]))
    return found


def _is_rounded(node: Any) -> bool:
    """Return whether a node's values are rounded ones, be they moved about afterwards as in option A."""
    if node.get_type_name() in MOVING:
        return all(_is_rounded(i) for value in node.input_values() if not _is_constant(i := value.get_node()))
    return bool(node.get_type_name() == "FakeQuantize")


def _is_constant(node: Any) -> bool:
    """Return whether a node computes from constants alone, as a compressed bias is."""
    return node.get_type_name() == "Constant" or (
        bool(node.inputs()) and all(_is_constant(value.get_node()) for value in node.input_values())
    )


def _right(
    before: form.Graph, after: form.Graph, val: Split, images: int | None, progress: Told
) -> tuple[Right, Right, int]:
    """Return which images each net gets right, and for how many their answers differ."""
    indices = torch.tensor(pictures.even(len(val), images or len(val)))
    rights: list[list[Right]] = [[], []]
    other = 0
    for start in range(0, len(indices), BATCH):
        some = indices[start : start + BATCH]
        pixels, labels = pictures.gathered(val, some), val.labels[some].numpy()
        answers = [net(pixels).argmax(1) for net in (before, after)]
        for held, answer in zip(rights, answers, strict=True):
            held.append(answer == labels)
        other += int((answers[0] != answers[1]).sum())
        progress("measuring float32 and int8", start + len(some), len(indices))
    return np.concatenate(rights[0]), np.concatenate(rights[1]), other


def _cost(before: Right, after: Right, other: int, *, calibration: int, seed: int) -> Cost:
    n = len(before)
    broken, mended = int((before & ~after).sum()), int((after & ~before).sum())
    low, high = paired(broken, mended, n)
    return Cost(
        n=n,
        error_before=100 * int((~before).sum()) / n,
        error_after=100 * int((~after).sum()) / n,
        drop=100 * (broken - mended) / n,
        drop_low=low,
        drop_high=high,
        other=other,
        calibration=calibration,
        seed=seed,
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep NNCF's progress bars to itself: it draws them on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
