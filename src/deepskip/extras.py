"""Packages that only some need: imported when they are used, missed in one line, and silent.

None of them may speak to the network: `import openvino` alone would send an event to Google Analytics.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import sys
from types import ModuleType
from typing import Any

from deepskip.errors import InputError

EXTRAS = {
    "export": ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf"),
    "serve": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
    "hub": ("huggingface_hub",),
}
"""deepskip's extras and the packages that they install, by the names they are imported with."""


def need(package: str, what: str) -> ModuleType:
    """Return `package`, imported, for `what`. Where it is missing, InputError says what to install."""
    # OpenVINO and NNCF ask for this one, and do without it where it cannot be imported.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        found = importlib.import_module(package)
    except ImportError as error:
        extra = next((extra for extra, names in EXTRAS.items() if package.partition(".")[0] in names), "export")
        got = f"no package {error.name or package}"
        raise InputError(what, got, f'pip install "deepskip[{extra}]"') from error
    if package == "nncf":
        logging.getLogger("nncf").setLevel(logging.ERROR)
    return found


@functools.cache
def openvino_core() -> Any:
    """Return OpenVINO's core: one for the whole process, which is never given up.

    Each gives the thread that makes it another stack for signals, and puts the one before back at its end. With
    two that end in the order they began in, that is the first one's, gone by then: the next Ctrl-C would crash.
    """
    return need("openvino", "OpenVINO").Core()


def has(package: str) -> bool:
    """Return whether `package` is installed; nothing is imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a name that tests have put out of reach
        return False
