"""The gallery: every figure function, on what a command measured, as it draws now; and the page in Chromium."""

from __future__ import annotations

import importlib.util
import inspect
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

import deepskip as ds
from deepskip.figures import Picture
from tests.end_to_end.browser import opened

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def gallery() -> Any:
    """Return docs/gallery.py, with what it draws in `drawn`."""
    spec = importlib.util.spec_from_file_location("gallery", DOCS / "gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.drawn = list(module.rooms())
    return module


def _words(svg: str) -> list[str]:
    """Return what a picture says: in its metadata, the command among them, and to the eye."""
    return [text for one in ET.fromstring(svg.encode()).iter() if (text := (one.text or "").strip())]


def test_every_figure_hangs_in_the_gallery_with_the_command_that_made_it(gallery: Any) -> None:
    functions = {name for name in ds.figures.__all__ if _draws(getattr(ds.figures, name))}
    placed = [one for _, section in gallery.drawn for one in section]
    assert {one.exhibit.function.__name__ for one in placed} == functions
    views = [one.path.name.split("_")[0] for one in placed if one.exhibit.function is ds.figures.draw]
    assert views == list(ds.figures.VIEWS)
    assert len({one.path for one in placed}) == len(placed)
    for exhibit, path in placed:
        assert exhibit.command.startswith("deepskip "), path
        kept = path.read_text(encoding="utf-8")
        new = "python docs/gallery.py draws it anew"
        assert _words(kept) == _words(ds.figures.to_svg(exhibit.picture, exhibit.command)), f"{path}: {new}"
        assert f"<dc:source>{exhibit.command}</dc:source>" in kept
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.markdown(gallery.drawn)
    linked = re.findall(r"^!\[[^]]+\]\(([^)]+)\)$", gallery.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [(gallery.DOCS / path).resolve() for path in linked] == [one.path for one in placed]


def _draws(value: Any) -> bool:
    return inspect.isfunction(value) and inspect.signature(value, eval_str=True).return_annotation is Picture


def test_the_gallery_opens(gallery: Any, browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "gallery.html"
    page.write_text(gallery.html(gallery.drawn), encoding="utf-8")
    assert opened(browser, page) == []
