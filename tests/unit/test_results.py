"""Predictions kept as files and folders: all of them or none, and no name that leads elsewhere."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from deepskip.deploy import results
from deepskip.errors import InputError
from deepskip.model import Prediction
from tests.unit.pictures import noise, save

CLASSES = ("cat", "dog/wolf", "dog:wolf", "..", "", "CAT", "con\n", "x" * 300)


def predictions(root: Path) -> list[Prediction]:
    files = [save(noise(i), root / f"{'deep/er/' if i % 2 else ''}{i}.png") for i in range(len(CLASSES))]
    return [
        Prediction(str(file), {name: 0.75, "other": 0.25}) for file, name in zip(files, CLASSES, strict=True)
    ]


def test_a_csv_has_a_row_a_picture(tmp_path: Path) -> None:
    found = [Prediction('a, "b"\n.png', {"cat": 0.123456789, "dog": 0.1}), Prediction("c.png", {"dog": 1.0})]
    with results.keeping(tmp_path / "a" / "p.csv", classes=("cat", "dog"), roots=()) as keep:
        for one in found:
            keep(one)
    with (tmp_path / "a" / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [one.file for one in found]
    assert [row["class"] for row in rows] == ["cat", "dog"]
    assert float(rows[0]["probability"]) == pytest.approx(0.123456789, rel=1e-5)


def test_jsonl_has_what_predict_says_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"not utf-8 \xff.png")
    found = Prediction(name, {"cat": 0.7, "dog": 0.2, "eel": 0.1})
    with results.keeping(tmp_path / "p.jsonl", classes=("cat", "dog", "eel"), roots=(), top=2) as keep:
        keep(found)
        keep(found)
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [found.to_dict(2)] * 2


@pytest.mark.parametrize("link", [False, True])
def test_a_tree_holds_every_picture_under_its_class_and_nothing_outside(tmp_path: Path, link: bool) -> None:
    root = tmp_path / "photos"
    found = predictions(root)
    with results.keeping(tmp_path / "sorted", classes=CLASSES, roots=[root], link=link) as keep:
        for one in found:
            keep(one)
    folders = dict(zip(CLASSES, results.folder_names(CLASSES), strict=True))
    for one in found:
        placed = tmp_path / "sorted" / folders[one.label] / Path(one.file).relative_to(root)
        assert placed.read_bytes() == Path(one.file).read_bytes()
        assert placed.is_symlink() == link
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "sorted"]
    assert len([path for path in (tmp_path / "sorted").rglob("*") if path.is_file()]) == len(found)


def test_no_two_classes_share_a_folder_and_each_is_one_name() -> None:
    names = results.folder_names((*CLASSES, *CLASSES[:2], "cat (2)", ". .", "a.", "NUL\x00"))
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name == os.path.basename(name) not in ("", ".", "..")
        assert len(name) < 120
    assert results.folder_names(("red fox", "blue")) == ["red fox", "blue"]


def test_pictures_of_one_name_stay_two(tmp_path: Path) -> None:
    one, other = save(noise(1), tmp_path / "a" / "x.png"), save(noise(2), tmp_path / "b" / "x.png")
    with results.keeping(tmp_path / "out", classes=("cat",), roots=[one, other]) as keep:
        for file in (one, other):
            keep(Prediction(str(file), {"cat": 1.0}))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out" / "cat").iterdir()}
    assert kept == {"x.png": one.read_bytes(), "x (2).png": other.read_bytes()}


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "tree"])
def test_of_work_that_fails_nothing_is_left_and_nothing_lost(tmp_path: Path, name: str) -> None:
    file = save(noise(0), tmp_path / "a.png")
    if name != "tree":
        (tmp_path / name).write_text("before")
    before = sorted(path.name for path in tmp_path.iterdir())
    with (
        pytest.raises(ZeroDivisionError),
        results.keeping(tmp_path / name, classes=("cat",), roots=[file]) as keep,
    ):
        keep(Prediction(str(file), {"cat": 1.0}))
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    if name != "tree":
        assert (tmp_path / name).read_text() == "before"


def test_where_it_may_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("")
    Path("full").mkdir()
    Path("full/x").touch()
    Path("empty.d").mkdir()
    for to, options, says in (
        ("there.csv", {}, "a file that is there already"),
        ("full/", {}, "which is there already"),
        ("full", {}, "which is there already"),
        ("there.csv/", {}, "which is there already"),
        ("p.txt", {}, "allowed: FILE.csv, FILE.jsonl or FOLDER/"),
        ("p.csv", {"link": True}, "a file to write"),
        ("there.csv/deep/p.csv", {}, "inside .*there.csv, which is a file"),
    ):
        with pytest.raises(InputError, match=says):
            results.check(to, **{"link": False, "force": False, **options})
    for to, force in (
        ("there.csv", True),
        ("new.jsonl", False),
        ("new/", False),
        ("empty.d", False),
        ("a.b/", False),
    ):
        assert results.check(to, link=False, force=force) == Path(to)
