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
from sidecar.enforcement.call import Final
from sidecar.enforcement.case import Case, Decided, Put
from sidecar.enforcement.inquiry import EntityInquiry, Permit
from sidecar.enforcement.parts import Recorder
from sidecar.errors import StageError

AT_ONCE = 16
"""Questions that wait for the policy together, or for records of their own.

Half of what the embedded engine lets wait for its threads (`decision.embedded`): a batch alone never fills them, so a slow
policy refuses none of its own questions."""


Work = Callable[[], Coroutine[Any, Any, None]]


class Asking(Protocol):
    """What is asked about a call, for `Party`."""

    @property
    def case(self) -> Case:
        """Who asks."""

    def adopt(self, other: Case) -> None:
        """Take over who asks."""


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


async def ask(questions: Sequence[Question], party: Party, recorder: Recorder) -> None:
    """Answer them all. Raises nothing but what cancels; then no question goes on, and those untold have no outcome."""
    put, rest = _put(questions, party)
    ready = _ready(put, await _answers(put), rest)
    await _record(ready, recorder, rest)
    await side_by_side(rest)


async def withdraw(questions: Sequence[Question], final: Final) -> None:
    """Nobody is told of these: each that has no outcome yet has this one when it returns."""

    async def gone(question: Question) -> None:
        await question.inquiry.gone(final)

    # All begin at once: whoever is cancelled a second time meanwhile has written each outcome, and waits for the disk only.
    await asyncio.gather(*[gone(one) for one in questions])


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


def _put(questions: Sequence[Question], party: Party) -> tuple[list[tuple[Question, Put]], list[Work]]:
    """The questions as they are put, and what is to be done about the others."""
    put, rest = list[tuple[Question, Put]](), list[Work]()
    for question in questions:
        inquiry = question.inquiry
        try:
            party.join(inquiry)
            one = inquiry.put(question.described, question.ids, pending=question.pending)
        except Exception as error:  # noqa: BLE001 - a refusal, or a fault of ours: this question's own
            rest.append(partial(_fail, question, error))
        else:
            if one is None:
                rest.append(partial(_ask_alone, question))
            else:
                put.append((question, one))
    return put, rest


async def _answers(put: Sequence[tuple[Question, Put]]) -> Mapping[bytes, Decided | Exception]:
    """By document, each asked once: those that are known first, all others together."""
    answers: dict[bytes, Decided | Exception] = {}
    unknown: dict[bytes, Work] = {}

    async def ask_policy(question: Question, one: Put) -> None:
        try:
            answers[one.data] = await question.inquiry.case.answer(one)
        except Exception as error:  # noqa: BLE001 - of each who asks this
            answers[one.data] = error

    for question, one in put:
        if one.data not in answers and one.data not in unknown:
            known = question.inquiry.case.known(one)
            if known is None:
                unknown[one.data] = partial(ask_policy, question, one)
            else:
                answers[one.data] = known
    await side_by_side(list(unknown.values()))
    return answers


def _ready(
    put: Sequence[tuple[Question, Put]], answers: Mapping[bytes, Decided | Exception], rest: list[Work]
) -> list[tuple[Question, Decided]]:
    """The questions with their answers; whose answer failed is added to `rest`."""
    ready = []
    for question, one in put:
        found = answers[one.data]
        if isinstance(found, Exception):
            rest.append(partial(_fail, question, found))
            continue
        try:
            if found.put is not one:
                found = question.inquiry.case.answered(one, found.decision, found.policy, 0.0, found.until)
            ready.append((question, found))
        except Exception as error:  # noqa: BLE001 - as above
            rest.append(partial(_fail, question, error))
    return ready


async def _record(ready: Sequence[tuple[Question, Decided]], recorder: Recorder, rest: list[Work]) -> None:
    """Record them, and tell the permitted; what is to be done about the others is added to `rest`."""
    if not ready:
        return
    try:
        await recorder.decisions([decided.entry for _, decided in ready])
    except Exception as error:  # noqa: BLE001 - nobody is permitted without a record, whatever it was
        rest += [partial(_fail, question, error) for question, _ in ready]
        return
    for question, decided in ready:
        try:
            told = question.inquiry.told(decided)
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
