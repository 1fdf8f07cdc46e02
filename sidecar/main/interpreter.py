"""How this program starts another interpreter of its own kind."""

import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[2]


def command(module: str) -> list[str]:
    """The words that run `module` as this interpreter was started (-I, -E, -X …), for arguments to follow.

    Nothing is imported from the folder that it is started in, unless that is the very source this runs from.
    """
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    here = [] if Path.cwd() == _SOURCE else ["-P"]
    return [sys.executable, *flags, *here, "-m", module]
