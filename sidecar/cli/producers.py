"""`sidecar oversight producer ...`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sidecar.errors import ConfigurationError
from sidecar.oversight.producers import add_producer, list_producers, read_public_key, revoke_producer
from sidecar.settings.loader import load
from sidecar.settings.oversight import OversightSettings


def add(config: Path, name: str, key: Path, identity: str) -> str:
    """Register; a line that says so."""
    try:
        pem = key.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(key), fix="Give --key FILE.") from None
    one = add_producer(
        _registry(config), name=name, public_key=read_public_key(pem, str(key)), identity=identity, now=_now()
    )
    return f"{one.name} may append, with {one.identity}"


def revoke(config: Path, name: str) -> str:
    """Revoke; a line that says so."""
    one = revoke_producer(_registry(config), name=name, now=_now())
    return f"{one.name} may append no more"


def lines(config: Path, *, as_json: bool) -> Iterator[str]:
    """A line for each producer."""
    for one in list_producers(_registry(config)):
        if as_json:
            yield json.dumps({"name": one.name, "identity": one.identity, "added": one.added, "revoked": one.revoked})
        else:
            yield f"{one.name}  {one.identity}  added {one.added}" + (f"  revoked {one.revoked}" if one.revoked else "")


def _registry(config: Path) -> Path:
    return load(config, OversightSettings).producers.file


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")  # noqa: TID251 - an edge
