from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from deepskip.hub import published
from tests.end_to_end.command import Command
from tests.end_to_end.hub import Hub

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture
def deepskip(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for the tests of a module: `tests.end_to_end.browser` says what to do with it."""
    from tests.end_to_end.browser import launched

    with launched() as one:
        yield one


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of photographs whose classes can be told apart by colour."""

    def make(name: str = "photos", classes: tuple[str, ...] = ("blue", "green", "red"), n: int = 12) -> Path:
        noise = np.random.default_rng(0)
        for part, count in (("train", n), ("val", max(2, n // 3))):
            for label in classes:
                folder = tmp_path / name / part / label
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = noise.integers(0, 90, (int(noise.integers(40, 70)), 50, 3), dtype=np.uint8)
                    pixels[..., {"red": 0, "green": 1}.get(label, 2)] += 150
                    Image.fromarray(pixels).save(folder / f"{i:02}.jpg")
        return tmp_path / name

    return make


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("DEEPSKIP_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "FOLDER", hub.url)
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.01,))
    thread.start()
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()
