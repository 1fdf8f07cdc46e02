"""Entities and persons of concern, and a slow second opinion on who is a covered person."""

from decimal import Decimal

from hypothesis import strategies as st

from sidecar.administration.covered_people import PersonFacts
from sidecar.attributes.countries import COUNTRIES_OF_CONCERN as CONCERN
from sidecar.attributes.countries import UNITED_STATES as US
from sidecar.attributes.coverage import US_STATUSES
from sidecar.attributes.directory import Entity, Owner


def entity(name, organised=("IE",), place="IE", *owners, **changes):
    held = tuple(Owner(id=one, share=Decimal(share)) for one, share in owners)
    usual = {"organised_under": tuple(organised), "principal_place": place, "owners": held, "others": "dispersed"}
    return Entity(id=name, **usual | changes)


def owned(name, *owners, **changes):
    """A foreign entity outside countries of concern, the rest of its shares widely held."""
    return entity(name, ("IE",), "IE", *owners, **changes)


def facts(**changes):
    usual = {"designated": False, "legal_status": "foreign", "residence": "IE", "attested": True, "present": "no",
             "engagement": "employment", "counterparty": None}  # fmt: skip
    return PersonFacts(**usual | changes)


NAMES = [f"e{number}" for number in range(7)]
PEOPLE = [f"p{number}" for number in range(3)]
SHARES = ["0.000000000001", "10", "24.9", "25", "25.1", "33.3", "49.999999999999", "50", "50.000000000001", "60", "100"]


@st.composite
def worlds(draw):
    """Seven entities and three persons that own, employ and are owned, in any tangle that the builder would accept."""
    entities = []
    for name in NAMES:
        left, held = Decimal(100), []
        for other in draw(st.lists(st.sampled_from([*NAMES, *PEOPLE]), unique=True, max_size=4)):
            share = Decimal(draw(st.sampled_from(SHARES)))
            if other != name and share <= left:
                left -= share
                held.append(Owner(id=other, share=share))
        entities.append(Entity(
            id=name, owners=tuple(held), others=draw(st.sampled_from([None, "dispersed", "dispersed"])),
            organised_under=draw(st.sampled_from([(), ("US",), ("IE",), ("IE",), ("CN",), ("US", "IE"), ("PR", "US")])),
            principal_place=draw(st.sampled_from([None, "US", "IE", "IE", "RU"])),
            government_of=draw(st.sampled_from([None, None, None, None, "US", "IE", "CN"])),
            designated=draw(st.sampled_from([None, False, False, False, True])),
        ))  # fmt: skip
    people = {name: facts(
        designated=draw(st.sampled_from([False, False, False, True])),
        legal_status=draw(st.sampled_from([None, "foreign", "foreign", "refugee"])),
        residence=draw(st.sampled_from([None, "IE", "IE", "MO"])), attested=draw(st.booleans()),
        present=draw(st.sampled_from(["yes", "stale", "no", "no"])),
        engagement=draw(st.sampled_from([None, "employment", "vendor", "none"])),
        counterparty=draw(st.sampled_from([None, *NAMES])),
    ) for name in PEOPLE}  # fmt: skip
    return entities, people


def opinion(entities, people, maybe):
    """(whose shares count, who is covered), by asking everybody again until nothing changes."""
    counted = set()
    while True:
        counted = _least(entities, people, counted, maybe)
        if not maybe:
            break
        ring = {one.id for one in entities} - counted
        while (kept := {one.id for one in entities if one.id in ring and counts(one, counted | ring, maybe)}) != ring:
            ring = kept
        if not ring:
            break
        counted |= ring
    return counted, {one.id for one in entities if one.id in counted and is_covered(one, maybe)}


def _least(entities, people, counted, maybe):
    while True:
        covered = {one.id for one in entities if one.id in counted and is_covered(one, maybe)}
        found = {one.id for one in entities if counts(one, counted, maybe)}
        found |= {name for name, one in people.items() if person_counts(one, covered, maybe)}
        if found <= counted:
            return counted
        counted = counted | found


def us_person(one):
    if one.organised_under:
        return all(country in US for country in one.organised_under)
    return one.government_of in US


def counts(one, counted, maybe):
    known = bool(one.organised_under) or one.government_of is not None
    if one.designated or one.government_of in CONCERN:
        return True
    if known and not us_person(one):
        if any(country in CONCERN for country in one.organised_under) or one.principal_place in CONCERN:
            return True
        if maybe and one.principal_place is None and one.government_of is None:
            return True
    if maybe and not known:
        return True
    half = sum((owner.share for owner in one.owners if owner.id in counted), Decimal(0))
    if maybe and one.others is None and one.government_of is None:
        half += 100 - sum((owner.share for owner in one.owners), Decimal(0))
    return half >= 50


def is_covered(one, maybe):
    if one.designated or one.government_of in CONCERN:
        return True
    known = bool(one.organised_under) or one.government_of is not None
    return not us_person(one) and (maybe or known)


def person_counts(one, covered, maybe):
    if one.designated:
        return True
    employed, resident = one.counterparty in covered, one.residence in CONCERN
    if maybe:
        unsure = one.counterparty is None or one.residence is None or not one.attested
        return one.legal_status not in US_STATUSES and (employed or resident or unsure)
    return one.legal_status == "foreign" and one.present == "no" and (employed or resident)
