"""The report of an inspection: what each instrument found, in words, beside its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from deepskip.figures.rows import NONE, Row, number, percent
from deepskip.reports import words
from deepskip.reports.page import render

Summary = Mapping[str, Any]

TITLES = {
    "signal": "How the signal goes through",
    "gradient": "How the gradient comes back",
    "identity": "What blocks add",
    "lesion": "What happens without a block",
    "paths": "Which paths carry the gradient",
    "lens": "Where the answer appears",
    "saliency": "What it looks at",
    "landscape": "The loss around the weights",
    "calibration": "Whether it knows when it errs",
}


def inspection_report(
    summaries: Mapping[str, Summary],
    blocks: Sequence[Row],
    figures: Mapping[str, Sequence[tuple[str, Figure]]],
    about: Mapping[str, Any],
) -> str:
    """Return the inspection as one self-contained HTML page.

    `summaries` are those of `summary.json` by instrument, `blocks` the rows of `blocks.jsonl`, `figures` the
    named pictures of each instrument, `about` the inspection's plan: `of`, `commands`, `seconds`.
    """
    known = [name for name in TITLES if name in summaries]
    plates: dict[str, Figure] = {name: figure for one in known for name, figure in figures.get(one, ())}
    order = list(plates)
    sections = [
        {
            "name": name,
            "title": TITLES[name],
            "sentences": story(name, summaries[name]),
            "plates": [order.index(figure) for figure, _ in figures.get(name, ())],
        }
        for name in known
    ]
    of = about["of"]
    return render(
        "inspection.html",
        plates,
        name=of["model"],
        data=of["data"],
        headline=_headline(of, summaries),
        sentences=_lede(summaries),
        sections=sections,
        mistakes=_mistakes(summaries),
        blocks=blocks,
        command="\n".join(dict.fromkeys(about["commands"].values())),
        made=words.flat(
            {
                "net": of["model"],
                "data": of["data"],
                "twin": of["twin"],
                "seed": of["seed"],
                "images at most": of["images"],
                "time": {name: words.duration(spent) for name, spent in about["seconds"].items()},
            }
        ),
    )


def story(instrument: str, summary: Summary) -> list[str]:
    """Return what an instrument found, in sentences, from its summary."""
    return [sentence for sentence in _STORIES[instrument](summary) if sentence]


def _headline(of: Mapping[str, Any], summaries: Mapping[str, Summary]) -> str:
    intact = summaries.get("lesion", {}).get("intact")
    if number(intact) is None:
        intact = summaries.get("lens", {}).get("head_last")
    name = f"Inside {of['model']} on {of['data']}"
    return f"{name}: it misses {percent(intact)}" if number(intact) is not None else name


def _lede(summaries: Mapping[str, Summary]) -> list[str]:
    """Return the first sentence of those instruments that answer what people ask first."""
    told = [story(name, summaries[name]) for name in ("lesion", "signal", "paths", "lens") if name in summaries]
    return [sentences[0] for sentences in told if sentences]


def _mistakes(summaries: Mapping[str, Summary]) -> list[dict[str, Any]]:
    found = summaries.get("saliency", {}).get("mistakes") or []
    return [{**one, "confidence": percent(100 * one["confidence"], 1)} for one in found]


# --- words ----------------------------------------------------------------------------------------------------


def _signal(s: Summary) -> list[str]:
    said = []
    stages = [stage for stage in s["stages"] if number(stage["stream_first"]) and number(stage["stream_last"])]
    if stages:
        growth = [(stage["stream_last"] / stage["stream_first"], stage) for stage in stages]
        factor, most = max(growth, key=lambda one: one[0])
        if factor > 1.25:
            said.append(
                f"The stream grows most in {most['stage']}: its standard deviation goes from "
                f"{_plain(most['stream_first'])} after the first block to {_plain(most['stream_last'])} after "
                f"the last."
            )
        else:
            said.append("The stream grows in no stage by more than a quarter.")
    ratio = number(s["branch_to_shortcut"])
    if ratio is not None:
        said.append(f"A branch brings {_plain(ratio)} times what its shortcut brings, in the median.")
    if number(s["response_median"]) is not None:
        said.append(
            f"The median layer of {s['layers']} responds with a standard deviation of "
            f"{_plain(s['response_median'])}."
        )
        said += _beside(s, s.get("twin") or {})
    return said


def _beside(s: Summary, twin: Summary) -> list[str]:
    """Return how the responses of two nets compare, and whether as in He et al. 2015, figure 7.

    There residual nets respond less than plain ones, and deeper residual nets less than shallower ones.
    """
    if number(s["response_median"]) is None or number(twin.get("response_median")) is None:
        return []
    said = (
        f"Of the {twin['layers']} layers of the net beside it the median is {_plain(twin['response_median'])}"
    )
    if s["plain"] != twin["plain"]:
        which, low, high = "residual layers", *((s, twin) if twin["plain"] else (twin, s))
    elif not s["plain"] and s["layers"] != twin["layers"]:
        which, low, high = "those of the deeper net", *sorted((s, twin), key=lambda one: -one["layers"])
    else:
        return [f"{said}."]
    less = low["response_median"] < high["response_median"]
    every = ", each of them than any of the others" if low["response_high"] < high["response_low"] else ""
    paper = f"{'as' if less else 'other than'} in figure 7 of He et al. 2015"
    return [f"{said}: {which} respond {'less' if less else 'no less'}{every}, {paper}."]


def _gradient(s: Summary) -> list[str]:
    said = []
    now, then = number(s["grad_fall"]), number(s["grad_fall_initial"])
    if now is not None:
        said.append(f"The last block's gradient is {_times(now)} the first's{_at_start(then)}.")
    correlation, before = number(s["grad_correlation_first"]), number(s["grad_correlation_first_initial"])
    if correlation is not None:
        start = f", {before:.2f} as the net began" if before is not None else ""
        said.append(
            f"Gradients of different images by the first block's input have a mean cosine of "
            f"{correlation:.2f}{start}."
        )
    return said


def _at_start(then: float | None) -> str:
    return f", {_times(then)} as the net began" if then is not None else ""


def _identity(s: Summary) -> list[str]:
    said = []
    if s["least"] is not None:
        said.append(
            f"{s['least']} does least: it adds {_plain(s['least_ratio'])} of what its shortcut brings; "
            f"{s['most']} does most, {_plain(s['most_ratio'])}."
        )
    if s["equal"]:
        said.append(f"{words.whole(s['equal'])} of its blocks return their input bit for bit.")
    return said


def _lesion(s: Summary) -> list[str]:
    if not s["deleted"]:
        return ["No block can be deleted alone."]
    said = [
        (
            f"{s['harmless']} of {s['deleted']} blocks can be deleted one at a time without a change that "
            f"shows on these images; {s['worst']} is missed most, by {_points(s['worst_change'])}."
        ),
    ]
    kept, changed = number(s["identity_median"]), number(s["dimensions_median"])
    if kept is not None and changed is not None:
        said.append(
            f"Without one of the blocks that keep the dimensions the error changes by {_points(kept)} in the "
            f"median, without one that changes them by {_points(changed)}."
        )
    twin = s.get("twin")
    if twin and number(twin["identity_median"]) is not None:
        said.append(
            f"Its twin misses {percent(twin['intact'])}; without one of its blocks that changes by "
            f"{_points(twin['identity_median'])} in the median, and {twin['harmless']} of "
            f"{twin['deleted']} can go."
        )
    return said


def _paths(s: Summary) -> list[str]:
    if number(s["effective_mean"]) is None:
        return ["No path has a gradient that is a number."]
    carrying, existing = (_between(s[f"{kind}_low"], s[f"{kind}_high"]) for kind in ("effective", "length"))
    lengths = _plain(s["effective_mean"]), _plain(s["length_mean"])
    return [
        (
            f"95% of the gradient comes back through {carrying} of the {s['blocks']} branches, while 95% of "
            f"all paths go through {existing}."
        ),
        f"The mean length, in branches, is {lengths[0]} by gradient and {lengths[1]} by number of paths.",
    ]


def _lens(s: Summary) -> list[str]:
    said = []
    if s["decided"] is not None:
        said.append(f"From {s['decided']} on its own head gives 90% of the images their final answer.")
    if number(s["probe_first"]) is not None and number(s["probe_last"]) is not None:
        half = f", half of the way from {s['probe_halfway']} on" if s["probe_halfway"] is not None else ""
        said.append(
            f"A linear probe errs on {percent(s['probe_first'])} after the first block and on "
            f"{percent(s['probe_last'])} after the last{half}."
        )
    return said


def _saliency(s: Summary) -> list[str]:
    if not s["mistakes"]:
        return ["There is no mistake of it to show."]
    worst = s["mistakes"][0]
    return [
        (
            f"Its surest mistake is {worst['label']} taken for {worst['predicted']}, with a confidence of "
            f"{percent(100 * worst['confidence'], 1)}."
        )
    ]


def _landscape(s: Summary) -> list[str]:
    said = []
    for net in s["nets"]:
        whose = "the weights" if net["which"] == 1 else f"those of {net['net']}"
        if number(net["loss"]) is None:
            said.append(f"The loss at {whose} is no finite number.")
        elif net["width"] is None:
            said.append(
                f"Along a random direction from {whose} the loss, {net['loss']:.3f}, rises by less than a nat."
            )
        else:
            said.append(
                f"Along a random direction from {whose} the loss, {net['loss']:.3f}, rises by a nat within "
                f"{_plain(net['width'])} norms of the filters."
            )
    return said


def _calibration(s: Summary) -> list[str]:
    sure, right = number(s["confidence"]), number(s["accuracy"])
    if sure is None or right is None:
        return []
    gap = sure - right
    word = "too sure" if gap > 0 else "not sure enough"
    said = [
        (
            f"It is {percent(sure, 1)} sure and right on {percent(right, 1)}, {word} by {abs(gap):.1f} points; "
            f"its expected calibration error is {percent(s['calibration_error'], 1)}."
        )
    ]
    if number(s["temperature"]) is not None:
        said.append(
            f"Logits divided by {s['temperature']:.2f} would bring that to "
            f"{percent(s['scaled_calibration_error'], 1)} (found on other images of the same split)."
        )
    return said


_STORIES: dict[str, Callable[[Summary], list[str]]] = {
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


def _points(change: object) -> str:
    value = number(change)
    return NONE if value is None else f"{value:.1f} points"


def _plain(value: object) -> str:
    found = number(value)
    return NONE if found is None else f"{found:.3g}"


def _times(factor: float) -> str:
    return f"{factor:.2g} times"


def _between(low: object, high: object) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
