"""What every test shares: torch as the first one found it, with one thread, and a cache folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import process

hypothesis.settings.register_profile(
    "deepskip", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# A mutant has to fail once; the smallest way in which it fails is nobody's concern.
hypothesis.settings.register_profile(
    "mutant",
    hypothesis.settings.get_profile("deepskip"),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
hypothesis.settings.load_profile(os.environ.get("DEEPSKIP_HYPOTHESIS", "deepskip"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup() -> Iterator[None]:
    process.left()  # by what ran since the last test, so that no test begins otherwise than alone
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    yield
    if left := process.left():
        pytest.fail(f"left behind in torch: {left}", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["DEEPSKIP_DATA"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
