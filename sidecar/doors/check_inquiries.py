"""One question of the decision API, from what was asked to what is answered."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.attributes.entities import Entities, EntityDescription
from sidecar.doors import check_answers as answers
from sidecar.doors.check_questions import AboutEntity, AboutMethod, Asked
from sidecar.doors.waiting import Inquiry, Waiting
from sidecar.enforcement import refusals
from sidecar.enforcement.call import Call, Final
from sidecar.enforcement.case import Case
from sidecar.enforcement.declarations import CHECK, CHECK_ANSWERS
from sidecar.enforcement.inquiry import EntityInquiry, MethodInquiry, Permit
from sidecar.enforcement.pipeline import EnforcementPoint, given_up
from sidecar.errors import Code, DescribeError, InterceptError, StageError
from sidecar.vocabulary import ReasonCode


@dataclass(slots=True)
class Party:
    """Who asks, shared by the questions of one request: the first that finds out tells the others."""

    case: Case | None = None

    def join(self, inquiry: Inquiry) -> None:
        """Take from the others what they know; give what this one will find out."""
        if self.case is not None:
            inquiry.adopt(self.case)
        if self.case is None or not self.case.claimed:
            self.case = inquiry.case


@dataclass(frozen=True, slots=True)
class _Shown:
    """What of an answer message may be released; None: nothing of this one."""

    released: bytes | None


class Inquiries:
    """Asks the enforcement point, and keeps permits until they are reported."""

    def __init__(
        self, point: EnforcementPoint, entities: Entities | None, waiting: Waiting, wall: Callable[[], float]
    ) -> None:
        """`wall` is UTC in unix seconds."""
        self._point, self._entities, self._waiting, self._wall = point, entities, waiting, wall
        self._permits = answers.Permits()

    async def first(self, call: Call, asked: Asked, owner: str, party: Party | None = None) -> pb.CheckResponse:
        """A question about a new call. InterceptError, before anything is recorded."""
        door = CHECK_ANSWERS if asked.checked else CHECK
        call = call if call.door is door else replace(call, door=door)
        what = asked.what
        inquiry: Inquiry
        if isinstance(what, AboutMethod):
            if what.message is None and self._point.kind(what.path) == "unary":
                raise InterceptError("the request message of a unary method is missing")
            inquiry = method = self._point.inquire(replace(call, method=what.path))
            asking = method.request(what.message)
        else:
            inquiry = entity = self._point.inquire_entity(call)
            asking = self._entity(entity, what, asked)
        if party is not None:
            party.join(inquiry)
        try:
            return await self._answered(inquiry, asking, what, owner)
        except BaseException as error:
            await inquiry.gone(given_up(call, error))
            raise

    async def further(self, call: Call, asked: Asked, owner: str) -> pb.CheckResponse:
        """A question about a call that goes on."""
        inquiry = self._waiting.look(asked.call_id, owner)
        if inquiry is None:
            return await self.misused(call, InterceptError("no such call of yours goes on", code=Code.NOT_FOUND))
        asking = self._next(inquiry, asked)  # otherwise nothing has been asked: the call waits on as it was
        self._waiting.take(asked.call_id, owner)
        inquiry.goes_on(call.deadline)
        try:
            return await self._answered(inquiry, asking, asked.what, owner)
        except BaseException:
            await inquiry.unobserved()  # what was permitted before may have been used
            raise

    async def misused(self, call: Call, error: StageError) -> pb.CheckResponse:
        """A question that cannot be understood, recorded and denied."""
        inquiry = self._point.inquire_entity(replace(call, metadata=(), asserted=None))
        return answers.refused(await inquiry.misused(error), inquiry.call_id)

    async def withdraw(self, answered: pb.CheckResponse, final: Final, owner: str) -> None:
        """The caller was not told of this permit, if it is one."""
        inquiry = self._waiting.take(answered.call_id, owner)
        if inquiry is not None:
            await inquiry.gone(final)

    async def _entity(self, inquiry: EntityInquiry, what: AboutEntity, asked: Asked) -> Permit | Final:
        try:
            described = self._described(what)
        except DescribeError as error:
            return await inquiry.identify() or await inquiry.refuse(error)
        return await inquiry.ask(described, what.ids, phase=asked.phase, pending=asked.checked)

    def _described(self, what: AboutEntity) -> EntityDescription:
        if self._entities is None:
            raise DescribeError(
                "nothing says what this resource type is", reason=ReasonCode.UNDESCRIBED_METHOD,
                operator="somebody asks about entities, and no types are described. Give describe.resources.",
            )  # fmt: skip
        return self._entities.of(what.type, what.action)

    def _next(self, inquiry: Inquiry, asked: Asked) -> Awaitable[Permit | Final | _Shown]:
        """What is to be asked; InterceptError where it does not fit the call."""
        what, answers_seen = asked.what, inquiry.call.door.sees_answers
        if asked.phase == "response" and not answers_seen:
            raise InterceptError("this call was asked about with ANSWERS_UNSEEN: its answers are not decided about")
        if isinstance(inquiry, EntityInquiry):
            if not isinstance(what, AboutEntity) or asked.phase == "request":
                raise InterceptError("this call goes on with the entities that show in its answer")
            return self._entity(inquiry, what, asked)
        if not isinstance(what, AboutMethod) or what.path not in ("", inquiry.call.method) or what.message is None:
            raise InterceptError("this call goes on with a message of its own method")
        if asked.phase == "response":
            if inquiry.answered and self._point.kind(inquiry.call.method) == "unary":
                raise InterceptError("a unary method has one answer, and it was released")
            return self._answer(inquiry, what.message)
        if self._point.kind(inquiry.call.method) == "unary":
            raise InterceptError("a unary method has one request message")
        return inquiry.request(what.message)

    async def _answer(self, inquiry: MethodInquiry, message: bytes) -> Final | _Shown:
        found = await inquiry.answer(message)
        if isinstance(found, Final):
            return found
        if found is None and self._point.kind(inquiry.call.method) == "unary":
            return await inquiry.seen(refusals.withheld(inquiry.call_id))
        return _Shown(found)

    async def _answered(
        self, inquiry: Inquiry, asking: Awaitable[Permit | Final | _Shown], what: AboutMethod | AboutEntity, owner: str
    ) -> pb.CheckResponse:
        found = await asking
        if isinstance(found, Final):
            return answers.refused(found, inquiry.call_id)
        try:
            response = self._permitted(inquiry, found, what)
            self._waiting.put(inquiry, owner)
        except StageError as error:
            return answers.refused(await inquiry.refuse(error), inquiry.call_id)
        return response

    def _permitted(self, inquiry: Inquiry, found: Permit | _Shown, what: AboutMethod | AboutEntity) -> pb.CheckResponse:
        report_by = self._wall() + self._waiting.within
        sent = what.message if isinstance(what, AboutMethod) else None
        if isinstance(found, _Shown):
            permit = Permit(
                call_id=inquiry.call_id, forward=None, obligations=(), metadata=(), expires_at=inquiry.case.expires_at
            )
            response = self._permits.rendered(permit, of_method=True, checked=True, report_by=report_by)
            if found.released is None:
                response.withheld = True
            elif found.released != sent:
                response.release = found.released
            return response
        response = self._permits.rendered(
            found, of_method=isinstance(what, AboutMethod), checked=inquiry.call.door.sees_answers, report_by=report_by
        )
        if found.forward is not None and found.forward != sent:
            response.forward = found.forward
        return response
