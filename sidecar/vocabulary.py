"""The words of access control, typed: the input document a policy sees and the decision it returns.

Terms are XACML 3.0's and NIST SP 800-162's. Every type is frozen. The input document (version 1) is *total*: every
leaf is present, `None` or empty when unknown. `canonical()` is its only encoding: keys in the order of the fields
below, so equal documents are equal bytes, which key the decision cache and stand in the record.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from sidecar.errors import Code

SubjectKind = Literal["personnel", "workload", "data_subject"]
SubjectClass = Literal["us", "non_us", "unknown"]
Phase = Literal["request", "response"]
Level = Literal["written", "committed", "acknowledged"]
LEVELS: tuple[Level, ...] = ("written", "committed", "acknowledged")
ACTIONS = ("read", "list", "search", "write", "delete", "export", "admin")
CLASSES = ("protected", "public", "metrics", "interoperability", "commerce")
COMPUTED_CATEGORIES = ("covered_personal_identifiers", "combined", "government_related")
ANNOTATED_CATEGORIES = (
    "human_genomic", "human_epigenomic", "human_proteomic", "human_transcriptomic", "biometric_identifier",
    "precise_geolocation", "personal_health", "personal_financial", "id_government", "id_financial_account",
    "id_device", "id_contact", "id_advertising", "id_account_auth", "id_network", "id_call_detail",
    "communication_content", "user_content", "behaviour", "coarse_location", "commerce_order", "aggregate", "public",
    "unclassified",
)  # fmt: skip
CATEGORIES = ANNOTATED_CATEGORIES[:8] + COMPUTED_CATEGORIES + ANNOTATED_CATEGORIES[8:]


class ReasonCode(StrEnum):
    """The closed list of reasons. Order and spelling are part of the interface."""

    UNIDENTIFIED_PERSON = "unidentified_person"
    UNIDENTIFIED_WORKLOAD = "unidentified_workload"
    AUTHENTICATION_INSUFFICIENT = "authentication_insufficient"
    UNDESCRIBED_METHOD = "undescribed_method"
    UNCLASSIFIED_DATA = "unclassified_data"
    STALE_DIRECTORY = "stale_directory"
    POLICY_ERROR = "policy_error"
    OBLIGATION_UNFULFILLABLE = "obligation_unfulfillable"
    NOT_US_PERSONNEL = "not_us_personnel"
    PERSONNEL_INELIGIBLE = "personnel_ineligible"
    PERSON_LOCATION = "person_location"
    SUBJECTS_UNKNOWN = "subjects_unknown"
    CLASS_NOT_ALLOWED = "class_not_allowed"
    ACTION_NOT_ALLOWED = "action_not_allowed"
    PURPOSE_NOT_ALLOWED = "purpose_not_allowed"
    TICKET_MISSING = "ticket_missing"
    APPROVAL_REQUIRED = "approval_required"
    EXCEPTION_INVALID = "exception_invalid"
    VOLUME_LIMIT = "volume_limit"
    DESTINATION_NOT_ALLOWED = "destination_not_allowed"
    STORAGE_NOT_ALLOWED = "storage_not_allowed"
    DSP_STATUS_UNKNOWN = "dsp_status_unknown"
    DSP_GOVERNMENT_RELATED = "dsp_government_related"
    DSP_BULK = "dsp_bulk"
    DSP_SECURITY_REQUIREMENTS_UNMET = "dsp_security_requirements_unmet"
    DSP_PROHIBITED_OMIC = "dsp_prohibited_omic"
    DSP_PROHIBITED_BROKERAGE = "dsp_prohibited_brokerage"
    DSP_ONWARD_TERMS_MISSING = "dsp_onward_terms_missing"
    DSP_AUTHORIZATION_INVALID = "dsp_authorization_invalid"
    MIGRATION_WINDOW = "migration_window"
    NOT_OWN_RECORD = "not_own_record"
    RECORD_UNAVAILABLE = "record_unavailable"


WAIVABLE = frozenset({"not_us_personnel", "person_location", "subjects_unknown", "class_not_allowed",
                      "action_not_allowed", "volume_limit", "destination_not_allowed", "storage_not_allowed"})  # fmt: skip


def status_of(codes: frozenset[str]) -> Code:
    """The gRPC status of a deny with these reason codes. Any plain denial outweighs "approval outstanding"."""
    if codes & {"stale_directory", "policy_error", "record_unavailable"}:
        return Code.UNAVAILABLE
    if codes == {"approval_required"}:
        return Code.FAILED_PRECONDITION
    return Code.PERMISSION_DENIED


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the input or decision document."""


class Location(Document, frozen=True, kw_only=True):
    """Where a person is now: ISO 3166-1 alpha-2, who says so, and when (RFC 3339)."""

    country: str | None = None
    source: str | None = None
    as_of: str | None = None


class Training(Document, frozen=True, kw_only=True):
    """A course and the RFC 3339 instant to which it counts."""

    id: str
    until: str


class CoveredPerson(Document, frozen=True, kw_only=True):
    """28 CFR 202.211, worked out when the directory is built; `unknown` weighs as `yes`."""

    value: Literal["yes", "no", "unknown"] = "unknown"
    basis: str | None = None
    as_of: str | None = None


class Person(Document, frozen=True, kw_only=True):
    """A person at work, as the directory says. For other kinds of subject all leaves are None or empty."""

    id: str | None = None
    us_personnel: bool | None = None
    location: Location = Location()
    legal_status: str | None = None
    primary_residence: str | None = None
    citizenships: tuple[str, ...] = ()
    covered_person: CoveredPerson = CoveredPerson()
    roles: tuple[str, ...] = ()
    training: tuple[Training, ...] = ()
    vetted_until: str | None = None
    status: str | None = None


class Engagement(Document, frozen=True, kw_only=True):
    """Under what agreement the person works. `group` is what volumes aggregate on (28 CFR 202.205, 232).

    `onward_clause_ref`: the clause against onward transfer that 28 CFR 202.302(a)(1) asks for.
    """

    type: str | None = None
    counterparty: str | None = None
    group: str | None = None
    agreement_ref: str | None = None
    onward_clause_ref: str | None = None
    from_: str | None = msgspec.field(default=None, name="from")
    until: str | None = None


class Authentication(Document, frozen=True, kw_only=True):
    """How the caller proved who they are: NIST SP 800-63B level, RFC 8176 methods, RFC 3339 instant."""

    aal: int | None = None
    methods: tuple[str, ...] = ()
    time: str | None = None


class Workload(Document, frozen=True, kw_only=True):
    """The calling service: verified identity, registered place of operation, and what it may do alone."""

    id: str | None = None
    operated_from: str | None = None
    may: tuple[str, ...] = ()


class Subject(Document, frozen=True, kw_only=True):
    """Who asks."""

    kind: SubjectKind | None = None
    person: Person = Person()
    engagement: Engagement = Engagement()
    authentication: Authentication = Authentication()
    workload: Workload = Workload()
    delegation: tuple[str, ...] = ()
    source: str | None = None
    as_of: str | None = None


class Action(Document, frozen=True, kw_only=True):
    """What is asked: one of ACTIONS, and the full protobuf names."""

    name: str | None = None
    service: str | None = None
    method: str | None = None


class SubjectCounts(Document, frozen=True, kw_only=True):
    """How many data subjects of each class a message names. `own`: how many are the caller.

    `pending`: true only in the request phase of a method whose subjects show in the answer.
    """

    us: int = 0
    non_us: int = 0
    unknown: int = 0
    own: int = 0
    pending: bool = False


NO_COUNTS: dict[str, int | None] = dict.fromkeys(CATEGORIES)


class Dataset(Document, frozen=True, kw_only=True):
    """What the grant *reaches* (28 CFR 202.201): distinct persons per category; devices for precise_geolocation."""

    id: str | None = None
    population: dict[str, int | None] = msgspec.field(default_factory=NO_COUNTS.copy)


class Place(Document, frozen=True, kw_only=True):
    """A place where data is kept or goes."""

    country: str | None = None
    provider: str | None = None
    region: str | None = None


class Resource(Document, frozen=True, kw_only=True):
    """What is reached. No identifier of a data subject, only counts and classes."""

    type: str | None = None
    categories: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    listed_identifiers: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    subjects: SubjectCounts = SubjectCounts()
    flags: tuple[str, ...] = ()
    dataset: Dataset = msgspec.field(default_factory=Dataset)
    location: Place = Place()


class GrantScope(Document, frozen=True, kw_only=True):
    """What an exception covers. An empty list covers nothing."""

    services: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subjects: str = "us"


class ExceptionGrant(Document, frozen=True, kw_only=True):
    """A verified, unexpired, two-approver grant naming this person. Only the sidecar puts one here."""

    id: str
    person: str
    scope: GrantScope
    justification: str
    ticket: str
    not_before: str
    expires: str
    requested_by: str
    approvers: tuple[str, ...]
    max_records: int | None = None


class Authorization(Document, frozen=True, kw_only=True):
    """An exemption, licence or advisory opinion (28 CFR part 202 subparts E, H, I). Never inferred."""

    id: str
    kind: str
    paragraph: str
    persons: tuple[str, ...]
    services: tuple[str, ...]
    categories: tuple[str, ...]
    purposes: tuple[str, ...]
    owner: str
    expires: str


class SecurityRequirements(Document, frozen=True, kw_only=True):
    """Attestation of the CISA requirements (28 CFR 202.248, 401) for this service."""

    version: str | None = None
    attested_at: str | None = None
    valid_until: str | None = None


class Network(Document, frozen=True, kw_only=True):
    """Where the answer goes, from configuration or the mTLS peer, never from metadata."""

    destination: Place = Place()


class Environment(Document, frozen=True, kw_only=True):
    """The circumstances of the call. XACML says environment; the document's key is `context`."""

    purpose: str | None = None
    justification: str | None = None
    ticket: str | None = None
    exceptions: tuple[ExceptionGrant, ...] = ()
    authorizations: tuple[Authorization, ...] = ()
    security_requirements: SecurityRequirements = SecurityRequirements()
    exposure: dict[str, int | None] = msgspec.field(default_factory=NO_COUNTS.copy)
    network: Network = Network()
    time: str
    phase: Phase


class AccessRequest(Document, frozen=True, kw_only=True):
    """The input document, version 1."""

    version: Literal[1] = 1
    subject: Subject
    action: Action
    resource: Resource
    context: Environment


_encode = msgspec.json.Encoder().encode


def canonical(request: AccessRequest) -> bytes:
    """The one encoding of an input document."""
    return _encode(request)


class Effect(StrEnum):
    """What a policy answers."""

    PERMIT = "permit"
    DENY = "deny"


class Reason(Document, frozen=True, kw_only=True):
    """Why: a code of the closed list (or, for a permit, any word of the policy's), for people, and which rule."""

    code: str
    message: str
    rule: str


class Obligation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="id"):
    """What the enforcer must do for a permit to hold."""


class RedactFields(Obligation, frozen=True, kw_only=True, tag="redact_fields"):
    """Clear every field of these categories, or named by full path `package.Message.field`."""

    categories: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


class MaskFields(Obligation, frozen=True, kw_only=True, tag="mask_fields"):
    """Leave only the last four characters. A masked identifier is still a listed one (28 CFR 202.234(a))."""

    categories: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


class DropRecords(Obligation, frozen=True, kw_only=True, tag="drop_records"):
    """Remove every record of a subject of this class."""

    subjects: Literal["us", "unknown"]


class LimitRecords(Obligation, frozen=True, kw_only=True, tag="limit_records"):
    """Release at most this many records in the whole call."""

    max: int


class RequireDurability(Obligation, frozen=True, kw_only=True, tag="require_durability"):
    """Raise the level the decision record must reach first. Never lowers it."""

    level: Level


class RecheckSeconds(Obligation, frozen=True, kw_only=True, tag="recheck_seconds"):
    """Decide an open stream again after so many seconds."""

    seconds: int


class UnknownObligation(Obligation, frozen=True, kw_only=True, tag="?"):
    """An obligation nobody here knows: kept by name, so that the refusal can say which."""

    name: str


KnownObligation = RedactFields | MaskFields | DropRecords | LimitRecords | RequireDurability | RecheckSeconds
AnyObligation = KnownObligation | UnknownObligation
KNOWN_OBLIGATIONS = frozenset(
    {"redact_fields", "mask_fields", "drop_records", "limit_records", "require_durability", "recheck_seconds"}
)


class Decision(Document, frozen=True, kw_only=True):
    """The decision document, version 1, checked."""

    effect: Effect
    reasons: tuple[Reason, ...]
    obligations: tuple[AnyObligation, ...] = ()
    advice: tuple[str, ...] = ()
    ttl_seconds: int = 0

    @property
    def permits(self) -> bool:
        """Whether the effect is permit."""
        return self.effect is Effect.PERMIT
