"""A question to a running sidecar, over its admin socket."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path

from sidecar.errors import ConfigurationError
from sidecar.settings.sidecar import SidecarSettings

_MOST_BYTES = 1 << 20


def asked(settings: SidecarSettings, *words: str, seconds: float = 5.0) -> Mapping[str, object]:
    """What it answers, within so many seconds. A refusal is an answer too: {"error": …}.

    ConfigurationError when no admin socket is configured or nobody answers on it.
    """
    if settings.admin is None:
        raise ConfigurationError("no admin socket is configured", where="admin", fix="Add admin: {socket: PATH}.")
    path = settings.admin.socket
    try:
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(seconds)
            talk.connect(str(path))
            talk.sendall(json.dumps(words).encode() + b"\n")
            with talk.makefile("rb") as answer:
                found = json.loads(answer.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise _nobody(path, str(error)) from None
    if not isinstance(found, dict):
        raise _nobody(path, "what answers is something else")
    return found


def _nobody(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"no sidecar answers: {why}", where=str(path), fix="Is it running, and with these settings?"
    )
