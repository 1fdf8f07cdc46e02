"""28 CFR part 202 told a second time, in Python: what its rules must say of a call, worked out without the policies."""

from datetime import datetime
from typing import NamedTuple

from sidecar.vocabulary import AccessRequest, Authorization

OF_CONCERN = {"CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"}
NUMBERS = {
    "human_genomic": 100, "human_epigenomic": 1000, "human_proteomic": 1000, "human_transcriptomic": 1000,
    "biometric_identifier": 1000, "precise_geolocation": 1000, "personal_health": 10000, "personal_financial": 10000,
    "covered_personal_identifiers": 100000, "commerce_order": 10000, "unclassified": 100,
}  # fmt: skip
OMIC = [one for one in NUMBERS if one.startswith("human_")]
IDENTIFIERS = {
    "id_government": "a", "id_financial_account": "b", "id_device": "c", "id_contact": "d", "id_advertising": "e",
    "id_account_auth": "f", "id_network": "g", "id_call_detail": "h",
}  # fmt: skip
CLEARED_FOR = {"sidecar.demo.profiles.v1.Profiles"}
PROHIBITIONS = {"dsp_prohibited_omic", "dsp_prohibited_brokerage"}


class Verdict(NamedTuple):
    """Reason codes, what must be cleared or dropped, the authorization a permit rests on, whether exposure counts."""

    codes: frozenset[str] = frozenset()
    cleared: frozenset[str] = frozenset()
    authorization: str = ""
    dropped: bool = False
    counted: bool = False


def verdict(request: AccessRequest) -> Verdict:
    party = _party(request)
    if party == "other":
        return Verdict()
    kinds = _kinds(request)
    listed = bool(request.resource.listed_identifiers) or bool(IDENTIFIERS.keys() & set(request.resource.categories))
    if not kinds:
        return Verdict(counted=listed)
    weight, codes = _weigh(request, kinds)
    if party == "foreign":
        clause = request.subject.engagement.onward_clause_ref
        codes = {"dsp_onward_terms_missing"} if codes and not clause else set()
    else:
        codes |= _by_agreement(request, weight) | ({"dsp_status_unknown"} if party == "unresolved" else set())
    if not codes:
        return Verdict(counted=True)
    named = [one.id for one in request.context.authorizations if _authorizes(request, one, codes)]
    if named:
        return Verdict(authorization=min(named), counted=True)
    if codes <= {"dsp_bulk", "dsp_government_related", "dsp_security_requirements_unmet"} and _clears(request):
        return Verdict(cleared=frozenset(_clearable(request)), counted=True)
    if _drops(request):
        return Verdict(dropped=True, counted=True)
    if request.context.authorizations:
        codes.add("dsp_authorization_invalid")
    return Verdict(codes=frozenset(codes), counted=True)


def _party(request: AccessRequest) -> str:
    """Whom the part concerns, if data about somebody in the US is at stake."""
    subjects, place = request.resource.subjects, request.subject.workload.operated_from
    if subjects.non_us and not (subjects.us or subjects.unknown):
        return "other"
    if place in OF_CONCERN:
        return "covered"
    if place is None:
        return "unresolved"
    covered = request.subject.person.covered_person
    if covered.value != "no":
        return {"yes": "covered"}.get(covered.value, "unresolved")
    known = request.subject.engagement.type in ("employment", "vendor", "investment")
    return "other" if known or covered.basis in ("us_person_status", "us_person_present") else "foreign"


def _kinds(request: AccessRequest) -> set[str]:
    resource, exposure = request.resource, request.context.exposure
    kinds = set(resource.categories) & set(NUMBERS)
    if "covered_personal_identifiers" in resource.computed:
        kinds.add("covered_personal_identifiers")
    linked = (exposure["covered_personal_identifiers"], exposure["combined"]) != (0, 0)
    if linked and (resource.listed_identifiers or IDENTIFIERS.keys() & set(resource.categories)):
        kinds.add("covered_personal_identifiers")
    return kinds


def _weigh(request: AccessRequest, kinds: set[str]) -> tuple[set[str], set[str]]:
    """What the data is: `bulk`, `omic`, `related`; and the reasons that follow whatever the agreement."""
    weight, codes = set(), set()
    exposure, population = request.context.exposure, request.resource.dataset.population
    combined = exposure["combined"] != 0, "combined" in request.resource.computed and population["combined"] != 0
    for counts, joined, other in ((exposure, combined[0], set(NUMBERS)), (population, combined[1], kinds)):
        numbers = [(counts[kind], NUMBERS[kind]) for kind in kinds]
        own = [kind for kind in (OMIC if counts is exposure else kinds) if kind in OMIC]
        if kinds & set(OMIC):
            total = None if any(counts[kind] is None for kind in own) else sum(counts[kind] for kind in own)
            if (
                any((number or 0) > NUMBERS[kind] for kind in kinds & set(OMIC) for number in [counts[kind]])
                or (total or 0) > 1000
            ):
                weight.add("omic")
            numbers.append((total, 1000))
        if joined:
            held = {kind for kind in other if counts[kind]} or kinds
            most = max(counts[kind] or 0 for kind in held | {"combined"})
            numbers.append((None if counts["combined"] is None else most, min(NUMBERS[kind] for kind in held)))
        if any(number is None for number, _ in numbers):
            codes.add("dsp_status_unknown")
        if any(number is not None and number > limit for number, limit in numbers):
            weight.add("bulk")
            codes.add("dsp_bulk")
    flags = request.resource.flags
    if (
        ("in_listed_area" in flags and kinds & {"precise_geolocation", "unclassified"})
        or "marketed_as_government" in flags
        or ("government_related" in request.resource.computed and not flags)
    ):
        weight.add("related")
        codes.add("dsp_government_related")
    return weight, codes


def _by_agreement(request: AccessRequest, weight: set[str]) -> set[str]:
    agreement, heavy = request.subject.engagement.type, weight & {"bulk", "related"}
    found = {"dsp_prohibited_omic"} if "omic" in weight else set()
    if agreement == "brokerage":
        return found | ({"dsp_prohibited_brokerage"} if heavy else set())
    if agreement in ("employment", "vendor", "investment"):
        return found | ({"dsp_security_requirements_unmet"} if heavy else set())
    return found | {"dsp_status_unknown"}


def _clearable(request: AccessRequest) -> set[str]:
    return {one for one in request.resource.categories if one in NUMBERS or one in IDENTIFIERS}


def _clears(request: AccessRequest) -> bool:
    attested, now = request.context.security_requirements, _instant(request.context.time)
    return (
        request.action.name in ("read", "list", "search")
        and request.action.service in CLEARED_FOR
        and attested.version == "2025-01"
        and _instant(attested.attested_at) <= now < _instant(attested.valid_until)
        and set(request.resource.listed_identifiers) <= {IDENTIFIERS.get(one, "") for one in _clearable(request)}
    )


def _drops(request: AccessRequest) -> bool:
    """The service leaves out of a mixed answer what may not be seen."""
    subjects = request.resource.subjects
    return (
        request.action.name in ("read", "list", "search")
        and request.action.service in CLEARED_FOR
        and request.context.phase == "response"
        and subjects.non_us > 0
        and not subjects.pending
    )


def _authorizes(request: AccessRequest, one: Authorization, codes: set[str]) -> bool:
    subject = request.subject
    by_place = subject.workload.operated_from in {*OF_CONCERN, None} or subject.kind != "personnel"
    parties = {subject.workload.id} if by_place else {subject.person.id}
    if subject.kind == "personnel" and subject.person.covered_person.value != "no":
        parties.add(subject.person.id)
    known = one.kind != "exemption" or one.paragraph.split("(")[0] in {f"202.{n}" for n in range(501, 512)}
    return (
        parties <= set(one.persons)
        and request.action.service in one.services
        and request.context.purpose in one.purposes
        and _clearable(request) <= set(one.categories)
        and _instant(one.expires) > _instant(request.context.time)
        and known
        and not (one.kind == "advisory_opinion" and codes & PROHIBITIONS)
    )


def _instant(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else datetime.max
