"""The personnel directory: people and the entities they work for, from the snapshot that `sidecar directory build` wrote.

A snapshot of kind `directory` holds, for `people` and for `entities`:

    <name>.rows     one JSON document after another, in the order of the source
    <name>.hashes   sorted 64-bit hashes of the ids (see `hashes`; BLAKE2b, big-endian, unkeyed: the id itself is compared too)
    <name>.places   for each hash, where its row begins in <name>.rows, times 2^24, plus its size

Rows are decoded when they are asked for, so neither memory nor start-up grows with the number of people.

Covered persons (28 CFR 202.211) were resolved when the snapshot was built: `person.covered_person`, and `covered` of an
entity with the owners that make it so. A snapshot from before that says {unknown, null}, which policies weigh as `yes`.
"""

import hashlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from sidecar.attributes.coverage import EntityBasis
from sidecar.attributes.followed import Followed, Report
from sidecar.attributes.hashes import HashTable
from sidecar.attributes.snapshots import SKEW, Snapshot
from sidecar.errors import Code, IdentifyError, IntegrityError
from sidecar.vocabulary import Engagement, Person, ReasonCode

KIND = "directory"
SOURCE = "directory"
"""What `subject.source` says: no path of the host enters the input document."""
MAX_CACHED = 4096
"""People kept decoded, about 2 kB each."""

SIZE_BITS = 24
MAX_SIZE = (1 << SIZE_BITS) - 1
"""Bytes of one row, at most."""

T = TypeVar("T")


class PersonRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person as the snapshot has them. `turns`: sorted unix seconds at which something in the row begins or ends."""

    person: Person
    engagement: Engagement
    as_of: str
    turns: tuple[float, ...]


class Owner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A direct owner, an entity or a person by id, and the share in percent."""

    id: str
    share: Decimal


class Entity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An organisation (28 CFR 202.211): countries as ISO 3166-1 alpha-2; None means not known.

    `government_of`: it is the government of that country, or a part of it (202.209), not merely owned by it.
    `others`: who holds the shares that `owners` does not name. `dispersed` says that they are widely held and that
    somebody has looked; None that nobody knows, and then they may be a covered person's.
    """

    id: str
    organised_under: tuple[str, ...] = ()
    principal_place: str | None = None
    government_of: str | None = None
    designated: bool | None = None
    owners: tuple[Owner, ...] = ()
    others: Literal["dispersed"] | None = None


class CoveredEntity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether an entity is a covered person (28 CFR 202.211(a)(1), (2)), on what that rests (`coverage.EntityBasis`).

    `owners`: ids of those owners whose shares together make it so; of a US person, those whose ownership passes
    through it. Following them upwards comes to an end at facts.
    """

    value: Literal["yes", "no", "unknown"] = "unknown"
    basis: EntityBasis | None = None
    owners: tuple[str, ...] = ()


class ResolvedEntity(Entity, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entity as the snapshot has it."""

    covered: CoveredEntity = CoveredEntity()


class PersonEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One person of the snapshot `revision`.

    `expires_at`: unix seconds after which this answer must be asked for again: the first instant since the snapshot
    was built at which vetting, a course or the engagement begins or ends, or at which the snapshot itself is too old.
    """

    person: Person
    engagement: Engagement
    as_of: str
    expires_at: float
    revision: str


def hash_of(row_id: str) -> int:
    """The number under which a row is found."""
    digest = hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"customhouse-dir").digest()
    return int.from_bytes(digest, "big")


class _Rows(Generic[T]):
    """Rows of one name, found by id. An id that is not there, and a row that cannot be read, are different things."""

    def __init__(self, snapshot: Snapshot, name: str, row: type[T], id_of: Callable[[T], str | None]) -> None:
        self._data = snapshot.section(f"{name}.rows")
        self._hashes = HashTable(snapshot, f"{name}.hashes")
        self._places = snapshot.section(f"{name}.places").cast("Q")
        if len(self._places) != len(self._hashes):
            raise ValueError(f"{name}.places does not belong to {name}.hashes")
        self._decode = msgspec.json.Decoder(row).decode
        self._id_of = id_of

    def get(self, row_id: str) -> T | None:
        """The row with exactly this id. IntegrityError when its bytes are no row."""
        for at in self._hashes.find(hash_of(row_id)):
            row = self._at(at)
            if self._id_of(row) == row_id:
                return row
        return None

    def ids(self, start: int, most: int) -> list[str]:
        """Ids of the rows from this place on, in the snapshot's own order. IntegrityError as `get`."""
        places = range(start, min(start + most, len(self._places)))
        return [name for at in places if (name := self._id_of(self._at(at))) is not None]

    def _at(self, at: int) -> T:
        start, size = self._places[at] >> SIZE_BITS, self._places[at] & MAX_SIZE
        try:
            return self._decode(self._data[start : start + size])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IntegrityError(f"a row cannot be read: {error}", where=f"place {at}",
                                 fix="Build the directory again.") from None  # fmt: skip


class _Content:
    def __init__(self, snapshot: Snapshot, max_age: float) -> None:
        try:
            self._people = _Rows(snapshot, "people", PersonRow, lambda row: row.person.id)
            self.entities = _Rows(snapshot, "entities", ResolvedEntity, lambda row: row.id)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"its sections do not fit: {error}", where=KIND,
                                 fix="Build the directory again.") from None  # fmt: skip
        self.cached: dict[str, PersonEntry] = {}
        self._since, self._revision = snapshot.built_at - SKEW, snapshot.revision
        self._too_old = snapshot.built_at + max_age

    def ids(self, start: int, most: int) -> list[str]:
        return self._people.ids(start, most)

    def person(self, person_id: str) -> PersonEntry | None:
        entry = self.cached.get(person_id)
        if entry is None:
            row = self._people.get(person_id)
            if row is None:
                return None
            expires_at = self._too_old
            for turn in row.turns:
                if turn > self._since:
                    expires_at = min(turn, expires_at)
                    break
            entry = PersonEntry(person=row.person, engagement=row.engagement, as_of=row.as_of, expires_at=expires_at,
                                revision=self._revision)  # fmt: skip
            if len(self.cached) >= MAX_CACHED:
                self.cached.clear()
            self.cached[person_id] = entry
        return entry


class Directory:
    """The directory in force.

    `person` is for the event loop; `reload_if_changed` blocks and may run in a thread meanwhile. A call that has its
    entry keeps it, with the revision it came from.
    """

    def __init__(self, path: Path, max_age: float, *, report: Report = lambda _event, _detail: None) -> None:
        """`max_age` in seconds, by the snapshot's time of building. `report` is told (event, detail): see `followed`.

        ConfigurationError when the file is missing, IntegrityError when it is damaged.
        """
        self._file = Followed(path, KIND, lambda snapshot: _Content(snapshot, max_age), max_age=max_age, report=report,
                              build="sidecar directory build")  # fmt: skip
        self.reload_if_changed = self._file.reload_if_changed
        self.age, self.fresh = self._file.age, self._file.fresh

    @property
    def revision(self) -> str:
        """SHA-256 (hex) of the snapshot's content."""
        return self._file.latest.revision

    @property
    def source(self) -> str:
        """What `subject.source` says."""
        return SOURCE

    @property
    def error(self) -> str | None:
        """What is wrong with the file at present, or None."""
        return self._file.error

    def person(self, id: str) -> PersonEntry | None:  # noqa: A002 - the word of the directory
        """The person with exactly this id; None when there is none.

        IdentifyError (`stale_directory`, UNAVAILABLE) when nothing is in force or the row's bytes were damaged since
        they were verified. Asks nothing about age: that is `fresh`.
        """
        content = self._file.held
        entry = None if content is None else content.cached.get(id)
        if entry is not None:
            return entry
        try:
            return (content or self._content()).person(id)
        except IntegrityError as error:
            raise _unavailable(str(error)) from None

    def ids(self, start: int, most: int) -> list[str]:
        """Personnel ids from this place on, in the snapshot's own order; empty past its end. IdentifyError as `person`."""
        try:
            return self._content().ids(start, most)
        except IntegrityError as error:
            raise _unavailable(str(error)) from None

    def entity(self, id: str) -> ResolvedEntity | None:  # noqa: A002 - the word of the directory
        """The entity with exactly this id; None when there is none. IdentifyError as `person`."""
        try:
            return self._content().entities.get(id)
        except IntegrityError as error:
            raise _unavailable(str(error)) from None

    def _content(self) -> _Content:
        content = self._file.held
        if content is None:
            raise _unavailable(self._file.error or "no directory is in force")
        return content


def _unavailable(detail: str) -> IdentifyError:
    return IdentifyError("callers cannot be identified at present", reason=ReasonCode.STALE_DIRECTORY,
                         code=Code.UNAVAILABLE, operator=f"directory: {detail}")  # fmt: skip
