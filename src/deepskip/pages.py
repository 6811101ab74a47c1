"""The pages of a folder: a run's or a study's figures and `report.html`, from the files in it alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deepskip.describe.ledger import count
from deepskip.errors import InputError, choices
from deepskip.figures.confusion import confusion
from deepskip.figures.curves import run_curves, training_curves
from deepskip.figures.depth import error_against_depth
from deepskip.figures.flow import flow_maps
from deepskip.figures.identity import error_at_insertion, ratio_by_place
from deepskip.figures.spectrum import signal_against_depth, spectrum_of_depth
from deepskip.figures.style import Picture, save
from deepskip.files import read_json, write_text
from deepskip.reports.depth import depth_report
from deepskip.reports.identity import identity_report
from deepskip.reports.run import run_report
from deepskip.reports.spectrum import spectrum_report
from deepskip.scoring import Score
from deepskip.studies.grid import CELLS, RESULTS, ROW
from deepskip.studies.study import STUDY, VERDICT
from deepskip.training.rundir import CONFIG, FLOW, METRICS, SCORE, STATE, read_rows
from deepskip.weights import store

REPORT, FIGURES = "report.html", "figures"


def publish(folder: Path | str) -> Path:
    """Write the pages of a run folder or of a study folder and its runs; return the path of `report.html`.

    Raises InputError when `folder` is neither, or holds nothing to show yet.
    """
    folder = Path(folder)
    if (folder / STUDY).is_file():
        return _publish_study(folder)
    if (folder / CONFIG).is_file():
        return _publish_run(folder)
    raise InputError(folder, "neither a run folder nor a study folder", "one that `train` or `study` made")


def _publish_run(folder: Path) -> Path:
    rows = read_rows(folder / METRICS)
    if not rows or not (folder / store.FILE).is_file():
        raise InputError(folder, "a run without a saved epoch", "a run that has ended one")
    header = store.read_header(folder)
    config, cost = _read(folder / CONFIG), count(header.spec)
    found = _read(folder / STATE / SCORE) if (folder / STATE / SCORE).is_file() else None
    score = None
    figures: dict[str, Any] = {"curves": run_curves(rows)}
    if found:
        named = Score(**found).classes(header.classes)
        score = {**found, "classes": named}
        figures["confusion"] = confusion(found["confusion"], header.classes)
    flow = [row for row in read_rows(folder / FLOW) if isinstance(row, dict)]
    if flow:
        figures["flow"] = flow_maps(flow)
    summary = {
        "name": header.spec.name,
        "data": config["data"]["name"],
        "layers": cost.layers,
        "params": cost.params,
        "macs": cost.macs,
        "input": list(header.spec.input),
        "recipe": config["recipe"],
        "seed": config["seed"],
        "device": config["device"],
        "precision": config["precision"],
        "seconds": rows[-1]["seconds"],
        "command": header.provenance.get("command", ""),
        "status": _status(folder, header),
        "score": score,
    }
    write_text(folder / REPORT, run_report(summary, rows, figures))
    return folder / REPORT


def _status(folder: Path, header: store.Header) -> str:
    if (folder / ROW).is_file() and _read(folder / ROW)["status"] == "diverged":
        return "diverged"
    done = header.provenance.get("step") == header.provenance.get("steps")
    return "finished" if done else "interrupted"


class _Study(NamedTuple):
    """A study's files: plan, verdict, rows, and the epochs of all its cells."""

    plan: dict[str, Any]
    verdict: dict[str, Any]
    rows: list[dict[str, Any]]
    curves: list[dict[str, Any]]


Pages = tuple[Mapping[str, Picture], str]
"""Figures by the names of their files, and the page."""


def _depth_pages(study: _Study) -> Pages:
    data = study.plan["data"]
    figures = {
        "training_curves": training_curves(study.curves, data=data),
        "error_against_depth": error_against_depth(study.rows, data=data),
    }
    return figures, depth_report(study.rows, study.curves, study.verdict, figures, study.plan["environment"])


def _identity_pages(study: _Study) -> Pages:
    data = study.plan["data"]
    figures = {
        "error_at_insertion": error_at_insertion(study.rows, data=data),
        "ratio_by_place": ratio_by_place(study.rows, data=data),
    }
    return figures, identity_report(study.rows, study.verdict, figures, study.plan["environment"])


def _spectrum_pages(study: _Study) -> Pages:
    data, verdict = study.plan["data"], study.verdict
    figures = {
        "spectrum_of_depth": spectrum_of_depth(
            study.rows, data=data, reach=verdict["reach"], below=verdict["trains_below"]
        ),
        "signal_against_depth": signal_against_depth(study.rows, data=data),
    }
    return figures, spectrum_report(study.rows, verdict, figures, study.plan["environment"])


_PAGES: dict[str, Callable[[_Study], Pages]] = {
    "depth": _depth_pages,
    "identity": _identity_pages,
    "spectrum": _spectrum_pages,
}
"""By the study's name, which `study.json` holds."""


def _publish_study(folder: Path) -> Path:
    plan, verdict, rows = _read(folder / STUDY), _read(folder / VERDICT), read_rows(folder / RESULTS)
    if plan.get("study") not in _PAGES:
        raise InputError(folder / STUDY, f"a study called {plan.get('study')!r}", choices(_PAGES))
    curves = [
        {"kind": row["kind"], "depth": row["depth"], "seed": row["seed"], **epoch}
        for row in rows
        for epoch in read_rows(folder / CELLS / row["hash"] / METRICS)
    ]
    figures, page = _PAGES[plan["study"]](_Study(plan, verdict, rows, curves))
    for name, figure in figures.items():
        save(figure, folder / FIGURES / f"{name}.svg", plan["command"])
    write_text(folder / REPORT, page)
    for row in rows:
        cell = folder / CELLS / row["hash"]
        if not (cell / REPORT).exists() and (cell / store.FILE).is_file() and (cell / METRICS).is_file():
            _publish_run(cell)
    return folder / REPORT


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(path, type(found).__name__, "a JSON object")
    return found
