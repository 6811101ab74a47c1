"""Run tests in forks of a process that has imported all libraries but deepskip: `python breaking.py FOLDER`.

Reads lines of JSON, a test in FOLDER each; deepskip is imported from the folder's `src/`. Answers each with
a line of JSON: pytest's exit status. What the test printed is in the folder's `output.txt`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys

READY = (
    "PIL.ImageDraw",
    "cyclopts",
    "fastapi",
    "hypothesis.extra.numpy",
    "jinja2",
    "matplotlib.figure",
    "numpy",
    "psutil",
    "pydantic.main",
    "pytest",
    "rich.progress",
    "safetensors.torch",
    "schemathesis",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sympy",
    "torch",
    "torch._dynamo",
    "torch.distributed",
    "torch.onnx",
    "torch.utils.checkpoint",
    "uvicorn",
    "yaml",
)
"""What tests import, as far as it starts no thread."""
for name in READY:
    importlib.import_module(name)
import pytest  # noqa: E402
import torch  # noqa: E402


def run(test: str) -> int:
    """Run one test in a fork and return pytest's exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        with open("output.txt", "wb") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"tests/{test}"]))
        sys.stdout.flush()
    finally:
        os._exit(status)


def main(folder: str) -> None:
    """Answer until the input ends."""
    os.chdir(folder)
    sys.path.insert(0, f"{folder}/src")  # before deepskip as installed
    torch.set_num_threads(1)
    gc.freeze()  # no fork looks through what is here already
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(run(json.loads(line)))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
