"""Whether a person is a covered person (28 CFR 202.211(a)(3)-(5), 202.256), once their employer is judged.

Two questions, kept apart:

* *access*: what `covered_person` of the row says. Under a vendor, investment or brokerage agreement with a covered person
  the access is that person's, whoever the individual is that uses it, so presence in the United States does not lift it;
* *ownership*: whether what the person holds counts as held by a covered person. Being in the United States lifts this
  only to "unknown": presence is for a day, ownership lasts.
"""

from dataclasses import dataclass
from typing import Literal

from sidecar.attributes.countries import COUNTRIES_OF_CONCERN
from sidecar.attributes.coverage import FOREIGN, US_STATUSES, PersonBasis

Value = Literal["yes", "no", "unknown"]
ATTRIBUTED = frozenset({"vendor", "investment", "brokerage"})
"""Agreements whose other side is the counterparty, not the individual (28 CFR 202.214, 217, 228, 258)."""
_MAY_BROKER = frozenset({"brokerage", None})
"""Agreements that are data brokerage (28 CFR 202.214), or of which nobody knows that they are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonFacts:
    """What counts of a row. `attested`: the residence was attested lately enough. `present`: in the United States."""

    designated: bool
    legal_status: str | None
    residence: str | None
    attested: bool
    present: Literal["yes", "stale", "no"]
    engagement: str | None
    counterparty: str | None


@dataclass(frozen=True, slots=True)
class PersonVerdict:
    """A verdict and the one fact it rests on."""

    value: Value
    basis: PersonBasis


def access(facts: PersonFacts, employer: Value, *, abroad: bool = False) -> PersonVerdict:
    """The verdict on what the person reaches.

    `employer` is that of the counterparty, `unknown` when nobody is named; `abroad`: the counterparty is no US person.
    """
    if facts.designated:
        return PersonVerdict("yes", "designated")
    if facts.engagement in ATTRIBUTED and employer == "yes":
        return PersonVerdict("yes", "counterparty_covered")
    found = _lifted(facts, _abroad(facts, employer))
    return _counterparty(facts, employer, abroad=abroad) or found if found.value == "no" else found


def _counterparty(facts: PersonFacts, employer: Value, *, abroad: bool) -> PersonVerdict | None:
    """What the agreement makes of somebody who is not covered by themselves; None for nothing."""
    if facts.engagement in ATTRIBUTED and employer == "unknown":
        return PersonVerdict("unknown", "counterparty_unknown")
    if facts.engagement is None and facts.counterparty is not None and employer != "no":
        return PersonVerdict("unknown", "engagement_unknown")
    # What is brokered goes to the counterparty: whether it is foreign counts, not who fetches it (202.302).
    if abroad and facts.engagement in _MAY_BROKER and (facts.legal_status in US_STATUSES or facts.present == "yes"):
        return PersonVerdict("no", "counterparty_foreign")
    return None


def holds_as_covered(facts: PersonFacts, *, employer_covered: bool, maybe: bool) -> bool:
    """Whether shares of this person count as a covered person's; with `maybe`, whether they may.

    Grows with `employer_covered` and with `maybe`.
    """
    if facts.designated:
        return True
    of_concern = facts.residence in COUNTRIES_OF_CONCERN
    if maybe:
        open_fact = facts.counterparty is None or facts.residence is None or not facts.attested
        return facts.legal_status not in US_STATUSES and (employer_covered or of_concern or open_fact)
    return facts.legal_status == FOREIGN and facts.present == "no" and (employer_covered or of_concern)


def _abroad(facts: PersonFacts, employer: Value) -> PersonVerdict:
    """The verdict if the person were outside the United States and acted for themselves."""
    if facts.legal_status in US_STATUSES:
        return PersonVerdict("no", "us_person_status")
    if employer == "yes":
        found = PersonVerdict("yes", "employed_by_covered")
    elif facts.residence in COUNTRIES_OF_CONCERN:
        found = PersonVerdict("yes", "resident_of_concern")
    elif employer == "unknown":
        found = PersonVerdict("unknown", "employer_unknown")
    elif facts.residence is None:
        found = PersonVerdict("unknown", "residence_unknown")
    elif not facts.attested:
        found = PersonVerdict("unknown", "residence_unattested")
    else:
        return PersonVerdict("no", "foreign_not_covered")
    if facts.legal_status is None and found.value == "yes":
        return PersonVerdict("unknown", "legal_status_unknown")
    return found


def _lifted(facts: PersonFacts, abroad: PersonVerdict) -> PersonVerdict:
    """The same, corrected for presence in the United States (202.256)."""
    if abroad.basis == "us_person_status" or facts.present == "no":
        return abroad
    if facts.present == "yes":
        return PersonVerdict("no", "us_person_present")
    return PersonVerdict("unknown", "presence_unattested") if abroad.value == "yes" else abroad
