"""The rows of `people.jsonl` and `entities.jsonl`: their keys, and what a row has to be to be used."""

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from sidecar.administration.rows import BadRows, RowError, country, instant, person_id, text
from sidecar.attributes.coverage import LEGAL_STATUSES
from sidecar.attributes.directory import Entity, Owner
from sidecar.attributes.snapshots import SKEW
from sidecar.attributes.words import nearest
from sidecar.vocabulary import Location, Training

EngagementType = Literal["employment", "vendor", "investment", "brokerage", "none"]
S = TypeVar("S", bound=msgspec.Struct)

_PART = re.compile(r"at `\$\.(\w+)")
_UNKNOWN_KEY = re.compile(r"unknown field `([^`]*)`")


class EngagementSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`engagement` of a person's row (28 CFR 202.214, 217, 228, 258)."""

    type: EngagementType | None = None
    counterparty: str | None = None
    group: str | None = None
    agreement_ref: str | None = None
    onward_clause_ref: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    until: str | None = None


class PersonSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `people.jsonl`. `designated`: named in a designation (28 CFR 202.211(a)(5)); null is not named."""

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
    designated: bool | None = None
    engagement: EngagementSource | None = None


_PARTS: Mapping[str, type[msgspec.Struct]] = {
    "location": Location, "training": Training, "engagement": EngagementSource, "owners": Owner,
}  # fmt: skip


class RowChecks:
    """What every row must fulfil. RowError says what is wrong with one, and what to do.

    `entities` (by id) is complete before the first person is checked. `where` is the file that it came from.
    """

    def __init__(self, entities: Mapping[str, int], where: Path, bad: BadRows, now: float) -> None:
        self._bad, self._now = bad, now
        self._known, self._where = entities, where

    def _past(self, value: str, name: str) -> None:
        if instant(value, name) > self._now + SKEW:
            raise RowError(f"{name} {value!r} is in the future", "Correct it, or the clock of this machine.")

    def entity(self, row: Entity) -> None:
        """Countries, owners and shares. RowError."""
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

    def person(self, row: PersonSource) -> None:
        """Ids, words, countries and instants. RowError."""
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
            _legal_status(row.legal_status)
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
        for name in ("counterparty", "group", "agreement_ref", "onward_clause_ref"):
            value = getattr(row, name)
            if value is not None:
                text(value, f"engagement.{name}")
        if row.counterparty is not None and row.counterparty not in self._known:
            raise RowError(f"engagement.counterparty {row.counterparty!r} is no entity of {self._where}",
                           f"Add it there. {self._nearest_entity(row.counterparty)}".strip())  # fmt: skip
        begins = None if row.from_ is None else instant(row.from_, "engagement.from")
        ends = None if row.until is None else instant(row.until, "engagement.until")
        if begins is not None and ends is not None and begins >= ends:
            raise RowError("engagement.from is not before engagement.until", "Correct one of them.")

    def _nearest_entity(self, wanted: str) -> str:
        # Comparing with every entity is slow, and a source may be wrong in every row.
        return nearest(wanted, self._known) if len(self._known) * self._bad.count < 10_000 else ""


def decoded(decode: Callable[[bytes], S], line: bytes, kind: type[S]) -> S:
    """The row in this line, types checked. RowError names the key, and the nearest known one."""
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


def _legal_status(value: str) -> None:
    if value not in LEGAL_STATUSES:
        known = ", ".join(sorted(LEGAL_STATUSES))
        raise RowError(f"legal_status {value[:80]!r} is none of the list", f"Use one of {known}; null is not known.")


def _percentage(owner: Owner) -> Decimal:
    share = owner.share
    # Twelve decimals sum without rounding; NaN cannot even be compared.
    if not share.is_finite() or not 0 < share <= 100 or int(share.as_tuple().exponent) < -12:
        raise RowError(f"the share {share} of {owner.id!r} is no percentage",
                       "Use 0 < share <= 100, with at most 12 decimals.")  # fmt: skip
    return share


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
