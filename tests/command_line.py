"""Runs the command line in this process, as a shell would see it."""

import sys
from typing import NamedTuple

import pytest

from sidecar.cli.app import run


class Ran(NamedTuple):
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str


class Shell:
    """`shell("oversight", "verify", FILE)`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._captured = monkeypatch, captured

    def __call__(self, *arguments: object) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["sidecar", *map(str, arguments)])
        code: object = 0
        try:
            run()
        except SystemExit as end:
            code = end.code
        out, err = self._captured.readouterr()
        assert isinstance(code, int)
        assert "Traceback" not in out + err
        return Ran(code, out, err)

    def refused(self, *arguments: object) -> str:
        """A mistake of the user's: exit code 2, nothing on standard output, one line on standard error."""
        ran = self(*arguments)
        assert (ran.code, ran.out) == (2, "")
        (line,) = ran.err.splitlines()
        return line
