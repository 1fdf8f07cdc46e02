"""One question of the decision API, from what was asked to what is answered."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from sidecar.attributes.entities import Entities, EntityDescription
from sidecar.doors import check_answers as answers
from sidecar.doors.check_answers import Answered, Shown
from sidecar.doors.check_questions import AboutEntity, AboutMethod, Asked
from sidecar.doors.waiting import Inquiry, Waiting
from sidecar.enforcement import refusals
from sidecar.enforcement.call import Call, Door, Final
from sidecar.enforcement.declarations import CHECK, CHECK_ANSWERS
from sidecar.enforcement.inquiry import EntityInquiry, MethodInquiry
from sidecar.enforcement.permits import Permit
from sidecar.enforcement.pipeline import EnforcementPoint, given_up
from sidecar.enforcement.together import Party, Question, withdraw
from sidecar.enforcement.unreported import Unreported
from sidecar.errors import Code, DescribeError, InterceptError, StageError
from sidecar.vocabulary import ReasonCode

_UNSEEN = "this call was asked about with ANSWERS_UNSEEN: its answers are not decided about"
_ABOUT_ENTITIES = "this call goes on with the entities that show in its answer"


@dataclass(frozen=True, slots=True)
class _Released:
    """What of an answer message may be released; None: nothing of this one."""

    message: bytes | None


_Found = Permit | Final | _Released


class Inquiries:
    """Asks the enforcement point, and keeps permits until they are reported."""

    def __init__(
        self, point: EnforcementPoint, entities: Entities | None, waiting: Waiting, wall: Callable[[], float]
    ) -> None:
        """`wall` is UTC in unix seconds."""
        self._point, self._entities, self._waiting, self._wall = point, entities, waiting, wall
        self._permits = answers.Permits()

    def entity(self, call: Call, asked: Asked) -> Question | None:
        """The question, to be answered together with others (`several`), where it is one about described entities."""
        what = asked.what
        if not isinstance(what, AboutEntity):
            return None
        try:
            described = self._described(what)
        except DescribeError:
            return None  # which `first` records as it has to be
        call = call if call.door is (door := _door(asked)) else replace(call, door=door)
        return Question(self._point.inquire_entity(call), described, what.ids, pending=asked.checked)

    async def several(
        self, questions: Sequence[tuple[Question, Asked]], owner: str, party: Party
    ) -> list[Answered | Exception]:
        """The answers to questions about new calls of one request, in their order; an Exception is a fault of ours."""
        try:
            await self._point.ask_together([question for question, _ in questions], party)
            report_by = self._wall() + self._waiting.within
            return [await self._said(question, asked, owner, report_by) for question, asked in questions]
        except BaseException as error:
            if questions:
                final = given_up(questions[0][0].inquiry.call, error)
                asked = [one.inquiry for one, _ in questions]
                handed = [self._waiting.take(one.call_id, owner) for one in asked]
                await withdraw([*asked, *(one for one in handed if one is not None)], final)
            raise

    async def _said(self, question: Question, asked: Asked, owner: str, report_by: float) -> Answered | Exception:
        inquiry, told = question.inquiry, question.told
        if told is not None and not isinstance(told, Exception):
            try:
                return await self._answer_to(inquiry, told, asked.what, owner, report_by)
            except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
                told = error
        failed = told or RuntimeError("a question was left without an answer")
        await inquiry.gone(given_up(inquiry.call, failed))
        return failed

    async def first(self, call: Call, asked: Asked, owner: str, party: Party | None = None) -> Answered:
        """A question about a new call. InterceptError, before anything is recorded."""
        call = call if call.door is (door := _door(asked)) else replace(call, door=door)
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

    async def further(self, call: Call, asked: Asked, owner: str) -> Answered:
        """A question about a call that goes on."""
        inquiry = self._waiting.look(asked.call_id, owner)
        if inquiry is None:
            return await self.misused(call, InterceptError("no such call of yours goes on", code=Code.NOT_FOUND))
        if isinstance(inquiry, Unreported):
            raise InterceptError(_UNSEEN if asked.phase == "response" else _ABOUT_ENTITIES)
        asking = self._next(inquiry, asked)  # otherwise nothing has been asked: the call waits on as it was
        self._waiting.take(asked.call_id, owner)
        inquiry.goes_on(call.deadline)
        try:
            return await self._answered(inquiry, asking, asked.what, owner)
        except BaseException:
            await inquiry.unobserved()  # what was permitted before may have been used
            raise

    async def misused(self, call: Call, error: StageError) -> Answered:
        """A question that cannot be understood, recorded and denied."""
        inquiry = self._point.inquire_entity(replace(call, metadata=(), asserted=None))
        return answers.refused(await inquiry.misused(error), inquiry.call_id)

    async def withdraw(self, answered: Answered, final: Final, owner: str) -> None:
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

    def _next(self, inquiry: Inquiry, asked: Asked) -> Awaitable[_Found]:
        """What is to be asked; InterceptError where it does not fit the call."""
        what, answers_seen = asked.what, inquiry.call.door.sees_answers
        if asked.phase == "response" and not answers_seen:
            raise InterceptError(_UNSEEN)
        if isinstance(inquiry, EntityInquiry):
            if not isinstance(what, AboutEntity) or asked.phase == "request":
                raise InterceptError(_ABOUT_ENTITIES)
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

    async def _answer(self, inquiry: MethodInquiry, message: bytes) -> Final | _Released:
        found = await inquiry.answer(message)
        if isinstance(found, Final):
            return found
        if found is None and self._point.kind(inquiry.call.method) == "unary":
            return await inquiry.seen(refusals.withheld(inquiry.call_id))
        return _Released(found)

    async def _answered(
        self, inquiry: Inquiry, asking: Awaitable[_Found], what: AboutMethod | AboutEntity, owner: str
    ) -> Answered:
        found = await asking
        return await self._answer_to(inquiry, found, what, owner, self._wall() + self._waiting.within)

    async def _answer_to(
        self, inquiry: Inquiry, found: _Found, what: AboutMethod | AboutEntity, owner: str, report_by: float
    ) -> Answered:
        if isinstance(found, Final):
            return answers.refused(found, inquiry.call_id)
        try:
            response = self._permitted(inquiry, found, what, report_by)
            self._waiting.put(inquiry, owner)
        except StageError as error:
            return answers.refused(await inquiry.refuse(error), inquiry.call_id)
        return response

    def _permitted(
        self, inquiry: Inquiry, found: Permit | _Released, what: AboutMethod | AboutEntity, report_by: float
    ) -> Answered:
        if isinstance(what, AboutEntity) and isinstance(found, Permit):
            return self._permits.rendered(found, of_method=False, checked=False, report_by=report_by)
        sent = what.message if isinstance(what, AboutMethod) else None
        checked = inquiry.call.door.sees_answers
        if isinstance(found, _Released):
            shown = Shown(release=None if found.message == sent else found.message, withheld=found.message is None)
        else:
            shown = Shown(forward=None if found.forward == sent else found.forward)
        return self._permits.rendered(
            _permit(inquiry, found), of_method=True, checked=checked, report_by=report_by, shown=shown
        )


def _door(asked: Asked) -> Door:
    return CHECK_ANSWERS if asked.checked else CHECK


def _permit(inquiry: Inquiry, found: Permit | _Released) -> Permit:
    """What was found, as a permit: what may be released has no duties left."""
    if isinstance(found, Permit):
        return found
    return Permit(
        call_id=inquiry.call_id, forward=None, obligations=(), metadata=(), expires_at=inquiry.case.expires_at
    )
