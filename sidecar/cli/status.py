"""`sidecar status`."""

import json
import socket
from pathlib import Path

from rich.table import Table

from sidecar.cli.console import FINDING, out, plain
from sidecar.errors import ConfigurationError
from sidecar.settings.sidecar import SidecarSettings

_SECONDS = 5.0
_MOST_BYTES = 1 << 20


def ask(settings: SidecarSettings, *, as_json: bool) -> int:
    """Print what the running sidecar says of itself; 1 when it is not well.

    ConfigurationError when no admin socket is configured or nobody answers on it.
    """
    if settings.admin is None:
        raise ConfigurationError("no admin socket is configured", where="admin", fix="Add admin: {socket: PATH}.")
    path = settings.admin.socket
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(_SECONDS)
            talk.connect(str(path))
            talk.sendall(b"status\n")
            with talk.makefile("rb") as answer:
                found = json.loads(answer.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise _nobody(path, str(error)) from None
    if not isinstance(found, dict):
        raise _nobody(path, "what answers is something else")
    if as_json:
        out().print(json.dumps(found), markup=False)
    else:
        table = Table(show_header=False, box=None)
        for key, value in found.items():
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            table.add_row(plain(key.replace("_", " ")), plain(shown))
        out().print(table)
    return FINDING if found.get("problems") else 0


def _nobody(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"no sidecar answers: {why}", where=str(path), fix="Is it running, and with these settings?"
    )
