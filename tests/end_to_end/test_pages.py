"""Every page the program writes, opened in Chromium: nothing sticks out, is cut, too small, or asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

import deepskip as ds
from deepskip.instruments.inspection import Inspection
from tests.end_to_end.browser import opened
from tests.unit.test_reports import PAGES

ROOT = Path(__file__).parents[2]
KEPT = [path.parent for plan in ("study", "inspection") for path in (ROOT / "results").glob(f"*/{plan}.json")]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two runs, of nets that have hardly been trained, and what is inside the first."""
    folder, data = tmp_path_factory.mktemp("digits"), ds.data.open("digits")
    spec = ds.zoo.get("resnet8_cifar", input=data.input, classes=len(data.classes))
    for name, one in (("run", spec), ("twin", spec.plain())):
        for _ in ds.fit(ds.build(one), data, ds.Recipe(epochs=2, batch=120, lr=0.05), out=folder / name):
            pass
    model, twin = ds.load(folder / "run"), ds.load(folder / "twin")
    given: dict[str, Any] = {"twin": twin, "images": 24, "command": "deepskip inspect run digits --twin twin"}
    for _ in Inspection(model, model.open("digits"), out=folder / "inside", **given).run():
        pass
    return folder


@pytest.mark.parametrize("name", ["run", "twin", "inside"])
def test_a_run_and_what_is_inside(name: str, browser: Browser, digits: Path) -> None:
    assert opened(browser, ds.publish(digits / name)) == []


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_results_that_are_kept(folder: Path, browser: Browser, tmp_path: Path) -> None:
    assert opened(browser, ds.publish(shutil.copytree(folder, tmp_path / "copy"))) == []


@pytest.mark.parametrize("name", PAGES)
def test_any_report(name: str, browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(PAGES[name](), encoding="utf-8")
    assert opened(browser, page) == []
