"""What a campaign measured."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `held`: whether what must hold did; figures that only inform have no say in it."""

    campaign: str
    figure: str
    held: bool


def percentile(seconds: Iterable[float], part: float) -> float:
    """The nearest-rank percentile; NaN of nothing."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


def table(rows: Iterable[Row]) -> str:
    """Rows as Markdown."""
    lines = [f"| {one.campaign} | {one.figure} | {'held' if one.held else '**FAILED**'} |" for one in rows]
    return "\n".join(["| campaign | figure | |", "|---|---|---|", *lines])
