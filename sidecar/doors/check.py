"""The decision API (`sidecar.api.v1.DecisionPoint`), for whoever enforces at a place of their own.

It stands where the enforcement point stands behind the proxy door (`intercept.Enforcement`), so whatever carries gRPC
calls to the one carries them to the other. Nothing is decided here:

* a question becomes an inquiry, whose permit waits to be reported (`waiting`) before the caller learns of it;
* a caller that goes away before it was told leaves an outcome; one that was told and says nothing is `unobserved`;
* a request that cannot be understood is recorded under the workload that sent it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.attributes.entities import Entities
from sidecar.doors import check_answers as answers
from sidecar.doors import check_questions as questions
from sidecar.doors.check_answers import Answered
from sidecar.doors.check_batch import Batch
from sidecar.doors.check_inquiries import Inquiries
from sidecar.doors.check_reports import Reports
from sidecar.doors.check_stream import relayed
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.call import OK, AnswerSink, Call, Final, Reply, Requests, Upstream
from sidecar.enforcement.pipeline import EnforcementPoint, given_up
from sidecar.enforcement.together import through
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code, InterceptError, StageError
from sidecar.vocabulary import ReasonCode

SERVICE = "sidecar.api.v1.DecisionPoint"
METHODS = {"Check": "unary", "BatchCheck": "unary", "CheckStream": "stream", "ReportOutcome": "unary"}
ENVELOPE = 64 * 1024
"""Bytes by which a request may be larger than the message it asks about: token, circumstances, ids."""
FAILED = Final(code=Code.UNAVAILABLE, message="the sidecar could not handle the question", retry_after=1.0)
_AT_ONCE = 64
"""Questions of a batch that are under way together: they share a write and a sync of the disk, and others are served
between."""


class DecisionApi:
    """The four methods. One per worker and event loop."""

    def __init__(
        self, point: EnforcementPoint, entities: Entities | None, waiting: Waiting, wall: Callable[[], float],
        log: OperatorLog, ended: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`wall` is UTC in unix seconds; `ended` is called when a call of this API has ended."""
        self._point, self._log, self._ended = point, log, ended
        self._inquiries = Inquiries(point, entities, waiting, wall)
        self._reports = Reports(waiting, log)

    def kind(self, method: str) -> str | None:
        """`unary` or `stream`; None for what is no method of this API."""
        service, _, name = method.lstrip("/").partition("/")
        return METHODS.get(name) if service == SERVICE else None

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        """Check, BatchCheck or ReportOutcome."""
        del upstream
        try:
            owner = self._owner(call)
            match call.method.rpartition("/")[2]:
                case "Check":
                    return _reply((await self._check(call, questions.read(pb.CheckRequest, request), owner)).data)
                case "BatchCheck":
                    return _reply(await self._batch(call, questions.read(pb.BatchCheckRequest, request), owner))
                case "ReportOutcome":
                    reported = await self._report(questions.read(pb.ReportOutcomeRequest, request), owner)
                    return _reply(reported.SerializeToString())
                case _:
                    raise _unknown()
        except StageError as error:
            return Reply(message=None, headers=(), final=await self._misused(call, error))
        finally:
            self._ended()

    async def stream(
        self, call: Call, requests: Requests, answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        """CheckStream; the refusal of any other method."""
        del upstream
        try:
            owner = self._owner(call)
            if self.kind(call.method) != "stream":
                raise _unknown()

            async def each(asked: pb.CheckStreamRequest) -> bytes:
                return await self._streamed(call, asked, owner)

            read = (questions.read(pb.CheckStreamRequest, data) async for data in requests)
            await answer.headers(())
            await relayed(_distinct(read), each, answer)
        except StageError as error:
            return await self._misused(call, error)
        finally:
            self._ended()
        return OK

    # -- the four ----------------------------------------------------------------------------------------------------

    async def _check(self, call: Call, request: pb.CheckRequest, owner: str) -> Answered:
        one = questions.asked(request.question)
        if one.call_id:
            if request.HasField("subject") or request.HasField("context"):
                raise InterceptError("subject and context are those of the call's first question: leave them out")
            return await self._inquiries.further(call, one, owner)
        return await self._inquiries.first(questions.on_behalf(call, request.subject, request.context), one, owner)

    async def _batch(self, call: Call, request: pb.BatchCheckRequest, owner: str) -> bytes:
        names = questions.named(request.items)
        call = questions.on_behalf(call, request.subject, request.context)
        batch = Batch(self._inquiries, call, owner, self._failed)
        try:
            for at in range(0, len(request.items), _AT_ONCE):
                await batch.answer(request.items[at : at + _AT_ONCE])
        except BaseException as error:
            await self._withdraw(batch.answered, given_up(call, error), owner)
            raise
        return answers.batch(zip(names, batch.answered, strict=True))

    async def _report(self, request: pb.ReportOutcomeRequest, owner: str) -> pb.ReportOutcomeResponse:
        if not 1 <= len(request.outcomes) <= questions.MOST_ITEMS:
            raise InterceptError(f"1 to {questions.MOST_ITEMS} outcomes are reported at once")
        results: list[pb.Reported] = []
        for at in range(0, len(request.outcomes), _AT_ONCE):
            part = request.outcomes[at : at + _AT_ONCE]
            results += await asyncio.gather(*(self._reports.take(one, owner) for one in part))
        return pb.ReportOutcomeResponse(results=results)

    async def _streamed(self, call: Call, asked: pb.CheckStreamRequest, owner: str) -> bytes:
        match asked.WhichOneof("kind"):
            case "check":
                found = await self._by_itself(call, partial(self._check, call, asked.check, owner))
            case "report":
                reported = await self._reports.take(asked.report, owner)
                return pb.CheckStreamResponse(id=asked.id, reported=reported).SerializeToString()
            case _:
                found = await self._inquiries.misused(call, InterceptError("neither a question nor a report"))
        return answers.streamed(asked.id, found)

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def _owner(self, call: Call) -> str:
        owner = self._point.workload(call.peer)
        questions.undisturbed(call)
        return owner

    async def _by_itself(self, call: Call, asking: Callable[[], Awaitable[Answered]]) -> Answered:
        """One of several questions: what goes wrong with it is its own."""
        try:
            return await asking()
        except InterceptError as error:
            return await self._inquiries.misused(call, error)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
            return self._failed(call, error)

    def _failed(self, call: Call, error: Exception) -> Answered:
        self._log.error("unexpected failure; the question was refused", stage="intercept", method=call.method,
                        failure=type(error).__name__)  # fmt: skip
        return answers.refused(FAILED, "")

    async def _misused(self, call: Call, error: StageError) -> Final:
        return await self._point.inquire_entity(replace(call, metadata=())).misused(error)

    async def _withdraw(self, answered: Sequence[Answered], final: Final, owner: str) -> None:
        """The caller was not told of these permits."""
        await through([self._inquiries.withdraw(one, final, owner) for one in answered])


async def _distinct(asked: AsyncIterator[pb.CheckStreamRequest]) -> AsyncIterator[pb.CheckStreamRequest]:
    async for one in asked:
        questions.name_of(one.id)
        yield one


def _reply(message: bytes) -> Reply:
    return Reply(message=message, headers=(), final=OK)


def _unknown() -> InterceptError:
    return InterceptError(
        "this is no method of the decision API", reason=ReasonCode.UNDESCRIBED_METHOD, code=Code.UNIMPLEMENTED
    )
