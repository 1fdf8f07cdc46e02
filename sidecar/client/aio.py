"""The client for asyncio. One event loop; any number of tasks."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

import grpc

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.api.v1.decision_point_pb2_grpc import DecisionPointStub
from sidecar.client import wire
from sidecar.client.blocking import DEADLINE, NO_CONTEXT, REPORT_DEADLINE
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


class AsyncDecisionClient:
    """As `DecisionClient`, awaited. Made on the event loop that uses it."""

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
            grpc.aio.insecure_channel(address, options=target.options())
            if tls is None
            else grpc.aio.secure_channel(address, tls.credentials(), options=target.options())
        )
        self._stub = DecisionPointStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    async def close(self) -> None:
        """Calls under way are cancelled, which denies them."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    # -- asking ------------------------------------------------------------------------------------------------------

    async def check(
        self, question: Question, *, subject: Subject = None, context: Context = NO_CONTEXT,
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> Permit | Denied:  # fmt: skip
        """As `DecisionClient.check`."""
        can, request = declared(meets), wire.check_request(question, subject, context)
        sent = question.message if isinstance(question, MethodCall) else None
        return await self._decided(
            self._stub.Check, request, lambda response: wire.decision(response, sent, can), deadline
        )

    async def check_all(
        self, questions: Sequence[Question], *, subject: Subject = None, context: Context = NO_CONTEXT,
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> list[Permit | Denied]:  # fmt: skip
        """As `DecisionClient.check_all`."""
        if not questions:
            return []
        can, request = declared(meets), wire.batch_request(questions, subject, context)
        within = self._deadline if deadline is None else deadline
        found = await self._asked(self._stub.BatchCheck, request, within, again=True)
        if isinstance(found, Denied):
            return [found] * len(questions)
        decisions = wire.batch(found, questions, can)
        await self._give_up([one for one in decisions if isinstance(one, Denied)])
        return decisions

    async def check_answer(
        self, permit: Permit, question: Question, *, message: bytes | None = None, ids: Sequence[str] = (),
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> Permit | Denied:  # fmt: skip
        """As `DecisionClient.check_answer`."""
        can, request = declared(meets), wire.answer_request(permit.call_id, question, message, ids)
        return await self._decided(
            self._stub.Check, request, lambda response: wire.decision(response, message, can, answer=True), deadline,
            again=False,
        )  # fmt: skip

    # -- reporting ---------------------------------------------------------------------------------------------------

    async def report(self, permit: Permit, outcome: Outcome) -> Reported:
        """As `DecisionClient.report`."""
        return (await self.report_all([(permit.call_id, outcome)]))[0]

    async def report_all(self, outcomes: Sequence[tuple[str, Outcome]]) -> list[Reported]:
        """As `DecisionClient.report_all`."""
        request = pb.ReportOutcomeRequest(outcomes=[wire.outcome(call_id, one) for call_id, one in outcomes])
        call_ids = [call_id for call_id, _ in outcomes]
        found = await self._asked(self._stub.ReportOutcome, request, self._report_deadline, again=True)
        if isinstance(found, Denied):
            return wire.unreported(call_ids, found.code, found.message)
        return wire.reported(found, call_ids)

    # -- both --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def guard(
        self, question: Question, *, subject: Subject = None, context: Context = NO_CONTEXT,
        meets: Collection[str] = (), deadline: float | None = None,
    ) -> AsyncIterator["AsyncGuarded"]:  # fmt: skip
        """As `DecisionClient.guard`. A task that is cancelled meanwhile reports that, and stays cancelled."""
        found = await self.check(question, subject=subject, context=context, meets=meets, deadline=deadline)
        if isinstance(found, Denied):
            raise DeniedError(found)
        course = AsyncGuarded(self, found, question, meets, deadline, self._clock)
        try:
            yield course
        except BaseException as error:
            await self._end(course, error, cancelled=not isinstance(error, Exception))
            raise
        await self._end(course, None, cancelled=False)

    async def _end(self, course: Course, error: BaseException | None, *, cancelled: bool) -> None:
        outcome, instead = course.ended(error, cancelled=cancelled)
        told = None if course.closed else await self.report(course.permit, outcome)
        if told is not None and not told.recorded:
            _LOG.warning("the outcome of call %s was not reported: %s", course.call_id, told.message)
        if instead is not None:
            raise instead

    async def _decided(
        self, method: Callable[..., Awaitable[T]], request: object, read: Callable[[T], Permit | Denied],
        deadline: float | None, *, again: bool = True,
    ) -> Permit | Denied:  # fmt: skip
        found = await self._asked(method, request, self._deadline if deadline is None else deadline, again=again)
        decision = found if isinstance(found, Denied) else read(found)
        if again and isinstance(decision, Denied):
            await self._give_up([decision])
        return decision

    async def _give_up(self, denials: Sequence[Denied]) -> None:
        """Report permits that this client turned into denials: nothing came of them."""
        nothing = Outcome(code=wire.PERMISSION_DENIED)
        mine = [
            (one.call_id, nothing) for one in denials if one.call_id and one.why in ("obligation", "unintelligible")
        ]
        if mine:
            await self.report_all(mine)

    async def _asked(
        self, method: Callable[..., Awaitable[T]], request: object, deadline: float, *, again: bool
    ) -> T | Denied:
        """The answer; a denial when there is none in time. Asked again only where nothing was answered."""
        failed = wire.failed(wire.DEADLINE_EXCEEDED, "there was no time to ask")
        for one in attempts(deadline, time.monotonic, random.random):
            if one.pause:
                await asyncio.sleep(one.pause)
            try:
                return await method(request, timeout=one.timeout)
            except grpc.RpcError as error:
                code, message = wire.status(error)
                failed = wire.failed(code, message)
                if code != wire.UNAVAILABLE or not again:
                    break
            except grpc.aio.UsageError as error:  # the channel is closed
                return wire.failed(wire.UNAVAILABLE, str(error))
        return failed


class AsyncGuarded(Course):
    """What `AsyncDecisionClient.guard` gives: a `Course` whose answers can be asked about."""

    def __init__(
        self, client: AsyncDecisionClient, permit: Permit, question: Question, meets: Collection[str],
        deadline: float | None, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        super().__init__(permit, question, clock)
        self._client, self._meets_names, self._within = client, meets, deadline

    async def release(self, answer: bytes) -> bytes | None:
        """As `blocking.Guarded.release`."""
        return (await self._further(message=answer)).release

    async def show(self, ids: Sequence[str]) -> list[str]:
        """As `blocking.Guarded.show`."""
        if not isinstance(self.question, Entity):
            raise TypeError("ids show in the answers of entity questions; release() is for messages")
        await self._further(ids=ids)
        return self.keep(ids, str)

    async def _further(self, *, message: bytes | None = None, ids: Sequence[str] = ()) -> Permit:
        found = await self._client.check_answer(
            self.permit, self.question, message=message, ids=ids, meets=self._meets_names, deadline=self._within
        )
        if isinstance(found, Denied):
            raise self.refused(found)
        self.answered(found, ids)
        return found
