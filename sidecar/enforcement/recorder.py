"""Recorder: makes decisions durable before anything is forwarded or released.

It turns what the pipeline hands over into record bodies: data subjects become pseudonyms under the current period's key,
each with a salt of its own; the openings go beside the body, sealed. The spool gives each record its place in the chain.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

from sidecar._native import Pseudonyms, RandomPool, stamp
from sidecar.enforcement.bodies import decision_drafts
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.periods import PeriodKey
from sidecar.errors import RecordError
from sidecar.record import EventBody, OutcomeBody, RecordFormatError, RecordType, encode_body, encode_digest
from sidecar.spool.log import Spool
from sidecar.spool.slot import Drafted
from sidecar.vocabulary import LEVELS, Level, ReasonCode

Details = dict[str, str | int | bool | list[str] | None]

HEARTBEAT_SECONDS = 60.0
_ANSWER_SECONDS, _ANSWER_SHARE = 0.05, 0.05
"""What of a deadline is kept for the refusal: a caller that has given up already would not hear why."""
_FAR = 2**63
"""Beyond every seq."""
_AT_ONCE = 64
"""Owed records written together: when the disk is back, whoever waits for a decision waits for all of them."""
OWED_SECONDS = 0.25
"""How soon an outcome that could not be written is tried again."""


class PeriodKeySource(Protocol):
    """Where the recorder gets its pseudonym key. A period's key and bounds never change."""

    def current(self, now: datetime) -> PeriodKey | None:
        """The key of the period that `now` falls in (aware, UTC); None when there is none."""


class SpoolRecorder:
    """Implements the pipeline's `Recorder` port on a `Spool`.

    All of it runs on the spool's event loop. RecordError from any method means: not recorded at the level asked for, so
    nothing may be forwarded or released. `patience` bounds, in seconds, the wait for a level when the call has no
    deadline. `clock` gives UTC in unix seconds, `monotonic` is the clock that deadlines are on.
    """

    def __init__(self, spool: Spool, keys: PeriodKeySource, *, clock: Callable[[], float],
                 monotonic: Callable[[], float] = time.monotonic, random: RandomPool | None = None,
                 heartbeat: float = HEARTBEAT_SECONDS, patience: float = 30.0) -> None:  # fmt: skip
        self._spool = spool
        self._keys = keys
        self._clock = clock
        self._key: Pseudonyms | None = None
        self._period = ""
        self._key_from = self._key_until = 0.0
        self._monotonic = monotonic
        self._random = random or RandomPool()
        self._heartbeat = heartbeat
        self._patience = patience
        self._owed: deque[Drafted] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def owed(self) -> int:
        """Outcomes and events that the disk did not take yet."""
        return len(self._owed)

    async def start(self, about: Details | None = None) -> None:
        """Write `open`, which names the previous epoch's last record, and the outcomes the predecessor owed.

        `about` says what this sidecar is, for whoever reads the records; it stands in `open` beside the link.
        They are committed when this returns; RecordError when they cannot be.
        """
        recovered = self._spool.recovered
        previous = recovered.head
        torn = [f"{one.path.name}@{one.offset}+{one.size}: {one.why}" for one in recovered.torn]
        details: Details = {
            **(about or {}),
            "previous_epoch": previous.epoch if previous else None,
            "previous_seq": previous.seq if previous else None,
            "previous_hash": encode_digest(previous.hash) if previous else None,
            "unfinished": len(recovered.unfinished),
            "torn": torn,
        }
        now = self._clock()
        drafts = [self._event("open", details), *(self._ended(one, now) for one in recovered.unfinished)]
        seq = self._spool.append(drafts, spare=True)
        await self._reach(seq, seq, "committed", None)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="recorder")

    async def stop(self) -> None:
        """Write what is owed and `close`; it is committed when this returns. RecordError when it cannot be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._settle()
        seq = self._spool.append([self._event("close", {"open_calls": self._spool.open_calls})], spare=True)
        await self._reach(seq, seq, "committed", None)

    async def decision(self, entry: DecisionEntry) -> None:
        """Record one decision; beyond 500 subjects in parts, all of them before this returns.

        Returns once `entry.form.level` is reached; RecordError when it is not, or not before `entry.deadline`.
        """
        first, level = self._append((entry,)), entry.form.level
        if level != "written":
            await self._reach(first, self._spool.next_seq - 1, level, entry.deadline)

    async def decisions(self, entries: Sequence[DecisionEntry]) -> None:
        """Record several decisions in this order, all or none of them.

        Returns once each has reached its own level; RecordError when one has not, or not before the earliest deadline.
        """
        if not entries:
            return
        first = self._append(entries)
        level = max((entry.form.level for entry in entries), key=LEVELS.index)
        if level != "written":
            deadlines = [entry.deadline for entry in entries if entry.deadline is not None]
            await self._reach(first, self._spool.next_seq - 1, level, min(deadlines, default=None))

    async def outcome(self, body: OutcomeBody, level: Level = "written") -> None:
        """Record how a call ended; `level` is at most `committed`.

        After a RecordError the outcome is still owed: it is written as soon as the disk takes it, and by the successor
        if this process dies first.
        """
        if level == "acknowledged":
            raise ValueError("an outcome is at most committed: the call has ended")
        seq = self._end((body,))
        if level != "written":
            await self._reach(seq, seq, level, None)

    async def outcomes(self, bodies: Sequence[OutcomeBody], level: Level = "written") -> None:
        """Record how several calls ended, in this order and in one write; as `outcome`. After a RecordError all are owed."""
        if level == "acknowledged":
            raise ValueError("an outcome is at most committed: the call has ended")
        if not bodies:
            return
        last = self._end(bodies)
        if level != "written":
            await self._reach(last, last, level, None)

    async def event(self, type: RecordType, details: Details, level: Level = "committed") -> None:  # noqa: A002 - the field's name
        """Record something that is no call. Owed like an outcome when the disk does not take it now."""
        seq = self._write(self._event(type, details))
        if level != "written":
            await self._reach(seq, seq, level, None)

    def _append(self, entries: Sequence[DecisionEntry]) -> int:
        """Write the records of these decisions; the seq of the first."""
        now = self._clock()
        if not self._key_from <= now < self._key_until:
            self._turn(now)
        key = self._key
        if key is None:
            for entry in entries:
                if entry.subjects or entry.form.permits:
                    raise self._keyless()
        if self._owed:
            self._settle()
        try:
            return self._spool.decisions(key, entries, now)
        except (RecordFormatError, UnicodeEncodeError):
            return self._in_parts(entries, now)

    def _in_parts(self, entries: Sequence[DecisionEntry], now: float) -> int:
        """The same where one does not fit in one record."""
        drafts: list[Drafted] = []
        for entry in entries:
            try:
                drafts += decision_drafts(entry, self._key, self._period, now, self._random)
            except (RecordFormatError, UnicodeEncodeError) as error:
                raise self._refusal(
                    f"the decision of call {entry.call_id} on {entry.form.method} cannot be recorded: {error}"
                ) from None
        return self._spool.append(drafts) - len(drafts) + 1

    def _turn(self, now: float) -> None:
        """Take the key of the period that `now` falls in; it holds as long as the period does."""
        key = self._keys.current(datetime.fromtimestamp(now, UTC))
        if key is None:
            self._key, self._period, self._key_from, self._key_until = None, "", 0.0, 0.0
            return
        self._key, self._period = Pseudonyms(key.period, key.key), key.period
        self._key_from, self._key_until = key.start.timestamp(), key.until.timestamp()

    def _end(self, bodies: Sequence[OutcomeBody]) -> int:
        """Write the records of these outcomes; the seq of the last. Those that are not written now are owed."""
        now = self._clock()
        try:
            if self._owed:
                self._settle()
            return self._spool.outcomes(bodies, now)
        except RecordError:
            self._owe(bodies, now)
            raise
        except (RecordFormatError, UnicodeEncodeError) as error:
            if len(bodies) == 1:
                raise self._unfit(bodies[0], error) from None
        return self._each(bodies)

    def _each(self, bodies: Sequence[OutcomeBody]) -> int:
        """The same one by one, since one of them can never be written: the others are. The first RecordError."""
        last, failed = -1, None
        for body in bodies:
            try:
                last = self._end((body,))
            except RecordError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return last

    def _owe(self, bodies: Sequence[OutcomeBody], now: float) -> None:
        for body in bodies:
            try:
                self._spool.epoch.framer.outcomes(_FAR, bytes(32), (body,), now)
            except (RecordFormatError, UnicodeEncodeError):
                continue  # it would never fit, and keep what is owed behind it waiting
            self._owed.append(self._ended(body, now))

    def _write(self, draft: Drafted) -> int:
        try:
            if self._owed:
                self._settle()
            return self._spool.append([draft], spare=True)
        except RecordError:
            self._owed.append(draft)
            raise

    def _settle(self) -> None:
        """Write what is owed, oldest first; RecordError when the disk still says no."""
        while self._owed:
            oldest = [*islice(self._owed, _AT_ONCE)]
            try:
                self._spool.append(oldest, spare=True)
            except RecordError:
                oldest = oldest[:1]  # there may be room for one
                self._spool.append(oldest, spare=True)
            for _ in oldest:
                self._owed.popleft()

    async def _reach(self, first: int, last: int, level: Level, deadline: float | None) -> None:
        """Wait until the records `[first, last]` have this level."""
        future = self._spool.reach(last, level, first)
        if future is None:
            return
        timeout = self._patience
        if deadline is not None:
            left = deadline - self._monotonic()
            timeout = min(timeout, left - max(_ANSWER_SECONDS, left * _ANSWER_SHARE))
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                while future is not None:
                    await future
                    future = self._spool.reach(last, level, first)
        except TimeoutError:
            raise self._refusal(
                f"the record did not become {level} in {timeout:.3f} s"
                + (". Check the oversight store" if level == "acknowledged" else ". Check the disk")
            ) from None

    async def _run(self) -> None:
        """Heartbeats, and what is owed."""
        beat = self._monotonic() + self._heartbeat
        while True:
            await asyncio.sleep(min(OWED_SECONDS, self._heartbeat))
            try:
                self._settle()
                if self._monotonic() >= beat:
                    beat = self._monotonic() + self._heartbeat
                    details: Details = {"open_calls": self._spool.open_calls, "refused": self._spool.refused}
                    self._spool.append([self._event("heartbeat", details)], spare=True)
            except RecordError:
                continue  # the spool keeps the reason in `last_error`; a missing heartbeat is seen by the store

    def _ended(self, body: OutcomeBody, now: float) -> Drafted:
        return "outcome", stamp(now), body.call_id, self._fitting(body), b"", False

    def _event(self, kind: RecordType, details: Details) -> Drafted:
        try:
            body = self._fitting(EventBody(type=kind, details=details))
        except UnicodeEncodeError:  # the name of a file, say; what has happened is recorded all the same
            body = self._fitting(EventBody(type=kind, details={key: _text(one) for key, one in details.items()}))
        return kind, stamp(self._clock()), None, body, b"", False

    def _fitting(self, body: OutcomeBody | EventBody) -> bytes:
        try:
            return encode_body(body)
        except RecordFormatError as error:
            raise self._unfit(body, error) from None

    def _unfit(self, body: OutcomeBody | EventBody, error: ValueError) -> RecordError:
        return self._refusal(f"a record of type {body.type} cannot be written: {error}")

    def _keyless(self) -> RecordError:
        return self._refusal(
            "no period key for now: nothing can be recorded. Check `oversight.keys` and the key service"
        )

    @staticmethod
    def _refusal(operator: str) -> RecordError:
        return RecordError("the access cannot be recorded now", reason=ReasonCode.RECORD_UNAVAILABLE, operator=operator)


def _text(value: str | int | bool | list[str] | None) -> str | int | bool | list[str] | None:
    r"""The value, with `\udcXX` written out for what is no Unicode text."""
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return _escaped(value) if isinstance(value, str) else value


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
