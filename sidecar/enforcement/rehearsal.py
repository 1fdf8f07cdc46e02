"""A search: what would be permitted, asked without reaching anything.

* Every question of a search is decided by the very code that decides accesses, so that what it names is permitted when
  asked for in earnest, as long as nothing changes. It is no access: it is neither recorded nor counted by itself, the
  ledger is not asked (whoever is counted there is denied, for want of figures), and no exception is used up.
* The search itself is one call with one decision record (`refusals.SEARCH`), naming who searched and the data subjects
  asked about, and one outcome with the number of results; without them no result leaves.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from sidecar._native import RandomPool
from sidecar.attributes.entities import EntityDescription
from sidecar.attributes.messages import Seen
from sidecar.enforcement import refusals
from sidecar.enforcement.call import OK, Call, Final
from sidecar.enforcement.case import Case
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.inquiry import EntityInquiry
from sidecar.enforcement.outcomes import refused
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.permits import Permit
from sidecar.errors import Code, StageError
from sidecar.observability.calls import CallObserver, CallSpan
from sidecar.observability.metrics import CallStats
from sidecar.record import MessageCounts, OutcomeBody, ReleasedByClass
from sidecar.vocabulary import Decision, Level, Resource, SubjectCounts

_NONE = RandomPool(bytes)
"""Nobody is told the ids of a question that is not asked in earnest."""
_GONE = Final(code=Code.CANCELLED, message="the caller has gone")


class _Unrecorded:
    async def decision(self, entry: DecisionEntry) -> None:
        """Nothing was reached."""

    async def decisions(self, entries: Sequence[DecisionEntry]) -> None:
        """Nothing was reached."""

    async def outcome(self, body: OutcomeBody, level: Level) -> None:
        """Nothing was reached."""

    async def outcomes(self, bodies: Sequence[OutcomeBody], level: Level) -> None:
        """Nothing was reached."""


def _unrecorded(parts: Parts) -> Parts:
    observer = CallObserver(CallStats(), random=_NONE)
    return replace(parts, recorder=_Unrecorded(), observer=observer, exposures=None, report=lambda _error: None)


async def knows(parts: Parts, call: Call) -> Final | None:
    """None when the caller is who they say; otherwise what they would be told. For what is no access. Unrecorded."""
    quiet = _unrecorded(parts)
    return await EntityInquiry(quiet, call, quiet.observer.begin(call.method.lstrip("/"), None), "").identify()


class Search:
    """One search. `open`, then questions, then `close`; or `refuse`."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self._case, self._span, self._real = Case(parts, call, span, call_id), span, parts
        self._parts, self.call_id = _unrecorded(parts), call_id

    async def open(self, *, alone: bool) -> Final | None:
        """Who searches: with the credentials of the call, or (`alone`) the workload in its own name.

        None, or the recorded refusal with its outcome.
        """
        try:
            if alone:
                self._case.identify_workload()
            else:
                self._case.identify()
            self._case.claim()
        except StageError as error:
            return await self.refuse(error)
        return None

    async def refuse(self, error: StageError) -> Final:
        """Record a refusal, and the outcome."""
        final = await self._case.refuse(error)
        return await self._case.close(final, refused(self.call_id, self._span, final.code.name))

    async def ask(self, call: Call, described: EntityDescription, ids: Sequence[str]) -> Permit | Final:
        """What would be answered. Unrecorded."""
        span = self._parts.observer.begin(call.method.lstrip("/"), None)
        inquiry = EntityInquiry(self._parts, call, span, self.call_id)
        found = await inquiry.ask(described, ids)
        if isinstance(found, Permit):
            await inquiry.gone(OK)
        return found

    async def close(
        self, described: EntityDescription | None, ids: Sequence[str], results: int, told: Decision = refusals.SEARCH
    ) -> Final:
        """Record the search, or whatever else was done that reaches nothing. It has happened only when this is OK."""
        try:
            return await self._close(described, ids, results, told)
        except BaseException:
            await self._case.close(_GONE, refused(self.call_id, self._span, _GONE.code.name))
            raise

    async def _close(
        self, described: EntityDescription | None, ids: Sequence[str], results: int, told: Decision
    ) -> Final:  # fmt: skip
        resource, seen = Resource(), []
        try:
            if described is not None:
                self._case.describe_as(described)
                asked = [] if described.subject is None else [Seen(described.subject, one) for one in ids]
                classified = self._real.classifier.classify(
                    asked, self._case.identity.own, self._real.clock(), unnamed=0, pending=False
                )
                seen = [(kind, name, class_) for (kind, name), class_ in classified.classes.items()]
                resource = described.resource(classified.counts if asked else SubjectCounts())
            await self._case.permit(told, resource, seen)
        except StageError as error:
            return await self.refuse(error)
        duration = round((perf_counter() - self._span.started) * 1e3, 3)
        return await self._case.close(
            OK,
            OutcomeBody(
                call_id=self.call_id, status="OK", messages=MessageCounts(in_=0, out=results),
                released=ReleasedByClass(), dropped=0, redacted={}, bytes_out=0, duration_ms=duration, complete=True,
            ),
        )  # fmt: skip
