"""`deepskip export` as a program: files, what is said, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from deepskip.cli.app import main
from deepskip.weights import store
from tests.unit.deployed import FAMILIES, header, made, needed, pixels

needed("onnx", "openvino")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    spec = FAMILIES["post, option A"]
    store.save(tmp_path / "run" / store.FILE, made(spec).net, header(spec))
    for i, picture in enumerate(pixels(spec, 12)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "run"


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    found = capsys.readouterr()
    return found.out, found.err


@pytest.mark.parametrize(
    ("to", "name"), [("onnx", "model.onnx"), ("openvino", "model.xml"), ("torch", "model.pt2")]
)
def test_a_run_becomes_a_file_beside_its_model(
    run: Path, capsys: pytest.CaptureFixture[str], to: str, name: str
) -> None:
    photos = str(run.parent / "photos")
    assert main(["export", str(run), "--to", to, "--data", photos, "--images", "9", "--json"]) == 0
    out, _ = said(capsys)
    found = json.loads(out)
    assert found["out"] == str(run / name)
    assert (found["images"], found["precision"], found["int8"]) == (9, "float32", None)
    assert found["bytes"] == sum(Path(file).stat().st_size for file in found["files"])
    assert main(["export", str(run), "--to", to, "--data", photos]) == 2
    assert "a file that is there already" in said(capsys)[1]
    assert main(["export", str(run), "--to", to, "--data", photos, "--force"]) == 0
    out, _ = said(capsys)
    assert "input pixels: uint8 [batch, 16, 16, 3]" in out
    assert "proved on 12 pictures: every answer the same" in out


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--to", "tensorrt"], "error: --to: got 'tensorrt'; allowed: onnx, openvino, torch, torchvision"),
        (["--to", "onnx", "--int8"], "error: --int8: got --to onnx; allowed: --to openvino"),
        (["--to", "openvino", "--limit", "1"], "error: --limit: got 1.0; allowed: this with --int8 alone"),
        (["--to", "onnx", "--scaling", "none"], "error: --scaling: got 'none'; allowed: inside, outside"),
        (
            ["--to", "onnx"],
            "error: --data: got nothing, and the model's own data is not built in; allowed: a data set",
        ),
        (["--to", "onnx", "--data", "nowhere"], "error: 'nowhere': got neither a built-in name nor a folder"),
        (["--to", "onnx", "--data", "photos", "--images", "0"], "error: --images: got 0"),
        (["--to", "onnx", "--data", "photos", "--out", "photos"], "error: --out: got photos, a folder"),
        (["--to", "torchvision", "--data", "photos"], "torchvision"),
    ],
)
def test_what_is_wrong_is_one_line_and_writes_nothing(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    wanted: str,
) -> None:
    monkeypatch.chdir(run.parent)
    before = sorted(run.parent.rglob("*"))
    assert main(["export", "run", *words]) == 2
    out, err = said(capsys)
    assert out == ""
    assert wanted in err.splitlines()[-1]
    assert sorted(run.parent.rglob("*")) == before


def test_a_broken_picture_is_named_and_left_out(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "photos" / "3.png").write_bytes(b"no picture")
    photos = str(run.parent / "photos")
    assert main(["export", str(run), "--to", "torch", "--data", photos, "--json"]) == 0
    out, err = said(capsys)
    assert json.loads(out)["images"] == 11
    assert "3.png" in err
    assert "1 of 12 files are broken and left out" in err


def test_int8_from_the_trained_models_own_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needed("nncf")
    run = str(tmp_path / "digits")
    assert main(["train", "digits", "--net", "resnet8_cifar", "--epochs", "2", "--out", run, "--quiet"]) == 0
    said(capsys)
    words = ["export", run, "--to", "openvino", "--int8", "--calibration", "60", "--limit", "5", "--json"]
    assert main(words) == 0
    found = json.loads(said(capsys)[0])
    assert found["out"] == str(tmp_path / "digits" / "model-int8.xml")
    assert found["int8"]["n"] == 360
    assert found["int8"]["error_before"] < 60
    assert abs(found["int8"]["drop"]) <= 5


def test_standard_output_is_json_and_nothing_else(run: Path) -> None:
    words = ["export", str(run), "--to", "onnx", "--data", str(run.parent / "photos"), "--json"]
    done = subprocess.run([sys.executable, "-m", "deepskip", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["to"] == "onnx"
    assert "Warning" not in done.stderr
    assert "torchvision" not in done.stderr
