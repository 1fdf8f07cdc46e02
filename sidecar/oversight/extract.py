"""What of a record can be searched for, read from its leaf and body."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from sidecar.oversight.storage import Stored
from sidecar.record import Leaf, RecordFormatError, body_digest, decode_digest, parse_leaf


class _Id(msgspec.Struct, frozen=True):
    id: str | None = None


class _Subject(msgspec.Struct, frozen=True):
    person: _Id = _Id()
    workload: _Id = _Id()


class _Resource(msgspec.Struct, frozen=True):
    categories: list[str] = []
    computed: list[str] = []


class _Input(msgspec.Struct, frozen=True):
    subject: _Subject = _Subject()
    resource: _Resource = _Resource()


class _Reason(msgspec.Struct, frozen=True):
    code: str = ""


class _Decision(msgspec.Struct, frozen=True):
    effect: str | None = None
    reasons: list[_Reason] = []


class _Trace(msgspec.Struct, frozen=True):
    trace_id: str | None = None


class _Released(msgspec.Struct, frozen=True):
    by_category: dict[str, int] = {}


class _Body(msgspec.Struct, frozen=True):
    """The searchable part of every kind of body; what is not named here is skipped unread."""

    service: str | None = None
    trace: _Trace = _Trace()
    input: _Input = _Input()
    decision: _Decision = _Decision()
    released: dict[str, _Released] = {}
    details: dict[str, object] = {}
    seen: str | None = None


_decoder = msgspec.json.Decoder(_Body)


@dataclass(slots=True, kw_only=True)
class Terms:
    """A record's search terms. `person`: who acted (a person, else the workload alone, else a reviewer).

    `time` is the producer's claim in microseconds since 1970. `problem` says why a body is not what it should be.
    """

    index: int
    leaf: Leaf
    time: int
    service: str | None = None
    person: str | None = None
    effect: str | None = None
    trace: str | None = None
    seen: str | None = None
    reasons: set[str] = field(default_factory=set)
    categories: set[str] = field(default_factory=set)
    problem: tuple[str, str] | None = None


def terms_of(record: Stored) -> Terms:
    """Read a record. Never raises for a stored record: what is wrong with its body stands in `problem`."""
    leaf = parse_leaf(record.leaf)
    terms = Terms(index=record.index, leaf=leaf, time=_microseconds(leaf.time))
    if body_digest(record.salt, record.body) != decode_digest(leaf.body, "body"):
        terms.problem = ("bad_digest", "the stored body is not the one that the leaf commits to")
        return terms
    try:
        body = _decoder.decode(record.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecordFormatError) as error:
        terms.problem = ("bad_body", f"the body cannot be read: {error}"[:200])
        return terms
    subject = body.input.subject
    reviewer = body.details.get("reviewer")
    terms.service = body.service
    terms.person = subject.person.id or subject.workload.id or (reviewer if isinstance(reviewer, str) else None)
    terms.effect = body.decision.effect
    terms.trace, terms.seen = body.trace.trace_id, body.seen
    terms.reasons = {reason.code for reason in body.decision.reasons if reason.code}
    terms.categories = {*body.input.resource.categories, *body.input.resource.computed}
    for released in body.released.values():
        terms.categories |= {name for name, count in released.by_category.items() if count}
    return terms


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970."""
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000 + 0.5)


def _microseconds(text: str) -> int:
    """The leaf's time; 0 for a text that is not one (times are claims, and the leaf is kept as it is)."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    return microseconds(moment) if moment.tzinfo is not None else 0
