"""What a spectrum study's rows say: how deep does each ingredient reach, and in which order?"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from deepskip.studies.cell import Row

TRAINS = 10.0
"""Training error, in percent, below which a net is said to train."""
FADED, GROWN = 1e-3, 1e3
"""A gradient at the first block, over that at the last, that is called vanishing or exploding."""
WORDS = {
    "nothing": "nothing special",
    "initial": "good initial values",
    "norm": "batch normalisation",
    "skips": "skip connections",
    "identity": "identity skip connections",
}
Reach = Mapping[str, int | None]


def judge(rows: Sequence[Row], *, data: str, command: str, epochs: int, seeds: int) -> dict[str, Any]:
    """Return what the rows say, in numbers and words.

    `table` has a line for each ingredient (`kind`) and depth. `reach` is the deepest depth up to which an
    ingredient trains at every depth tried, None where it does not at the shallowest; `cut` lists those that end
    there only because the next depth has no result. `first` names what first trains each depth. `order` is
    "reproduced" where each ingredient reaches deeper than the one before, "not reproduced" where one reaches
    less deep, and "not separated" otherwise.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["kind"], row["depth"]), []).append(row)
    table = [_summarise(group) for group in groups.values()]
    lines = {
        kind: sorted((line for line in table if line["kind"] == kind), key=lambda line: line["depth"])
        for kind in WORDS
        if any(line["kind"] == kind for line in table)
    }
    depths = sorted({line["depth"] for line in table})
    reach = {kind: _reach(own) for kind, own in lines.items()}
    cut = [kind for kind, own in lines.items() if _is_cut(own)]
    first = {depth: _first(lines, depth) for depth in depths}
    return {
        "study": "spectrum",
        "data": data,
        "command": command,
        "seeds": seeds,
        "epochs": epochs,
        "trains_below": TRAINS,
        "depths": depths,
        "reach": reach,
        "cut": cut,
        "first": [{"depth": depth, "kind": kind} for depth, kind in first.items()],
        "order": _order(reach, cut),
        "sentences": [
            *_say_reach(reach, cut, depths, data),
            *_say_order(reach, cut, depths),
            *_say_first(first),
            *_say_gaps(lines, reach),
            *_say_gradients(lines),
            *_say_lost(lines),
        ],
        "table": table,
    }


# --- numbers --------------------------------------------------------------------------------------------------


def _summarise(group: Sequence[Row]) -> Row:
    """Return a line of the table: one ingredient at one depth, over its seeds."""
    ok = [row for row in group if row["status"] == "ok"]
    line: Row = {
        "kind": group[0]["kind"],
        "depth": group[0]["depth"],
        "params": group[0]["params"],
        "n": len(group),
        "ok": len(ok),
        "lost": dict(Counter(row["status"] for row in group if row["status"] != "ok")),
        "reason": next((row["reason"] for row in group if row.get("reason")), None),
    }
    for split in ("train", "val"):
        errors = [row[f"{split}_error"] for row in ok]
        line[f"{split}_error_mean"] = statistics.fmean(errors) if errors else None
        line[f"{split}_error_sd"] = statistics.stdev(errors) if len(errors) > 1 else None
    line["trains"] = _trains(line)
    for when in ("start", "end"):
        line[f"gradient_{when}"] = _quotient(group, f"grad_first_{when}", f"grad_last_{when}")
        line[f"activation_{when}"] = _quotient(group, f"rms_last_{when}", f"rms_first_{when}")
    line["seconds_mean"] = statistics.fmean(row["seconds"] for row in group)
    return line


def _quotient(group: Sequence[Row], over: str, under: str) -> float | None:
    """Return one column over another, the median over seeds; None where neither is known or both are zero."""
    pairs = [(row.get(over), row.get(under)) for row in group]
    found = [one / other for one, other in pairs if one is not None and other]
    return statistics.median(found) if found else None


def _trains(line: Row) -> bool | None:
    """Return whether no seed diverged and the mean error is below `TRAINS`; None where seeds have no result."""
    mean = line["train_error_mean"]
    if "diverged" in line["lost"] or (mean is not None and mean >= TRAINS):
        return False
    return True if line["ok"] == line["n"] else None


def _reach(lines: Sequence[Row]) -> int | None:
    deep = [line["depth"] for line in itertools.takewhile(lambda line: line["trains"], lines)]
    return deep[-1] if deep else None


def _is_cut(lines: Sequence[Row]) -> bool:
    stop = next((line for line in lines if not line["trains"]), None)
    return stop is not None and stop["trains"] is None


def _first(lines: Mapping[str, Sequence[Row]], depth: int) -> str | None:
    return next(
        (kind for kind, own in lines.items() if any(line["depth"] == depth and line["trains"] for line in own)),
        None,
    )


def _compare(before: str, after: str, reach: Reach, cut: Sequence[str]) -> str:
    """Return how deep `after` reaches beside `before`: "deeper", "as deep", "less deep" or "unknown"."""
    one, other = reach[before] or 0, reach[after] or 0
    if before in cut or (after in cut and other <= one):
        return "unknown"
    return "deeper" if other > one else "as deep" if other == one else "less deep"


def _order(reach: Reach, cut: Sequence[str]) -> str:
    found = [_compare(before, after, reach, cut) for before, after in itertools.pairwise(reach)]
    if "less deep" in found:
        return "not reproduced"
    return "reproduced" if found and set(found) == {"deeper"} else "not separated"


# --- words ----------------------------------------------------------------------------------------------------


def _say_reach(reach: Reach, cut: Sequence[str], depths: Sequence[int], data: str) -> list[str]:
    parts: list[str] = []
    for kind, depth in reach.items():
        many = f"not even {depths[0]}" if depth is None else str(depth)
        layers = "" if parts else " layers"
        aside = ", the deepest tried," if depth == depths[-1] else " (deeper: no result)" if kind in cut else ""
        parts.append(f"{many}{layers}{aside} with {WORDS[kind]}")
    return [f"How deep a net trains on {data}: {_listed(parts)}."] if parts else []


def _say_order(reach: Reach, cut: Sequence[str], depths: Sequence[int]) -> list[str]:
    if len(reach) < 2:
        return []
    if _order(reach, cut) == "reproduced":
        return ["Each ingredient reaches deeper than those before it: the order of He's spectrum of depth."]
    said = []
    for before, after in itertools.pairwise(reach):
        found = _compare(before, after, reach, cut)
        pair = f"{_capital(WORDS[after])} and {WORDS[before]}"
        if found == "less deep":
            said.append(
                f"Against the order of He's spectrum, nets reach less deep with {WORDS[after]} than with "
                f"{WORDS[before]}."
            )
        elif found == "unknown":
            said.append(f"{pair} cannot be compared: depths have no result.")
        elif found == "as deep":
            end = ", the deepest tried" if reach[after] == depths[-1] else ""
            said.append(f"{pair} are not told apart here: nets reach as deep with both{end}.")
    return said


def _say_first(first: Mapping[int, str | None]) -> list[str]:
    """Return a sentence that says which ingredient first trains which depths."""
    parts = []
    for kind, group in itertools.groupby(first, key=lambda depth: first[depth]):
        parts.append(
            f"of {_listed([str(depth) for depth in group])}, {WORDS[kind] if kind else 'none of them'}"
        )
    return [f"What first trains nets {'; '.join(parts)}."] if len(parts) > 1 else []


def _say_gaps(lines: Mapping[str, Sequence[Row]], reach: Reach) -> list[str]:
    said = []
    for kind, own in lines.items():
        past = [str(line["depth"]) for line in own if line["trains"] and line["depth"] > (reach[kind] or 0)]
        if past:
            said.append(
                f"With {WORDS[kind]} nets of {_listed(past)} layers train too, past a depth that does not."
            )
    return said


def _say_gradients(lines: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return a sentence on each ingredient whose gradients vanish or explode, at the first depth they do."""
    said = []
    for kind, own in lines.items():
        far = next((line for line in own if _is_far(line["gradient_start"])), None)
        if far is None:
            continue
        ratio, depth = far["gradient_start"], far["depth"]
        word = "vanishes" if ratio <= FADED else "explodes"
        said.append(
            f"With {WORDS[kind]} the gradient {word} from {depth} layers on: before training its norm at the "
            f"first block is {_power(ratio)} times that at the last."
        )
    return said


def _is_far(ratio: float | None) -> bool:
    return ratio is not None and not FADED < ratio < GROWN


def _say_lost(lines: Mapping[str, Sequence[Row]]) -> list[str]:
    found: dict[str, list[str]] = {}
    for kind, own in lines.items():
        for line in own:
            for status, many in line["lost"].items():
                some = "" if many == line["n"] else f" ({many} of {line['n']} seeds)"
                found.setdefault(status, []).append(f"{line['depth']} layers with {WORDS[kind]}{some}")
    return [f"{_capital(status.replace('_', ' '))}: {'; '.join(cells)}." for status, cells in found.items()]


def _power(ratio: float) -> str:
    """Return a number as digits and a power of ten: "2.4·10⁻⁷"."""
    if ratio == 0:
        return "0"
    exponent = math.floor(math.log10(ratio))
    digits = f"{ratio / 10.0**exponent:.1f}".removesuffix(".0")
    return f"{digits}·10{str(exponent).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
