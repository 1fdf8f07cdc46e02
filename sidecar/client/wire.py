"""Between the words and the messages of `sidecar.api.v1.DecisionPoint`.

Answers are read so that whatever cannot be understood is a denial: an unknown decision, an unknown obligation or one
with an unknown part, a permit that lacks what a permit has.
"""

from collections.abc import Collection, Mapping, Sequence

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.client.words import (
    AssertedPerson,
    Context,
    Denied,
    DropRecords,
    Entity,
    LimitRecords,
    MaskFields,
    MethodCall,
    Obligation,
    Outcome,
    Permit,
    Question,
    RedactFields,
    Released,
    Reported,
    Subject,
    Token,
)

INVALID_ARGUMENT, DEADLINE_EXCEEDED, PERMISSION_DENIED, UNAVAILABLE = 3, 4, 7, 14
_CLASSES = {pb.SUBJECT_CLASS_US: "us", pb.SUBJECT_CLASS_UNKNOWN: "unknown"}


class UnknownAnswerError(Exception):
    """An answer holds what this client does not know. Says what."""


def check_request(question: Question, subject: Subject, context: Context) -> pb.CheckRequest:
    """A question about a new call."""
    return pb.CheckRequest(subject=_subject(subject), context=_context(context), question=_question(question))


def batch_request(questions: Sequence[Question], subject: Subject, context: Context) -> pb.BatchCheckRequest:
    """Several, named by their place."""
    items = [pb.BatchItem(id=str(place), question=_question(one)) for place, one in enumerate(questions)]
    return pb.BatchCheckRequest(subject=_subject(subject), context=_context(context), items=items)


def answer_request(call_id: str, asked: Question, message: bytes | None, ids: Sequence[str]) -> pb.CheckRequest:
    """A question about an answer of a call that goes on."""
    question = pb.Question(call_id=call_id, phase=pb.PHASE_RESPONSE)
    if isinstance(asked, MethodCall):
        question.call.message = message or b""
    else:
        question.entity.CopyFrom(pb.Entity(type=asked.type, action=asked.action, ids=ids))
    return pb.CheckRequest(question=question)


def outcome(call_id: str, said: Outcome) -> pb.Outcome:
    """A report."""
    return pb.Outcome(
        call_id=call_id, code=said.code, messages_in=said.messages_in, messages_out=said.messages_out,
        us=_released(said.us), non_us=_released(said.non_us), unknown=_released(said.unknown), dropped=said.dropped,
        redacted=said.redacted, bytes_out=said.bytes_out, met=said.met,
    )  # fmt: skip


def decision(
    response: pb.CheckResponse, sent: bytes | None, meets: Collection[str], *, answer: bool = False
) -> Permit | Denied:
    """What a response says. `sent`: the message asked about; `meets`: obligations by name; `answer`: it was an answer."""
    if response.decision in (pb.DECISION_DENY, pb.DECISION_INDETERMINATE):
        return _denied(response)
    try:
        permit = _permit(response, sent, answer=answer)
    except UnknownAnswerError as error:
        return Denied(why="unintelligible", message=str(error), code=PERMISSION_DENIED, call_id=response.call_id)
    unmet = sorted({one.name for one in permit.obligations} - set(meets))
    if unmet:
        return Denied(
            why="obligation", code=PERMISSION_DENIED, call_id=permit.call_id,
            message=f"the permit obliges to {', '.join(unmet)}, which this caller did not say it does",
        )  # fmt: skip
    return permit


def batch(
    response: pb.BatchCheckResponse, questions: Sequence[Question], meets: Collection[str]
) -> list[Permit | Denied]:
    """A decision for each question, in their order. Anything amiss with the answer as a whole denies all of them."""
    if [one.id for one in response.results] != [str(place) for place in range(len(questions))]:
        nothing = Denied(why="unintelligible", message="the results are not those of the items", code=PERMISSION_DENIED)
        return [nothing] * len(questions)
    return [
        decision(one.response, asked.message if isinstance(asked, MethodCall) else None, meets)
        for one, asked in zip(response.results, questions, strict=True)
    ]


def failed(code: int, message: str) -> Denied:
    """The call itself failed with this gRPC status code."""
    return Denied(why="misuse" if code == INVALID_ARGUMENT else "unreachable", message=message, code=code)


def status(error: grpc.RpcError) -> tuple[int, str]:
    """Code and message of a call that failed."""
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: "")() or ""
    return (int(code.value[0]), f"{code.name}: {details}") if isinstance(code, grpc.StatusCode) else (2, str(error))


def reported(response: pb.ReportOutcomeResponse, call_ids: Sequence[str]) -> list[Reported]:
    """What became of each report, in their order."""
    if [one.call_id for one in response.results] != list(call_ids):
        return unreported(call_ids, 2, "the results are not those of the reports")
    return [
        Reported(call_id=one.call_id, recorded=one.code == 0, code=one.code, message=one.message)
        for one in response.results
    ]


def unreported(call_ids: Sequence[str], code: int, message: str) -> list[Reported]:
    """None of them was recorded, as far as anybody here knows."""
    return [Reported(call_id=one, recorded=False, code=code, message=message) for one in call_ids]


def _subject(subject: Subject) -> pb.Subject | None:
    match subject:
        case Token(token):
            return pb.Subject(token=token)
        case AssertedPerson(person):
            return pb.Subject(asserted_person=person)
        case None:
            return None


def _context(context: Context) -> pb.Context:
    return pb.Context(
        purpose=context.purpose, justification=context.justification, ticket=context.ticket,
        exception=context.exception, traceparent=context.traceparent,
    )  # fmt: skip


def _question(question: Question) -> pb.Question:
    answers = pb.ANSWERS_CHECKED if question.checked else pb.ANSWERS_UNSEEN
    if isinstance(question, Entity):
        entity = pb.Entity(type=question.type, action=question.action, ids=question.ids)
        return pb.Question(entity=entity, answers=answers)
    return pb.Question(call=pb.MethodCall(method=question.method, message=question.message), answers=answers)


def _denied(response: pb.CheckResponse) -> Denied:
    undecided = response.decision == pb.DECISION_INDETERMINATE
    return Denied(
        why="indeterminate" if undecided else "misuse" if response.code == INVALID_ARGUMENT else "policy",
        message=response.message, code=response.code or PERMISSION_DENIED, reasons=tuple(response.reasons),
        call_id=response.call_id,
        retry_after=response.retry_after.ToMilliseconds() / 1000 if response.HasField("retry_after") else None,
    )  # fmt: skip


def _permit(response: pb.CheckResponse, sent: bytes | None, *, answer: bool) -> Permit:
    if response.decision != pb.DECISION_PERMIT:
        raise UnknownAnswerError(f"decision {response.decision} is none that this client knows")
    if (
        not response.call_id
        or response.code
        or not (response.HasField("expires_at") and response.HasField("report_by"))
    ):
        raise UnknownAnswerError("a permit that lacks its call, its end, or carries an error")
    release = None
    if answer and not response.withheld:
        release = response.release if response.HasField("release") else sent
    return Permit(
        call_id=response.call_id, obligations=tuple([_obligation(one) for one in response.obligations]),
        forward=response.forward if response.HasField("forward") else None if answer else sent, release=release,
        metadata=dict(response.metadata), expires_at=_seconds(response.expires_at), report_by=_seconds(response.report_by),
    )  # fmt: skip


def _obligation(one: pb.Obligation) -> Obligation:
    known = pb.Obligation()
    known.CopyFrom(one)
    known.DiscardUnknownFields()
    if known.ByteSize() != one.ByteSize():
        raise UnknownAnswerError("an obligation has a part that this client does not know")
    match one.WhichOneof("kind"):
        case "redact_fields":
            return RedactFields(tuple(one.redact_fields.categories), tuple(one.redact_fields.fields))
        case "mask_fields":
            return MaskFields(tuple(one.mask_fields.categories), tuple(one.mask_fields.fields))
        case "drop_records" if one.drop_records.subjects in _CLASSES:
            us = one.drop_records.subjects == pb.SUBJECT_CLASS_US
            return DropRecords("us" if us else "unknown", tuple(one.drop_records.ids))
        case "limit_records":
            return LimitRecords(one.limit_records.max)
        case _:
            raise UnknownAnswerError("an obligation that this client does not know")


def _released(said: Released) -> pb.Released:
    by_category: Mapping[str, int] = said.by_category
    return pb.Released(records=said.records, by_category=by_category)


def _seconds(at: Timestamp) -> float:
    return at.seconds + at.nanos / 1e9
