"""Run the command line as a user does, in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from deepskip.cli.app import main


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error; fails when there are more, or a traceback."""
        assert self.code != 0
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("warning: ")]
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1, self.err
        assert lines[-1] == errors[0]
        return errors[0].removeprefix("error: ")


class Command:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *args: object) -> Said:
        self.capsys.readouterr()
        code = main([str(arg) for arg in args])
        said = self.capsys.readouterr()
        return Said(code, said.out, said.err)
