"""Questions about entities that are put together, in one request: each its own call, answered as if it stood alone.

What is done once for all of them:

* whoever asks is identified once (`Party`);
* equal questions are one question to the policy: an equal document gets an equal answer until the policy changes
  (`parts.DecisionPoint`), and they are put at the same moment, under the same revisions;
* their decisions are recorded in one piece, all or none of them; nobody is told of a permit before.

What goes wrong with one is its own. That they cannot be recorded is true of each of them.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from sidecar.attributes.entities import EntityDescription
from sidecar.enforcement.alike import Alike, same_caller
from sidecar.enforcement.call import Final
from sidecar.enforcement.case import Case, Decided, Put
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.inquiry import EntityInquiry
from sidecar.enforcement.parts import Recorder
from sidecar.enforcement.permits import Permit
from sidecar.errors import StageError

AT_ONCE = 16
"""Questions that wait for the policy together, or for records of their own.

Half of what the embedded engine lets wait for its threads (`decision.embedded`): a batch alone never fills them, so a slow
policy refuses none of its own questions."""


_UNDER_WAY: set["asyncio.Future[list[object]]"] = set()
"""What `through` is doing: the loop itself holds tasks weakly."""
Work = Callable[[], Coroutine[Any, Any, None]]


class Asking(Protocol):
    """What is asked about a call, for `Party`."""

    @property
    def case(self) -> Case:
        """Who asks."""

    def adopt(self, other: Case) -> None:
        """Take over who asks."""


class Untold(Protocol):
    """A call whose caller is not told of its permit, for `withdraw`."""

    def gone(self, final: Final) -> Coroutine[Any, Any, Final]:
        """Write the outcome, unless it has one or somebody else writes it."""


@dataclass(slots=True)
class Party:
    """Who asks, shared by the questions of one request: the first that finds out tells the others."""

    case: Case | None = None
    known: bool = False
    """Whether that one has found out."""

    def join(self, inquiry: Asking) -> None:
        """Take from the others what they know; give what this one will find out."""
        if self.case is None:
            self.case = inquiry.case
        elif self.known or self.case.claimed:
            self.known = True
            inquiry.adopt(self.case)
        else:
            self.case = inquiry.case


@dataclass(slots=True)
class Question:
    """One of several. `told`: what came of it; an Exception is a fault of ours, after which no outcome is written yet."""

    inquiry: EntityInquiry
    described: EntityDescription
    ids: Sequence[str]
    pending: bool = False
    told: Permit | Final | Exception | None = None


_Put = tuple[Question, Put | DecisionEntry, Decided | None]
"""A question as it was put, or what is to be recorded of one like another; with its answer where that is known."""
_Ready = tuple[Question, DecisionEntry | None, Decided]
"""A question with its answer; the record of one that is like another, whose answer this is."""


async def ask(questions: Sequence[Question], party: Party, recorder: Recorder) -> None:
    """Answer them all. Raises nothing but what cancels; then no question goes on, and those untold have no outcome."""
    put, rest = _put(questions, party)
    ready = _ready(put, await _answers(put), rest)
    await _record(ready, recorder, rest)
    await side_by_side(rest)


async def withdraw(calls: Sequence[Untold], final: Final) -> None:
    """Nobody is told of these: each that has no outcome yet has this one when it returns."""
    await through([one.gone(final) for one in calls])


async def through(work: Sequence[Coroutine[object, object, object]]) -> None:
    """Do all of these, side by side, also where whoever waits for it is cancelled (once more)."""
    doing = asyncio.gather(*work)
    _UNDER_WAY.add(doing)
    doing.add_done_callback(_UNDER_WAY.discard)
    await asyncio.shield(doing)


async def side_by_side(work: Sequence[Work]) -> None:
    """Do these, some at once. When this ends, however it ends, none goes on; they raise nothing but what cancels."""
    for at in range(0, len(work), AT_ONCE):
        part = work[at : at + AT_ONCE]
        if len(part) == 1:
            await part[0]()
            continue
        tasks = [asyncio.ensure_future(one()) for one in part]
        try:
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise


def _put(questions: Sequence[Question], party: Party) -> tuple[list[_Put], list[Work]]:
    """The questions as they are put, and what is to be done about the others."""
    put, rest = list[_Put](), list[Work]()
    models: dict[EntityDescription, Alike] = {}
    for question in questions:
        inquiry, described = question.inquiry, question.described
        try:
            model = models.get(described)
            like = None if model is None else inquiry.put_like(
                model, described, question.ids, pending=question.pending
            )  # fmt: skip
            if like is not None:
                put.append((question, *like))
                continue
            party.join(inquiry)
            one = inquiry.put(described, question.ids, pending=question.pending)
            known = None if one is None else inquiry.case.known(one)
            if known is not None:
                _remember(models, described, inquiry.alike(known), known)
        except Exception as error:  # noqa: BLE001 - a refusal, or a fault of ours: this question's own
            rest.append(partial(_fail, question, error))
        else:
            if one is None:
                rest.append(partial(_ask_alone, question))
            else:
                put.append((question, one, known))
    return put, rest


def _remember(
    models: dict[EntityDescription, Alike], described: EntityDescription, made: Alike | None, known: Decided
) -> None:
    """This answer, for the questions that follow."""
    model = models.get(described)
    if model is None or made is None:
        if made is not None:
            models[described] = made
    elif same_caller(model.call, made.call):
        model.decided[known.put.counts] = known


async def _answers(put: Sequence[_Put]) -> Mapping[bytes, Decided | Exception]:
    """To the questions whose answer is not known yet: by document, each asked once, all of them together."""
    answers: dict[bytes, Decided | Exception] = {}
    unknown: dict[bytes, Work] = {}

    async def ask_policy(question: Question, one: Put) -> None:
        try:
            answers[one.data] = await question.inquiry.case.answer(one)
        except Exception as error:  # noqa: BLE001 - of each who asks this
            answers[one.data] = error

    for question, one, known in put:
        if known is None and isinstance(one, Put) and one.data not in unknown:
            unknown[one.data] = partial(ask_policy, question, one)
    await side_by_side(list(unknown.values()))
    return answers


def _ready(put: Sequence[_Put], answers: Mapping[bytes, Decided | Exception], rest: list[Work]) -> list[_Ready]:
    """The questions with their answers; whose answer failed is added to `rest`."""
    ready = list[_Ready]()
    for question, one, known in put:
        if known is not None:
            ready.append((question, one if isinstance(one, DecisionEntry) else None, known))
            continue
        if isinstance(one, DecisionEntry):
            continue
        found = answers[one.data]
        if isinstance(found, Exception):
            rest.append(partial(_fail, question, found))
            continue
        try:
            if found.put is not one:
                found = question.inquiry.case.answered(one, found.decision, found.policy, 0.0, found.until)
            ready.append((question, None, found))
        except Exception as error:  # noqa: BLE001 - as above
            rest.append(partial(_fail, question, error))
    return ready


async def _record(ready: Sequence[_Ready], recorder: Recorder, rest: list[Work]) -> None:
    """Record them, and tell the permitted; what is to be done about the others is added to `rest`."""
    if not ready:
        return
    try:
        await recorder.decisions([entry or decided.entry for _, entry, decided in ready])
    except Exception as error:  # noqa: BLE001 - nobody is permitted without a record, whatever it was
        rest += [partial(_fail, question, error) for question, _, _ in ready]
        return
    for question, entry, decided in ready:
        try:
            told = question.inquiry.told(decided) if entry is None else question.inquiry.told_like(decided)
        except Exception as error:  # noqa: BLE001 - this question's own
            rest.append(partial(_fail, question, error))
        else:
            if isinstance(told, Permit):
                question.told = told
            else:
                rest.append(partial(_deny, question, told))


async def _fail(question: Question, error: Exception) -> None:
    try:
        question.told = await question.inquiry.refuse(error) if isinstance(error, StageError) else error
    except Exception as fault:  # noqa: BLE001 - a fault of ours: this question's own
        question.told = fault


async def _deny(question: Question, final: Final) -> None:
    try:
        question.told = await question.inquiry.deny(final)
    except Exception as fault:  # noqa: BLE001 - as above
        question.told = fault


async def _ask_alone(question: Question) -> None:
    try:
        question.told = await question.inquiry.ask(question.described, question.ids, pending=question.pending)
    except Exception as fault:  # noqa: BLE001 - as above
        question.told = fault
