"""The client for ordinary, blocking code. Thread-safe."""

import logging
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import grpc

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.api.v1.decision_point_pb2_grpc import DecisionPointStub
from sidecar.client import wire
from sidecar.client.connection import Target, Tls, attempts
from sidecar.client.course import Course, declared
from sidecar.client.words import (
    Context,
    Denied,
    DeniedError,
    Entity,
    MethodCall,
    Outcome,
    Permit,
    Question,
    Reported,
    Subject,
)

T = TypeVar("T")
_LOG = logging.getLogger("customhouse.client")
DEADLINE = 0.25
REPORT_DEADLINE = 2.0
NO_CONTEXT = Context()


class DecisionClient:
    """Asks a sidecar's decision API.

    Whatever goes wrong is a denial: no answer in `deadline` seconds, an error, an answer this client does not know. There
    is no way to have it otherwise. A question is asked again only when the sidecar could not be reached and nothing was
    answered, within the same deadline.
    """

    def __init__(
        self, address: str, tls: Tls | None = None, *, deadline: float = DEADLINE,
        report_deadline: float = REPORT_DEADLINE, clock: Callable[[], float] = time.time,  # noqa: TID251 - an edge
    ) -> None:  # fmt: skip
        """`address` is host:port, with `tls`, or unix:PATH. Seconds. ValueError, or OSError for TLS files.

        `clock` gives unix seconds: by it a permit ends.
        """
        target = Target(address=address, tls=tls)
        self._deadline, self._report_deadline, self._clock = deadline, report_deadline, clock
        self._channel = (
            grpc.insecure_channel(address, options=target.options())
            if tls is None
            else grpc.secure_channel(address, tls.credentials(), options=target.options())
        )
        self._stub = DecisionPointStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    def close(self) -> None:
        """Calls under way are cancelled, which denies them."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- asking ------------------------------------------------------------------------------------------------------

    def check(
        self, question: Question, *, subject: Subject = None, context: Context = NO_CONTEXT,
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> Permit | Denied:  # fmt: skip
        """One question. `meets`: the obligations this caller is able to meet, by name; any other is a denial.

        A permit is true and a denial false. A permit has to be reported; `guard` does that by itself.
        """
        can, request = declared(meets), wire.check_request(question, subject, context)
        sent = question.message if isinstance(question, MethodCall) else None
        return self._decided(self._stub.Check, request, lambda response: wire.decision(response, sent, can), deadline)

    def check_all(
        self, questions: Sequence[Question], *, subject: Subject = None, context: Context = NO_CONTEXT,
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> list[Permit | Denied]:  # fmt: skip
        """Up to 1,000 questions in one call, decided one by one; a decision for each, in their order."""
        if not questions:
            return []
        can, request = declared(meets), wire.batch_request(questions, subject, context)
        found = self._asked(
            self._stub.BatchCheck, request, self._deadline if deadline is None else deadline, again=True
        )
        if isinstance(found, Denied):
            return [found] * len(questions)
        decisions = wire.batch(found, questions, can)
        self._give_up([one for one in decisions if isinstance(one, Denied)])
        return decisions

    def check_answer(
        self, permit: Permit, question: Question, *, message: bytes | None = None, ids: Sequence[str] = (),
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> Permit | Denied:  # fmt: skip
        """About an answer of a call that was asked about as `checked`, before any of it is released. Never asked twice."""
        can, request = declared(meets), wire.answer_request(permit.call_id, question, message, ids)
        return self._decided(
            self._stub.Check, request, lambda response: wire.decision(response, message, can, answer=True), deadline,
            again=False,
        )  # fmt: skip

    # -- reporting ---------------------------------------------------------------------------------------------------

    def report(self, permit: Permit, outcome: Outcome) -> Reported:
        """How a permitted call ended. Once; never raises for what the sidecar or the network does."""
        return self.report_all([(permit.call_id, outcome)])[0]

    def report_all(self, outcomes: Sequence[tuple[str, Outcome]]) -> list[Reported]:
        """Up to 1,000 of them, by call id."""
        request = pb.ReportOutcomeRequest(outcomes=[wire.outcome(call_id, one) for call_id, one in outcomes])
        call_ids = [call_id for call_id, _ in outcomes]
        found = self._asked(self._stub.ReportOutcome, request, self._report_deadline, again=True)
        if isinstance(found, Denied):
            return wire.unreported(call_ids, found.code, found.message)
        return wire.reported(found, call_ids)

    # -- both --------------------------------------------------------------------------------------------------------

    @contextmanager
    def guard(
        self, question: Question, *, subject: Subject = None, context: Context = NO_CONTEXT,
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> Iterator["Guarded"]:  # fmt: skip
        """Do something only if it is permitted, and report how it ended, also when it fails.

        DeniedError at the start where it is not permitted; at the end where an obligation was not met.
        """
        found = self.check(question, subject=subject, context=context, meets=meets, deadline=deadline)
        if isinstance(found, Denied):
            raise DeniedError(found)
        course = Guarded(self, found, question, meets, deadline, self._clock)
        try:
            yield course
        except BaseException as error:
            self._end(course, error, cancelled=not isinstance(error, Exception))
            raise
        self._end(course, None, cancelled=False)

    def _end(self, course: Course, error: BaseException | None, *, cancelled: bool) -> None:
        outcome, instead = course.ended(error, cancelled=cancelled)
        told = None if course.closed else self.report(course.permit, outcome)
        if told is not None and not told.recorded:
            _LOG.warning("the outcome of call %s was not reported: %s", course.call_id, told.message)
        if instead is not None:
            raise instead

    def _decided(
        self, method: Callable[..., T], request: object, read: Callable[[T], Permit | Denied], deadline: float | None,
        *, again: bool = True,
    ) -> Permit | Denied:  # fmt: skip
        found = self._asked(method, request, self._deadline if deadline is None else deadline, again=again)
        decision = found if isinstance(found, Denied) else read(found)
        if again and isinstance(decision, Denied):
            self._give_up([decision])
        return decision

    def _give_up(self, denials: Sequence[Denied]) -> None:
        """Report permits that this client turned into denials: nothing came of them."""
        nothing = Outcome(code=wire.PERMISSION_DENIED)
        mine = [
            (one.call_id, nothing) for one in denials if one.call_id and one.why in ("obligation", "unintelligible")
        ]
        if mine:
            self.report_all(mine)

    def _asked(self, method: Callable[..., T], request: object, deadline: float, *, again: bool) -> T | Denied:
        """The answer; a denial when there is none in time. Asked again only where nothing was answered."""
        failed = wire.failed(wire.DEADLINE_EXCEEDED, "there was no time to ask")
        for one in attempts(deadline, time.monotonic, random.random):
            if one.pause:
                time.sleep(one.pause)
            try:
                return method(request, timeout=one.timeout)
            except grpc.RpcError as error:
                code, message = wire.status(error)
                failed = wire.failed(code, message)
                if code != wire.UNAVAILABLE or not again:
                    break
            except ValueError as error:  # the channel is closed
                return wire.failed(wire.UNAVAILABLE, str(error))
        return failed


class Guarded(Course):
    """What `DecisionClient.guard` gives: a `Course` whose answers can be asked about."""

    def __init__(
        self, client: DecisionClient, permit: Permit, question: Question, meets: Collection[str],
        deadline: float | None, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        super().__init__(permit, question, clock)
        self._client, self._meets_names, self._within = client, meets, deadline

    def release(self, answer: bytes) -> bytes | None:
        """What of an answer message may be released, of a `checked` method; None: nothing of it. DeniedError."""
        return self._further(message=answer).release

    def show(self, ids: Sequence[str]) -> list[str]:
        """Which of these entities may be shown, of a `checked` entity question. DeniedError."""
        if not isinstance(self.question, Entity):
            raise TypeError("ids show in the answers of entity questions; release() is for messages")
        self._further(ids=ids)
        return self.keep(ids, str)

    def _further(self, *, message: bytes | None = None, ids: Sequence[str] = ()) -> Permit:
        found = self._client.check_answer(
            self.permit, self.question, message=message, ids=ids, meets=self._meets_names, deadline=self._within
        )
        if isinstance(found, Denied):
            raise self.refused(found)
        self.answered(found, ids)
        return found
