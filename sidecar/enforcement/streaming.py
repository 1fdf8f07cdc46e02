"""Moves the messages of a stream both ways, and ends it when a permit lapses.

Upstream is opened only once something has been decided: before the first message where reading may wait for the
answer, after it otherwise. A refusal on either side, or a lapsed permit, cancels the upstream call at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from time import monotonic

from sidecar.enforcement import refusals
from sidecar.enforcement.call import CALL_ID, AnswerSink, Call, Exchange, Final, Metadata, Upstream
from sidecar.enforcement.guarded import Guarded
from sidecar.errors import Code, DecideError, ForwardError

TICK_SECONDS = 0.25
_STOPPING = ForwardError("the sidecar is stopping; call again")


class _Open:
    """An open stream, when it is due, and the way to end it.

    `wanted` grows with every change that asks for a recheck, so that one which comes during a recheck is not lost.
    """

    __slots__ = ("due", "ended", "guarded", "task", "wanted")

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        self.due: float | None = None
        self.wanted = 0
        self.task: asyncio.Task[None] | None = None
        self.ended: asyncio.Future[Final] = asyncio.get_running_loop().create_future()

    def end(self, final: Final) -> None:
        """End the stream, unless it is being ended already."""
        if not self.ended.done():
            self.ended.set_result(final)


class OpenStreams:
    """The streams that are open now. One watcher looks after all of them, and none waits for another."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: set[_Open] = set()
        self._changed = asyncio.Event()

    def add(self, guarded: Guarded) -> _Open:
        """A stream begins to be watched, before anything is decided about it."""
        one = _Open(guarded)
        self._open.add(one)
        return one

    def remove(self, one: _Open) -> list[asyncio.Task[None]]:
        """A stream has ended: it is watched no more. Gives what is still to be awaited, cancelled."""
        self._open.discard(one)
        if one.task is None:
            return []
        one.task.cancel()
        return [one.task]

    def decided(self, one: _Open) -> None:
        """Something was decided about the stream: when it is due may have changed."""
        after = one.guarded.recheck_after
        soonest = None if after is None else monotonic() + after
        if one.due is None or (soonest is not None and soonest < one.due):
            one.due = soonest

    def reconsider(self) -> None:
        """Something that decisions rest on has changed: all streams are due now."""
        for one in self._open:
            one.wanted += 1
            one.due = 0.0
        self._changed.set()

    def dismiss(self) -> None:
        """The sidecar stops: end what is still open with a status that says so, and that calling again helps."""
        for one in self._open:
            one.end(refusals.failed(_STOPPING, one.guarded.call_id))

    async def watch(self) -> None:
        """Recheck what is due, every quarter of a second and at every change."""
        try:
            while True:
                self._changed.clear()
                self._look()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), TICK_SECONDS)
        finally:
            for one in self._open:
                if one.task is not None:
                    one.task.cancel()

    def _look(self) -> None:
        now, clock = monotonic(), self._clock()
        for one in self._open:
            busy = one.ended.done() or (one.task is not None and not one.task.done())
            if not busy and (one.guarded.expires_at <= clock or (one.due is not None and one.due <= now)):
                one.task = asyncio.create_task(self._recheck(one))

    async def _recheck(self, one: _Open) -> None:
        asked = one.wanted
        try:
            refusal = await one.guarded.recheck()
        except Exception as error:  # noqa: BLE001 - a fault in one recheck ends that stream and no other
            fault = DecideError("the call could not be decided again", operator=f"recheck: {type(error).__name__}")
            refusal = await self._refused(one, fault)
        if refusal is not None:
            one.end(_lapsed(refusal))
            return
        after = one.guarded.recheck_after
        one.due = 0.0 if one.wanted != asked else None if after is None else monotonic() + after
        if one.wanted != asked:
            self._changed.set()

    @staticmethod
    async def _refused(one: _Open, fault: DecideError) -> Final:
        try:
            return await one.guarded.refuse(fault)
        except Exception:  # noqa: BLE001 - not even that works: the permit ends all the same
            return refusals.failed(fault, one.guarded.call_id)


def _lapsed(refusal: Final) -> Final:
    """A permit that lapses ends the stream with PERMISSION_DENIED, except where nobody can say (UNAVAILABLE)."""
    code = refusal.code if refusal.code is Code.UNAVAILABLE else Code.PERMISSION_DENIED
    return Final(code=code, message=refusal.message, error_info=refusal.error_info, retry_after=refusal.retry_after)


async def run_stream(
    guarded: Guarded,
    upstream: Upstream,
    streams: OpenStreams,
    requests: AsyncIterator[bytes],
    answer: AnswerSink,
    timeout: float | None,
) -> Final:
    """The whole stream, after the caller is known. Returns how it ended; nothing is left running."""
    one = streams.add(guarded)
    mover = _Mover(guarded, upstream, requests, answer, timeout, lambda: streams.decided(one))
    moving = asyncio.create_task(mover.run())
    try:
        await asyncio.wait({moving, one.ended}, return_when=asyncio.FIRST_COMPLETED)
        return one.ended.result() if one.ended.done() else moving.result()
    except ForwardError as error:
        return refusals.failed(error, guarded.call_id)
    finally:
        # Everything is told to stop before anything is awaited: a second cancellation may cut the waiting short.
        mover.stop()
        moving.cancel()
        await asyncio.gather(moving, *streams.remove(one), return_exceptions=True)


class _Mover:
    """Both directions of one stream. `decided` is told after each decision."""

    def __init__(
        self,
        guarded: Guarded,
        upstream: Upstream,
        requests: AsyncIterator[bytes],
        answer: AnswerSink,
        timeout: float | None,
        decided: Callable[[], None],
    ) -> None:
        self._guarded, self._upstream = guarded, upstream
        self._requests, self._answer = requests, answer
        self._timeout, self._decided = timeout, decided
        self._exchange: Exchange | None = None
        self._tasks: list[asyncio.Task[Final | None]] = []

    def stop(self) -> None:
        """Give up both directions and the upstream call. Idempotent."""
        for task in self._tasks:
            task.cancel()
        if self._exchange is not None:
            self._exchange.cancel()

    async def run(self) -> Final:
        """Decide, open, and move messages until the upstream has ended or something was refused."""
        try:
            exchange = await self._start()
            if isinstance(exchange, Final):
                return exchange
            up, down = asyncio.create_task(self._up(exchange)), asyncio.create_task(self._down(exchange))
            self._tasks = [up, down]
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            if up.done() and not down.done():
                refusal = up.result()
                if refusal is not None:
                    return refusal
                await asyncio.wait([down])
            return down.result() or Final(code=Code.UNKNOWN)
        finally:
            self.stop()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self) -> Exchange | Final:
        """Decide what has to be decided before the upstream hears of the call, and open it."""
        guarded, description = self._guarded, self._guarded.description
        if description.client_streaming and description.action.name in ("read", "list", "search"):
            refusal = await guarded.admit_nothing()
            self._decided()
            return self._open() if refusal is None else refusal
        first = await anext(self._requests, None)
        guarded.span.begin()
        if first is None and not description.client_streaming:
            return Final(code=Code.INVALID_ARGUMENT, message="the call ended before its request message")
        if first is None:
            refusal = await guarded.admit_nothing()
            return self._open() if refusal is None else refusal
        forward = await guarded.admit(first)
        if isinstance(forward, Final):
            return forward
        self._decided()
        exchange = self._open()
        await exchange.write(forward)
        return exchange

    def _open(self) -> Exchange:
        guarded = self._guarded
        self._exchange = self._upstream.open(guarded.call.method, guarded.case.forward_metadata(), self._timeout)
        guarded.span.stage("forward")
        return self._exchange

    async def _up(self, exchange: Exchange) -> Final | None:
        async for message in self._requests:
            self._guarded.span.begin()
            forward = await self._guarded.admit(message)
            if isinstance(forward, Final):
                return forward
            self._decided()
            await exchange.write(forward)
        await exchange.close_send()
        return None

    async def _down(self, exchange: Exchange) -> Final | None:
        guarded = self._guarded
        headers = await exchange.headers()
        await self._answer.headers((*(headers if guarded.free else ()), (CALL_ID, guarded.call_id)))
        while (message := await exchange.read()) is not None:
            guarded.span.begin()
            released = await guarded.release(message)
            if isinstance(released, Final):
                return released
            if released is None:
                if not guarded.description.server_streaming:
                    return guarded.exhausted
                continue
            self._decided()
            guarded.sent(released)  # counted when handed over: what is on its way may have been read
            await self._answer.message(released)
        final = await exchange.final()
        return final if guarded.free else self._upstream.reduced(final)


async def relay(
    upstream: Upstream,
    call: Call,
    metadata: Metadata,
    requests: AsyncIterator[bytes],
    answer: AnswerSink,
    timeout: float | None,
) -> Final:
    """Pass an unguarded call (health, reflection) through unchanged."""
    exchange = upstream.open(call.method, metadata, timeout)

    async def up() -> None:
        async for message in requests:
            await exchange.write(message)
        await exchange.close_send()

    sending = asyncio.create_task(up())
    try:
        await answer.headers(await exchange.headers())
        while (message := await exchange.read()) is not None:
            await answer.message(message)
        return await exchange.final()
    except ForwardError as error:
        return Final(code=error.code, message=error.message)
    finally:
        sending.cancel()
        exchange.cancel()
