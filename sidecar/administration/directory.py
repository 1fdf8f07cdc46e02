"""Builds the directory snapshot from `people.jsonl` and `entities.jsonl`, a JSON object a line.

Every row is checked: keys, types, ids, ISO 3166-1 countries, RFC 3339 instants, and that every counterparty and owner
has a row of its own. While one row is bad nothing is written and each bad row is named.

A person needs `id`, `us_personnel`, `status` and `as_of`; whatever else is left out or null is unknown, and no rule
takes unknown as good. An entity needs its `id`; a `share` is in percent (a number, or a decimal in a string), and the
shares of one entity make 100 at most.

Covered persons (28 CFR 202.211) are resolved here, entities and people (`covered`, `covered_people`). That needs those
persons who own something before everybody else is written, so people.jsonl is read twice; owners that differ the second
time stop the build.
"""

import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from rich.progress import Progress

from sidecar.administration.covered import Coverage
from sidecar.administration.covered_explain import Explanation
from sidecar.administration.covered_people import PersonFacts, PersonVerdict, access
from sidecar.administration.designations import read_designations
from sidecar.administration.directory_rows import EngagementSource, PersonSource, RowChecks, decoded
from sidecar.administration.rows import BadRows, BuildReport, RowError, instant, json_lines, unique_keys
from sidecar.attributes.countries import UNITED_STATES
from sidecar.attributes.directory import KIND, MAX_SIZE, SIZE_BITS, Entity, PersonRow, ResolvedEntity, hash_of
from sidecar.attributes.hashes import write_hashes
from sidecar.attributes.snapshots import SnapshotWriter
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import CoveredPerson, Engagement, Location, Person

S = TypeVar("S", bound=msgspec.Struct)

_DAY = 86_400.0
_SHOWN = 3
_encode = msgspec.json.Encoder().encode


class _Id(msgspec.Struct, frozen=True):
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """For how many days what a row attests holds: the primary residence, and presence in the United States."""

    residence_days: int = 90
    presence_days: int = 7


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
    def __init__(self, people: Path, entities: Path, progress: Progress, now: float, bounds: Bounds) -> None:
        self._people, self._entities, self._progress, self._now = people, entities, progress, now
        self._bounds = bounds
        self.bad = BadRows()
        self._entity_lines: dict[str, int] = {}
        self._checks = RowChecks(self._entity_lines, entities, self.bad, now)
        self._person_lines: dict[str, int] = {}
        self.us_personnel = 0
        self.covered: Counter[str] = Counter()
        self.explained: dict[str, list[str]] = {}
        self._wanted: set[str] = set()
        self._listed: Collection[str] = ()

    def write(self, writer: SnapshotWriter, designated: Path | None, explain: Collection[str]) -> None:
        listed = self._listed = read_designations(designated, self._progress, self.bad)
        rows = [(line, _designate(entity, listed)) for line, entity in
                self._read(self._entities, Entity, self._entity_lines, self._checks.entity)]  # fmt: skip
        owners = self._owners(rows)
        people = {name: self._facts(source, listed) for name, source in owners.items()}
        self.coverage = Coverage([entity for _, entity in rows], people)
        explanation = Explanation(self.coverage, {entity.id: entity for _, entity in rows})
        section = _Section(writer, "entities")
        for _, entity in rows:
            section.add(entity.id, _resolved(entity, self.coverage))
            if entity.id in explain:
                self.explained[entity.id] = list(explanation.entity(entity.id))
        section.close()
        section = _Section(writer, "people")
        for line, source in self._read(self._people, PersonSource, self._person_lines, self._checks.person):
            facts = self._facts(source, listed)
            counterparty = facts.counterparty
            verdict = access(facts, self.coverage.employer(counterparty), abroad=self.coverage.foreign(counterparty))
            section.add(source.id, self._row(source, verdict))
            self.us_personnel += source.us_personnel
            self.covered[verdict.value] += 1
            if source.id in explain:
                self.explained[source.id] = list(explanation.person(source.id, facts, verdict))
            if source.id in self._wanted and owners.get(source.id) != source:
                raise _changed(self._people)
            if source.id in self._entity_lines:
                self.bad.add(self._people, line, source.id, RowError(
                    f"the entity of {self._entities}:{self._entity_lines[source.id]} has this id too",
                    "Give them different ids: an owner is named by id alone."))  # fmt: skip
        section.close()
        if not owners.keys() <= self._person_lines.keys():
            raise _changed(self._people)
        self._check_owners(rows)

    def designations(self) -> list[str]:
        """How many of a list have no row here: one that is misspelt designates nobody."""
        without = [one for one in self._listed if one not in self._person_lines and one not in self._entity_lines]
        some = f", such as {', '.join(sorted(without)[:_SHOWN])}" if without else ""
        return [f"designated: {len(self._listed)} listed, {len(without)} without a row{some}"] if self._listed else []

    def _owners(self, rows: list[tuple[int, Entity]]) -> dict[str, PersonSource]:
        """The rows of those persons who own something. Bad ones are named when all are read."""
        self._wanted = {owner.id for _, entity in rows for owner in entity.owners} - self._entity_lines.keys()
        if not self._wanted:
            return {}
        decode, only_id = msgspec.json.Decoder(PersonSource).decode, msgspec.json.Decoder(_Id).decode
        found: dict[str, PersonSource] = {}
        for _, line in json_lines(self._people, self._progress, BadRows(shown=0)):
            try:
                row_id = only_id(line).id
                if row_id in self._wanted:
                    found.setdefault(row_id, decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        return found

    def _facts(self, source: PersonSource, listed: Collection[str]) -> PersonFacts:
        engagement, location = source.engagement or EngagementSource(), source.location or Location()
        present: Literal["yes", "stale", "no"] = "no"
        if location.country in UNITED_STATES:
            seen = self._recent(location.as_of or source.as_of, self._bounds.presence_days)
            present = "yes" if seen else "stale"
        return PersonFacts(
            designated=bool(source.designated) or source.id in listed, legal_status=source.legal_status,
            residence=source.primary_residence, attested=self._recent(source.as_of, self._bounds.residence_days),
            present=present, engagement=engagement.type, counterparty=engagement.counterparty,
        )  # fmt: skip

    def _recent(self, as_of: str, days: int) -> bool:
        try:
            return self._now - instant(as_of, "as_of") <= days * _DAY
        except RowError:  # the row is refused for it
            return False

    def counts(self) -> dict[str, int]:
        return {"people": len(self._person_lines), "entities": len(self._entity_lines)}

    def _read(self, path: Path, kind: type[S], lines: dict[str, int],
              check: Callable[[S], None]) -> Iterable[tuple[int, S]]:  # fmt: skip
        decode = msgspec.json.Decoder(kind).decode
        for number, line in json_lines(path, self._progress, self.bad):
            row_id: str | None = None
            try:
                row = decoded(decode, line, kind)
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

    def _row(self, row: PersonSource, verdict: PersonVerdict) -> PersonRow:
        engagement = row.engagement or EngagementSource()
        ends = [row.vetted_until, engagement.from_, engagement.until, *(course.until for course in row.training)]
        return PersonRow(
            person=Person(
                id=row.id, us_personnel=row.us_personnel, location=row.location or Location(),
                legal_status=row.legal_status, primary_residence=row.primary_residence, citizenships=row.citizenships,
                covered_person=CoveredPerson(value=verdict.value, basis=verdict.basis, as_of=row.as_of),
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


def build(people: Path, entities: Path, target: Path, progress: Progress, *, designated: Path | None = None,
          explain: Collection[str] = (), bounds: Bounds = Bounds(),
          clock: Callable[[], float] = time.time) -> BuildReport:  # noqa: TID251  # fmt: skip
    """Check the files, resolve covered persons and write the snapshot to `target`, atomically.

    `designated` is a list as `designations` reads it; `explain` are ids whose verdict the report gives reasons for;
    `clock` is UTC in unix seconds. Bad rows are in the report, not raised. ConfigurationError when a file cannot be
    read or written at all, or changes while it is read, and for an id to explain that has no row.
    """
    for source in (people, entities, designated):
        if source is not None and target.resolve() == source.resolve():
            raise ConfigurationError("the target is a source", where=str(target), fix="Name another file to write.")
    now = clock()
    work = _Build(people, entities, progress, now, bounds)
    with SnapshotWriter(target, KIND) as writer:
        work.write(writer, designated, frozenset(explain))
        if work.bad.count:
            return work.bad.report(target)
        for name in explain:
            if name not in work.explained:
                raise ConfigurationError("there is no such person or entity to explain", where="--explain", value=name,
                                         fix="Use an id of people.jsonl or entities.jsonl.")  # fmt: skip
        revision = writer.commit(built_at=now, counts=work.counts())
    built = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    counts, entities_of = work.counts(), work.coverage.counts()
    return BuildReport(bad=0, lines=[
        f"{counts['people']} people ({work.us_personnel} US personnel), {counts['entities']} entities",
        f"covered persons: {work.covered['yes']} people, {entities_of['yes']} entities",
        f"unknown, weighed as covered: {work.covered['unknown']} people, {entities_of['unknown']} entities",
        *work.designations(),
        *(line for name in dict.fromkeys(explain) for line in work.explained[name]),
        f"{target}: revision {revision}, built {built}",
    ])  # fmt: skip


def _designate(entity: Entity, listed: Collection[str]) -> Entity:
    return msgspec.structs.replace(entity, designated=True) if entity.id in listed else entity


def _resolved(entity: Entity, coverage: Coverage) -> ResolvedEntity:
    named = {name: getattr(entity, name) for name in entity.__struct_fields__}
    return ResolvedEntity(**named, covered=coverage.entity(entity.id))


def _changed(path: Path) -> ConfigurationError:
    return ConfigurationError("changed while it was read", where=str(path), fix="Build again from files at rest.")


def _claim(row_id: str, number: int, lines: dict[str, int]) -> None:
    if row_id in lines:
        raise RowError(f"the id is in line {lines[row_id]} too", "Keep one row for an id.")
    lines[row_id] = number


def _id_of(line: bytes) -> str | None:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found["id"] if isinstance(found, dict) and isinstance(found.get("id"), str) else None
