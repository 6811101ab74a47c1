"""The pages of a run, a study or an inspection: figures and `report.html`, from its folder's files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deepskip.describe.ledger import count
from deepskip.errors import InputError, choices
from deepskip.figures.calibration import reliability_diagram
from deepskip.figures.confusion import confusion
from deepskip.figures.curves import run_curves, training_curves
from deepskip.figures.depth import error_against_depth
from deepskip.figures.flow import flow_maps
from deepskip.figures.gradient import gradient_by_block
from deepskip.figures.identity import error_at_insertion, ratio_by_place
from deepskip.figures.landscape import loss_landscape
from deepskip.figures.lengths import gradient_by_length
from deepskip.figures.lens import error_after_block
from deepskip.figures.lesion import error_of_lesions, error_without_block
from deepskip.figures.ratio import ratio_by_block
from deepskip.figures.saliency import saliency_grid
from deepskip.figures.signal import response_by_layer, rms_by_block
from deepskip.figures.spectrum import signal_against_depth, spectrum_of_depth
from deepskip.figures.style import Picture, save
from deepskip.files import read_json, write_text
from deepskip.instruments import inspection
from deepskip.reports.depth import depth_report
from deepskip.reports.identity import identity_report
from deepskip.reports.inspection import inspection_report
from deepskip.reports.run import run_report
from deepskip.reports.spectrum import spectrum_report
from deepskip.scoring import Score
from deepskip.studies.grid import CELLS, RESULTS, ROW
from deepskip.studies.study import STUDY, VERDICT
from deepskip.training.rundir import CONFIG, FLOW, METRICS, SCORE, STATE, read_rows
from deepskip.weights import store

REPORT, FIGURES = "report.html", "figures"


def publish(folder: Path | str) -> Path:
    """Write the pages of a run, of a study and its runs, or of an inspection; return the path of `report.html`.

    Raises InputError when `folder` is none of them, or holds nothing to show yet.
    """
    folder = Path(folder)
    if (folder / inspection.PLAN).is_file():
        return _publish_inspection(folder)
    if (folder / STUDY).is_file():
        return _publish_study(folder)
    if (folder / CONFIG).is_file():
        return _publish_run(folder)
    raise InputError(folder, "no run, study or inspection", "a folder that `train`, `study` or `inspect` made")


class Drawn(NamedTuple):
    """A figure, and the command that made what it shows."""

    picture: Picture
    command: str


def pictures(folder: Path | str) -> dict[str, Drawn]:
    """Return the figures of a study or of an inspection, by the names of their files. Writes nothing.

    Raises InputError as `publish` does.
    """
    folder = Path(folder)
    if (folder / inspection.PLAN).is_file():
        found = _inspection_of(folder)
        return {name: drawn for some in found.figures.values() for name, drawn in some.items()}
    if (folder / STUDY).is_file():
        study = _study_of(folder)
        return _drawn(study, _STUDIES[study.plan["study"]].figures(study))
    raise InputError(folder, "no study or inspection", "a folder that `study` or `inspect` made")


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


Figures = dict[str, Picture]
"""By the names of their files."""


class _Pages(NamedTuple):
    """How a kind of study is shown."""

    figures: Callable[[_Study], Figures]
    report: Callable[[_Study, Figures], str]


def _depth_figures(study: _Study) -> Figures:
    data = study.plan["data"]
    return {
        "training_curves": training_curves(study.curves, data=data),
        "error_against_depth": error_against_depth(study.rows, data=data),
    }


def _depth_report(study: _Study, figures: Figures) -> str:
    return depth_report(study.rows, study.curves, study.verdict, figures, study.plan["environment"])


def _identity_figures(study: _Study) -> Figures:
    data = study.plan["data"]
    return {
        "error_at_insertion": error_at_insertion(study.rows, data=data),
        "ratio_by_place": ratio_by_place(study.rows, data=data),
    }


def _identity_report(study: _Study, figures: Figures) -> str:
    return identity_report(study.rows, study.verdict, figures, study.plan["environment"])


def _spectrum_figures(study: _Study) -> Figures:
    data, verdict = study.plan["data"], study.verdict
    return {
        "spectrum_of_depth": spectrum_of_depth(
            study.rows, data=data, reach=verdict["reach"], below=verdict["trains_below"]
        ),
        "signal_against_depth": signal_against_depth(study.rows, data=data),
    }


def _spectrum_report(study: _Study, figures: Figures) -> str:
    return spectrum_report(study.rows, study.verdict, figures, study.plan["environment"])


_STUDIES: dict[str, _Pages] = {
    "depth": _Pages(_depth_figures, _depth_report),
    "identity": _Pages(_identity_figures, _identity_report),
    "spectrum": _Pages(_spectrum_figures, _spectrum_report),
}
"""By the study's name, which `study.json` holds."""


def _study_of(folder: Path) -> _Study:
    plan, verdict, rows = _read(folder / STUDY), _read(folder / VERDICT), read_rows(folder / RESULTS)
    if plan.get("study") not in _STUDIES:
        raise InputError(folder / STUDY, f"a study called {plan.get('study')!r}", choices(_STUDIES))
    curves = [
        {"kind": row["kind"], "depth": row["depth"], "seed": row["seed"], **epoch}
        for row in rows
        for epoch in read_rows(folder / CELLS / row["hash"] / METRICS)
    ]
    return _Study(plan, verdict, rows, curves)


def _drawn(study: _Study, figures: Figures) -> dict[str, Drawn]:
    return {name: Drawn(figure, study.plan["command"]) for name, figure in figures.items()}


def _save(folder: Path, figures: Mapping[str, Drawn]) -> None:
    for name, figure in figures.items():
        save(figure.picture, folder / FIGURES / f"{name}.svg", figure.command)


def _publish_study(folder: Path) -> Path:
    study = _study_of(folder)
    pages = _STUDIES[study.plan["study"]]
    figures = pages.figures(study)
    _save(folder, _drawn(study, figures))
    write_text(folder / REPORT, pages.report(study, figures))
    for row in study.rows:
        cell = folder / CELLS / row["hash"]
        if not (cell / REPORT).exists() and (cell / store.FILE).is_file() and (cell / METRICS).is_file():
            _publish_run(cell)
    return folder / REPORT


class _Inspection(NamedTuple):
    """An inspection's files: plan, and what each instrument came to, and its figures."""

    plan: dict[str, Any]
    summaries: dict[str, dict[str, Any]]
    figures: dict[str, dict[str, Drawn]]


def _inspection_of(folder: Path) -> _Inspection:
    plan = inspection.plan(folder)
    if not (folder / inspection.SUMMARY).is_file():
        raise InputError(folder, "an inspection without a result", "one that has measured something")
    summary = _read(folder / inspection.SUMMARY)
    summaries = {name: summary[name] for name in inspection.INSTRUMENTS if name in summary}
    figures = {
        name: {file: Drawn(figure, plan["commands"][name]) for file, figure in _INSPECTED[name](folder, plan)}
        for name in summaries
    }
    return _Inspection(plan, summaries, figures)


def _publish_inspection(folder: Path) -> Path:
    found = _inspection_of(folder)
    for figures in found.figures.values():
        _save(folder, figures)
    blocks = inspection.read(folder, inspection.BLOCKS)
    shown = {
        name: [(file, drawn.picture) for file, drawn in some.items()] for name, some in found.figures.items()
    }
    write_text(folder / REPORT, inspection_report(found.summaries, blocks, shown, found.plan))
    return folder / REPORT


Named = list[tuple[str, Picture]]


def _signal(folder: Path, plan: dict[str, Any]) -> Named:
    of, blocks = plan["of"], inspection.read(folder, inspection.BLOCKS)
    twin = inspection.read(folder, inspection.TWIN)
    nets = {of["model"]: blocks, **({of["twin"]: twin} if twin and "response_std" in twin[0] else {})}
    return [
        ("response_by_layer", response_by_layer(nets, data=of["data"])),
        ("rms_by_block", rms_by_block(blocks, data=of["data"])),
    ]


def _gradient(folder: Path, plan: dict[str, Any]) -> Named:
    blocks = inspection.read(folder, inspection.BLOCKS)
    return [("gradient_by_block", gradient_by_block(blocks, data=plan["of"]["data"]))]


def _identity(folder: Path, plan: dict[str, Any]) -> Named:
    blocks = inspection.read(folder, inspection.BLOCKS)
    return [("ratio_by_block", ratio_by_block(blocks, data=plan["of"]["data"]))]


def _lesion(folder: Path, plan: dict[str, Any]) -> Named:
    data, blocks = plan["of"]["data"], inspection.read(folder, inspection.BLOCKS)
    twin = [row for row in inspection.read(folder, inspection.TWIN) if "lesion_error" in row]
    deletions, shuffles = (inspection.read(folder, name) for name in ("deletions", "shuffles"))
    return [
        ("error_without_block", error_without_block(blocks, data=data, twin=twin)),
        ("error_of_lesions", error_of_lesions(deletions, shuffles, data=data)),
    ]


def _paths(folder: Path, plan: dict[str, Any]) -> Named:
    rows = inspection.read(folder, "paths")
    return [("gradient_by_length", gradient_by_length(rows, data=plan["of"]["data"]))]


def _lens(folder: Path, plan: dict[str, Any]) -> Named:
    blocks = inspection.read(folder, inspection.BLOCKS)
    return [("error_after_block", error_after_block(blocks, data=plan["of"]["data"]))]


def _saliency(folder: Path, plan: dict[str, Any]) -> Named:
    rows = inspection.read(folder, "saliency")
    pictures = [inspection.picture(folder, row["image"]) for row in rows]
    return [("saliency_grid", saliency_grid(rows, pictures, plan["of"]["classes"]))]


def _landscape(folder: Path, plan: dict[str, Any]) -> Named:
    rows = inspection.read(folder, "landscape")
    return [("loss_landscape", loss_landscape(rows, data=plan["of"]["data"]))]


def _calibration(folder: Path, plan: dict[str, Any]) -> Named:
    rows = inspection.read(folder, "calibration")
    return [("reliability_diagram", reliability_diagram(rows, data=plan["of"]["data"]))]


_INSPECTED: dict[str, Callable[[Path, dict[str, Any]], Named]] = {
    "signal": _signal,
    "gradient": _gradient,
    "identity": _identity,
    "lesion": _lesion,
    "paths": _paths,
    "lens": _lens,
    "saliency": _saliency,
    "landscape": _landscape,
    "calibration": _calibration,
}
"""An inspection's pictures, by instrument."""


def _read(path: Path) -> dict[str, Any]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(path, type(found).__name__, "a JSON object")
    return found
