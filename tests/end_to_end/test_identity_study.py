"""An identity study from command to report; what its rows say is what its cells hold."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import deepskip as ds
from deepskip.scoring import score
from deepskip.studies.grid import CellEnded
from deepskip.studies.identity import IdentityStudy
from deepskip.surgery import grow
from tests.end_to_end.command import Command

TINY = ("--depths", "8,14", "--seeds", 1, "--blocks", 2, "--epochs", 1, "--set", "max_steps=3", "--workers", 1)
RECIPE = ds.Recipe(epochs=1, max_steps=3)


def _rows(folder: str = "s") -> dict[tuple[str, int], dict[str, Any]]:
    rows = [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]
    return {(row["kind"], row["depth"]): row for row in rows}


def test_study_identity(deepskip: Command) -> None:
    said = deepskip("study", "identity", "digits", *TINY, "--out", "s", "--json")
    assert said.code == 0, said.err
    rows, verdict = _rows(), json.loads(Path("s/verdict.json").read_text())
    assert said.json["verdict"] == verdict
    assert list(rows) == [
        ("residual", 8),
        ("residual", 14),
        ("plain", 8),
        ("residual kept", 8),
        ("residual silent", 12),
        ("plain kept", 8),
        ("plain fresh", 12),
        ("plain delta", 12),
        ("plain zero", 12),
    ]
    assert {row["status"] for row in rows.values()} == {"ok"}
    _check_rows(rows, blocks=2)
    assert "2 silent blocks in a trained residual net change no bit of its outputs" in verdict["sentences"][0]
    assert "each of the 2 new blocks returns its input bit for bit" in verdict["sentences"][1]
    assert {p.name for p in Path("s/figures").iterdir()} == {"error_at_insertion.svg", "ratio_by_place.svg"}
    report = Path("s/report.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?!#|data:|https://arxiv)[^\"]*", report) == []
    assert verdict["sentences"][0] in report
    assert "same bits" in report

    before = {path: path.stat().st_mtime_ns for path in Path("s/cells").rglob("*")}
    again = deepskip("study", "identity", "digits", *TINY, "--out", "s")
    assert again.err.count("done before") == 9
    assert before == {path: path.stat().st_mtime_ns for path in Path("s/cells").rglob("*")}


def _check_rows(rows: dict[tuple[str, int], dict[str, Any]], blocks: int, folder: str = "s") -> None:
    """Compare what the rows say with the nets in the cells: the nets of 8 layers, and with `blocks` more."""
    data, cells = ds.data.open("digits"), Path(folder, "cells")
    for row in rows.values():
        net = ds.load(cells / row["hash"]).net
        assert row["val_scored_end"] == score(net, data.val, data.preprocessing).error
        assert row["train_scored_end"] == score(net, data.train, data.preprocessing).error
        assert len(row["ratio_start"]) == len(row["ratio_end"]) == sum(1 for _ in net.blocks())
        if not row["start"]:
            begun = ds.build(net.spec, row["seed"])
        else:
            begun = ds.load(cells / row["begins"]).net
            assert begun.spec.is_plain == (row["twin"] == "plain")
            first = score(begun, data.val, data.preprocessing).error
            if row["start"] != "kept":
                begun = grow(begun, blocks, start=row["start"], seed=row["seed"])
            if row["start"] in ("kept", "silent", "delta"):
                assert row["val_scored_start"] == first
        assert row["val_scored_start"] == score(begun, data.val, data.preprocessing).error
        assert net.spec == begun.spec
    for start, same in (("silent", True), ("fresh", False), ("zero", False)):
        row = rows["residual silent" if start == "silent" else f"plain {start}", 8 + 2 * blocks]
        assert (row["images"], row["same_outputs"] == 360) == (360, same)
        assert row["new_equal"] == (blocks if same else 0)
    assert rows["plain kept", 8]["val_scored_end"] != rows["plain kept", 8]["val_scored_start"]


def test_an_interrupted_study_ends_as_one_that_was_not() -> None:
    data = ds.data.open("digits")

    def study(out: str) -> IdentityStudy:
        return IdentityStudy(data, out=out, depths=(8,), seeds=1, blocks=1, recipe=RECIPE)

    whole = study("whole").finish().rows
    _check_rows(_rows("whole"), blocks=1, folder="whole")
    with contextlib.closing(study("cut").run()) as events:
        ended = 0
        for event in events:
            ended += isinstance(event, CellEnded)
            if ended == 3:
                break
    assert len(_rows("cut")) == 3
    goes_on = study("cut").finish().rows
    drop = ("seconds",)
    assert [{k: v for k, v in row.items() if k not in drop} for row in goes_on] == [
        {k: v for k, v in row.items() if k not in drop} for row in whole
    ]
    for row in whole:
        one, other = (ds.load(Path(out, "cells", row["hash"])).net.state_dict() for out in ("whole", "cut"))
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_cannot_be_put_in_is_impossible_and_the_others_go_on(deepskip: Command) -> None:
    """Identity convolutions are none in pre-activation nets: their first ReLU cuts."""
    said = deepskip("study", "identity", "digits", *TINY, "--net", "preresnet_cifar", "--out", "s", "--json")
    assert said.code == 0, said.err
    rows = _rows()
    delta = rows.pop(("plain delta", 12))
    assert delta["status"] == "impossible"
    assert "order pre" in delta["reason"]
    assert delta["images"] is delta["val_scored_start"] is delta["val_scored_end"] is None
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert rows["residual silent", 12]["same_outputs"] == 360
    assert "1 impossible" in Path("s/report.html").read_text()


def test_what_diverged_cannot_be_grown(deepskip: Command) -> None:
    said = deepskip(
        "study",
        "identity",
        "digits",
        *TINY,
        "--recipe",
        "quick",
        "--lr",
        1e30,
        "--set",
        "warmup=0",
        "--out",
        "s",
    )
    assert said.code == 0, said.err
    rows = _rows()
    assert {row["status"] for row in rows.values() if not row["start"]} == {"diverged"}
    assert {row["status"] for row in rows.values() if row["start"]} == {"impossible"}
    assert "could not be put into the residual net: impossible, 1 seed." in said.out
    assert Path("s/report.html").exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--blocks", 0), "blocks: got 0; allowed: a whole number from 1; nearest: 1"),
        (("--grow", 9), "depth"),
        (("--seeds", 0), "seeds: got 0"),
        (("--net", "plain_cifar"), "a residual family"),
        (("--depths", "8,x"), "--depths: got '8,x'"),
    ],
)
def test_wrong_options_are_one_line(deepskip: Command, options: tuple[object, ...], error: str) -> None:
    said = deepskip("study", "identity", "digits", *options, "--out", "s")
    assert said.code == 2
    assert error in said.error
    assert not Path("s").exists()


def test_the_middle_depth_is_grown_and_its_cells_are_shared() -> None:
    data = ds.data.open("digits")

    def study(**options: Any) -> IdentityStudy:
        return IdentityStudy(data, out="s", seeds=2, **options)

    assert study(depths=(56, 8, 20)).grow == 20
    assert study(depths=(8, 20)).grow == 8
    assert len(study().cells) == 2 * (3 + 1 + 6)
    assert len(study(grow=14).cells) == 2 * (4 + 1 + 6)
    grown = [cell for cell in study().cells if cell.begin is not None]
    assert {cell.depth for cell in grown} == {20, 56}
    assert all(cell.spec.layers == cell.depth for cell in grown)
