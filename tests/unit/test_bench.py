"""All ways side by side: rows that say what they should, and a way that fails does not end the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import deepskip as ds
from deepskip.deploy import bench, samples
from deepskip.deploy.ways import named, unnamed
from deepskip.errors import InputError, WorkError
from tests.laws.strategies import scrambled

SPEC = ds.zoo.get("resnet8_cifar", input=(1, 8, 8))
NUMBERS = (
    "images_per_second",
    "slowest",
    "fastest",
    "ratio",
    "p50_ms",
    "p95_ms",
    "memory_mib",
    "ready_seconds",
)


def test_a_row_for_each_way_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = unnamed(SPEC)
    scrambled(model.net)
    (pixels,) = samples.drawn(ds.data.open("digits").val, 20)
    monkeypatch.setattr("deepskip.deploy.ways.has", lambda package: package != "onnxruntime")
    told: list[tuple[int, int]] = []
    rows = bench.measure(
        model,
        ways=("onnxruntime", "channels-last"),
        batches=(1, 7),
        rounds=2,
        seconds=0.01,
        threads=1,
        pixels=pixels,
        progress=lambda what, done, total: told.append((done, total)),
    )
    json.dumps(rows, allow_nan=False)
    assert [(row["batch"], row["way"]) for row in rows] == [
        (batch, way) for batch in (1, 7) for way in ("eager", "onnxruntime", "channels-last")
    ]
    assert told[-1] == (len(told), len(told))
    assert [row["status"] for row in rows[:3]] == [
        "ok",
        'no onnxruntime (pip install "deepskip[export]")',
        "ok",
    ]
    assert all(row["images_per_second"] is None for row in rows if row["way"] == "onnxruntime")
    for row in (row for row in rows if row["status"] == "ok"):
        assert all(row[name] > 0 for name in NUMBERS)
        assert row["slowest"] <= row["images_per_second"] <= row["fastest"]
        assert row["p50_ms"] <= row["p95_ms"]
        assert row["calls"] >= 2
        # A call of so many pictures takes so long that so many pictures a second come out.
        assert row["slowest"] * 0.3 < 1000 * row["batch"] / row["p50_ms"]
        assert (row["images"], row["agreement"]) == (20, 100.0)
        assert row["difference"] < 1e-4
        assert 50 < row["memory_mib"] < 5000
    assert [row["ratio"] for row in rows if row["way"] == "eager"] == [1.0, 1.0]


def test_a_process_that_is_lost_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    model = unnamed(SPEC)
    ds.weights.save(tmp_path / "model.safetensors", model.net, model.header)
    for name in ("pixels", "calibration"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 8, 8, 1), np.uint8))
    with bench._Run.started(tmp_path, named("eager"), 1) as run:
        run.make(2)
        run.turn(0.0, timed=True)
        assert run.row(run, 0)["calls"] == 1
        run.make(0)  # fails in there
        assert "Error" in str(run.row(_other(tmp_path), 0)["status"])
    with bench._Run.started(tmp_path, named("eager"), 1) as run:
        assert run.process is not None
        run.process.kill()
        run.process.wait()
        run.make(2)
        run.turn(0.0, timed=True)
        row = run.row(_other(tmp_path), 0)
        assert row["status"] == "a process that ended without a word"
        assert row["images_per_second"] is None
        with pytest.raises(WorkError, match="way eager: got a process that ended"):
            run.row(run, 0)


def _other(folder: Path) -> bench._Run:
    run = bench._Run(folder, named("eager"), 1, None)
    run.lack = None
    return run


def test_what_cannot_be_measured() -> None:
    model = unnamed(SPEC)
    for options, says in (
        ({"ways": ["egaer"]}, "nearest: eager"),
        ({"batches": ()}, "batches: got 0"),
        ({"rounds": 0}, "rounds: got 0"),
        ({"seconds": 0.0}, "seconds: got 0.0"),
        ({"pixels": np.zeros((0, 8, 8, 1), np.uint8)}, "pixels: got no pictures"),
    ):
        with pytest.raises(InputError, match=says):
            bench.measure(model, **options)


def test_samples_are_other_ones_and_the_same_every_time() -> None:
    split = ds.data.open("digits").val
    first, second = samples.drawn(split, 200, 100)
    again, _ = samples.drawn(split, 200, 100)
    assert np.array_equal(first, again)
    seen = {one.tobytes() for one in first}
    assert len(second) == 100
    assert sum(one.tobytes() in seen for one in second) < 3
    few, rest = samples.drawn(split, 360, 5)
    assert (len(few), len(rest)) == (360, 1)
