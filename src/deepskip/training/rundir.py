"""The run folder: what was asked, where it ran, what was measured, the model, and what resuming needs."""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import Any

import filelock
import torch

from deepskip._version import __version__
from deepskip.describe.preprocessing import Preprocessing
from deepskip.describe.spec import Spec
from deepskip.describe.value import Value
from deepskip.errors import InputError
from deepskip.files import explained, read_json, replacing, sweep, write_json, write_text
from deepskip.nets.network import Network
from deepskip.training.packing import pack, unpack
from deepskip.training.precision import cpu_capabilities
from deepskip.training.recipe import Recipe
from deepskip.training.way import Way
from deepskip.weights import store

CONFIG, ENVIRONMENT, METRICS, STATE = "config.json", "environment.json", "metrics.jsonl", "state"
CHECKPOINTS, SCORE, BEST = "checkpoint-*.pt", "score.json", "best.safetensors"
FLOW = "flow.jsonl"
KEPT = 2  # states; the older one is for when the newer is damaged


class RunFolder:
    """A run folder, opened for one run. Every file in it is whole or not there."""

    def __init__(self, path: Path, config: dict[str, Any] | None = None) -> None:
        self.path, self.config = path, config or {}
        self._lock = filelock.FileLock(path / STATE / "lock")

    @classmethod
    def claim(cls, path: Path, config: dict[str, Any], *, resume: bool) -> RunFolder:
        """Take `path` for the run that `config` describes; with `resume`, go on with that same run.

        Raises InputError when the folder holds another run, or this one and `resume` is false; nothing in it
        is touched then. The "way" of a run that goes on is the one it began with.
        """
        refuse(path)
        folder = cls(path, config)
        if (path / CONFIG).exists():
            folder._agree(config, resume=resume)
            folder._hold()
        else:
            folder._hold()
            try:
                folder._describe()
            except BaseException:
                folder.release()
                raise
        sweep(path)
        sweep(path / STATE)
        return folder

    def _describe(self) -> None:
        write_json(self.path / ENVIRONMENT, environment())
        write_json(self.path / CONFIG, self.config)

    def restore(self) -> bool:
        """Make the folder anew when somebody removed it during the run; return whether that was so."""
        if (self.path / CONFIG).exists():
            return False
        with explained(self.path):
            (self.path / STATE).mkdir(parents=True, exist_ok=True)
        self._describe()
        return True

    def _hold(self) -> None:
        """Keep other processes out of the folder. Raises InputError when one is in it."""
        with explained(self.path):
            (self.path / STATE).mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
            except filelock.Timeout as error:
                raise InputError(
                    self.path, "a folder that another process trains in", "a new folder"
                ) from error

    def release(self) -> None:
        """Let other processes into the folder again."""
        self._lock.release()

    def _agree(self, config: dict[str, Any], *, resume: bool) -> None:
        held = read_json(self.path / CONFIG)
        if isinstance(held, dict):  # how it is computed is no part of what it is: it goes on as it began
            held, config = {**_renewed(held), "way": None}, {**config, "way": None}
        difference = _first_difference(held, json.loads(json.dumps(config)))
        if difference:
            key, there, here = difference
            raise InputError(
                self.path,
                f"a folder that holds another run ({key} is {there} there, {here} here)",
                f"a new folder, where --init {self.path} goes on from what this run learned",
            )
        if not resume:
            raise InputError(
                self.path, "a folder that holds this run already", "a new folder, or --resume", "--resume"
            )

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append one epoch's row and flush it to the disk."""
        _append(self.path / METRICS, [row])

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Let the file have these rows and no others."""
        write_text(self.path / METRICS, "".join(json.dumps(row) + "\n" for row in rows))

    def add_flow(self, rows: list[dict[str, Any]], blocks: list[str]) -> None:
        """Append recorded steps; the file's first row has the names of the blocks too."""
        path = self.path / FLOW
        if not path.exists() or not path.stat().st_size:
            rows = [{**rows[0], "blocks": blocks}, *rows[1:]]
        _append(path, rows)

    def keep_flow(self, step: int) -> None:
        """Drop the recorded steps after `step`, which are taken again, and what a kill left half-written."""
        path = self.path / FLOW
        if path.exists():
            kept = [row for row in read_rows(path) if _number(row, "step") <= step]
            write_text(path, "".join(json.dumps(row) + "\n" for row in kept))

    def save_model(self, net: Network, header: store.Header) -> None:
        """Write the model file."""
        store.save(self.path / store.FILE, net, header)

    def lacks_model(self) -> bool:
        """Return whether the model file is not there."""
        return not (self.path / store.FILE).exists()

    def save_best(self, net: Network, header: store.Header) -> None:
        """Write the model file of the epoch with the lowest validation error so far."""
        store.save(self.path / BEST, net, header)

    def save_state(self, state: dict[str, Any], step: int) -> None:
        """Write what resuming needs after `step`; the last `KEPT` states are kept."""
        with replacing(self.path / STATE / CHECKPOINTS.replace("*", f"{step:010}")) as beside:
            torch.save(pack(state), beside)
        for old in self._states()[KEPT:]:
            old.unlink(missing_ok=True)

    def _states(self) -> list[Path]:
        """Return the files of the states, the newest first."""
        return sorted((self.path / STATE).glob(CHECKPOINTS), reverse=True)

    def save_score(self, score: dict[str, Any]) -> None:
        """Write the last epoch's whole score, for the report."""
        write_json(self.path / STATE / SCORE, score)

    def load_state(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest whole state, or None when there is none, and a line for each that was damaged.

        Raises InputError when there are states and none of them is whole.
        """
        damaged: list[str] = []
        for path in self._states():
            try:
                state = unpack(torch.load(path, map_location="cpu", weights_only=True))
            except Exception as error:
                # torch.load has no error of its own: a damaged file raises whatever its reader met.
                damaged.append(f"{path}: a damaged state ({type(error).__name__}), left out")
                continue
            return state, damaged
        if damaged:
            raise InputError(
                self.path / STATE, "only damaged states", "a whole one; without state/ the run begins anew"
            )
        return None, [] if self.lacks_model() else [f"{self.path}: no state is left, so the run begins anew"]


def refuse(path: Path) -> None:
    """Refuse a place that can be no run's folder. Raises InputError."""
    if path.exists() and not path.is_dir():
        raise InputError(path, "a file", "a new folder, or one that holds this run")
    if path.is_dir() and not (path / CONFIG).exists():
        with explained(path):
            other = any(not _is_ours(entry) for entry in path.iterdir())
        if other:
            raise InputError(path, "a folder with other files in it", "a new or empty folder (--out)")


def held_way(path: Path) -> Way | None:
    """Return the way of the run in the folder `path`; None when no run is there, or an older version's."""
    try:
        found = read_json(path / CONFIG)
        return Way.from_dict(found["way"]) if isinstance(found, dict) and "way" in found else None
    except InputError:
        return None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects in the lines of `path`; none when there is no such file."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # empty, or cut short by a kill while it was written
    return rows


def _number(row: object, field: str) -> float:
    value = row.get(field) if isinstance(row, dict) else None
    return value if isinstance(value, int | float) else math.inf


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    with explained(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def environment() -> dict[str, Any]:
    """Return what a reader needs to judge figures measured here: versions, processor, threads, devices."""
    return {
        "deepskip": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    return str(cpu_capabilities().get("cpu_name") or platform.processor() or platform.machine())


def _is_ours(entry: Path) -> bool:
    """Return whether `entry` is what a run that was killed at its very beginning leaves."""
    return entry.name in (STATE, ENVIRONMENT) or (entry.name.startswith(".") and entry.suffix == ".part")


def _renewed(config: dict[str, Any]) -> dict[str, Any]:
    """Return what an older version wrote as this one would: fields that it did not know at their defaults."""
    kinds: dict[str, type[Value]] = {"spec": Spec, "recipe": Recipe, "preprocessing": Preprocessing}
    try:
        known = {key: kind.from_dict(config[key]).model_dump(mode="json") for key, kind in kinds.items()}
    except (InputError, KeyError):
        return config
    return {**config, **known}


def _first_difference(there: object, here: object, key: str = "") -> tuple[str, str, str] | None:
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            found = _first_difference(there.get(name), here.get(name), f"{key}.{name}".lstrip("."))
            if found:
                return found
        return None
    if there == here:
        return None
    return key, _shortened(there), _shortened(here)


def _shortened(value: object, most: int = 40) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
