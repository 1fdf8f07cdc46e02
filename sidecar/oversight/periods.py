"""Periods of the pseudonym keys: 30 days each unless configured otherwise, named after their first day (UTC)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From `start` (inclusive) to `until` (exclusive)."""

    start: datetime
    until: datetime

    @property
    def name(self) -> str:
        """Its first day, such as "2026-11-01"."""
        return self.start.date().isoformat()


def missing(last: Period | None, *, now: datetime, length: timedelta, ahead: int) -> list[Period]:
    """The periods that must be issued so that the running one and `ahead` more exist; `last` is the latest issued.

    Periods never overlap and follow one another without a hole, except over a time in which the store was down.
    `length` is a whole number of days; counted from 1970-01-01, so that two stores agree.
    """
    start = _EPOCH + (now - _EPOCH) // length * length
    if last is not None:
        start = max(start, last.until) if last.until > now else max(last.until, start)
    periods: list[Period] = []
    end = now + ahead * length
    while start <= end:
        periods.append(Period(start=start, until=start + length))
        start += length
    return periods


def rfc3339(moment: datetime) -> str:
    """UTC with microseconds and Z."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def overlapping(periods: Iterable[Period], since: datetime | None, until: datetime | None) -> list[Period]:
    """The periods that meet [since, until)."""
    return [
        period
        for period in periods
        if (until is None or period.start < until) and (since is None or period.until > since)
    ]
