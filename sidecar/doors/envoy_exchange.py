"""One HTTP stream of Envoy's ext_proc filter, taken apart: messages each way, headers, trailers, and what becomes of them.

Envoy sends body bytes as they come, both ways, and forwards what it is sent back (`FULL_DUPLEX_STREAMED`): nothing of
either body goes on that was not written here, and no header goes on before its answer. The upstream hears of a call
when the answer to its request headers is written.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final as Constant
from urllib.parse import unquote

from sidecar.api.envoy.v3.processing_pb2 import HeaderMutation, ProcessingResponse
from sidecar.doors import envoy_headers
from sidecar.doors.envoy_headers import Headers
from sidecar.doors.grpc_frames import FrameError, Frames, frame
from sidecar.enforcement import rich_status
from sidecar.enforcement.call import Final, Metadata, Reply
from sidecar.enforcement.metadata import from_upstream
from sidecar.errors import Code, ForwardError

PIECE: Constant = 64 << 10
"""Bytes of a body in one message to Envoy, as its documentation asks for."""
Send = Callable[[ProcessingResponse], Awaitable[None]]
_CODES: Constant = {str(int(code)): code for code in Code}
_REQUEST_KEEPS: Constant = frozenset({"grpc-accept-encoding"})
UPSTREAM: Constant = "via_upstream"
"""Envoy's `response.code_details` of an answer that the upstream gave."""


class Inbox(AsyncIterator[bytes]):
    """The messages of one direction. What waits is bounded: `feed` waits while it holds `most` bytes or more.

    Read as an iterator, a body that is no gRPC is a call given up, as gRPC core has it; see `error`.
    """

    def __init__(self, frames: Frames, most: int) -> None:
        self.frames, self._most = frames, most
        self._waiting: deque[bytes] = deque()
        self._size, self._discards = 0, False
        self.error: FrameError | None = None
        """Why what came is no sequence of messages."""
        self.ended = False
        self._changed = asyncio.Condition()

    async def feed(self, data: bytes, *, last: bool) -> None:
        """Bytes of the body, in order. What is no sequence of messages is found out by whoever reads."""
        if self.ended:
            return
        try:
            for message in self.frames.feed(data) if data else ():
                await self._put(message)
            if last:
                self.frames.end()
        except FrameError as error:
            self.error, last = error, True
        if last:
            await self.end()

    async def end(self) -> None:
        """No more will come. A message that is not whole is an error for whoever reads."""
        if not self.ended and self.frames.partial and self.error is None:
            self.error = FrameError("the body ends inside a message", code=Code.INTERNAL)
        async with self._changed:
            self.ended = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Nobody will read any more: what comes is thrown away."""
        async with self._changed:
            self._discards, self._size = True, 0
            self._waiting.clear()
            self._changed.notify_all()

    async def _put(self, message: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < self._most or self._discards)
            if not self._discards:
                self._waiting.append(message)
                self._size += len(message) + 1
            self._changed.notify_all()

    async def get(self) -> bytes | None:
        """The next message, None after the last. FrameError."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._waiting) or self.ended)
            if self._waiting:
                message = self._waiting.popleft()
                self._size -= len(message) + 1
                self._changed.notify_all()
                return message
            if self.error is not None:
                raise self.error
            return None

    async def __anext__(self) -> bytes:
        try:
            message = await self.get()
        except FrameError:
            raise asyncio.CancelledError from None
        if message is None:
            raise StopAsyncIteration
        return message


class EnvoyExchange:
    """The upstream of one call, which is reached by answering Envoy. See `call.Upstream` and `call.Exchange`."""

    def __init__(self, send: Send, headers: Headers, requests: Inbox, answers: Inbox) -> None:
        self._send, self._headers, self.requests, self.answers = send, headers, requests, answers
        self._forward: Metadata = ()
        self._begun = asyncio.Lock()
        self.opened = False
        self.request_trailers: Headers | None = None
        """Envoy waits for an answer to these. They are no part of gRPC: the service gets none of them."""
        self.response: Headers = []
        self.trailers: Headers | None = None
        """What ended the answer; None while it has not ended so."""
        self.bare = False
        """The answer is headers and nothing else."""
        self.local = False
        """Envoy itself gave the answer."""
        self.answered = asyncio.Event()
        self.finished = asyncio.Event()

    # -- the port ----------------------------------------------------------------------------------------------------

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> "EnvoyExchange":
        """The call goes on with its first write, or when its answer is waited for."""
        del method, timeout  # Envoy has both from the caller's own request, and keeps to them
        self._forward = metadata
        return self

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """A unary call."""
        self.open(method, metadata, timeout)
        await self._begin()
        await self._write_request(frame(message), last=True)
        headers = await self.headers()
        answer = await self.read()
        more = answer is not None and await self.read() is not None
        final = await self.final()
        if final.code is Code.OK and (answer is None or more):
            final = Final(code=Code.INTERNAL, message="the service gave no answer, or more than one, to a unary call")
        return Reply(message=answer if final.code is Code.OK else None, headers=headers, final=final)

    def reduced(self, final: Final) -> Final:
        """The same status code with nothing in it that could carry data."""
        return rich_status.reduced(final)

    async def write(self, message: bytes) -> None:
        """Send one request message; waits while Envoy is slow."""
        await self._begin()
        await self._write_request(frame(message), last=False)

    async def close_send(self) -> None:
        """Say that no more request messages follow."""
        await self._begin()
        await self._write_request(b"", last=True)

    async def headers(self) -> Metadata:
        """The upstream's initial metadata, when it comes."""
        await self._begin()
        await self.answered.wait()
        return () if self.bare else from_upstream(envoy_headers.pairs(self.response))

    async def read(self) -> bytes | None:
        """The next answer message, None after the last. ForwardError for a body that is no gRPC."""
        try:
            return await self.answers.get()
        except FrameError as error:
            raise ForwardError(
                "the service's answer cannot be read",
                code=Code.RESOURCE_EXHAUSTED if error.code is Code.RESOURCE_EXHAUSTED else Code.INTERNAL,
                operator=f"the upstream's answer, through Envoy: {error.message}",
            ) from None

    async def final(self) -> Final:
        """The upstream's status and trailers, after `read` gave None."""
        await self.finished.wait()
        ends = self.response if self.bare else self.trailers or []
        code = _CODES.get(envoy_headers.first(ends, "grpc-status"))
        if self.local:
            found = code if code not in (None, Code.OK) else Code.UNAVAILABLE
            return Final(code=found or Code.UNAVAILABLE, message="the service did not answer")
        if code is None:
            return Final(code=Code.UNKNOWN, message="the service's answer ended without a status")
        message = unquote(envoy_headers.first(ends, "grpc-message"), errors="replace")
        return Final(code=code, message=message, trailing=from_upstream(envoy_headers.pairs(ends)))

    def cancel(self) -> None:
        """Envoy ends the upstream's side when the conversation ends; see `envoy_process`."""

    # -- answers to Envoy --------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Let the request's headers go on: what the caller may say, and what the sidecar says."""
        async with self._begun:
            if self.opened:
                return
            said = envoy_headers.added(self._forward)
            kept = {key for key, _ in said}
            hidden = {*envoy_headers.withheld(self._headers, envoy_headers.metadata(self._headers)), *_REQUEST_KEEPS}
            answer = ProcessingResponse()
            mutation = answer.request_headers.response.header_mutation
            mutation.set_headers.extend(envoy_headers.options(said, raw=True))
            mutation.remove_headers.extend(sorted(hidden - kept))
            await self._send(answer)
            self.opened = True

    async def _write_request(self, data: bytes, *, last: bool) -> None:
        if self.finished.is_set():
            return
        trailers = self.request_trailers if last else None
        for answer in _pieces(data, last=last and trailers is None, request=True):
            await self._send(answer)
        if trailers is not None:
            answer = ProcessingResponse()
            answer.request_trailers.header_mutation.CopyFrom(mutated(trailers, (), frozenset()))
            await self._send(answer)

    async def send_headers(self, metadata: Metadata) -> None:
        """Let the answer's headers go on: those of the upstream's that are in `metadata`, and the rest of it."""
        answer = ProcessingResponse()
        mutation = answer.response_headers.response.header_mutation
        mutation.CopyFrom(mutated(self.response, metadata, frozenset({"content-type"})))
        await self._send(answer)

    async def send_message(self, message: bytes) -> None:
        """Send one answer message on; waits while the caller is slow."""
        for answer in _pieces(frame(message), last=False, request=False):
            await self._send(answer)

    async def send_trailers(self, final: Final) -> None:
        """Let the answer's trailers go on, as this end of the call."""
        answer = ProcessingResponse()
        answer.response_trailers.header_mutation.CopyFrom(
            mutated(self.trailers or [], envoy_headers.status(final), frozenset())
        )
        await self._send(answer)


def mutated(before: Headers, after: Metadata, keep: frozenset[str]) -> HeaderMutation:
    """What makes `after` of headers as they came; pseudo-headers and `keep` stay."""
    wanted: dict[str, list[str]] = {}
    for key, value in after:
        wanted.setdefault(key, []).append(envoy_headers.as_text(value))
    found: dict[str, list[str]] = {}
    for key, value in before:
        found.setdefault(key, []).append(value.rstrip("=") if key.endswith("-bin") else value)
    same = {key for key, values in wanted.items() if found.get(key) == values}
    mutation = HeaderMutation()
    mutation.set_headers.extend(envoy_headers.options(tuple(one for one in after if one[0] not in same), raw=True))
    mutation.remove_headers.extend(
        sorted(key for key in found if key not in wanted and key not in keep and not key.startswith(":"))
    )
    return mutation


def _pieces(data: bytes, *, last: bool, request: bool) -> list[ProcessingResponse]:
    found = []
    for start in range(0, max(len(data), 1), PIECE):
        answer = ProcessingResponse()
        body = (answer.request_body if request else answer.response_body).response.body_mutation.streamed_response
        body.body = data[start : start + PIECE]
        body.end_of_stream = last and start + PIECE >= len(data)
        found.append(answer)
    return found
