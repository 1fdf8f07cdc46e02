"""Calls whose permit has been handed out, and of which nothing is left but to say how they ended.

They wait by the thousand, and most of them for nothing. What waits is therefore small and holds nothing that Python's
collector of cycles has to visit: an inquiry with all it has found out is some ten objects, and with some thousand of
them that collector stands in everybody's way for a tenth of a second. Many outcomes are written in one piece.
"""

from collections.abc import Sequence

import msgspec

from sidecar.enforcement import refusals
from sidecar.enforcement.call import OK, Final
from sidecar.enforcement.outcomes import Confirmation, refused, unseen
from sidecar.enforcement.parts import Parts
from sidecar.errors import RecordError
from sidecar.observability.calls import CallSpan
from sidecar.record import OutcomeBody
from sidecar.vocabulary import Level


class Unreported(msgspec.Struct, frozen=True, gc=False):
    """One of them; whoever makes it writes no outcome itself any more. `level` of the outcome: at most `committed`.

    `ordered`: names of the obligations that were the caller's to meet. The ledger knows of no such call.
    """

    call_id: str
    parts: Parts
    span: CallSpan
    level: Level
    ordered: tuple[str, ...] = ()

    async def confirm(self, said: Confirmation) -> Final:
        """The caller reports how it ended."""
        self.span.resume()
        return await self._end(OK, unseen(self.call_id, self.span, said, ordered=self.ordered))

    async def gone(self, final: Final) -> Final:
        """Nobody was told of the permit: nothing came of it."""
        return await self._end(final, refused(self.call_id, self.span, final.code.name))

    async def _end(self, final: Final, body: OutcomeBody) -> Final:
        failed = await _written((self,), (body,), final)
        return final if failed is None else refusals.failed(failed, self.call_id)


async def unobserved(calls: Sequence[Unreported]) -> None:
    """Nobody has reported how these ended: all outcomes in one piece. Of one enforcement point, and of one level."""
    bodies = [unseen(one.call_id, one.span, None) for one in calls]
    for one in calls:
        one.span.resume()
    await _written(calls, bodies, OK)


async def _written(calls: Sequence[Unreported], bodies: Sequence[OutcomeBody], final: Final) -> RecordError | None:
    """Write the outcomes. The error where they could not be: then they are owed, and no call ended well."""
    parts, failed, status, effect, reason = calls[0].parts, None, final.code._name_, "permit", ""
    try:
        await parts.recorder.outcomes(bodies, calls[0].level)
    except Exception as error:  # noqa: BLE001 - whatever it was, there is no durable outcome
        failed = refusals.unrecorded(error)
        for _ in calls:
            parts.report(failed)
        status, effect, reason = failed.code._name_, "deny", "record_unavailable"
    finally:
        for one in calls:
            one.span.stage("answer")
            one.span.end(status, effect, reason)
    return failed
