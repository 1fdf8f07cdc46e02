"""For operators: pages on metrics and log events, from their closed lists; the charts' copy of the alert rules."""

from pathlib import Path

from sidecar.observability.catalogue import CATALOGUE
from sidecar.observability.events import EVENTS

_RULES = Path(__file__).resolve().parent.parent / "operations/alerts/customhouse.yaml"
_UNITS = {"s": "seconds", "By": "bytes", "1": ""}


def expected() -> dict[str, str]:
    """Path below the root -> what the file should hold."""
    rules = _RULES.read_text()
    charts = {f"helm/{chart}/files/alerts.yaml": rules for chart in ("sidecar", "oversight")}
    return {"docs/metrics.md": _metrics(), "docs/log-events.md": _events(), **charts}


def _metrics() -> str:
    lines = [
        "# Metrics",
        "",
        "Written by `make generate` from `sidecar/observability/catalogue.py`. Counters end in `_total` on the page, histograms in",
        "`_bucket`, `_sum` and `_count`. OTLP has the name in brackets. No label holds a person or anything a caller sent; a name",
        "that the API does not have is `_OTHER`.",
        "",
    ]
    for process, title in (("sidecar", "The sidecar"), ("oversight", "The oversight store"), ("ledger", "The ledger")):
        lines += [f"## {title}", "", "| metric | kind | labels | means |", "|---|---|---|---|"]
        for one in CATALOGUE.values():
            if process in one.of:
                unit = f", {_UNITS[one.unit]}" if _UNITS[one.unit] else ""
                labels = ", ".join(f"`{label}`" for label in one.labels)
                lines.append(
                    f"| `{one.name}` (`{one.otlp}`) | {one.kind}{unit} | {labels} | {one.means.replace('|', '/')} |"
                )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _events() -> str:
    lines = [
        "# Log events",
        "",
        "Written by `make generate` from `sidecar/observability/events.py`. A line of the log is one JSON object with `event`,",
        "`level`, `component`, `timestamp` and the fields below. No field holds a header's value or a message's content. Every",
        "line is counted: `customhouse_log_events_total{event, level}`.",
        "",
    ]
    titles = (
        ("sidecar", "The sidecar"),
        ("oversight", "The oversight store"),
        ("ledger", "The ledger"),
        ("webhook", "The webhook"),
    )
    for process, title in titles:
        lines += [f"## {title}", "", "| event | level | fields | what to do |", "|---|---|---|---|"]
        for one in EVENTS:
            if process in one.of:
                fields = ", ".join("those of its own kind" if field == "..." else f"`{field}`" for field in one.fields)
                lines.append(f"| `{one.name}` | {one.level} | {fields} | {one.do} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
