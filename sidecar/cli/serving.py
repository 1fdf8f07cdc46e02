"""A sidecar that serves by itself, in an interpreter that has loaded nothing else: `python -m sidecar.cli.serving FD …`.

`sidecar run` reads the settings, then becomes this: the same process, without the command line and the models of the
settings, which take 30 MiB and have no more use. FD holds the settings; what follows it is for people who list processes.
"""

import gc
import os
import pickle
import sys
from typing import TYPE_CHECKING, NoReturn

from sidecar.cli.console import USAGE, explained

if TYPE_CHECKING:
    from sidecar.settings.sidecar import SidecarSettings

_MODULE = "sidecar.cli.serving"


def become(settings: "SidecarSettings") -> NoReturn:
    """Serve by these settings until SIGTERM or SIGINT, as this process and with its environment. OSError."""
    from sidecar.main.interpreter import command
    from sidecar.settings.loader import settled

    # In memory: it needs no disk, and nobody else can write to it.
    file = os.memfd_create("settings", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(file), "wb") as out:
        pickle.dump(settled(settings), out)
    os.lseek(file, 0, os.SEEK_SET)
    os.set_inheritable(file, True)
    sys.stdout.flush()
    os.execv(sys.executable, [*command(_MODULE), str(file), *sys.argv[1:]])  # noqa: S606 - itself


def main() -> None:
    """Serve; exits 0, 1 for damage, 2 for what the operator has to mend, each with a line that says why."""
    try:
        with os.fdopen(int(sys.argv[1]), "rb") as file:
            settings: SidecarSettings = pickle.load(file)  # noqa: S301 - from this very process, before it became this
    except (IndexError, ValueError, OSError, EOFError, pickle.UnpicklingError):
        sys.stderr.write("this is started by `sidecar run`\n")
        raise SystemExit(USAGE) from None
    gc.disable()  # until it serves (`heap.settle`): next to nothing of what is made before that is garbage
    with explained():
        from sidecar.main.process import run

        run(settings)


if __name__ == "__main__":
    main()
