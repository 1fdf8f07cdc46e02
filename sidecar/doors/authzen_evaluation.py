"""One AuthZEN evaluation: the question made a call, asked, and its answer in AuthZEN's words.

* What the caller says about its subject, resource and context weighs as it does at every door: a person on the word of a
  registered workload or by their own token, an entity by the operator's description of its type, claims by their form.
  `properties` choose a described variant of the type; nothing else is read from them.
* A permit with content obligations is for callers that say they can meet them (`context.obligations`): AuthZEN lets a
  caller ignore what it does not know, and a duty nobody fulfils is a leak. Others are refused.
* A deny is a decision; what could not be decided or recorded is an error, and nothing is permitted by it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, partial
from time import monotonic
from typing import Final as Constant

from sidecar.attributes.entities import Entities, EntityDescription
from sidecar.doors.authzen_json import Json, MalformedError, Question, optional_text, text
from sidecar.doors.waiting import Waiter, Waiting
from sidecar.enforcement.call import Call, Door, Final, Metadata, Peer
from sidecar.enforcement.circumstances import EXCEPTION, JUSTIFICATION, PURPOSE, TICKET
from sidecar.enforcement.declarations import AUTHZEN
from sidecar.enforcement.inquiry import EntityInquiry
from sidecar.enforcement.permits import Permit
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.together import Party, Work, side_by_side, withdraw
from sidecar.enforcement.together import Question as Together
from sidecar.errors import Code, DescribeError, IdentifyError, InterceptError, StageError
from sidecar.vocabulary import ReasonCode

PEOPLE: Constant = frozenset({"user", "person"})
WORKLOADS: Constant = frozenset({"workload", "service"})
_CLAIMS: Constant = {"purpose": PURPOSE, "justification": JUSTIFICATION, "ticket": TICKET, "exception": EXCEPTION}
_ALWAYS = frozenset({"require_durability"})
DUTIES: Constant = AUTHZEN.fulfils - _ALWAYS
_SECONDS = 10.0
_STATUS: Constant = {
    Code.INVALID_ARGUMENT: 400, Code.UNAUTHENTICATED: 401, Code.RESOURCE_EXHAUSTED: 429, Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 503,
}  # fmt: skip
_DENIALS = frozenset({Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION})
_GONE = Final(code=Code.CANCELLED, message="the caller has gone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who sent a request. `metadata`: token, trace and claims of its headers. `asserts`: may name people.

    `base`: what this door is called, as the sender has it (https://host); empty when that cannot be told.
    """

    peer: Peer
    metadata: Metadata = ()
    asserts: bool = False
    base: str = ""

    @property
    def bearer(self) -> bool:
        """Whether a token came with it."""
        return any(key == "authorization" for key, _ in self.metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. `status` 200: it was decided; otherwise an HTTP status with a message, and nothing is permitted."""

    decision: bool = False
    context: Mapping[str, object] = field(default_factory=dict)
    status: int = 200
    message: str = ""

    def document(self) -> dict[str, object]:
        """As an Access Evaluation response; of an error, as an item of a batch."""
        if self.status == 200:
            return {"decision": self.decision, "context": self.context}
        error = {"status": self.status, "message": self.message}
        return {"decision": False, "context": {**self.context, "error": error}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A denied question, for whoever may offer a way on. `codes`: why."""

    call_id: str
    asker: Asker
    question: Question
    described: EntityDescription | None
    codes: tuple[str, ...]


Offer = Callable[[Denied], Mapping[str, object]]
"""What to add to a deny's context."""


class Evaluator:
    """Answers questions. One event loop."""

    def __init__(
        self, point: EnforcementPoint, entities: Entities, waiting: Waiting, clock: Callable[[], float], offer: Offer
    ) -> None:
        """`clock` gives unix seconds."""
        self._point, self._entities, self._waiting = point, entities, waiting
        self._clock, self._offer = clock, offer

    async def evaluate(self, asker: Asker, asked: Question) -> Answer:
        """Decide, record, and answer."""
        try:
            call = called(asker, asked, "evaluation")
        except MalformedError as error:
            return await self.malformed(asker, str(error))
        inquiry = self._point.inquire_entity(call)
        try:
            found, described = await self._asked(inquiry, asked)
            if isinstance(found, Permit):
                return await self._permitted(asker, asked, inquiry, found)
        except BaseException:
            await inquiry.gone(_GONE)
            raise
        return self._refused(asker, asked, found, inquiry.call_id, described)

    async def several(self, asker: Asker, asked: Sequence[Question | MalformedError]) -> list[Answer]:
        """As `evaluate`, of questions that come in one request: what they share is done once (`enforcement.together`).

        An error stands for what is no question.
        """
        found, apart = list[Answer | None]([None] * len(asked)), list[Work]()
        together: list[tuple[int, Question, Together]] = []

        async def alone(at: int, one: Question | MalformedError) -> None:
            if isinstance(one, MalformedError):
                found[at] = await self.malformed(asker, str(one))
            else:
                found[at] = await self.evaluate(asker, one)

        for at, one in enumerate(asked):
            question = None if isinstance(one, MalformedError) else self._together(asker, one)
            if question is None or isinstance(one, MalformedError):
                apart.append(partial(alone, at, one))
            else:
                together.append((at, one, question))
        try:
            await self._point.ask_together([question for _, _, question in together], Party())
            for at, one, question in together:
                found[at] = await self._said(asker, one, question)
        except BaseException:
            untold: list[Waiter] = [question.inquiry for _, _, question in together]
            with suppress(StageError):
                owner = self._point.workload(asker.peer)
                handed = [self._waiting.take(one.call_id, owner) for one in untold]
                untold += [one for one in handed if one is not None]
            await withdraw(untold, _GONE)
            raise
        await side_by_side(apart)
        return [one for one in found if one is not None]

    def _together(self, asker: Asker, asked: Question) -> Together | None:
        """The question, to be answered with others; None where something is wrong with it, which `evaluate` records."""
        try:
            call, described = called(asker, asked, "evaluation"), described_by(self._entities, asked)
        except (MalformedError, StageError):
            return None
        return Together(self._point.inquire_entity(call), described, (asked.resource.id,))

    async def _said(self, asker: Asker, asked: Question, question: Together) -> Answer:
        inquiry, told = question.inquiry, question.told
        if isinstance(told, Permit):
            return await self._permitted(asker, asked, inquiry, told)
        if isinstance(told, Final):
            return self._refused(asker, asked, told, inquiry.call_id, question.described)
        raise told or RuntimeError("a question was left without an answer")

    async def malformed(self, asker: Asker, why: str) -> Answer:
        """Refuse what is no question; recorded in the name of the workload that sent it."""
        inquiry = self._point.inquire_entity(Call(
            method="/authzen/evaluation", metadata=asker.metadata, peer=asker.peer, door=AUTHZEN,
        ))  # fmt: skip
        final = await inquiry.misused(InterceptError(why))
        return failed(final, inquiry.call_id)

    async def _asked(
        self, inquiry: EntityInquiry, asked: Question
    ) -> tuple[Permit | Final, EntityDescription | None]:  # fmt: skip
        try:
            described = described_by(self._entities, asked)
        except DescribeError as error:
            return await inquiry.identify() or await inquiry.refuse(error), None
        except IdentifyError as error:
            return await inquiry.misused(error), None
        return await inquiry.ask(described, (asked.resource.id,)), described

    async def _permitted(self, asker: Asker, asked: Question, inquiry: EntityInquiry, permit: Permit) -> Answer:
        now = self._clock()
        context: dict[str, object] = {
            "id": permit.call_id, "evaluation_id": permit.call_id, "policy_revision": permit.revision,
            "report_by": instant(now + self._waiting.within),
        }  # fmt: skip
        if permit.expires_at < now + 10 * 365 * 86400:
            context["expires_at"] = instant(permit.expires_at)
        if permit.obligations:
            context["obligations"] = [_obligation(one, permit) for one in permit.obligations]
        approval = asked.context.get("approval")
        if isinstance(approval, dict):
            context["approval"] = {"id": approval.get("id"), "approved_until": instant(permit.expires_at)}
        try:
            self._waiting.put(inquiry, self._point.workload(asker.peer))
        except StageError as error:
            return failed(await inquiry.refuse(error), inquiry.call_id)
        return Answer(decision=True, context=context)

    def _refused(
        self, asker: Asker, asked: Question, final: Final, call_id: str, described: EntityDescription | None
    ) -> Answer:
        if final.code not in _DENIALS:
            return failed(final, call_id)
        info = {} if final.error_info is None else final.error_info.metadata
        named = asked.subject.type in PEOPLE and not asker.bearer
        if info.get("stage") == "identify" and named and not asker.asserts:
            return Answer(status=403, message=final.message, context={"id": call_id})
        first = "" if final.error_info is None else final.error_info.reason
        codes = tuple((info.get("reasons") or first).split(","))
        context: dict[str, object] = {
            "id": call_id, "evaluation_id": call_id, "evaluated_at": instant(self._clock()), "reason": first,
            "policy_revision": info.get("policy_revision") or None, "reason_admin": {"en": ", ".join(codes)},
            "reason_user": {"en-403": final.message},
        }  # fmt: skip
        denied = Denied(call_id=call_id, asker=asker, question=asked, described=described, codes=codes)
        return Answer(context={**context, **self._offer(denied)})


def called(asker: Asker, asked: Question, what: str) -> Call:
    """The question as a call. MalformedError for claims of the wrong type."""
    people = asked.subject.type in PEOPLE
    return Call(
        method=f"/authzen/{what}", metadata=(*asker.metadata, *_claims(asked.context)), peer=asker.peer,
        door=_door(_declared(asked.context)), deadline=monotonic() + _SECONDS, claimed=asked.subject.id,
        asserted=asked.subject.id if people and not asker.bearer else None,
    )  # fmt: skip


def described_by(entities: Entities, asked: Question) -> EntityDescription:
    """What is asked about. DescribeError; IdentifyError for a type of subject that nobody can be."""
    if asked.subject.type not in PEOPLE | WORKLOADS:
        raise IdentifyError(
            "the subject is of no type that is known here", reason=ReasonCode.UNIDENTIFIED_PERSON,
            code=Code.PERMISSION_DENIED,
        )  # fmt: skip
    properties = {"action": asked.action.properties, "resource": asked.resource.properties}
    return entities.of(*entities.variant(asked.resource.type, asked.action.name, properties))


def failed(final: Final, call_id: str) -> Answer:
    """An error, as the pipeline ended it."""
    return Answer(status=_STATUS.get(final.code, 500), message=final.message, context={"id": call_id})


def instant(moment: float) -> str:
    """RFC 3339 in UTC, to the second, never later than it is."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _claims(context: Mapping[str, Json]) -> Metadata:
    found = {}
    for key, header in _CLAIMS.items():
        value = optional_text(context, key, "context")
        if value is not None:
            found[header] = _plain(value, key)
    approval = context.get("approval")
    if approval is not None:
        if not isinstance(approval, dict):
            raise MalformedError("context.approval is not an object")
        name = _plain(text(approval, "id", "context.approval"), "approval.id")
        if found.setdefault(EXCEPTION, name) != name:
            raise MalformedError("context.approval and context.exception differ")
    return tuple(found.items())


def _plain(value: str, key: str) -> str:
    """As it could stand in metadata, where every other door finds it."""
    if not (value.isascii() and value.isprintable()):
        raise MalformedError(f"context.{key} holds something other than printable ASCII")
    return value


def _declared(context: Mapping[str, Json]) -> frozenset[str]:
    said = context.get("obligations")
    if said is None:
        return frozenset()
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise MalformedError("context.obligations is not a list of strings")
    return frozenset(one for one in said if isinstance(one, str)) & DUTIES


@lru_cache(maxsize=64)
def _door(declared: frozenset[str]) -> Door:
    return Door(name=AUTHZEN.name, fulfils=declared | _ALWAYS, sees_answers=AUTHZEN.sees_answers)


def _obligation(one: Mapping[str, object], permit: Permit) -> dict[str, object]:
    named = dict(one)
    if one.get("id") == "drop_records":
        named["ids"] = [name for of, names in permit.dropped.items() if of == one.get("subjects") for name in names]
    return named
