"""The figures: rows with their targets, as one table, as JSON, and in docs/measurements.md."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "measurements.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
HEADINGS = ("what", "figure", "p50 ms", "p99 ms", "RSS MiB", "× plain", "× bare", "target", "reached")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. `reached` is None where no target is given, or where it cannot be judged in this run.

    `p50`, `p99` in ms; `plain` and `bare`: the share of the plain proxy's and of the bare echo's rate.
    """

    group: str
    what: str
    figure: float
    unit: str
    p50: float | None = None
    p99: float | None = None
    rss: float | None = None
    plain: float | None = None
    bare: float | None = None
    target: str = ""
    reached: bool | None = None
    note: str = ""
    samples: tuple[float, ...] = field(default=())

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        said = {True: "yes", False: "no", None: "not judged" if self.target else ""}[self.reached]
        return (
            self.what + (f" ({self.note})" if self.note else ""), f"{number(self.figure)} {self.unit}".strip(),
            *(number(one) for one in (self.p50, self.p99, self.rss, self.plain, self.bare)), self.target, said,
        )  # fmt: skip


def at_least(figure: float, least: float) -> bool:
    """For targets of the form ≥."""
    return figure >= least


def at_most(figure: float, most: float) -> bool:
    """For targets of the form ≤."""
    return figure <= most


def middle(samples: Sequence[float]) -> float:
    """The median: one disturbed round moves it little."""
    return statistics.median(samples)


def number(value: float | None) -> str:
    """Three digits that matter, no more."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def show(console: Console, rows: Iterable[Row], facts: dict[str, str]) -> None:
    """The one table."""
    table = Table(show_header=True, title="Customhouse, measured", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("what", "target", "reached") else "right")
    group = ""
    for row in rows:
        if row.group != group:
            table.add_section()
            table.add_row(row.group, style="bold")
            group = row.group
        table.add_row(*row.cells(), style="yellow" if row.reached is False else "")
    console.print(table)
    console.print(" · ".join(f"{name}: {value}" for name, value in facts.items()), style="dim", markup=False)


def as_json(rows: Iterable[Row], facts: dict[str, str]) -> str:
    """Everything, samples included."""
    return json.dumps({"machine": facts, "rows": [asdict(row) for row in rows]}, indent=2, ensure_ascii=False) + "\n"


def write_document(rows: Sequence[Row], facts: dict[str, str]) -> None:
    """Put the table between the marks of docs/measurements.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise ValueError(f"{DOCUMENT} has no place for figures: it needs the lines {BEGIN} and {END}")
    lines = ["", *(f"* {name}: {value}" for name, value in facts.items()), ""]
    lines += [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    group = ""
    for row in rows:
        if row.group != group:
            lines.append(f"| **{row.group}** |" + " |" * (len(HEADINGS) - 1))
            group = row.group
        lines.append(f"| {' | '.join(row.cells())} |")
    DOCUMENT.write_text("\n".join((head + BEGIN, *lines, "", END + tail)), encoding="utf-8")
