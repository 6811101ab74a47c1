"""What an identity study's rows say: do identity blocks harm a net, how near to the identity are blocks?"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from deepskip.studies.cell import Row

MARGIN = 1.0  # points of error below which a difference is not called worse
ONE_SEED = 10.0  # the same where no spread over seeds says what is chance
SPLITS = {"val": "validation", "train": "training"}
MOMENTS = ("before", "at", "after")
NAMES = {
    "silent": "silent blocks",
    "fresh": "fresh blocks",
    "delta": "identity convolutions",
    "zero": "blocks of zeros",
}


def judge(rows: Sequence[Row], *, data: str, command: str, epochs: int, seeds: int) -> dict[str, Any]:
    """Return what the rows say, in numbers and words.

    `table` has a line for each way to train a net on (`twin`, `start`), `ratios` one for each depth.
    """
    by_hash = {row["hash"]: row for row in rows}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.get("start"):
            groups.setdefault((row["twin"], row["start"]), []).append(row)
    table = [_summarise(group, by_hash) for group in groups.values()]
    for line in table:
        kept = next((one for one in table if one["twin"] == line["twin"] and one["start"] == "kept"), None)
        line["worse"] = None if line["start"] == "kept" or kept is None else _worse(line, kept)
    ratios = _ratios([row for row in rows if not row.get("start") and row["twin"] == "residual"])
    return {
        "study": "identity",
        "data": data,
        "command": command,
        "seeds": seeds,
        "epochs": epochs,
        "blocks": max((line["blocks"] for line in table), default=0),
        "depths": [line["depth"] for line in ratios],
        "there_before_training": _there_before(ratios),
        "sentences": [*_say_growth(table, epochs), *_say_ratios(ratios)],
        "table": table,
        "ratios": ratios,
    }


# --- numbers --------------------------------------------------------------------------------------------------


def _summarise(group: Sequence[Row], by_hash: dict[str, Row]) -> Row:
    """Return a line of the table: the same twin trained on from the same start, over its seeds."""
    first, ok = group[0], [row for row in group if row["status"] == "ok"]
    base = [by_hash[row["begins"]] for row in group if row["begins"] in by_hash]
    line: Row = {
        "twin": first["twin"],
        "start": first["start"],
        "blocks": first["blocks"],
        "layers_before": first["layers_before"],
        "layers": first["depth"],
        "params": first["params"],
        "n": len(group),
        "ok": len(ok),
        "lost": dict(Counter(row["status"] for row in group if row["status"] != "ok")),
        "reason": next((row["reason"] for row in group if row.get("reason")), None),
    }
    for split in SPLITS:
        for moment, values in (
            ("before", [row.get(f"{split}_scored_end") for row in base if row["status"] == "ok"]),
            ("at", [row.get(f"{split}_scored_start") for row in group]),
            ("after", [row.get(f"{split}_scored_end") for row in ok]),
        ):
            line[f"{split}_{moment}_mean"], line[f"{split}_{moment}_sd"] = _mean_sd(values)
    seen = [row for row in group if row.get("images") is not None]
    line["images"] = seen[0]["images"] if seen else None
    line["seen"] = len(seen)
    line["same"] = sum(row["same_outputs"] == row["images"] for row in seen)
    line["identities"] = min((row["new_equal"] for row in seen), default=None)
    changes = [row["output_change"] for row in seen]
    line["output_change"] = max(changes) if changes and None not in changes else None
    line["moved_mean"], line["moved_sd"] = _mean_sd([_moved(row) for row in ok])
    return line


def _moved(row: Row) -> float | None:
    """Return ‖F(x)‖ / ‖x‖, trained on, of the blocks that began silent: the mean over them."""
    begun, ended = row.get("ratio_start") or (), row.get("ratio_end") or ()
    return _mean_sd([end for start, end in zip(begun, ended, strict=False) if start == 0])[0]


def _mean_sd(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return (
        statistics.fmean(known) if known else None,
        statistics.stdev(known) if len(known) > 1 else None,
    )


def _worse(line: Row, kept: Row) -> bool | None:
    """Return whether a net with new blocks, trained on, is worse than one without; None if not known.

    Its mean error, of training or of validation, is above the other's by more than one point and more than both
    standard deviations together; or by more than ten points where there is one seed and so no deviation; or
    most of its seeds were lost on the way.
    """
    lost = sum(many for status, many in line["lost"].items() if status == "diverged")
    if 2 * lost > line["n"]:
        return True
    if not line["ok"] or not kept["ok"]:
        return None
    for split in SPLITS:
        sds = (line[f"{split}_after_sd"], kept[f"{split}_after_sd"])
        margin = ONE_SEED if None in sds else max(MARGIN, sum(sds))
        if line[f"{split}_after_mean"] - kept[f"{split}_after_mean"] > margin:
            return True
    return False


def _ratios(rows: Sequence[Row]) -> list[Row]:
    """Return a line for each depth: the mean of ‖F(x)‖ / ‖x‖ over its blocks, untrained and trained."""
    lines = []
    for depth in sorted({row["depth"] for row in rows}):
        group = [row for row in rows if row["depth"] == depth]
        ok = [row for row in group if row["status"] == "ok"]
        line: Row = {"depth": depth, "n": len(group), "ok": len(ok)}
        line["lost"] = dict(Counter(row["status"] for row in group if row["status"] != "ok"))
        for name, kind, those in (("untrained", "start", group), ("trained", "end", ok)):
            means = [_over_blocks(row.get(f"ratio_{kind}")) for row in those]
            line[f"{name}_mean"], line[f"{name}_sd"] = _mean_sd(means)
        line["val_mean"], line["val_sd"] = _mean_sd([row.get("val_scored_end") for row in ok])
        lines.append(line)
    return lines


def _over_blocks(ratios: Sequence[float | None] | None) -> float | None:
    return _mean_sd(ratios or ())[0]


def _there_before(ratios: Sequence[Row]) -> float | None:
    """Return the part of the fall with depth that is there before training; None where there is no fall.

    From the shallowest to the deepest net, by the logarithms of the quotients.
    """
    ends = [line for line in ratios if line["trained_mean"] and line["untrained_mean"]]
    if len(ends) < 2 or ends[-1]["trained_mean"] >= ends[0]["trained_mean"]:
        return None
    falls = [math.log(ends[0][f"{name}_mean"] / ends[-1][f"{name}_mean"]) for name in ("untrained", "trained")]
    return falls[0] / falls[1]


# --- words ----------------------------------------------------------------------------------------------------


def _say_growth(table: Sequence[Row], epochs: int) -> list[str]:
    lines = {(line["twin"], line["start"]): line for line in table}
    silent, kept = lines.get(("residual", "silent")), lines.get(("residual", "kept"))
    sentences = []
    if silent is not None and kept is not None:
        sentences += [_say_harm(silent), *_say_identity(silent), *_say_residual(silent, kept, epochs)]
    plain = [line for line in table if line["twin"] == "plain"]
    return sentences + _say_plain(plain)


def _say_harm(line: Row) -> str:
    blocks = f"{line['blocks']} silent block" + ("" if line["blocks"] == 1 else "s")
    if not line["seen"]:
        return f"{blocks[0].upper()}{blocks[1:]} could not be put into the residual net: {_lost(line)}."
    same = line["same"] == line["seen"]
    bits = "change no bit of its outputs" if same else "change its outputs"
    worse = line["worse"]
    if worse is None:
        return f"{blocks} in a trained residual net {bits}; it could not be compared after training on."
    end = f"{'but' if worse and same else 'and'} trained on it is {'worse' if worse else 'no worse'}."
    hint = " One seed: a hint, no proof." if line["n"] == 1 else ""
    return f"{blocks} in a trained residual net {bits}, {end}{hint}"


def _say_identity(line: Row) -> list[str]:
    if not line["seen"]:
        return []
    blocks, seeds = line["blocks"], _seeds(line["seen"])
    if line["identities"] == blocks:
        whole = "the new block" if blocks == 1 else f"each of the {blocks} new blocks"
        zeros = "A block whose last weights are zero is the identity"
        return [f"{zeros}: {whole} returns its input bit for bit ({seeds})."]
    some = f"{line['identities']} return their input bit for bit ({seeds})"
    return [f"Of the {blocks} new blocks, whose last weights are zero, {some}."]


def _say_residual(line: Row, kept: Row, epochs: int) -> list[str]:
    if not line["seen"]:
        return []
    whole = f"all {line['images']}" if line["same"] == line["seen"] else "not all"
    said = (
        f"The residual net of {line['layers_before']} layers errs on {_error(line, 'val', 'before')} of the "
        f"validation images; with the blocks, {line['layers']} layers, on {_error(line, 'val', 'at')} (the "
        f"same logits for {whole} images); trained on for {epochs} epoch{'' if epochs == 1 else 's'}, on "
        f"{_after(line, 'val')}, against {_after(kept, 'val')} without them (training error "
        f"{_after(line, 'train')} against {_after(kept, 'train')}; n = {line['ok']})."
    )
    if line["moved_mean"] is None:
        return [said]
    return [said, f"Trained on, ‖F(x)‖/‖x‖ of its new blocks is {line['moved_mean']:.2g}, the mean over them."]


def _say_plain(lines: Sequence[Row]) -> list[str]:
    kept = next((line for line in lines if line["start"] == "kept"), None)
    others = [line for line in lines if line["start"] != "kept"]
    if kept is None or not others:
        return []
    ends = [
        f"{_after(line, 'val')} with {NAMES[line['start']]} ({_error(line, 'val', 'at')} at insertion)"
        for line in others
    ]
    found = (
        f"Its plain twin errs on {_error(kept, 'val', 'before')}, trained on without new blocks on "
        f"{_after(kept, 'val')}; with as many, on {_listed(ends)}."
    )
    worse = [NAMES[line["start"]] for line in others if line["worse"]]
    well = [NAMES[line["start"]] for line in others if line["worse"] is False]
    said = [f"{_listed(worse)} make it worse"] if worse else []
    said += [f"{_listed(well)} do not{'' if worse else ' make it worse'}"] if well else []
    if not said:
        return [found]
    text = ", ".join(said)
    return [found, f"{text[0].upper()}{text[1:]}."]


def _say_ratios(ratios: Sequence[Row]) -> list[str]:
    known = [line for line in ratios if line["trained_mean"] is not None and line["untrained_mean"] is not None]
    if not known:
        return []
    trained, untrained = (
        _listed([f"{_ratio(line, name)} at {line['depth']} layers" for line in known])
        if name == "trained"
        else _listed([_ratio(line, name) for line in known])
        for name in ("trained", "untrained")
    )
    found = f"‖F(x)‖/‖x‖ of trained residual nets, the mean over blocks, is {trained}; untrained, {untrained}."
    if len(known) < 2:
        return [found]
    part = _there_before(ratios)
    if part is None:
        return [found, "Trained blocks are no nearer to the identity in deeper nets."]
    if part <= 0:
        return [
            found,
            "The deeper the trained net, the nearer its blocks are to the identity, by training alone.",
        ]
    how = f"{100 * part:.0f}% of the fall was" if part < 1 else "all of the fall was"
    return [
        found,
        f"The deeper the trained net, the nearer its blocks are to the identity; {how} there before training.",
    ]


def _after(line: Row, split: str) -> str:
    found = _error(line, split, "after") if line["ok"] else _lost(line)
    return found if line["ok"] in (0, line["n"]) else f"{found} ({_lost(line)})"


def _lost(line: Row) -> str:
    return _listed([f"{status.replace('_', ' ')}, {_seeds(many)}" for status, many in line["lost"].items()])


def _seeds(many: int) -> str:
    return f"{many} seed" + ("" if many == 1 else "s")


def _error(line: Row, split: str, moment: str) -> str:
    mean, sd = line[f"{split}_{moment}_mean"], line[f"{split}_{moment}_sd"]
    if mean is None:
        return "no finite value"
    return f"{mean:.1f}%" if sd is None or round(sd, 1) == 0 else f"{mean:.1f} ± {sd:.1f}%"


def _ratio(line: Row, name: str) -> str:
    mean, sd = line[f"{name}_mean"], line[f"{name}_sd"]
    return f"{mean:.2f}" if sd is None or round(sd, 2) == 0 else f"{mean:.2f} ± {sd:.2f}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
