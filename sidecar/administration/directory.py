"""Builds the directory snapshot from `people.jsonl` and `entities.jsonl`, a JSON object a line.

Every row is checked: keys, types, ids, ISO 3166-1 countries, RFC 3339 instants, and that every counterparty and owner
has a row of its own. While one row is bad nothing is written and each bad row is named.

A person needs `id`, `us_personnel`, `status` and `as_of`; whatever else is left out or null is unknown, and no rule
takes unknown as good. An entity needs its `id`; a `share` is in percent (a number, or a decimal in a string), and the
shares of one entity make 100 at most.

Covered persons (28 CFR 202.211) are not resolved in this version: every person's status is `unknown`.
"""

import re
import time
from array import array
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from rich.progress import Progress

from sidecar.administration.rows import (
    BadRows,
    BuildReport,
    RowError,
    country,
    instant,
    json_lines,
    person_id,
    text,
    unique_keys,
)
from sidecar.attributes.directory import KIND, MAX_SIZE, SIZE_BITS, Entity, Owner, PersonRow, hash_of
from sidecar.attributes.hashes import write_hashes
from sidecar.attributes.snapshots import SKEW, SnapshotWriter
from sidecar.attributes.words import nearest
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import Engagement, Location, Person, Training

EngagementType = Literal["employment", "vendor", "investment", "brokerage", "none"]
S = TypeVar("S", bound=msgspec.Struct)

_PART = re.compile(r"at `\$\.(\w+)")
_UNKNOWN_KEY = re.compile(r"unknown field `([^`]*)`")
_encode = msgspec.json.Encoder().encode


class EngagementSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`engagement` of a person's row (28 CFR 202.214, 217, 228, 258)."""

    type: EngagementType | None = None
    counterparty: str | None = None
    group: str | None = None
    agreement_ref: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    until: str | None = None


class PersonSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `people.jsonl`."""

    id: str
    us_personnel: bool
    status: str
    as_of: str
    vetted_until: str | None = None
    roles: tuple[str, ...] = ()
    training: tuple[Training, ...] = ()
    location: Location | None = None
    legal_status: str | None = None
    primary_residence: str | None = None
    citizenships: tuple[str, ...] = ()
    engagement: EngagementSource | None = None


_PARTS: Mapping[str, type[msgspec.Struct]] = {
    "location": Location, "training": Training, "engagement": EngagementSource, "owners": Owner,
}  # fmt: skip


class _Section:
    """Rows on their way into the snapshot: written as they come, found later by the hash of their id."""

    def __init__(self, writer: SnapshotWriter, name: str) -> None:
        self._writer, self._name = writer, name
        self._places: list[tuple[int, int]] = []
        writer.section(f"{name}.rows")

    def add(self, row_id: str, row: msgspec.Struct) -> None:
        data = _encode(row)
        if len(data) > MAX_SIZE:
            raise ValueError(f"a row of {len(data)} bytes")
        at = self._writer.write(data + b"\n")
        self._places.append((hash_of(row_id), at << SIZE_BITS | len(data)))

    def close(self) -> None:
        self._places.sort()
        hashes = [number for number, _ in self._places]
        write_hashes(self._writer, f"{self._name}.hashes", [hashes], len(hashes))
        self._writer.section(f"{self._name}.places")
        self._writer.write(array("Q", (place for _, place in self._places)).tobytes())


class _Build:
    def __init__(self, people: Path, entities: Path, progress: Progress, now: float) -> None:
        self._people, self._entities, self._progress, self._now = people, entities, progress, now
        self.bad = BadRows()
        self._entity_lines: dict[str, int] = {}
        self._person_lines: dict[str, int] = {}
        self.us_personnel = 0

    def write(self, writer: SnapshotWriter) -> None:
        section = _Section(writer, "entities")
        rows = list(self._read(self._entities, Entity, self._entity_lines, self._entity))
        for _, entity in rows:
            section.add(entity.id, entity)
        section.close()
        section = _Section(writer, "people")
        for line, source in self._read(self._people, PersonSource, self._person_lines, self._person):
            section.add(source.id, self._row(source))
            self.us_personnel += source.us_personnel
            if source.id in self._entity_lines:
                self.bad.add(self._people, line, source.id, RowError(
                    f"the entity of {self._entities}:{self._entity_lines[source.id]} has this id too",
                    "Give them different ids: an owner is named by id alone."))  # fmt: skip
        section.close()
        self._check_owners(rows)

    def counts(self) -> dict[str, int]:
        return {"people": len(self._person_lines), "entities": len(self._entity_lines)}

    def _read(self, path: Path, kind: type[S], lines: dict[str, int],
              check: Callable[[S], None]) -> Iterable[tuple[int, S]]:  # fmt: skip
        decode = msgspec.json.Decoder(kind).decode
        for number, line in json_lines(path, self._progress, self.bad):
            row_id: str | None = None
            try:
                row = _decoded(decode, line, kind)
                row_id = str(row.id)  # type: ignore[attr-defined]
                _claim(row_id, number, lines)
                unique_keys(line)
                check(row)
            except RowError as error:
                row_id = row_id or _id_of(line)
                if row_id is not None:  # what names this row is not to blame
                    lines.setdefault(row_id, number)
                self.bad.add(path, number, row_id, error)
            else:
                yield number, row

    def _past(self, value: str, name: str) -> None:
        if instant(value, name) > self._now + SKEW:
            raise RowError(f"{name} {value!r} is in the future", "Correct it, or the clock of this machine.")

    def _entity(self, row: Entity) -> None:
        text(row.id, "id")
        _countries(row.organised_under, "organised_under")
        for name, value in (("principal_place", row.principal_place), ("government_of", row.government_of)):
            if value is not None:
                country(value, name)
        total = Decimal(0)
        _distinct([owner.id for owner in row.owners], "owners")
        for owner in row.owners:
            if owner.id == row.id:
                raise RowError("it owns itself", "Leave out shares that an entity holds in itself.")
            total += _percentage(owner)
        if total > 100:
            raise RowError(f"the shares make {total} %", "Shares are in percent and make 100 at most.")

    def _person(self, row: PersonSource) -> None:
        person_id(row.id)
        text(row.status, "status")
        self._past(row.as_of, "as_of")
        if row.vetted_until is not None:
            instant(row.vetted_until, "vetted_until")
        for role in _distinct(row.roles, "roles"):
            text(role, "roles")
        for course in row.training:
            text(course.id, "training.id")
            instant(course.until, f"training {course.id!r} until")
        _distinct([course.id for course in row.training], "training")
        if row.legal_status is not None:
            text(row.legal_status, "legal_status")
        if row.primary_residence is not None:
            country(row.primary_residence, "primary_residence")
        _countries(row.citizenships, "citizenships")
        if row.location is not None:
            self._location(row.location)
        if row.engagement is not None:
            self._engagement(row.engagement)

    def _location(self, location: Location) -> None:
        if location.country is not None:
            country(location.country, "location.country")
        if location.source is not None:
            text(location.source, "location.source")
        if location.as_of is not None:
            self._past(location.as_of, "location.as_of")

    def _engagement(self, row: EngagementSource) -> None:
        for name in ("counterparty", "group", "agreement_ref"):
            value = getattr(row, name)
            if value is not None:
                text(value, f"engagement.{name}")
        if row.counterparty is not None and row.counterparty not in self._entity_lines:
            raise RowError(f"engagement.counterparty {row.counterparty!r} is no entity of {self._entities}",
                           f"Add it there. {self._nearest_entity(row.counterparty)}".strip())  # fmt: skip
        begins = None if row.from_ is None else instant(row.from_, "engagement.from")
        ends = None if row.until is None else instant(row.until, "engagement.until")
        if begins is not None and ends is not None and begins >= ends:
            raise RowError("engagement.from is not before engagement.until", "Correct one of them.")

    def _nearest_entity(self, wanted: str) -> str:
        # Comparing with every entity is slow, and a source may be wrong in every row.
        return nearest(wanted, self._entity_lines) if len(self._entity_lines) * self.bad.count < 10_000 else ""

    def _row(self, row: PersonSource) -> PersonRow:
        engagement = row.engagement or EngagementSource()
        ends = [row.vetted_until, engagement.from_, engagement.until, *(course.until for course in row.training)]
        return PersonRow(
            person=Person(
                id=row.id, us_personnel=row.us_personnel, location=row.location or Location(),
                legal_status=row.legal_status, primary_residence=row.primary_residence, citizenships=row.citizenships,
                roles=row.roles, training=row.training, vetted_until=row.vetted_until, status=row.status,
            ),
            engagement=Engagement(**msgspec.structs.asdict(engagement)),
            as_of=row.as_of,
            turns=tuple(sorted({instant(end, "turn") for end in ends if end is not None})),
        )  # fmt: skip

    def _check_owners(self, rows: list[tuple[int, Entity]]) -> None:
        for line, entity in rows:
            for owner in entity.owners:
                if owner.id not in self._entity_lines and owner.id not in self._person_lines:
                    self.bad.add(self._entities, line, entity.id, RowError(
                        f"owner {owner.id!r} is neither an entity nor a person of these files",
                        "Add a row for it."))  # fmt: skip


def build(people: Path, entities: Path, target: Path, progress: Progress, *,
          clock: Callable[[], float] = time.time) -> BuildReport:  # noqa: TID251  # fmt: skip
    """Check both files and write the snapshot to `target`, atomically. `clock` is UTC in unix seconds.

    Bad rows are in the report, not raised. ConfigurationError when a file cannot be read or written at all.
    """
    for source in (people, entities):
        if target.resolve() == source.resolve():
            raise ConfigurationError("the target is a source", where=str(target), fix="Name another file to write.")
    now = clock()
    work = _Build(people, entities, progress, now)
    with SnapshotWriter(target, KIND) as writer:
        work.write(writer)
        if work.bad.count:
            return work.bad.report(target)
        revision = writer.commit(built_at=now, counts=work.counts())
    built = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    counts = work.counts()
    return BuildReport(bad=0, lines=[
        f"{counts['people']} people ({work.us_personnel} US personnel), {counts['entities']} entities",
        "covered persons are not resolved in this version: every person is `unknown`, which policies weigh as `yes`",
        f"{target}: revision {revision}, built {built}",
    ])  # fmt: skip


def _decoded(decode: Callable[[bytes], S], line: bytes, kind: type[S]) -> S:
    try:
        return decode(line)
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: {error.reason}", "Write the file in UTF-8.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        part = _PART.search(str(error))
        within: type[msgspec.Struct] = _PARTS.get(part[1], kind) if part else kind
        known = [field.encode_name for field in msgspec.structs.fields(within)]
        unknown = _UNKNOWN_KEY.search(str(error))
        fix = nearest(unknown[1], known) if unknown else f"Keys: {', '.join(known)}."
        raise RowError(str(error), fix) from None


def _claim(row_id: str, number: int, lines: dict[str, int]) -> None:
    if row_id in lines:
        raise RowError(f"the id is in line {lines[row_id]} too", "Keep one row for an id.")
    lines[row_id] = number


def _percentage(owner: Owner) -> Decimal:
    share = owner.share
    # Twelve decimals sum without rounding; NaN cannot even be compared.
    if not share.is_finite() or not 0 < share <= 100 or int(share.as_tuple().exponent) < -12:
        raise RowError(f"the share {share} of {owner.id!r} is no percentage",
                       "Use 0 < share <= 100, with at most 12 decimals.")  # fmt: skip
    return share


def _id_of(line: bytes) -> str | None:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found["id"] if isinstance(found, dict) and isinstance(found.get("id"), str) else None


def _distinct(values: Iterable[str], name: str) -> list[str]:
    seen: dict[str, None] = {}
    for value in values:
        if value in seen:
            raise RowError(f"{value!r} is in {name} twice", "Keep one.")
        seen[value] = None
    return list(seen)


def _countries(values: Iterable[str], name: str) -> None:
    for value in _distinct(values, name):
        country(value, name)
