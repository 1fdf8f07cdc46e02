"""Reads the source of the subject index, CSV (RFC 4180) or JSON Lines, a megabyte at a time.

Ten million rows are read in seconds because a block without quotation marks or stray carriage returns is split as
bytes. From the first block that has one, the rest of the file goes through the csv module. Both accept the same rows.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator
from datetime import date
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec
from rich.progress import Progress, TaskID

from sidecar.administration.rows import BadRows, RowError, country, instant, unique_keys, unreadable
from sidecar.attributes.countries import ASSIGNED, UNITED_STATES
from sidecar.attributes.subjects_index import DEFAULT_KIND
from sidecar.attributes.words import nearest
from sidecar.errors import ConfigurationError

BLOCK = 1 << 20
MAX_ID = 1024
"""Bytes of an id, at most."""
COLUMNS = ("id", "country", "as_of", "kind")
Row = tuple[bytes, bool, str]
"""(id in UTF-8, whether it is US, kind)."""

_BOM = b"\xef\xbb\xbf"
_US = {code: code in UNITED_STATES for code in ASSIGNED}
_KIND = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MAX_SEEN = 65_536


class JsonRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of JSON Lines."""

    id: str | int
    country: str
    as_of: str | None = None
    kind: str = DEFAULT_KIND


def read(source: Path, progress: Progress, bad: BadRows) -> Iterator[list[Row]]:
    """The good rows, in blocks; bad ones go to `bad`. ConfigurationError when it cannot be read or has no header."""
    try:
        with source.open("rb") as file:
            reader = _Reader(source, file, progress, bad)
            yield from reader.rows()
    except OSError as error:
        unreadable(source, error)


class _Reader:
    def __init__(self, source: Path, file: BinaryIO, progress: Progress, bad: BadRows) -> None:
        self._source, self._file, self._bad = source, file, bad
        self._progress = progress
        self._task: TaskID = progress.add_task(f"Reading {source.name}", total=source.stat().st_size)
        self._line = 1
        self._seen: set[str] = {""}
        self._kinds: set[str] = {DEFAULT_KIND}

    def rows(self) -> Iterator[list[Row]]:
        blocks = self._blocks()
        first = next(blocks, b"").removeprefix(_BOM)
        if not first.strip():
            raise ConfigurationError("the source is empty", where=str(self._source),
                                     fix="Begin with the header id,country,as_of; or write JSON Lines.")  # fmt: skip
        if first.lstrip().startswith(b"{"):
            yield from self._json(chain((first,), blocks))
        else:
            head, _, rest = first.partition(b"\n")
            columns = self._header(head)
            self._line = 2
            yield from self._csv(columns, chain((rest,), blocks))

    def _blocks(self) -> Iterator[bytes]:
        """The file in blocks that end with a line, the last perhaps without its end."""
        rest = b""
        while data := self._file.read(BLOCK):
            self._progress.advance(self._task, len(data))
            whole, newline, tail = data.rpartition(b"\n")
            if newline:
                yield rest + whole + newline
                rest = tail
            else:
                rest += data
                if len(rest) > 8 * BLOCK:
                    raise ConfigurationError(f"a line of more than {8 * BLOCK} bytes", where=str(self._source),
                                             fix="Write a row a line.")  # fmt: skip
        if rest:
            yield rest

    def _header(self, head: bytes) -> tuple[str, ...]:
        def wrong(what: str, fix: str) -> ConfigurationError:
            return ConfigurationError(what, where=f"{self._source}:1", fix=fix)

        try:
            columns = tuple(next(csv.reader([head.decode().rstrip("\r")], strict=True), []))
        except (UnicodeDecodeError, csv.Error) as error:
            raise wrong(f"the header cannot be read: {error}", "Write id,country,as_of in UTF-8.") from None
        for column in columns:
            if column not in COLUMNS:
                raise wrong(f"unknown column {column[:80]!r}", nearest(column, COLUMNS))
        if len(set(columns)) < len(columns):
            raise wrong("a column is there twice", "Name each column once.")
        if not {"id", "country"} <= set(columns):
            raise wrong("the header lacks id or country", "Write id,country,as_of as the first line.")
        return columns

    def _csv(self, columns: tuple[str, ...], blocks: Iterator[bytes]) -> Iterator[list[Row]]:
        for block in blocks:
            plain = block.replace(b"\r\n", b"\n") if b"\r" in block else block
            if b'"' in plain or b"\r" in plain:
                yield from self._quoted(columns, chain((block,), blocks))
                return
            yield self._plain(columns, plain)

    def _plain(self, columns: tuple[str, ...], block: bytes) -> list[Row]:
        """A block without quotation marks: a line is a row and a comma ends a field."""
        rows: list[Row] = []
        keep, check, usual = rows.append, self._check, columns == COLUMNS[:3]
        try:
            lines, utf8 = block.decode().split("\n"), True
        except UnicodeDecodeError:
            lines, utf8 = block.decode(errors="surrogateescape").split("\n"), False
        us, seen = _US, self._seen
        for number, line in enumerate(lines, self._line):
            fields = line.split(",")
            if usual and utf8 and len(fields) == 3:
                subject_id, code, as_of = fields
                if code in us and as_of in seen and subject_id and len(subject_id) < MAX_ID // 4:
                    keep((subject_id.encode(), us[code], DEFAULT_KIND))
                    continue
            if line and (row := check(number, fields, columns)):
                keep(row)
        self._line += len(lines) - 1
        return rows

    def _quoted(self, columns: tuple[str, ...], blocks: Iterator[bytes]) -> Iterator[list[Row]]:
        before, rows = self._line - 1, list[Row]()
        reader = csv.reader(_lines(blocks), strict=True)
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                self._bad.add(self._source, before + reader.line_num, None,
                              RowError(f"not CSV: {error}", "Quote as RFC 4180 says."))  # fmt: skip
                continue
            if fields and (row := self._check(before + reader.line_num, fields, columns)):
                rows.append(row)
            if len(rows) >= 50_000:
                yield rows
                rows = []
        yield rows

    def _check(self, line: int, fields: list[str], columns: tuple[str, ...]) -> Row | None:
        subject_id: str | None = None
        try:
            named = _named(columns, fields)
            subject_id = named["id"]
            return self._row(subject_id, named["country"], named.get("as_of"), named.get("kind") or DEFAULT_KIND)
        except RowError as error:
            self._bad.add(self._source, line, subject_id, error)
            return None

    def _row(self, subject_id: str, code: str, as_of: str | None, kind: str) -> Row:
        """A checked row. RowError when something is wrong with it."""
        try:
            data, _ = subject_id.encode(), kind.encode()
        except UnicodeEncodeError:
            raise RowError("not UTF-8", "Write the file in UTF-8.") from None
        if not 0 < len(data) <= MAX_ID:
            raise RowError(f"the id has {len(data)} bytes", f"An id has 1 to {MAX_ID} bytes of UTF-8.")
        if code == "":
            raise RowError("no country", "Leave the row out when the country is not known.")
        if as_of is not None and as_of not in self._seen:
            _dated(as_of)
            if len(self._seen) < _MAX_SEEN:
                self._seen.add(as_of)
        if kind not in self._kinds:
            if not _KIND.fullmatch(kind):
                raise RowError(f"kind {kind[:80]!r} cannot be a namespace", "Use 1 to 64 printable characters.")
            self._kinds.add(kind)
        return data, _US[country(code, "country")], kind

    def _json(self, blocks: Iterator[bytes]) -> Iterator[list[Row]]:
        decoder = msgspec.json.Decoder(JsonRow)
        for block in blocks:
            rows: list[Row] = []
            for number, line in enumerate(block.split(b"\n"), self._line):
                if line.strip() and (row := self._json_row(decoder.decode, number, line)):
                    rows.append(row)
            self._line += block.count(b"\n")
            yield rows

    def _json_row(self, decode: Callable[[bytes], JsonRow], number: int, line: bytes) -> Row | None:
        subject_id: str | None = None
        try:
            row = _decoded(decode, line)
            subject_id = _id_text(row.id)
            if line.count(b'"') != _marks(row) or b"\\" in line:
                unique_keys(line)
            return self._row(subject_id, row.country, row.as_of, row.kind)
        except RowError as error:
            self._bad.add(self._source, number, subject_id, error)
            return None


def _named(columns: tuple[str, ...], fields: list[str]) -> dict[str, str]:
    if len(fields) != len(columns):
        raise RowError(f"{len(fields)} fields, not {len(columns)}", "Quote an id that holds a comma.")
    return dict(zip(columns, fields, strict=True))


def _decoded(decode: Callable[[bytes], JsonRow], line: bytes) -> JsonRow:
    try:
        return decode(line)
    except UnicodeDecodeError:
        raise RowError("not UTF-8", "Write the file in UTF-8.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RowError(str(error), 'Write {"id": ..., "country": "US"}, optionally "as_of" and "kind".') from None


def _id_text(value: str | int) -> str:
    try:
        return str(value)
    except ValueError:  # the interpreter's bound on the digits of a number
        raise RowError("the id is a number of too many digits", f"An id has 1 to {MAX_ID} bytes.") from None


def _marks(row: JsonRow) -> int:
    """The fewest quotation marks that a line with this content has; more are optional keys, or a key given twice."""
    return 6 + 2 * isinstance(row.id, str) + 4 * (row.as_of is not None) + 4 * (row.kind != DEFAULT_KIND)


def _dated(value: str) -> None:
    """RowError unless `value` is an RFC 3339 date or instant."""
    if _DATE.fullmatch(value):
        try:
            date.fromisoformat(value)
        except ValueError:
            raise RowError(f"as_of {value!r} is no date", "Write it as 2026-11-30.") from None
    else:
        instant(value, "as_of")


def _lines(blocks: Iterator[bytes]) -> Iterator[str]:
    for block in blocks:
        yield from io.StringIO(block.decode(errors="surrogateescape"), newline="\n")
