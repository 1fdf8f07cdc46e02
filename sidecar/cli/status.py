"""`sidecar status`."""

import json

from rich.table import Table

from sidecar.cli.console import FINDING, out, plain
from sidecar.cli.running import asked
from sidecar.settings.sidecar import SidecarSettings


def ask(settings: SidecarSettings, *, as_json: bool) -> int:
    """Print what the running sidecar says of itself; 1 when it is not well.

    ConfigurationError when no admin socket is configured or nobody answers on it.
    """
    found = asked(settings, "status")
    if as_json:
        out().print(json.dumps(found), markup=False)
    else:
        table = Table(show_header=False, box=None)
        for key, value in found.items():
            shown = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            table.add_row(plain(key.replace("_", " ")), plain(shown))
        out().print(table)
    return FINDING if found.get("problems") else 0
