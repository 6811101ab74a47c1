"""The card of a model: the README.md that stands beside its file, from that file's header alone.

Its first lines are what the Hugging Face Hub reads (https://huggingface.co/docs/hub/model-cards). What the
header does not say is said to be unknown, or left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import yaml

from deepskip.describe.ledger import count
from deepskip.errors import printable
from deepskip.weights.store import Header

MARK = (
    "<!-- Written by deepskip from the header of model.safetensors. Once changed, it is kept as it is: {} -->"
)
"""In every card that may be written anew, with the SHA-256 of all the rest."""
_MARK = re.compile(re.escape(MARK).replace(r"\{\}", "([0-9a-f]{64})"))
MOST = 20
"""Classes that are listed by name."""
_PUNCTUATION = re.compile(r"([\\`*_\[\]<>|#~])")


def card(header: Header, repository: str | None = None, licence: str | None = None) -> str:
    """Return the card of the model with `header`, to be in `repository` (`owner/name`) where that is known.

    `licence` is an identifier of the Hub's, as `apache-2.0`; no header says one.
    """
    parts = (
        f"---\n{_yaml(_front(header, licence))}---\n\n{MARK}",
        f"# {_title(header)}",
        _summary(header),
        f"## Use\n\n{_use(header, repository)}",
        f"## Classes\n\n{_classes(header)}",
        f"## Data\n\n{_data(header)}",
        f"## Training\n\n{_training(header)}",
        f"## Metrics\n\n{_metrics(header)}",
        f"## Limits\n\n{_limits(header)}",
    )
    text = "\n\n".join(parts) + "\n"
    return text.replace(MARK, MARK.format(_digest(text.replace(MARK, "", 1))), 1)


def is_as_written(text: str) -> bool:
    """Return whether `text` is a card that this program wrote, and nobody since."""
    found = _MARK.search(text)
    return found is not None and found[1] == _digest(text[: found.start()] + text[found.end() :])


def licence_of(text: str) -> str | None:
    """Return the licence in the metadata of a card, or None."""
    front = re.match(r"---\n(.*?\n)---\n", text, re.DOTALL)
    try:
        said = yaml.safe_load(front[1]) if front else None
    except yaml.YAMLError:
        return None
    licence = said.get("license") if isinstance(said, dict) else None
    return licence if isinstance(licence, str) else None


def _digest(text: str) -> str:
    """Return the SHA-256 of a card, whatever ends its lines."""
    return hashlib.sha256("\n".join(text.splitlines()).encode()).hexdigest()


def _front(header: Header, licence: str | None) -> dict[str, Any]:
    """Return the card's metadata, as the Hub names them."""
    front: dict[str, Any] = {"library_name": "deepskip", "pipeline_tag": "image-classification"}
    front["tags"] = ["deepskip", "image-classification", "pytorch", "residual-network"]
    if licence:
        front["license"] = licence
    origin = next((str(header.provenance[key]) for key in ("init", "file") if key in header.provenance), "")
    if origin.startswith("hf://"):
        front["base_model"] = origin.removeprefix("hf://").partition("@")[0]
    error, images = header.metrics.get("val_error"), _images(header).get("val")
    if isinstance(error, int | float):
        name = _data_name(header) or "unknown"
        measured = {"type": "accuracy", "name": _accuracy_name(images), "value": round(1 - error / 100, 6)}
        task = {"type": "image-classification", "name": "Image classification"}
        data = {"type": _slug(name), "name": name, "split": "validation"}
        result = {"task": task, "dataset": data, "metrics": [measured]}
        front["model-index"] = [{"name": header.spec.name, "results": [result]}]
    return front


def _accuracy_name(images: object) -> str:
    n = f", n = {images}" if images else ""
    return f"accuracy, top 1{n}"


def _title(header: Header) -> str:
    data = _data_name(header)
    return _plain(header.spec.name) + (f" on {_plain(data)}" if data else "")


def _summary(header: Header) -> str:
    spec, cost = header.spec, count(header.spec)
    kind = "plain network, without shortcuts," if spec.is_plain else "deep residual network"
    shape = " × ".join(map(str, spec.input))
    return (
        f"A {kind} for classifying pictures: {spec.layers:,} layers, {cost.params:,} parameters, "
        f"{cost.macs:,} multiply–adds a picture, input {shape}, {spec.classes:,} classes."
    )


def _use(header: Header, repository: str | None) -> str:
    address = f"hf://{repository}" if repository else "FOLDER"
    prepared = header.preprocessing
    colours = "grey" if prepared.colour == "L" else "red, green, blue"
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (prepared.mean, prepared.std))
    return (
        "```python\nimport deepskip as ds\n\n"
        f'model = ds.load("{address}")\n'
        'print(model.predict(["picture.jpg"])[0].label)\n```\n\n'
        f"or `deepskip predict {address} picture.jpg`. Both prepare a picture as the file says: upright, "
        f"{colours}, the shorter side resized to {prepared.resize} pixels ({prepared.interpolation}), its "
        f"middle {prepared.size} × {prepared.size} cut out, scaled to 0 to 1, minus {mean}, divided by {std}."
    )


def _classes(header: Header) -> str:
    named = ", ".join(map(_plain, header.classes[:MOST]))
    more = len(header.classes) - MOST
    return f"{named}, and {more:,} more: `model.classes`." if more > 0 else f"{named}."


def _data(header: Header) -> str:
    given, images = header.provenance.get("data"), _images(header)
    if not isinstance(given, Mapping):
        return "The file does not say which pictures it was trained on."
    lines = [f"{_plain(str(given.get('name', 'unnamed')))}, as deepskip calls it"]
    if images:
        held = f"{images['val']:,}" if images.get("val") else "none"
        lines.append(f"{images.get('train', 0):,} pictures to train on, {held} to validate on")
    if given.get("fingerprint"):
        lines.append(f"fingerprint `{_code(given['fingerprint'])}`")
    span = header.provenance.get("value_range")
    if _are_two_numbers(span) and tuple(span) != (0, 255):
        black, white = span
        lines.append(f"numbers from {black:g} (black) to {white:g} (white), in 256 levels")
    return "; ".join(lines) + "."


def _are_two_numbers(span: object) -> TypeGuard[Sequence[float]]:
    return isinstance(span, list | tuple) and len(span) == 2 and all(isinstance(x, int | float) for x in span)


def _training(header: Header) -> str:
    known = header.provenance
    if "source" in known:
        lines = [f"Not trained by deepskip: the values are from {_plain(str(known['source']))}"]
        lines += [f"`{_code(known['file'])}`"] if "file" in known else []
        lines += [f"SHA-256 `{_code(known['sha256'])}`"] if "sha256" in known else []
        notes = known.get("notes")
        listed = [f"- {_plain(str(note))}" for note in notes] if isinstance(notes, list | tuple) else []
        return ", ".join(lines) + "." + ("\n\n" + "\n".join(listed) if listed else "")
    recipe = known.get("recipe")
    if not isinstance(recipe, Mapping):
        return "The file does not say how it was trained."
    begun = f" It began with the values of `{_code(known['init'])}`." if "init" in known else ""
    steps = f"{known['step']:,} of {known['steps']:,} steps were taken. " if _steps(known) else ""
    computed = [f"seed {_plain(str(known['seed']))}"] if "seed" in known else []
    computed += [_plain(str(known["precision"]))] if "precision" in known else []
    computed += [f"PyTorch {_plain(str(known['torch']))}"] if "torch" in known else []
    # Not an empty list, though: a recipe of milestones has some unless it says that it has none.
    set_out = {key: value for key, value in recipe.items() if value is not None}
    return (
        f"{steps}{_sentence(', '.join(computed))}{begun} The recipe, as `--recipe FILE.yaml` reads it:\n\n"
        f"```yaml\n{_yaml(set_out)}```"
    )


def _metrics(header: Header) -> str:
    rows = list(_measured(header))
    if not rows:
        return "The file holds none. `deepskip evaluate` measures them on your pictures."
    table = "\n".join(f"| {what} | {value} | {n} |" for what, value, n in rows)
    epoch = header.metrics.get("epoch")
    last = "" if epoch is None else f"Of the last epoch, number {_plain(str(epoch))}. "
    return (
        f"| measured | value | pictures |\n|---|---|---|\n{table}\n\n"
        f"{last}One training: no spread over seeds is known."
    )


def _measured(header: Header) -> Iterator[tuple[str, str, str]]:
    """Yield what was measured, its value and on how many pictures."""
    found, images = header.metrics, _images(header)
    for part, words in (
        ("val", "on validation pictures"),
        ("train", "in training, as pictures were varied there"),
    ):
        n = f"{images[part]:,}" if part in images else "not recorded"
        for key, name, unit in (("error", "top-1 error", " %"), ("loss", "mean cross-entropy", " nats")):
            value = found.get(f"{part}_{key}")
            if isinstance(value, int | float):
                yield f"{name} {words}", f"{value:.{2 if key == 'error' else 4}f}{unit}", n


def _limits(header: Header) -> str:
    named = _data_name(header)
    chosen = header.provenance.get("recipe")
    elsewhere = f"pictures from elsewhere than {_plain(named)}" if named else "any pictures"
    if header.metrics and "val_error" not in header.metrics:
        elsewhere = "pictures that it did not learn from"
    lines = [
        f"Whatever a picture shows, it names one of its {len(header.classes):,} classes.",
        f"What it does on {elsewhere} was not measured.",
        "How far its probabilities can be trusted was not measured: see `deepskip evaluate`.",
        "The file does not say whose pictures it learnt from, under which licence, or whom they leave out.",
    ]
    if isinstance(chosen, Mapping) and chosen.get("patience"):
        lines.insert(1, "Training ended when the validation error fell no more, so that error was chosen, too.")
    return "\n".join(f"- {line}" for line in lines)


def _images(header: Header) -> dict[str, int]:
    """Return how many pictures each split had, where the header says it."""
    given = header.provenance.get("images")
    items = given.items() if isinstance(given, Mapping) else ()
    return {str(part): n for part, n in items if isinstance(n, int)}


def _data_name(header: Header) -> str | None:
    given = header.provenance.get("data")
    return str(given["name"]) if isinstance(given, Mapping) and given.get("name") else None


def _steps(known: Mapping[str, Any]) -> bool:
    return isinstance(known.get("step"), int) and isinstance(known.get("steps"), int)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: names of classes and files come from anywhere."""
    return _PUNCTUATION.sub(r"\\\1", printable(text))


def _code(value: object) -> str:
    """Return text to stand between backticks."""
    return printable(str(value)).replace("`", "'")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def _yaml(value: Mapping[str, Any]) -> str:
    """Return YAML of plain values, a key a line, every text in one line."""
    text: str = yaml.safe_dump(_tidy(value), sort_keys=False, allow_unicode=True, width=10_000)
    return text


def _tidy(value: object) -> object:
    if isinstance(value, Mapping):
        return {printable(str(key)): _tidy(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_tidy(one) for one in value]
    return value if isinstance(value, bool | int | float) or value is None else printable(str(value))
