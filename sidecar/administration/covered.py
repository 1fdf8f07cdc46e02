"""Which entities are covered persons (28 CFR 202.211(a)(1), (2)): a least fix-point over owners.

* Half or more, directly or not, one by one or together: shares of all covered owners of an entity are summed, and an
  entity that reaches 50 % counts in full as an owner of others. So 50.0 % of 50.0 % counts, though it makes 25 %, and
  49.9 % of 100 % does not.
* An entity organised solely under US law is a US person whoever owns it (202.256) and not covered; but what it holds is
  held *indirectly* by those who own half of it, so ownership passes through it.
* A ring of entities that own one another makes nobody covered: the least fix-point starts from facts.

It is worked out twice: from what is certain, and again with everything that is not known counted as a covered person's
(no place of organisation or business, shares that no row accounts for, owners whose own standing is not known). What only
the second finds is `unknown`. There a ring counts too: shares that entities hold in one another, as a subsidiary holds
its parent's, say nothing of who owns either, and could hide that whoever holds the rest holds all. Whether a person's
shares count is never worked out from a ring of that person's own. Both are monotone and do not depend on the order of
the rows. Linear in rows and shares, but for rings within rings.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sidecar.administration.covered_people import PersonFacts, Value, holds_as_covered
from sidecar.attributes.countries import COUNTRIES_OF_CONCERN, UNITED_STATES
from sidecar.attributes.coverage import EntityBasis
from sidecar.attributes.directory import CoveredEntity, Entity

HALF = Decimal(50)
"""Percent from which owners make an entity covered."""
_WHOLE = Decimal(100)


@dataclass(frozen=True, slots=True)
class _Found:
    """One fix-point: whose shares count as a covered person's, by the round that found it, and which entities are one."""

    rounds: Mapping[str, int]
    covered: frozenset[str]


class Coverage:
    """The verdicts on a set of entities. `people` are those owners that are persons.

    An owner that has no row at all weighs nothing here: the builder refuses it.
    """

    def __init__(self, entities: Sequence[Entity], people: Mapping[str, PersonFacts]) -> None:
        self._entities = {entity.id: entity for entity in entities}
        work = _Work(self._entities, people)
        self._certain, self._possible = work.least(maybe=False), work.least(maybe=True)

    def employer(self, entity_id: str | None) -> Value:
        """Whether the entity of this id is covered; `unknown` for none."""
        if entity_id in self._certain.covered:
            return "yes"
        return "unknown" if entity_id is None or entity_id in self._possible.covered else "no"

    def foreign(self, entity_id: str | None) -> bool:
        """Whether an entity that was given is no US person, or not known to be one (28 CFR 202.221, 202.256)."""
        return entity_id in self._entities and not _of_the_us(self._entities[entity_id])

    def holder(self, owner_id: str) -> Value:
        """Whether shares of this entity or person count as a covered person's."""
        if owner_id in self._certain.rounds:
            return "yes"
        return "unknown" if owner_id in self._possible.rounds else "no"

    def entity(self, entity_id: str) -> CoveredEntity:
        """The verdict on an entity that was given."""
        entity = self._entities[entity_id]
        value = self.employer(entity_id)
        through = () if _fact(entity) is not None else self._owners(entity, self._certain)
        if value == "yes":
            return CoveredEntity(value="yes", basis=_fact(entity) or "entity_owned_50", owners=through)
        if value == "unknown":
            missing = _missing(entity)
            if missing is None:
                return CoveredEntity(basis="owners_unknown", owners=self._owners(entity, self._possible))
            return CoveredEntity(basis=missing, owners=through)
        basis: EntityBasis = "us_person_organised" if _of_the_us(entity) else "foreign_not_covered"
        return CoveredEntity(value="no", basis=basis, owners=through)

    def counts(self) -> dict[Value, int]:
        """How many entities there are of each verdict."""
        found: dict[Value, int] = {"yes": 0, "unknown": 0, "no": 0}
        for entity_id in self._entities:
            found[self.employer(entity_id)] += 1
        return found

    def _owners(self, entity: Entity, found: _Found) -> tuple[str, ...]:
        # Only those found in earlier rounds, so that whoever follows owners upwards comes to an end.
        own = found.rounds.get(entity.id, 0)
        return tuple(owner.id for owner in entity.owners if found.rounds.get(owner.id, own) < own)


class _Work:
    def __init__(self, entities: Mapping[str, Entity], people: Mapping[str, PersonFacts]) -> None:
        self._entities, self._people = entities, people
        self._holdings: dict[str, list[tuple[str, Decimal]]] = {}
        self._employees: dict[str, list[str]] = {}
        for entity in entities.values():
            for owner in entity.owners:
                self._holdings.setdefault(owner.id, []).append((entity.id, owner.share))
        for person_id, facts in people.items():
            if facts.counterparty is not None:
                self._employees.setdefault(facts.counterparty, []).append(person_id)

    def least(self, *, maybe: bool) -> _Found:
        """Round by round: what was found in one adds its shares, and its employees, to the next."""
        held = {entity.id: unaccounted(entity) if maybe else Decimal(0) for entity in self._entities.values()}
        front = list(self._start(held, maybe=maybe))
        rounds = dict.fromkeys(front, 0)
        covered: set[str] = set()
        number = 0
        while front or (maybe and (front := self._rings(held, rounds))):
            number += 1
            rounds.update((one, number) for one in front if one not in rounds)
            following: list[str] = []
            for holder in front:
                found = self._owned(holder, held, rounds)
                if holder in self._entities and self._covered(self._entities[holder], maybe=maybe):
                    covered.add(holder)
                    found += self._employed(holder, rounds, maybe=maybe)
                rounds.update((one, number + 1) for one in found)
                following += found
            front = following
        return _Found(rounds, frozenset(covered))

    def _owned(self, holder: str, held: dict[str, Decimal], rounds: Mapping[str, int]) -> list[str]:
        """Entities that these shares bring to half, not found yet."""
        found = []
        for entity_id, share in self._holdings.get(holder, ()):
            held[entity_id] += share
            if held[entity_id] >= HALF and entity_id not in rounds:
                found.append(entity_id)
        return found

    def _employed(self, employer: str, rounds: Mapping[str, int], *, maybe: bool) -> list[str]:
        """Employees whose own shares count because of it, not found yet."""
        return [one for one in self._employees.get(employer, ()) if one not in rounds
                and holds_as_covered(self._people[one], employer_covered=True, maybe=maybe)]  # fmt: skip

    def _rings(self, held: Mapping[str, Decimal], rounds: Mapping[str, int]) -> list[str]:
        """Entities not found yet half of which is held by what counts and by one another."""
        ring = self._entities.keys() - rounds.keys()
        most = dict(held)
        for one in ring:
            for entity_id, share in self._holdings.get(one, ()):
                most[entity_id] += share
        out = [one for one in ring if most[one] < HALF]
        ring -= set(out)
        while out:
            for entity_id, share in self._holdings.get(out.pop(), ()):
                most[entity_id] -= share
                if entity_id in ring and most[entity_id] < HALF:
                    ring.remove(entity_id)
                    out.append(entity_id)
        return sorted(ring)

    def _start(self, held: Mapping[str, Decimal], *, maybe: bool) -> Iterable[str]:
        for entity in self._entities.values():
            fact = _fact(entity) is not None or (maybe and _missing(entity) is not None)
            if fact or held[entity.id] >= HALF:
                yield entity.id
        for person_id, facts in self._people.items():
            if holds_as_covered(facts, employer_covered=False, maybe=maybe):
                yield person_id

    def _covered(self, entity: Entity, *, maybe: bool) -> bool:
        """Whether an entity whose shares count as a covered person's is one itself."""
        if entity.designated or entity.government_of in COUNTRIES_OF_CONCERN:
            return True
        return not _of_the_us(entity) and (maybe or _organised(entity))


def unaccounted(entity: Entity) -> Decimal:
    """The percentage that nobody knows to be held by whom. Nobody owns a government."""
    if entity.others == "dispersed" or entity.government_of is not None:
        return Decimal(0)
    return _WHOLE - sum((owner.share for owner in entity.owners), Decimal(0))


def _fact(entity: Entity) -> EntityBasis | None:
    """What makes the entity count as covered by itself, without its owners."""
    if entity.designated:
        return "designated"
    if entity.government_of in COUNTRIES_OF_CONCERN:
        return "government"
    if _of_the_us(entity) or not _organised(entity):
        return None
    if not COUNTRIES_OF_CONCERN.isdisjoint(entity.organised_under):
        return "entity_organised"
    return "entity_principal_place" if entity.principal_place in COUNTRIES_OF_CONCERN else None


def _missing(entity: Entity) -> EntityBasis | None:
    """What would have to be known of the entity itself."""
    if not _organised(entity):
        return "organised_unknown"
    if entity.principal_place is None and entity.government_of is None and not _of_the_us(entity):
        return "principal_place_unknown"
    return None


def _organised(entity: Entity) -> bool:
    """Whether it is known under which laws the entity is organised: its own, where it is a government."""
    return bool(entity.organised_under) or entity.government_of is not None


def _of_the_us(entity: Entity) -> bool:
    """Organised solely under the laws of the United States (202.256), or its government."""
    if entity.organised_under:
        return UNITED_STATES.issuperset(entity.organised_under)
    return entity.government_of in UNITED_STATES
