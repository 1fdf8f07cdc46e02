"""`sidecar describe`."""

import json

from rich.table import Table

from sidecar.cli.console import FINDING, out
from sidecar.main.build import describer
from sidecar.settings.sidecar import SidecarSettings


def show(settings: SidecarSettings, *, as_json: bool) -> int:
    """Print what every method reaches; 1 when something is not annotated."""
    described = describer(settings)
    report = described.report()
    if as_json:
        out().print_json(json.dumps(report.to_json()))
        return FINDING if report.unannotated else 0
    table = Table("method", "action", "resource", "subject", "categories", "subject fields")
    for row in report.methods:
        table.add_row(
            row.method, row.action, row.resource, row.subject, ", ".join(row.categories), ", ".join(row.subject_fields)
        )
    out().print(table)
    for line in report.unannotated:
        out().print(line, style="yellow", markup=False)
    return FINDING if report.unannotated else 0
