"""BatchCheck: the items of one request, each a call of its own, with what they share done once (`enforcement.together`)."""

from collections.abc import Callable, Sequence
from functools import partial

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.doors import check_questions as questions
from sidecar.doors.check_answers import Answered
from sidecar.doors.check_inquiries import Inquiries
from sidecar.doors.check_questions import Asked
from sidecar.enforcement.call import Call
from sidecar.enforcement.together import Party, Question, Work, side_by_side
from sidecar.errors import InterceptError

Failed = Callable[[Call, Exception], Answered]
"""Tells the operator of a fault of ours; the answer to the question it befell."""


class Batch:
    """The answers to one request, as far as they are there. One event loop."""

    def __init__(self, inquiries: Inquiries, call: Call, owner: str, failed: Failed) -> None:
        self._inquiries, self._call, self._owner, self._failed = inquiries, call, owner, failed
        self._found: list[Answered | None] = []

    @property
    def answered(self) -> list[Answered]:
        """In the order of the items; all of them once every `answer` has returned."""
        return [one for one in self._found if one is not None]

    async def answer(self, items: Sequence[pb.BatchItem]) -> None:
        """Answer the next items. What goes wrong with one is its own."""
        first, party = len(self._found), Party()  # who asks is found out for these, not for a whole long batch
        self._found += [None] * len(items)
        together, apart = list[tuple[int, Question, Asked]](), list[Work]()
        for at, item in enumerate(items, start=first):
            try:
                asked = questions.asked_anew(item.question)
                question = self._inquiries.entity(self._call, asked)
            except Exception as error:  # noqa: BLE001 - of this item
                apart.append(partial(self._refuse, at, error))
            else:
                if question is None:
                    apart.append(partial(self._ask, at, asked, party))
                else:
                    together.append((at, question, asked))
        pairs = [(question, asked) for _, question, asked in together]
        for (at, _, _), found in zip(
            together, await self._inquiries.several(pairs, self._owner, party), strict=True
        ):  # fmt: skip
            self._found[at] = self._failed(self._call, found) if isinstance(found, Exception) else found
        await side_by_side(apart)

    async def _ask(self, at: int, asked: Asked, party: Party) -> None:
        try:
            self._found[at] = await self._inquiries.first(self._call, asked, self._owner, party)
        except Exception as error:  # noqa: BLE001 - of this item
            await self._refuse(at, error)

    async def _refuse(self, at: int, error: Exception) -> None:
        """What cannot be understood is recorded and denied; whatever else it was fails closed."""
        try:
            if not isinstance(error, InterceptError):
                self._found[at] = self._failed(self._call, error)
                return
            self._found[at] = await self._inquiries.misused(self._call, error)
        except Exception as fault:  # noqa: BLE001 - of this item
            self._found[at] = self._failed(self._call, fault)
