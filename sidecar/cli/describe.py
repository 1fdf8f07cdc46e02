"""`sidecar describe`."""

import json

from rich.table import Table

from sidecar.cli.console import FINDING, out, plain
from sidecar.main.build import describer
from sidecar.settings.sidecar import SidecarSettings


def show(settings: SidecarSettings, *, as_json: bool) -> int:
    """Print what every method reaches; 1 when something is not described."""
    described = describer(settings)
    report = described.report()
    if as_json:
        out().print(json.dumps(report.to_json()), markup=False)
        return FINDING if report.unannotated else 0
    table = Table("method", "status", "action", "resource", "subject", "categories", "subject fields")
    for row in report.methods:
        cells = (row.method, row.status, row.action, row.resource, row.subject, ", ".join(row.categories),
                 ", ".join(row.subject_fields))  # fmt: skip
        table.add_row(*map(plain, cells))
    out().print(table)
    for line in report.unannotated:
        out().print(plain(line), style="yellow")
    return FINDING if report.unannotated else 0
