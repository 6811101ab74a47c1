"""int8: every residual addition is rounded, what it cost is measured in pairs, and too much is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deepskip.data.dataset import Dataset, Split, UniformImages
from deepskip.deploy import graph
from deepskip.deploy.export import read_metadata
from deepskip.deploy.formats import openvino as form
from deepskip.deploy.graph import fed
from deepskip.deploy.proof import reference
from deepskip.deploy.quantize import export_int8, quantized, sums
from deepskip.errors import InputError, WorkError
from deepskip.instruments.intervals import paired
from deepskip.model import Model
from tests.unit.deployed import FAMILIES, made, needed, pixels

needed("nncf")

SMALL = FAMILIES["post, option A"]


def data_for(model: Model, train: int = 40, val: int = 90) -> Dataset:
    """Return pictures whose labels are what the model itself says of them, but for every tenth."""
    spec = model.net.spec

    def split(n: int, seed: int) -> Split:
        images = pixels(spec, n, seed)
        labels = torch.from_numpy(reference(model, images).argmax(1))
        labels[::10] = (labels[::10] + 1) % spec.classes
        return Split(UniformImages(images), labels)

    return Dataset(
        "drawn",
        "drawn",
        model.classes,
        model.preprocessing,
        "none",
        lambda: split(train, 1),
        lambda: split(val, 2),
    )


@pytest.mark.parametrize("family", ["post, option A", "pre", "reversible", "fixup", "gates"])
def test_both_sides_of_every_residual_addition_are_rounded(family: str) -> None:
    model = made(FAMILIES[family])
    images = pixels(model.net.spec, 6)
    plain = graph.openvino_model(model)
    rounded = quantized(plain, images)
    found = {name: sides for name, sides in sums(rounded).items() if "junction" in name}
    blocks = sum(1 for _ in model.net.spec.sites())
    assert len(found) == blocks
    assert all(both == (True, True) for both in found.values()), found
    assert not any(any(sides) for sides in sums(plain).values())


@pytest.mark.parametrize("scaling", graph.SCALINGS)
def test_the_cost_is_what_both_files_say_of_every_validation_image(
    tmp_path: Path, scaling: graph.Scaling
) -> None:
    model = made(SMALL)
    data = data_for(model)
    done, cost = export_int8(model, tmp_path / "a.xml", data, calibration=20, limit=50, scaling=scaling, seed=3)
    assert read_metadata(tmp_path / "a.xml") == done.metadata
    assert done.metadata.export.precision == "int8"
    assert done.metadata.export.int8 == json.loads(json.dumps(cost.__dict__))
    images, labels = data.val.images.pixels, data.val.labels.numpy()
    with form.Runner(tmp_path / "a.xml") as runner:
        after = runner(images).argmax(1)
    before = reference(model, images).argmax(1)
    broken = int(((before == labels) & (after != labels)).sum())
    mended = int(((before != labels) & (after == labels)).sum())
    assert (cost.n, cost.calibration, cost.seed) == (90, 20, 3)
    assert cost.error_before == pytest.approx(10)
    assert cost.error_after == pytest.approx(100 * (after != labels).mean())
    assert cost.drop == pytest.approx(100 * (broken - mended) / 90)
    assert (cost.drop_low, cost.drop_high) == paired(broken, mended, 90)
    assert cost.other == (before != after).sum()
    weights = (tmp_path / "a.bin").stat().st_size
    assert weights < 0.6 * 4 * sum(p.numel() for p in model.net.parameters())


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    model = made(SMALL)
    data = data_for(model)
    made_ = [
        export_int8(model, tmp_path / name, data, calibration=10, limit=50)[0] for name in ("a.xml", "b.xml")
    ]
    assert [f.read_bytes() for f in made_[0].files] == [f.read_bytes() for f in made_[1].files]
    other, _ = export_int8(model, tmp_path / "c.xml", data, calibration=10, limit=50, seed=1)
    assert other.files[1].read_bytes() != made_[0].files[1].read_bytes()


def test_too_much_lost_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(SMALL)
    data = data_for(model)
    ruined = graph.openvino_model(made(SMALL, seed=5))
    monkeypatch.setattr("deepskip.deploy.quantize.quantized", lambda _, drawn: quantized(ruined, drawn))
    with pytest.raises(
        WorkError, match=r"points of accuracy lost on 90 images \(95% interval .*; allowed: 0.5 at most"
    ):
        export_int8(model, tmp_path / "a.xml", data, calibration=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"calibration": 0}, "calibration: got 0"),
        ({"images": 0}, "images: got 0"),
        ({"limit": -1.0}, "limit: got -1.0"),
        ({"limit": float("nan")}, "limit: got nan"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path: Path, options: dict[str, float], wanted: str) -> None:
    model = made(SMALL)
    with pytest.raises(InputError, match=wanted):
        export_int8(model, tmp_path / "a.xml", data_for(model), **options)  # type: ignore[arg-type]


def test_what_is_fed_outside_is_scaled() -> None:
    model = made(SMALL)
    images = pixels(SMALL, 3)
    given = fed(images, model.preprocessing, "outside")
    mean, std = np.array(model.preprocessing.mean), np.array(model.preprocessing.std)
    assert np.allclose(given, ((images / 255 - mean) / std).transpose(0, 3, 1, 2), atol=1e-6)
    assert fed(images, model.preprocessing, "inside") is images
