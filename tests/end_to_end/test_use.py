"""A trained model at work by commands: files, folders, pictures, and what is refused."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.end_to_end.command import Command


@pytest.fixture
def run(deepskip: Command, photos: Callable[..., Path]) -> Iterator[Path]:
    """A trained run in `run`, and its photographs."""
    folder = photos()
    said = deepskip(
        *("train", folder, "--net", "resnet8_cifar", "--epochs", 1, "--out", "run", "--quiet"),
        *("--set", "size=32", "--set", "batch=12", "--set", "lr=0.02"),
    )
    assert said.code == 0, said.err
    return folder


def test_predict_writes_tables_lines_and_folders(deepskip: Command, run: Path) -> None:
    cut = run / "val" / "red" / "03.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    shown = {one["file"]: one for one in deepskip("predict", "run", run / "val", "--json").json}
    counts = Counter(one["class"] for one in shown.values())
    assert len(shown) == 11
    said = deepskip("predict", "run", run / "val", "--to", "a.csv", "--batch", 2)
    assert said.code == 0
    assert "warning: 1 of 12 files are broken and left out" in said.err
    assert said.out.splitlines()[-1] == "a.csv: 11 pictures"
    with Path("a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"]: row["class"] for row in rows} == {file: one["class"] for file, one in shown.items()}
    said = deepskip("predict", "run", run / "val", "--to", "a.jsonl", "--json")
    assert said.json == {"to": "a.jsonl", "n": 11, "classes": dict(counts)}
    assert {row["file"]: row for row in map(json.loads, Path("a.jsonl").read_text().splitlines())} == shown
    assert deepskip("predict", "run", run / "val", "--to", "sorted/").code == 0
    for file, one in shown.items():
        placed = Path("sorted") / one["class"] / Path(file).relative_to(run / "val")
        assert placed.read_bytes() == Path(file).read_bytes()
    assert sum(path.is_file() for path in Path("sorted").rglob("*")) == 11


def test_what_predict_refuses_loses_nothing(deepskip: Command, run: Path) -> None:
    Path("a.csv").write_text("precious")
    broken = Path("broken.png")
    broken.write_text("no pixels")
    for words, says in (
        (("--to", "a.csv"), "--to: got a.csv, a file that is there already"),
        (("--to", "run/"), "--to: got run/, which is there already; allowed: a new folder"),
        (("--to", "a.txt"), "--to: got a.txt; allowed: FILE.csv, FILE.jsonl or FOLDER/; nearest: a.txt/"),
        (("--link",), "--link: got no --to"),
        (("--to", "b.csv", "--link"), "--link: got a file to write"),
        (("--way", "fastets"), "nearest: fastest"),
        (("--batch", 0), "--batch: got 0"),
    ):
        said = deepskip("predict", "run", run / "val", *words)
        assert said.code == 2
        assert says in said.error
    said = deepskip("predict", "run", broken, "--to", "new.csv")
    assert said.code == 2
    assert "1 pictures, none of them readable" in said.error
    assert not Path("new.csv").exists()
    assert Path("a.csv").read_text() == "precious"
    assert deepskip("predict", "run", run / "val", "--to", "a.csv", "--force").code == 0
    assert Path("a.csv").read_text().startswith("file,class,probability")


def test_evaluate_draws_and_finds_a_threshold(deepskip: Command, run: Path) -> None:
    plain = deepskip("evaluate", "run", run, "--json").json
    said = deepskip("evaluate", "run", run, "--json", "--threshold-for", 60, "--picture", "c.svg", "--flips")
    assert said.code == 0, said.err
    found = said.json
    assert set(found) == {*plain, "threshold", "picture"}
    assert "Confusion matrix of 3 classes" in Path("c.svg").read_text()
    at = found["threshold"]
    assert at is None or (at["precision"] >= 60 and at["n"] <= 12)
    assert found["loss"] != plain["loss"]  # the mirror images' part
    assert "a file that is there already" in deepskip("evaluate", "run", run, "--picture", "c.svg").error
    assert "a percentage above 0" in deepskip("evaluate", "run", run, "--threshold-for", 101).error
    assert "right" in deepskip("evaluate", "run", run, "--threshold-for", 50).out


def test_a_way_that_is_not_float32_says_so(deepskip: Command, run: Path) -> None:
    from deepskip.deploy.ways import has

    if not has("openvino"):
        pytest.skip("no openvino")
    exact = deepskip("evaluate", "run", run, "--json", "--quiet", "--way", "openvino")
    plain = deepskip("evaluate", "run", run, "--json", "--quiet")
    assert exact.json["loss"] == pytest.approx(plain.json["loss"], rel=1e-4)
    assert (exact.err, plain.err) == ("", "")
    said = deepskip("predict", "run", run / "val", "--json", "--quiet", "--way", "openvino-int8")
    assert len(said.json) == 12
    assert "openvino-int8 is not float32: same class on" in said.err


def test_bench(deepskip: Command) -> None:
    base = ("bench", "resnet_cifar", "--depth", 8, "--ways", "channels-last", "--batches", "2", "--rounds", 1)
    said = deepskip(*base, "--seconds", 0.01, "--picture", "b.svg", "--threads", 1, "--json")
    assert said.code == 0, said.err
    assert said.json["name"] == "resnet8_cifar"
    assert [row["way"] for row in said.json["ways"]] == ["eager", "channels-last"]
    assert all(row["agreement"] is None for row in said.json["ways"])  # of noise
    assert "Bars of the images a second of resnet8_cifar" in Path("b.svg").read_text()
    for words, says in (
        (("bench", "resnet8_cifr"), "nearest: resnet8_cifar"),
        (("bench", "resnet8_cifar", "--batches", "1,x"), "--batches: got '1,x'"),
        (("bench", "resnet8_cifar", "--batches", "0"), "--batches: got 0"),
        (("bench", "resnet8_cifar", "--ways", "eagre"), "nearest: eager"),
        (("bench", "resnet8_cifar", "--data", "digits"), "--data: got digits"),
        (("bench", "resnet8_cifar", "--picture", "b.svg"), "a file that is there already"),
    ):
        said = deepskip(*words)
        assert said.code == 2
        assert says in said.error
