"""Moves the messages of a stream both ways, and ends it when a permit lapses.

Upstream is opened only once something has been decided: before the first message where reading may wait for the
answer, after it otherwise. A refusal on either side, or a lapsed permit, cancels the upstream call at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

from sidecar.enforcement import refusals
from sidecar.enforcement.call import AnswerSink, Call, Exchange, Final, Metadata, Upstream
from sidecar.enforcement.guarded import Guarded
from sidecar.errors import Code, ForwardError, IdentifyError

TICK_SECONDS = 0.25
CALL_ID = "x-customhouse-call-id"


class _Open:
    """An open stream and the way to end it."""

    __slots__ = ("due", "ended", "guarded")

    def __init__(self, guarded: Guarded, due: float | None) -> None:
        self.guarded, self.due = guarded, due
        self.ended: asyncio.Future[Final] = asyncio.get_running_loop().create_future()


class OpenStreams:
    """The streams that are open now. One watcher looks after all of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: set[_Open] = set()
        self._changed = asyncio.Event()

    def add(self, guarded: Guarded) -> _Open:
        """A stream begins to be watched."""
        one = _Open(guarded, _due(guarded))
        self._open.add(one)
        return one

    def remove(self, one: _Open) -> None:
        """A stream has ended."""
        self._open.discard(one)

    def reconsider(self) -> None:
        """Something that decisions rest on has changed: all streams are due now."""
        for one in self._open:
            one.due = 0.0
        self._changed.set()

    async def watch(self) -> None:
        """Recheck what is due, every quarter of a second and at every change."""
        while True:
            self._changed.clear()
            now, clock = monotonic(), self._clock()
            for one in tuple(self._open):
                if one.ended.done():
                    continue
                if one.guarded.expires_at <= clock or (one.due is not None and one.due <= now):
                    await self._recheck(one)
            try:
                await asyncio.wait_for(self._changed.wait(), TICK_SECONDS)
            except TimeoutError:
                continue

    async def _recheck(self, one: _Open) -> None:
        refusal = await one.guarded.recheck()
        if refusal is None and one.guarded.expires_at <= self._clock():
            refusal = await one.guarded.refuse(
                IdentifyError("the caller's identity has lapsed", code=Code.PERMISSION_DENIED)
            )
        if refusal is not None:
            if not one.ended.done():
                one.ended.set_result(_lapsed(refusal))
            return
        one.due = _due(one.guarded)


def _due(guarded: Guarded) -> float | None:
    after = guarded.recheck_after
    return None if after is None else monotonic() + after


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
    mover = _Mover(guarded, upstream, requests, answer, timeout)
    one: _Open | None = None
    try:
        refusal = await mover.start()
        if refusal is not None:
            return refusal
        one = streams.add(guarded)
        return await mover.run(one.ended)
    except ForwardError as error:
        return refusals.failed(error, guarded.call_id)
    finally:
        mover.stop()
        if one is not None:
            streams.remove(one)


class _Mover:
    """Both directions of one stream."""

    def __init__(
        self,
        guarded: Guarded,
        upstream: Upstream,
        requests: AsyncIterator[bytes],
        answer: AnswerSink,
        timeout: float | None,
    ) -> None:
        self._guarded, self._upstream = guarded, upstream
        self._requests, self._answer, self._timeout = requests, answer, timeout
        self._exchange: Exchange | None = None
        self._tasks: list[asyncio.Task[Final | None]] = []

    async def start(self) -> Final | None:
        """Decide what has to be decided before the upstream hears of the call, and open it."""
        guarded = self._guarded
        description = guarded.description
        if description.client_streaming and description.action.name in ("read", "list", "search"):
            refusal = await guarded.admit_nothing()
            if refusal is None:
                self._open()
            return refusal
        first = await anext(self._requests, None)
        if first is None:
            if not description.client_streaming:
                return Final(code=Code.INVALID_ARGUMENT, message="the call ended before its request message")
            refusal = await guarded.admit_nothing()
            if refusal is None:
                self._open()
            return refusal
        forward = await guarded.admit(first)
        if isinstance(forward, Final):
            return forward
        await self._open().write(forward)
        return None

    def _open(self) -> Exchange:
        guarded = self._guarded
        self._exchange = self._upstream.open(
            guarded.call.method, guarded.forward_metadata(guarded.call.metadata), self._timeout
        )
        guarded.span.stage("forward")
        return self._exchange

    async def run(self, lapsed: asyncio.Future[Final]) -> Final:
        """Move messages until the upstream has ended, something was refused, or the permit has lapsed."""
        if self._exchange is None:
            raise ForwardError("the stream was not opened")
        up = asyncio.create_task(self._up(self._exchange))
        down = asyncio.create_task(self._down(self._exchange))
        self._tasks = [up, down]
        waiting: set[asyncio.Future[Final] | asyncio.Task[Final | None]] = {up, down, lapsed}
        while True:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if lapsed in done:
                return lapsed.result()
            if down in done:
                return down.result() or Final(code=Code.UNKNOWN)
            refusal = up.result()
            if refusal is not None:
                return refusal
            waiting.discard(up)

    async def _up(self, exchange: Exchange) -> Final | None:
        async for message in self._requests:
            forward = await self._guarded.admit(message)
            if isinstance(forward, Final):
                return forward
            await exchange.write(forward)
        await exchange.close_send()
        return None

    async def _down(self, exchange: Exchange) -> Final | None:
        guarded = self._guarded
        headers = await exchange.headers()
        await self._answer.headers((*(headers if guarded.free else ()), (CALL_ID, guarded.call_id)))
        while (message := await exchange.read()) is not None:
            released = await guarded.release(message)
            if isinstance(released, Final):
                return released
            if released is None:
                continue
            await self._answer.message(released)
            guarded.messages_out += 1
            guarded.bytes_out += len(released)
        final = await exchange.final()
        return final if guarded.free else self._upstream.reduced(final)

    def stop(self) -> None:
        """Nothing goes on after the call: both directions and the upstream call are given up."""
        for task in self._tasks:
            task.cancel()
        if self._exchange is not None:
            self._exchange.cancel()


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
