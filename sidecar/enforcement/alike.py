"""Questions of one request that differ only in whom they are about: what one has found out holds for the next."""

from collections.abc import Mapping, Sequence

import msgspec

from sidecar.attributes.entities import EntityDescription
from sidecar.attributes.messages import Seen
from sidecar.attributes.resource import Classified, SubjectKey
from sidecar.enforcement.call import Call
from sidecar.enforcement.case import Case, Decided
from sidecar.enforcement.cover import settled
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.parts import Parts
from sidecar.observability.calls import CallSpan
from sidecar.record import Trace
from sidecar.vocabulary import Level, SubjectClass, SubjectCounts

_MAY_WAIT = frozenset({"read", "list", "search"})
_FOUND_OUT = ("identify", "describe", "decide")
"""The stages that a question has behind it when its answer is known."""


class Alike(msgspec.Struct, frozen=True):
    """Questions of one request about one type that have been put, with their answers, by the counts of data subjects.

    They are permits and nothing else hangs on them, so that a further question of the same caller at the same moment
    with such counts is the same document, and its record the same but for its call and its people. `level`: of outcomes.
    """

    call: Call
    case: Case
    level: Level
    decided: dict[SubjectCounts, Decided]

    def question(
        self, call: Call, span: CallSpan, call_id: str, described: EntityDescription, ids: Sequence[str], *,
        pending: bool,
    ) -> tuple[DecisionEntry, Decided, Mapping[SubjectKey, SubjectClass]] | None:  # fmt: skip
        """A further question: what is to be recorded, what was decided, and about whom. None where it is no such one."""
        if call is not self.call and not same_caller(call, self.call):
            return None
        classified = classified_of(self.case.parts, self.case, described, ids, pending=pending)
        classes = classified.classes
        decided = self.decided.get(classified.counts)
        if decided is None:
            return None
        for stage in _FOUND_OUT:
            span.stage(stage)
        entry = DecisionEntry(
            form=decided.entry.form, call_id=call_id, eval_us=0, deadline=call.deadline,
            trace=Trace(trace_id=span.trace_id, span_id=span.span_id, from_=span.from_),
            subjects=[(kind, name, class_) for (kind, name), class_ in classes.items()],
        )  # fmt: skip
        return entry, decided, classes


def same_caller(one: Call, other: Call) -> bool:
    """Whether both are asked by the same caller, who says the same, at the same door."""
    return (
        one.door is other.door and one.metadata == other.metadata and one.peer == other.peer
        and (one.method, one.asserted, one.claimed) == (other.method, other.asserted, other.claimed)
    )  # fmt: skip


def classified_of(
    parts: Parts, case: Case, described: EntityDescription, ids: Sequence[str], *, pending: bool
) -> Classified:
    """Whom a question about these ids of a described type concerns. `pending`: that shows only in the answer."""
    if described.subject is None:
        return Classified(counts=SubjectCounts(), classes={})
    named = ids if len(ids) == 1 else dict.fromkeys(ids)  # one named twice is one
    seen = [Seen(described.subject, one) for one in named]
    waits = pending and not ids and described.action.name in _MAY_WAIT
    classified = parts.classifier.classify(
        seen, case.identity.own, parts.clock(), unnamed=0 if ids or waits else 1, pending=waits
    )
    return settled(classified) if waits and not case.call.door.sees_answers else classified
