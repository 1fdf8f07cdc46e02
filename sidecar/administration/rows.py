"""Rows of a source: what is wrong with them, and how an instant, an id and a country are spelled.

A builder reads a whole source, notes every bad row, and writes only when there is none.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from rich.progress import Progress

from sidecar.attributes.countries import ASSIGNED, country_class
from sidecar.errors import ConfigurationError
from sidecar.json_names import DoubledNameError, once

LINE_LIMIT = 1 << 20
"""Longer lines are not rows."""

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)")
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,256}")
_PERSON_ID = re.compile(r"[\x21-\x7e]{1,256}")
_LATEST = datetime(2262, 1, 1, tzinfo=UTC)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What a builder did. `lines` are for people; `bad` is the number of bad rows: above 0 nothing was written."""

    lines: list[str]
    bad: int


class RowError(ValueError):
    """A row that cannot be used: what is wrong with it and what to do."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}. {fix}")


@dataclass(slots=True, kw_only=True)
class BadRows:
    """Bad rows of one build: all are counted, the first `shown` are named (None: all)."""

    shown: int | None = None
    count: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, path: Path, line: int, row_id: str | None, error: object) -> None:
        """Name a row: file, line, id where it is known, what and fix."""
        self.count += 1
        if self.shown is None or len(self.lines) < self.shown:
            named = "" if row_id is None else f" {row_id[:256]!r}:"
            self.lines.append(f"{path}:{line}:{named} {error}")

    def report(self, target: Path) -> BuildReport:
        """The report of a build that failed."""
        lines = list(self.lines)
        if self.count > len(lines):
            lines.append(f"... and {self.count - len(lines)} more bad rows")
        lines.append(f"{self.count} bad {'row' if self.count == 1 else 'rows'}; {target} was not written.")
        return BuildReport(lines=lines, bad=self.count)


def instant(value: str, name: str) -> float:
    """Unix seconds of an RFC 3339 date-time in the form every policy engine reads: `T` and `Z` or an offset, 1970-2261.

    RowError otherwise.
    """
    if _INSTANT.fullmatch(value):
        try:
            # Python reads at most six digits of a fraction; none of these instants needs more.
            moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value))
            if _EARLIEST <= moment < _LATEST:
                return moment.timestamp()
        except (ValueError, OverflowError):
            pass
        else:
            raise RowError(f"{name} {value!r} is out of range", "Use an instant from 1970 to 2261.")
    raise RowError(f"{name} {value!r} is no RFC 3339 instant", "Write it as 2026-11-30T17:00:00Z.")


def country(value: str, name: str) -> str:
    """An assigned ISO 3166-1 alpha-2 code. RowError otherwise."""
    if value in ASSIGNED:
        return value
    fix = f"Write {value.strip().upper()!r}." if country_class(value) != "unknown" else (
        "Use an assigned code of two capitals, such as US."
    )  # fmt: skip
    raise RowError(f"{name} {value[:80]!r} is no ISO 3166-1 alpha-2 code", fix)


def text(value: str, name: str) -> str:
    """1 to 256 characters without control characters. RowError otherwise."""
    if not _TEXT.fullmatch(value):
        raise RowError(f"{name} {value[:80]!r} is empty, too long or holds control characters",
                       "Use 1 to 256 printable characters, or null where it is not known.")  # fmt: skip
    return value


def person_id(value: str) -> str:
    """An id that a token can name: 1 to 256 visible ASCII characters. RowError otherwise."""
    if not _PERSON_ID.fullmatch(value):
        raise RowError(f"id {value[:80]!r} cannot stand in a token",
                       "Use 1 to 256 visible ASCII characters, without spaces.")  # fmt: skip
    return value


def unique_keys(line: bytes) -> None:
    """RowError when an object names a key twice: which one counts would depend on the reader (RFC 8259, 4)."""
    try:
        json.loads(line, object_pairs_hook=once)
    except DoubledNameError as error:
        raise RowError(f"key {error.name!r} is there twice", "Keep one.") from None
    except (ValueError, RecursionError) as error:
        raise RowError(f"not JSON: {error}", "Mend the line.") from None


def json_lines(path: Path, progress: Progress, bad: BadRows) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of every line that is not blank. ConfigurationError when the file cannot be read."""
    try:
        with path.open("rb") as file:
            task = progress.add_task(f"Reading {path.name}", total=path.stat().st_size)
            number = 0
            while line := file.readline(LINE_LIMIT):
                number += 1
                progress.advance(task, len(line))
                if len(line) == LINE_LIMIT and not line.endswith(b"\n"):
                    bad.add(path, number, None, RowError(f"longer than {LINE_LIMIT} bytes", "Split it into rows."))
                    _skip(file.readline)
                elif line.strip():
                    yield number, line
    except OSError as error:
        unreadable(path, error)


def _skip(readline: Callable[[int], bytes]) -> None:
    while (rest := readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
        pass


def unreadable(path: Path, error: OSError) -> NoReturn:
    """ConfigurationError about a source that cannot be read."""
    raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path),
                             fix="Name a file that exists and that you may read.") from None  # fmt: skip
