"""Generated calls for the policies, and the mission told a second time, in Python."""

import random
from collections.abc import Iterator

from sidecar.vocabulary import (
    NO_COUNTS,
    AccessRequest,
    Action,
    Authentication,
    Authorization,
    CoveredPerson,
    Dataset,
    Decision,
    DropRecords,
    Engagement,
    Environment,
    ExceptionGrant,
    GrantScope,
    Location,
    Network,
    Person,
    Place,
    Resource,
    SecurityRequirements,
    Subject,
    SubjectCounts,
    Training,
    Workload,
)

SERVICE = "sidecar.demo.profiles.v1.Profiles"
NOW = "2026-11-22T12:00:00Z"
READING = ("read", "list", "search")
US_PLACES = ("US", "PR", "GU", "VI", "AS", "MP", "UM")
_SHAPES = (
    (("behaviour", "id_contact", "id_government", "personal_financial", "public"), ("protected", "public")),
    (("behaviour", "communication_content", "id_contact"), ("protected",)),
    (("public", "user_content"), ("public",)),
    (("aggregate",), ("metrics",)),
    (("communication_content",), ("interoperability",)),
    (("commerce_order",), ("commerce",)),
    (("public", "unclassified"), ("protected", "public")),
    (("id_contact",), ()),
    ((), ()),
)
# Sensitive personal data and listed identifiers: categories, letters, what is computed of them.
_SENSITIVE = (
    (("personal_financial",), (), ()),
    (("precise_geolocation",), (), ()),
    (("human_genomic",), (), ()),
    (("human_epigenomic", "human_proteomic"), (), ()),
    (("personal_health", "precise_geolocation"), (), ("combined",)),
    (("behaviour", "id_contact", "personal_financial"), ("d",), ("covered_personal_identifiers", "combined")),
    (("id_contact", "id_device"), ("c", "d"), ("covered_personal_identifiers",)),
    (("id_contact",), ("d",), ()),
    (("id_government",), ("a",), ()),
    (("unclassified",), (), ()),
    (("commerce_order", "public"), (), ()),
    (("user_content",), (), ()),
)
_COVERED = (
    CoveredPerson(value="yes", basis="designated"), CoveredPerson(value="yes", basis="employed_by_covered"),
    CoveredPerson(value="unknown", basis="residence_unknown"), CoveredPerson(value="no", basis="foreign_not_covered"),
    CoveredPerson(value="no", basis="us_person_status"),
)  # fmt: skip


class Calls:
    """Calls that are mostly in order: each leaf is usually good, sometimes wrong, sometimes unknown."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def stream(self, count: int) -> Iterator[AccessRequest]:
        for _ in range(count):
            yield self.call()

    def often(self, good, *others):
        """The good value, or one of the others in one call of twenty-four."""
        return good if self.random.random() > 1 / 24 else self.random.choice(others)

    def any(self, *values):
        return self.random.choice(values)

    def instant(self, good: str):
        return self.often(
            good,
            None,
            "2026-11-22T12:00:00Z",
            "2026-11-21T11:00:00Z",
            "2026-11-22T14:00:00+02:00",
            "2030-01-01T00:00:00Z",
        )

    def person(self) -> Person:
        return Person(
            id=self.often(self.any("alice", "bao"), None, ""), us_personnel=self.any(True, True, False, False, None),
            location=Location(country=self.any("US", "US", "PR", "SG", "CN", None)),
            roles=self.any(("support",), ("support", "legal"), ("legal",), ("analyst", "engineer"), ("trust_and_safety", "support"), ()),
            training=self.often((Training(id="data_protection", until="2027-01-01T00:00:00Z"),), (),
                                (Training(id="data_protection", until=NOW),)),
            vetted_until=self.instant("2027-01-01T00:00:00Z"), status=self.often("active", None, "left"),
            covered_person=self.often(_COVERED[4], *_COVERED, CoveredPerson()),
        )  # fmt: skip

    def subject(self) -> Subject:
        return Subject(
            kind=self.any("personnel", "personnel", "personnel", "personnel", "workload", "data_subject", None),
            person=self.person(),
            engagement=Engagement(type=self.often("employment", None, "brokerage"), counterparty=self.any("operator", None),
                                  from_=self.instant("2024-01-01T00:00:00Z"), until=self.instant("2030-01-01T00:00:00Z")),
            authentication=Authentication(aal=self.often(2, None, 1), time=self.instant("2026-11-22T08:00:00Z")),
            workload=Workload(id=self.often("spiffe://corp/ns/a", None, ""), operated_from=self.any("US", "US", "SG", self.often("US", None, "CN")),
                              may=self.any(("read", "list"), ("read", "write"), ())),
            as_of=self.instant("2026-11-22T11:30:00Z"),
        )  # fmt: skip

    def resource(self) -> Resource:
        categories, classes = self.any(*_SHAPES, _SHAPES[0], _SHAPES[0])
        if self.random.random() < 0.15:
            return Resource(type="profile", categories=categories, classes=classes, subjects=SubjectCounts(pending=True),
                            location=self.place())  # fmt: skip
        us, non_us, unknown = self.any(
            (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 3, 1), (1, 1, 0), (0, 2, 2), (0, 0, 0), (60, 0, 0), (300, 0, 0)
        )
        return Resource(
            type="profile", categories=categories, classes=classes, listed_identifiers=self.any((), ("d",)),
            subjects=SubjectCounts(us=us, non_us=non_us, unknown=unknown, own=self.any(0, 1, us + non_us + unknown),
                                   pending=self.random.random() < 0.05),
            location=self.place(),
        )  # fmt: skip

    def place(self) -> Place:
        return self.often(Place(country="US", provider="oci", region="us-ashburn-1"), Place(),
                          Place(country="DE", provider="oci", region="eu-frankfurt-1"),
                          Place(country="US", provider="oci", region="us-luke-1"))  # fmt: skip

    def grant(self) -> ExceptionGrant:
        return ExceptionGrant(
            id=self.any("EX-1", "EX-2"), person=self.any("alice", "bao"),
            scope=GrantScope(services=self.often((SERVICE,), (), ("a.b.C",)), subjects=self.often("us", "unknown", "none"),
                             categories=("behaviour", "id_contact", "id_government", "personal_financial", "communication_content")),
            justification="incident", ticket=self.often("T-1", "T-2"),
            not_before=self.often("2026-11-22T10:00:00Z", "2026-11-22T13:00:00Z"),
            expires=self.often("2026-11-22T20:00:00Z", NOW, "2026-11-25T00:00:00Z"), requested_by="chen",
            approvers=self.often(("dora", "emil"), ("dora",), ("dora", "chen"), ("bao", "alice")), max_records=self.any(None, 5),
        )  # fmt: skip

    def counts(self, kinds: tuple[str, ...]) -> dict[str, int | None]:
        """Counts that nobody makes, small ones, and large ones: mostly about what the call reaches."""
        if self.random.random() < 0.15:
            return NO_COUNTS.copy()
        found: dict[str, int | None] = dict.fromkeys(NO_COUNTS, 0)
        for _ in range(self.any(0, 1, 3)):
            found[self.any(*kinds, *kinds, self.any(*found))] = self.any(
                self.any(None, 1, 80, 100, 101, 999, 1000), self.any(1001, 8000, 10000, 10001, 100000), 100001
            )
        return found

    def authorization(self) -> Authorization:
        return Authorization(
            id=self.any("AU-1", "AU-2"), kind=self.any("exemption", "specific_licence", "advisory_opinion"), owner="counsel",
            paragraph=self.often("202.506(a)(2)(viii)", "202.401"), persons=self.often(("alice",), ("bao",), ()),
            services=self.often((SERVICE,), ("a.b.C",)), categories=self.often(tuple(NO_COUNTS), (), ("id_contact",)),
            purposes=self.often(("trust_and_safety", "legal_process"), ()), expires=self.often("2026-12-01T00:00:00Z", NOW),
        )  # fmt: skip

    def part_202(self) -> AccessRequest:
        """A call that the operator's rules mostly leave alone, and 28 CFR part 202 may not."""
        call = self.call(part_202=False)
        categories, letters, computed = self.any(*_SENSITIVE, _SENSITIVE[0], _SENSITIVE[5], _SENSITIVE[8])
        flags = self.often((), ("marketed_as_government",), ("in_listed_area",))
        computed += ("government_related",) if flags or self.random.random() < 0.03 else ()
        place = Place(country="US", provider="oci", region="us-ashburn-1")
        purpose, role = self.any(("trust_and_safety", "trust_and_safety"), ("legal_process", "legal"))
        subject = Subject(
            kind="personnel",
            person=Person(
                id="alice", us_personnel=True, location=Location(country="US"), roles=(role,), status="active",
                training=(Training(id="data_protection", until="2027-01-01T00:00:00Z"),), vetted_until="2027-01-01T00:00:00Z",
                covered_person=self.any(*_COVERED),
            ),
            engagement=Engagement(
                type=self.any("employment", "employment", "vendor", "vendor", "investment", "brokerage", self.any("none", None)),
                group="partner", onward_clause_ref=self.any(None, "", "MSA-7"), from_="2024-01-01T00:00:00Z", until="2030-01-01T00:00:00Z",
            ),
            authentication=Authentication(aal=2, time="2026-11-22T08:00:00Z"),
            workload=Workload(id="spiffe://corp/ns/desk", operated_from=self.often("US", "CN", None)), as_of="2026-11-22T11:30:00Z",
        )  # fmt: skip
        resource = Resource(
            type="profile", categories=categories, classes=("protected",), listed_identifiers=letters, computed=computed,
            subjects=SubjectCounts(us=self.often(1, 0), unknown=self.often(0, 1), non_us=self.any(0, 0, 0, 1)), flags=flags,
            dataset=Dataset(id="d", population=self.counts(categories + computed)), location=place,
        )  # fmt: skip
        context = Environment(
            purpose=self.often(purpose, "user_support"), ticket="T-1", exceptions=self.any((), (self.grant(),)),
            authorizations=self.any((), (), (self.authorization(),), (self.authorization(), self.authorization())),
            security_requirements=self.any(SecurityRequirements(), SecurityRequirements(
                version="2025-01", attested_at="2026-01-01T00:00:00Z", valid_until=self.often("2027-01-01T00:00:00Z", NOW),
            )),
            exposure=self.counts(categories + computed), network=Network(destination=place), time=NOW, phase="response",
        )  # fmt: skip
        action = Action(name=self.any("read", "read", "read", "list", "write", "delete", "export"), service=self.often(SERVICE, "a.b.C"),
                        method="GetProfile")  # fmt: skip
        return AccessRequest(
            subject=subject,
            action=action,
            resource=resource,
            context=call.context if self.random.random() < 0.02 else context,
        )

    def call(self, *, part_202: bool = True) -> AccessRequest:
        if part_202 and self.random.random() < 0.4:
            return self.part_202()
        return AccessRequest(
            subject=self.subject(),
            action=Action(name=self.any("read", "read", "list", "search", "write", "delete", "export", None),
                          service=self.often(SERVICE, None, "a.b.C"), method=self.often("GetProfile", None, "ListMessages")),
            resource=self.resource(),
            context=Environment(
                purpose=self.any("user_support", "user_support", "user_support", "legal_process", "trust_and_safety", "business_metrics",
                                 "commerce_fulfilment", "global_interoperability", "curiosity", None),
                ticket=self.often("T-1", None, ""), exceptions=self.any((), (), (self.grant(),), (self.grant(), self.grant())),
                network=Network(destination=self.place()), time=NOW, phase=self.any("request", "response", "response"),
            ),
        )  # fmt: skip


def broken_promise(request: AccessRequest, decision: Decision) -> str | None:
    """What the mission forbids in this decision, worked out without the policies; None when all is well."""
    if not decision.permits:
        return None if decision.reasons and not decision.obligations else "a deny without a reason, or with obligations"
    subject, subjects, phase = request.subject, request.resource.subjects, request.context.phase
    excepted = any(reason.code == "exception" for reason in decision.reasons)
    if excepted and (decision.ttl_seconds or not request.context.exceptions):
        return "an exception out of nowhere, or one that is remembered"
    protected = "protected" in request.resource.classes or (
        not request.resource.classes and request.resource.categories
    )
    dropped = {one.subjects for one in decision.obligations if isinstance(one, DropRecords)}
    waiting = subjects.pending and phase == "request" and request.action.name in READING
    nobody = not (subjects.us or subjects.non_us or subjects.unknown or waiting)
    if subject.kind == "data_subject":
        total = subjects.us + subjects.non_us + subjects.unknown
        empty = not request.resource.categories and not total
        return None if subjects.own == total or empty else "another's record for a data subject"
    if not protected or excepted:
        return None
    cleared = (
        subject.person.us_personnel is True
        if subject.kind == "personnel"
        else subject.workload.operated_from in US_PLACES
    )
    if cleared:
        return None
    if subjects.us and "us" not in dropped:
        return "protected data of a US subject for somebody who is not cleared"
    if (subjects.unknown or nobody) and "unknown" not in dropped:
        return "protected data of an unknown subject for somebody who is not cleared"
    if subjects.pending and not waiting:
        return "subjects that nobody knows for somebody who is not cleared"
    if dropped and (phase != "response" or request.action.name not in READING):
        return "records are dropped where nothing can be dropped"
    return None
