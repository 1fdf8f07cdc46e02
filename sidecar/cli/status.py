"""`sidecar status`."""

import json
from collections.abc import Iterator, Mapping

from rich.table import Table

from sidecar.cli.console import FINDING, out, plain
from sidecar.cli.running import asked
from sidecar.settings.sidecar import SidecarSettings

_OF_A_WORKER = ("state", "pid", "slot", "restarts", "spool_records", "open_calls")


def ask(settings: SidecarSettings, *, as_json: bool) -> int:
    """Print what the running sidecar says of itself; 1 when it is not well.

    ConfigurationError when no admin socket is configured or nobody answers on it.
    """
    found = asked(settings, "status")
    if as_json:
        out().print(json.dumps(found), markup=False)
    else:
        table = Table(show_header=False, box=None)
        for key, value in _rows(found):
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            table.add_row(plain(key.replace("_", " ")), plain(shown))
        out().print(table)
    return FINDING if found.get("problems") else 0


def _rows(found: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Each key; of several workers a line each, with what tells them apart."""
    for key, value in found.items():
        if key != "workers" or not isinstance(value, list):
            yield key, value
            continue
        for one in value:
            said = [f"{name.replace('_', ' ')} {one[name]}" for name in _OF_A_WORKER if one.get(name) is not None]
            yield f"worker {one.get('worker')}", ", ".join(said)
