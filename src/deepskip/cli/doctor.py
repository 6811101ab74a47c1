"""`deepskip doctor`: what is wrong with a data set, before hours are spent on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepskip.cli.show import Output, check_new, columns, command_line
from deepskip.errors import WorkError

if TYPE_CHECKING:
    from deepskip.data.doctor.examination import Examination
    from deepskip.figures.style import Picture

SHOWN = 8
"""Pictures of one finding on the contact sheet."""
PIXELS = 192
"""Longer side of a picture there: an inch at the resolution it is written in."""


def doctor(
    data: str,
    /,
    *,
    picture: Path | None = None,
    force: bool = False,
    output: Output = Output(),
) -> None:
    """Look for what is wrong with a data set: broken pictures, leaks, doubles, odd classes, and more.

    Every picture is read once; nothing is changed. Exit code 0: no error was found (warnings and notes may have
    been); 1: errors were; 2: there was nothing to examine.

    Examples:

    - `deepskip doctor photos/`
    - `deepskip doctor photos/ --picture offenders.png`
    - `deepskip doctor cifar10 --json`

    Parameters
    ----------
    data
        A built-in name or a folder.
    picture
        Draw the pictures that findings are about into this .png or .svg file.
    force
        Overwrite that file when it is there already.
    """
    from deepskip.data.doctor.examination import examine

    if picture is not None:
        from deepskip.figures.style import suffix_of

        suffix_of(picture)
        check_new("--picture", picture, force=force)
    with output.counting() as progress:
        examined = examine(data, progress)
    drawn = None if picture is None else _draw(examined, picture)
    if output.json:
        output.result({**_report(examined), "picture": None if drawn is None else str(drawn)})
    else:
        _print(examined, output)
        if picture is not None:
            output.say("no picture to show: nothing is drawn" if drawn is None else f"drawn: {drawn}")
    errors = examined.of("error")
    if errors:
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in errors))
        raise WorkError(data, kinds, "none of these; see the findings")


def _print(examined: Examination, output: Output) -> None:
    survey = examined.survey
    train, val = (sum(p.split == split for p in survey.pictures) for split in ("train", "val"))
    classes = len({*survey.classes["train"], *survey.classes["val"]})
    output.say(
        f"{survey.name}: {train + val:,} pictures of {classes:,} classes, {train:,} train, {val:,} val\n"
    )
    if examined.findings:
        table = columns("", "finding", "where", "found", "what to do")
        for finding in examined.findings:
            table.add_row(finding.severity, finding.kind, finding.where, finding.found, finding.advice)
        output.table(table)
        output.say()
    output.say(_summary(examined))


def _summary(examined: Examination) -> str:
    from deepskip.data.doctor.finding import SEVERITIES, counted

    numbers = [(len(examined.of(severity)), severity) for severity in SEVERITIES]
    return ", ".join(counted(number, severity) for number, severity in numbers if number) or "nothing found"


def _draw(examined: Examination, path: Path) -> Path | None:
    """Draw what the findings are about; None, and no file, where no finding is about pictures."""
    from deepskip.figures.style import write

    picture = sheet(examined)
    return write(picture, path, command_line()) if picture else None


def sheet(examined: Examination) -> Picture | None:
    """Return the contact sheet of what was found; None where no finding is about pictures."""
    from deepskip.figures.contact import Offence, Shown, contact

    offences = [
        Offence(finding.kind, finding.severity, finding.found, shown, len(finding.files), bool(finding.groups))
        for finding in examined.findings
        if (shown := [Shown(*sample) for sample in examined.samples(finding, SHOWN, PIXELS)])
    ]
    return contact(examined.survey.name, offences) if offences else None


def _report(examined: Examination) -> dict[str, Any]:
    survey = examined.survey
    return {
        "data": survey.name,
        "pictures": {split: sum(p.split == split for p in survey.pictures) for split in ("train", "val")},
        "classes": sorted({*survey.classes["train"], *survey.classes["val"]}),
        "errors": len(examined.of("error")),
        "warnings": len(examined.of("warning")),
        "notes": len(examined.of("note")),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "where": finding.where,
                "found": finding.found,
                "advice": finding.advice,
                "files": finding.files,
                "groups": finding.groups,
            }
            for finding in examined.findings
        ],
    }
