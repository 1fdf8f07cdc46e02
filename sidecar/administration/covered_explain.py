"""Why somebody is, or is not, a covered person, for reviewers: the verdict, its paragraph, and the chain of owners."""

from collections.abc import Iterator, Mapping

from sidecar.administration.covered import Coverage, unaccounted
from sidecar.administration.covered_people import PersonFacts, PersonVerdict
from sidecar.attributes.coverage import EntityBasis, PersonBasis
from sidecar.attributes.directory import CoveredEntity, Entity

MAX_LINES = 1000

_ENTITY: Mapping[EntityBasis, str] = {
    "designated": "designated, 28 CFR 202.211(a)(5)",
    "government": "government of a country of concern, 202.601",
    "entity_organised": "organised under the laws of a country of concern, 202.211(a)(1)",
    "entity_principal_place": "principal place of business in a country of concern, 202.211(a)(1)",
    "entity_owned_50": "50 % or more held by covered persons or countries of concern, 202.211(a)(1), (2)",
    "us_person_organised": "a US person, organised solely under US law, 202.256",
    "foreign_not_covered": "foreign, and none of 202.211(a) applies",
    "organised_unknown": "where it is organised is not known (organised_under)",
    "principal_place_unknown": "its principal place of business is not known (principal_place)",
    "owners_unknown": "50 % or more is or may be held by covered persons, or by entities that own one another",
}
_PERSON: Mapping[PersonBasis, str] = {
    "designated": "designated, 28 CFR 202.211(a)(5)",
    "counterparty_covered": "engaged through a covered person, whose access this is",
    "employed_by_covered": "foreign, and works for a covered person or a country of concern, 202.211(a)(3)",
    "resident_of_concern": "foreign, and primarily resident in a country of concern, 202.211(a)(4)",
    "us_person_status": "a US person by legal status, 202.256",
    "us_person_present": "a US person while in the United States, 202.256",
    "foreign_not_covered": "foreign, or not known to be a US person, and none of 202.211(a) applies",
    "counterparty_foreign": "a US person who brokers for a foreign entity, or may; none of 202.211(a) applies to either",
    "counterparty_unknown": "engaged through somebody who is not known, or not known to be uncovered",
    "engagement_unknown": "the kind of agreement with a counterparty that is or may be covered is not known",
    "employer_unknown": "foreign, and for whom they work is not known, or not known to be uncovered",
    "residence_unknown": "foreign, and the primary residence is not known",
    "residence_unattested": "foreign, and the primary residence was attested too long ago",
    "legal_status_unknown": "covered if foreign, and the legal status is not known",
    "presence_unattested": "covered unless in the United States, where they were seen too long ago",
    "presence_contradicted": "not covered only because in the United States, which a token contradicts",
}
_VALUE = {"yes": "covered person", "no": "not a covered person", "unknown": "unknown, which policies weigh as covered"}


class Explanation:
    """Lines about entities and persons of one build."""

    def __init__(self, coverage: Coverage, entities: Mapping[str, Entity]) -> None:
        self._coverage, self._entities = coverage, entities

    def person(self, person_id: str, facts: PersonFacts, verdict: PersonVerdict) -> Iterator[str]:
        """The verdict on a person, and the chain of owners of whom they work for, where it counts."""
        yield f"{person_id}: {_VALUE[verdict.value]} ({verdict.basis}): {_PERSON[verdict.basis]}"
        told = facts.legal_status or "unknown", facts.residence or "unknown", facts.present
        yield "  legal status {}, primary residence {}, in the US {}".format(*told)
        if facts.counterparty is not None and facts.counterparty in self._entities:
            yield f"  {facts.engagement or 'an agreement of unknown kind'} with"
            yield from self.entity(facts.counterparty, 4)

    def entity(self, entity_id: str, indent: int = 0) -> Iterator[str]:
        """The verdict on an entity, and under it, more indented, on each owner that makes it so, with the share."""
        shown: set[str] = set()
        waiting = [(entity_id, "", indent)]
        while waiting:
            if len(shown) >= MAX_LINES:
                yield f"... more than {MAX_LINES} owners"
                return
            name, share, depth = waiting.pop()
            space = " " * depth
            entity = self._entities.get(name)
            if entity is None:
                yield f"{space}{share}{name}: a person whose shares count: {self._coverage.holder(name)}"
                continue
            verdict = self._coverage.entity(name)
            yield f"{space}{share}{self._line(entity, verdict)}" + (" (see above)" if name in shown else "")
            if name in shown:
                continue
            shown.add(name)
            shares = {owner.id: owner.share for owner in entity.owners}
            if verdict.basis == "owners_unknown" and (rest := unaccounted(entity)):
                yield f"{space}  {rest} % held by nobody knows whom"
            waiting += [(one, f"{shares[one]} % held by ", depth + 2) for one in reversed(verdict.owners)]

    def _line(self, entity: Entity, verdict: CoveredEntity) -> str:
        basis = verdict.basis or "owners_unknown"
        said = f"{entity.id}: {_VALUE[verdict.value]} ({basis}): {_ENTITY[basis]}"
        if verdict.value == "no" and verdict.owners:
            said += "; 50 % or more of it is held by covered persons, and so is what it owns"
        return said
