"""`deepskip doctor`: every planted fault of a bad folder, and none in a good one."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

from tests.end_to_end.command import Command
from tests.unit.faults import bad, good


def test_every_planted_fault_is_found_and_nothing_else(deepskip: Command) -> None:
    planted = bad(Path("photos"))
    assert len(planted) >= 12
    said = deepskip("doctor", "photos", "--json", "--quiet")
    found: defaultdict[str, set[str]] = defaultdict(set)
    for finding in said.json["findings"]:
        found[finding["kind"]].update(finding["files"])
    assert found == planted
    assert said.code == 1
    assert said.error.startswith("photos: got broken picture, leaked copy, contradicting labels, ")
    counts = [sum(f["severity"] == s for f in said.json["findings"]) for s in ("error", "warning", "note")]
    assert counts == [said.json["errors"], said.json["warnings"], said.json["notes"]]
    table = deepskip("doctor", "photos", "--quiet")
    assert table.code == 1
    for kind in planted:
        assert kind in table.out
    assert "7 errors, 15 warnings, 12 notes" in table.out


def test_a_good_folder_has_no_fault(deepskip: Command) -> None:
    good(Path("photos"))
    said = deepskip("doctor", "photos")
    assert (said.code, said.out) == (
        0,
        "photos: 48 pictures of 3 classes, 36 train, 12 val\n\nnothing found\n",
    )
    assert "looking at pictures: 48 of 48" in said.err
    assert deepskip("doctor", "photos", "--quiet").err == ""
    assert deepskip("doctor", "photos", "--json").json == {
        "data": "photos",
        "pictures": {"train": 36, "val": 12},
        "classes": ["ant", "bee", "cat"],
        "errors": 0,
        "warnings": 0,
        "notes": 0,
        "findings": [],
        "picture": None,
    }


def test_digits_have_no_fault(deepskip: Command) -> None:
    said = deepskip("doctor", "digits", "--json")
    assert (said.code, said.json["findings"]) == (0, [])
    assert said.json["pictures"] == {"train": 1437, "val": 360}


def test_warnings_alone_do_not_fail(deepskip: Command) -> None:
    good(Path("photos"), train=9)
    said = deepskip("doctor", "photos")
    assert said.code == 0
    assert "3 classes with fewer than 10 pictures: ant (9), bee (9), cat (9)" in said.out
    assert said.out.endswith("1 warning\n")


def test_a_flat_folder(deepskip: Command) -> None:
    good(Path("photos"), train=60, val=1)
    os.rename("photos/train", "flat")
    (Path("flat") / "empty").mkdir()
    said = deepskip("doctor", "flat")
    assert said.code == 1
    assert "1 class without a readable picture: empty" in said.out
    assert said.error == "flat: got empty class; allowed: none of these; see the findings"


def test_the_contact_sheet(deepskip: Command) -> None:
    bad(Path("photos"))
    said = deepskip("doctor", "photos", "--picture", "sheets/offenders.png", "--json")
    assert said.code == 1  # the sheet is written all the same
    assert said.json["picture"] == "sheets/offenders.png"
    with Image.open("sheets/offenders.png") as sheet:
        assert (sheet.format, sheet.width) == ("PNG", 1697)
        assert "leaked copy: 1 picture identical in train and in val" in sheet.text["Description"]
        assert sheet.text["Comment"].startswith("deepskip doctor photos --picture")
    Path("sheets/offenders.png").write_text("mine")
    said = deepskip("doctor", "photos", "--picture", "sheets/offenders.png")
    assert (said.code, "a file that is there already" in said.error) == (2, True)
    assert Path("sheets/offenders.png").read_text() == "mine"
    assert deepskip("doctor", "photos", "--picture", "sheets/offenders.png", "--force").code == 1
    assert Path("sheets/offenders.png").read_bytes().startswith(b"\x89PNG")
    assert "allowed: .svg or .png" in deepskip("doctor", "photos", "--picture", "sheet.jpg").error


def test_a_contact_sheet_of_a_good_folder_says_so(deepskip: Command) -> None:
    good(Path("photos"))
    said = deepskip("doctor", "photos", "--picture", "none.svg")
    assert said.code == 0
    assert said.out.endswith("no picture to show: nothing is drawn\n")
    assert deepskip("doctor", "photos", "--picture", "none.svg", "--json").json["picture"] is None
    assert not Path("none.svg").exists()


def test_what_is_no_data_set(deepskip: Command) -> None:
    Path("photos/ant").mkdir(parents=True)
    Path("lone/val/ant").mkdir(parents=True)
    Path("file").touch()
    for source, says in (
        ("phots", "'phots': got neither a built-in name nor a folder; allowed: digits, "),
        ("phots", "nearest: photos"),
        ("file", "'file': got a file"),
        ("photos", "photos: got no picture in any folder; allowed: <class>/* with pictures in it"),
        ("lone", "lone: got val/ without train/"),
    ):
        said = deepskip("doctor", source)
        assert (said.code, said.out) == (2, "")
        assert says in said.error


def test_a_file_that_may_not_be_read(deepskip: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    good(Path("photos"))
    real = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "0000.jpg" and path.parent.name == "ant":  # not by chmod: root may read everything
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    said = deepskip("doctor", "photos", "--picture", "sheet.png")
    assert said.code == 1
    assert "train/ant/0000.jpg (permission denied)" in said.out


def test_files_that_are_none(deepskip: Command) -> None:
    good(Path("photos"))
    ant = Path("photos/train/ant")
    (ant / "lost.jpg").symlink_to("nowhere.jpg")
    (ant / "self.jpg").symlink_to("self.jpg")
    (ant / "around").symlink_to("..")
    (ant / "torn \udcff.jpg").write_bytes(b"no")
    os.mkfifo(ant / "pipe.jpg")
    said = deepskip("doctor", "photos", "--picture", "sheet.png")
    assert said.code == 1
    assert "3 pictures that cannot be read" in said.out
    assert "no such file or directory" in said.out
    kinds = [finding["kind"] for finding in deepskip("doctor", "photos", "--json").json["findings"]]
    # Training, too, follows the link that leads up, and takes every class for ants.
    assert set(kinds) == {"broken picture", "contradicting labels", "nested folder", "symbolic link"}
