"""`sidecar describe`."""

import json
from collections.abc import Iterator

from sidecar.attributes.report import Row
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
    for row in report.methods:
        out().print(plain(row.method), style="bold")
        for name, value in _said(row):
            out().print(plain(f"    {name:<16}{value}"))
    for line in report.unannotated:
        out().print(plain(line), style="yellow")
    return FINDING if report.unannotated else 0


def _said(row: Row) -> Iterator[tuple[str, str]]:
    """What there is to say of a method; an undescribed one has nothing but its status."""
    found = {
        "status": row.status,
        "action": f"{row.action} {row.resource}".strip(),
        "subject": row.subject,
        "categories": ", ".join(row.categories),
        "subject fields": ", ".join(row.subject_fields),
    }
    return ((name, value) for name, value in found.items() if value)
