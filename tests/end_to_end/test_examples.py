"""The examples run, as their first lines say."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import deepskip as ds

EXAMPLES = Path(ds.__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(name: str, *args: object) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_train_predict_and_look_inside(run: Callable[..., str], photos: Callable[..., Path]) -> None:
    folder = photos(n=4)
    picture = next((folder / "val" / "red").iterdir())
    said = run("train_and_predict.py", folder, picture)
    assert said.count("EpochEnded") == 5
    assert said.splitlines()[-1].startswith(f"{picture}: ")
    assert "EpochEnded" not in run("train_and_predict.py", folder, picture)  # it goes on where it was
    said = run("inside_a_checkpoint.py", "runs/example", picture)
    blocks = [line for line in said.splitlines() if line.startswith("stages.")]
    assert len(blocks) == ds.count(ds.load("runs/example").net.spec).blocks
    assert "val_error" in said


def test_search(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn import model_selection

    whole = model_selection.GridSearchCV

    def few(net: object, grid: object, **given: object) -> object:
        return whole(net.set_params(epochs=1), {"depth": [8], "plain": [False, True]}, **given)  # type: ignore[attr-defined]

    monkeypatch.setattr(model_selection, "GridSearchCV", few)
    said = run("grid_search.py", 120)
    assert said.count("error, sd over 3 folds") == 2
    assert ds.load("best-digits").net.spec.layers == 8


@pytest.mark.parametrize("name", ["train_and_predict.py", "inside_a_checkpoint.py"])
def test_without_arguments_an_example_says_what_it_takes(run: Callable[..., str], name: str) -> None:
    with pytest.raises(SystemExit, match=f"python examples/{name}"):
        run(name)


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{path.name}]({path.name})" in listed for path in EXAMPLES.glob("*.py"))
