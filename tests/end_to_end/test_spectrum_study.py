"""A spectrum study from command to report; what its rows say is what its cells hold."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import deepskip as ds
from deepskip.instruments import ends
from deepskip.studies.grid import CellEnded
from deepskip.studies.spectrum import INGREDIENTS, SpectrumStudy
from tests.end_to_end.command import Command

TINY = ("--depths", "8,5", "--epochs", 1, "--set", "max_steps=3", "--workers", 1)
RECIPE = ds.Recipe(epochs=1, max_steps=3)


def _rows(folder: str = "s") -> dict[tuple[str, int], dict[str, Any]]:
    rows = [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]
    return {(row["kind"], row["depth"]): row for row in rows}


def test_study_spectrum(deepskip: Command) -> None:
    said = deepskip("study", "spectrum", "digits", *TINY, "--out", "s", "--json")
    assert said.code == 0, said.err
    rows, verdict = _rows(), json.loads(Path("s/verdict.json").read_text())
    assert said.json["verdict"] == verdict
    assert list(rows) == [(kind, depth) for kind in INGREDIENTS for depth in (5, 8)]
    assert {row["status"] for row in rows.values()} == {"ok"}
    _check_rows(rows)
    assert (verdict["depths"], verdict["epochs"], len(verdict["table"])) == ([5, 8], 1, 10)
    assert {p.name for p in Path("s/figures").iterdir()} == {
        "signal_against_depth.svg",
        "spectrum_of_depth.svg",
    }
    report = Path("s/report.html").read_text()
    assert re.findall(r"(?:src|href)=\"(?!#|data:|https://arxiv)[^\"]*", report) == []
    assert verdict["sentences"][0] in report

    before = {path: path.stat().st_mtime_ns for path in Path("s/cells").rglob("*")}
    again = deepskip("study", "spectrum", "digits", *TINY, "--out", "s")
    assert again.err.count("done before") == 10
    assert before == {path: path.stat().st_mtime_ns for path in Path("s/cells").rglob("*")}
    assert again.out.splitlines()[: len(verdict["sentences"])] == verdict["sentences"]


def _check_rows(rows: dict[tuple[str, int], dict[str, Any]], folder: str = "s") -> None:
    """Compare what the rows say with the nets in the cells."""
    data = ds.data.open("digits")
    for (kind, depth), row in rows.items():
        net = ds.load(Path(folder, "cells", row["hash"])).net
        assert net.spec.layers == depth
        assert net.spec.is_plain == (kind in ("nothing", "initial", "norm"))
        assert (net.spec.norm == "none") == (kind in ("nothing", "initial"))
        assert (net.spec.order == "pre") == (kind == "identity")
        assert {len(block.convs) for stage in net.spec.stages for block in stage.blocks} == {
            1 if depth == 5 else 2
        }
        for when, one in (("start", ds.build(net.spec, row["seed"])), ("end", net)):
            measured = ends.measure(one, data, row["seed"])
            assert measured == {name: row[f"{name}_{when}"] for name in ends.COLUMNS}
    for depth in {depth for _, depth in rows}:
        begun = {kind: rows[kind, depth]["rms_last_start"] for kind in INGREDIENTS}
        assert begun["nothing"] < begun["initial"], "PyTorch's values let the signal fade"


def test_an_interrupted_study_ends_as_one_that_was_not() -> None:
    data = ds.data.open("digits")

    def study(out: str) -> SpectrumStudy:
        return SpectrumStudy(data, out=out, depths=(5,), recipe=RECIPE)

    whole = study("whole").finish().rows
    _check_rows(_rows("whole"), "whole")
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


def test_what_diverges_or_has_no_memory_is_said_and_the_others_go_on(
    deepskip: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepskip.errors import TooLargeError
    from deepskip.studies import grid

    fit = grid.fit

    def scarce(net: Any, *args: Any, **how: Any) -> Any:
        if net.spec.order == "pre" and net.spec.layers == 8:
            raise TooLargeError("memory", "not enough", "more")
        if net.spec.order == "pre":
            args = (args[0], args[1].replace(lr=1e-3, clip=1.0), *args[2:])
        return fit(net, *args, **how)

    monkeypatch.setattr(grid, "fit", scarce)
    wild = ("--lr", 1e30, "--set", "warmup=0", "--set", "clip=none")
    said = deepskip("study", "spectrum", "digits", *TINY, *wild, "--out", "s", "--json")
    assert said.code == 0, said.err
    rows = _rows()
    status = {cell: row["status"] for cell, row in rows.items()}
    assert status.pop(("identity", 8)) == "out_of_memory"
    assert status.pop(("identity", 5)) == "ok"
    assert set(status.values()) == {"diverged"}
    assert rows["nothing", 5]["grad_first_start"] is not None
    assert rows["identity", 8]["grad_first_start"] is None
    said_, report = " ".join(said.json["verdict"]["sentences"]), Path("s/report.html").read_text()
    assert "Out of memory: 8 layers with identity skip connections." in said_
    assert "Diverged: 5 layers with nothing special; 8 layers with nothing special" in said_
    drawn = Path("s/figures/spectrum_of_depth.svg").read_text()
    assert drawn.count(">×<") == 8
    assert ">no room<" in drawn
    for shown in (report, drawn):
        assert "diverged" in shown
    assert "1 out of memory" in report


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--depths", "8,9"), "depth: got 9; allowed: 3n + 2; nearest: 8 or 11"),
        (("--depths", "8,-4"), "depth: got -4"),
        (("--depths", "8,x"), "--depths: got '8,x'"),
        (("--depths", ""), "--depths: got ''"),
        (("--seeds", 0), "seeds: got 0"),
        (("--net", "preresnet_cifar"), "net: got 'preresnet_cifar'; allowed: resnet_cifar, resnet; nearest"),
        (("--net", "resnet", "--depths", "9"), "depth: got 9"),
        (("--recipe", "spectre"), "nearest: spectrum"),
    ],
)
def test_wrong_options_are_one_line(deepskip: Command, options: tuple[object, ...], error: str) -> None:
    said = deepskip("study", "spectrum", "digits", *options, "--out", "s")
    assert said.code == 2
    assert error in said.error
    assert not Path("s").exists()


@pytest.mark.parametrize("family", ["resnet_cifar", "resnet"])
def test_an_ingredient_changes_nothing_but_what_it_is(family: str) -> None:
    depths = (8, 20, 218) if family == "resnet_cifar" else (18, 50)
    study = SpectrumStudy(ds.data.open("digits"), out="s", depths=depths, family=family, recipe=RECIPE)
    assert len(study.cells) == 5 * len(depths)
    for depth in depths:
        nets = {cell.kind: cell.spec for cell in study.cells if cell.depth == depth}
        assert all(net.stages == nets["skips"].stages for net in nets.values())
        assert nets["norm"] == nets["skips"].plain()
        assert nets["nothing"].replace(initial="delta_orthogonal", base=nets["initial"].base) == nets["initial"]
