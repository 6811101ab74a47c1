"""An inspection from command to report: its files, its words, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import deepskip as ds
from deepskip.instruments.inspection import INSTRUMENTS
from tests.end_to_end.command import Command


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a trained net and its plain twin, `run` and `twin`."""
    folder = tmp_path_factory.mktemp("models")
    data = ds.data.open("digits")
    spec = ds.zoo.get("resnet8_cifar", input=data.input, classes=len(data.classes))
    for name, one in (("run", spec), ("twin", spec.plain())):
        recipe = ds.Recipe(epochs=2, batch=120, lr=0.05)
        for _ in ds.fit(ds.build(one), data, recipe, out=folder / name):
            pass
    return folder


def _rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_everything_in_one_folder(deepskip: Command, models: Path) -> None:
    given = ("inspect", models / "run", "digits", "--twin", models / "twin", "--images", 60)
    said = deepskip(*given, "--out", "i", "--json")
    assert said.code == 0, said.err
    assert list(said.json["summary"]) == list(INSTRUMENTS)
    blocks = _rows("i/blocks.jsonl")
    assert [row["block"] for row in blocks] == ["s1.b1", "s2.b1", "s3.b1"]
    wanted = {"stage", "branch_rms", "shortcut_rms", "grad_norm", "lesion_error", "ratio", "lens_probe_error"}
    assert all(wanted <= row.keys() for row in blocks)
    summary = json.loads(Path("i/summary.json").read_text())
    assert summary["net"] == "resnet8_cifar"
    assert {name: summary[name] for name in INSTRUMENTS} == said.json["summary"]
    assert {p.name for p in Path("i/figures").iterdir()} == {
        "response_by_layer.svg",
        "rms_by_block.svg",
        "gradient_by_block.svg",
        "ratio_by_block.svg",
        "error_without_block.svg",
        "error_of_lesions.svg",
        "gradient_by_length.svg",
        "error_after_block.svg",
        "saliency_grid.svg",
        "loss_landscape.svg",
        "reliability_diagram.svg",
    }
    report = Path("i/report.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?!#|data:|https://arxiv)[^\"]*", report) == []
    assert "What happens without a block" in report
    assert "blocks can be deleted one at a time" in report

    again = deepskip(*given, "--out", "j", "--json")
    assert again.json["summary"] == said.json["summary"]
    for path in Path("i").glob("*.jsonl"):
        assert path.read_bytes() == Path("j", path.name).read_bytes(), path.name


def test_an_instrument_at_a_time(deepskip: Command, models: Path) -> None:
    given = ("inspect", models / "run", "digits", "--images", 40, "--out", "i")
    assert deepskip(*given, "--only", "lens").code == 0
    assert "branch_rms" not in _rows("i/blocks.jsonl")[0]
    said = deepskip(*given, "--only", "signal,calibration")
    assert said.code == 0, said.err
    assert "points; its expected calibration error" in " ".join(said.out.split())
    row = _rows("i/blocks.jsonl")[0]
    assert "branch_rms" in row
    assert "lens_probe_error" in row
    assert list(json.loads(Path("i/summary.json").read_text()))[2:] == ["signal", "lens", "calibration"]
    assert ds.publish("i") == Path("i/report.html")
    for figure, only in (("error_after_block", "lens"), ("rms_by_block", "signal,calibration")):
        found = re.search("<dc:source>(.*)</dc:source>", Path(f"i/figures/{figure}.svg").read_text())
        assert found is not None
        assert found[1].endswith(f"--only {only}"), "each has the command that made it"
        assert found[1] in Path("i/report.html").read_text()


def test_what_is_refused_is_one_line_and_leaves_no_folder(deepskip: Command, models: Path) -> None:
    run = models / "run"
    assert (
        "--only: got 'lenz'; allowed: signal, "
        in deepskip("inspect", run, "digits", "--only", "lenz", "--out", "i").error
    )
    assert "--images: got 0" in deepskip("inspect", run, "digits", "--images", 0, "--out", "i").error
    said = deepskip("inspect", run, "digits", "--at", "s1.b9", "--out", "i").error
    near = r"--at: got 's1\.b9'; allowed: a block, as s1\.b1, or a part of the net; nearest: s1\.b\d"
    assert re.fullmatch(near, said), said
    assert not Path("i").exists()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years")
    assert "other files" in deepskip("inspect", run, "digits", "--out", "mine").error
    assert Path("mine/thesis.txt").read_text() == "years"


def test_another_models_folder_is_left_alone(deepskip: Command, models: Path) -> None:
    given = ("digits", "--only", "identity", "--images", 40, "--out", "i")
    names = {name: ds.load(models / name).net.spec.name for name in ("run", "twin")}
    assert deepskip("inspect", models / "run", *given).code == 0
    before = Path("i/blocks.jsonl").read_bytes()
    for model, more, says in (
        ("twin", (), f"an inspection with model {names['run']!r}, not {names['twin']!r}; allowed: "),
        ("run", ("--seed", 1), "an inspection with seed 0, not 1; allowed: the same model, data and settings"),
        ("run", ("--at", "s1.b1"), "an inspection with at None, not 's1.b1'; allowed: the same model"),
        ("run", ("--twin", models / "twin"), f"an inspection with twin None, not {names['twin']!r}; allowed"),
    ):
        assert f"i: got {says}" in deepskip("inspect", models / model, *given, *more).error
    held = json.loads(Path("i/inspection.json").read_text())
    Path("i/inspection.json").write_text(json.dumps({**held, "of": {**held["of"], "weights": "0"}}))
    assert (
        "i: got an inspection with other weights; allowed" in deepskip("inspect", models / "run", *given).error
    )
    assert Path("i/blocks.jsonl").read_bytes() == before
    held = json.loads(Path("i/inspection.json").read_text())
    Path("i/inspection.json").write_text(json.dumps({name: held[name] for name in ("of", "seconds")}))
    assert "no inspection's plan" in deepskip("inspect", models / "run", *given).error
    with pytest.raises(ds.InputError, match="no inspection's plan"):
        ds.publish("i")
    assert Path("i/blocks.jsonl").read_bytes() == before
