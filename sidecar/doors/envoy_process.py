"""Envoy's ext_proc filter (envoy.service.ext_proc.v3): Envoy carries the bytes, the enforcement point says which go on.

Each HTTP stream is a gRPC call of its own, a conversation. This door sees and changes both ways, so it fulfils what the
proxy does.

* A conversation that ends in good order tells Envoy to go on without us: so it ends so only when the call is over, and
  in any other case with an error, at which Envoy fails the call (`failure_mode_allow: false`).
* Until the answer's headers have gone on, a refusal is a gRPC status like any other. After that, a status can only stand
  in the upstream's own trailers: what it still sends is thrown away until they come, and if they do not come soon, Envoy
  resets the caller's stream.
* Who is behind Envoy is Envoy's word (the filter state `customhouse.peer_certificate`), believed only of a registered
  workload that `relays`.
"""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Final as Constant
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError

from sidecar.api.envoy.v3 import processing_pb2 as pb
from sidecar.doors import envoy_headers
from sidecar.doors.envoy_exchange import UPSTREAM, EnvoyExchange, Inbox
from sidecar.doors.envoy_headers import Headers
from sidecar.doors.grpc_frames import Frames
from sidecar.doors.problems import problem
from sidecar.enforcement.call import AnswerSink, Call, Final, Metadata, Peer, Reply, Upstream
from sidecar.enforcement.declarations import EXT_PROC
from sidecar.enforcement.inquiry import MethodInquiry
from sidecar.enforcement.peer import PeerReader
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code, DescribeError, InterceptError, StageError
from sidecar.vocabulary import ReasonCode

PROCESS: Constant = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
PEER_CERTIFICATE: Constant = "customhouse.peer_certificate"
"""The filter state in which Envoy keeps the caller's verified certificate, PEM, URL-encoded."""
PEER_ATTRIBUTE: Constant = f"filter_state['{PEER_CERTIFICATE}']"
ADDRESS_ATTRIBUTE: Constant = "source.address"
DETAILS_ATTRIBUTE: Constant = "response.code_details"
REFUSAL_SECONDS: Constant = 2.0
"""How long a refused stream waits for the upstream's trailers, in which its status can be told."""
HEADERS_SECONDS: Constant = 0.2
"""How long an answer's headers wait for its first message, which may be refused."""
CLOSE_SECONDS: Constant = 5.0
_FAILED = Final(code=Code.UNAVAILABLE, message="the sidecar could not handle the call", retry_after=1.0)

Context = grpc.aio.ServicerContext[bytes, bytes]


class Enforcement(Protocol):
    """What stands behind this door: `pipeline.EnforcementPoint`."""

    def kind(self, method: str) -> str | None:
        """`unary` for a described unary method, `stream` for any other known one, None for unknown ones."""

    def relays(self, peer: Peer) -> bool:
        """Whether the peer's word on the workload behind it is believed."""

    def inquire(self, call: Call) -> MethodInquiry:
        """Ask about a call that goes another way."""

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        """A whole unary call."""

    async def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        """A call of any kind, message by message."""


class ProcessingHandler(grpc.GenericRpcHandler):
    """The one method of the service. `ended` is told of each conversation that is over."""

    def __init__(
        self, point: Enforcement, peers: PeerReader, log: OperatorLog, *, limit: int, clock: Callable[[], float],
        ended: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`limit`: bytes of one message. `clock`: UTC, unix seconds."""
        self._point, self._peers, self._log = point, peers, log
        self._limit, self._clock, self._ended = limit, clock, ended

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """A handler for Process, and for nothing else."""
        if handler_call_details.method != PROCESS:
            return None
        return grpc.stream_stream_rpc_method_handler(self._on_process)

    async def _on_process(self, requests: AsyncIterator[bytes], context: Context) -> None:
        del requests  # read through the context
        try:
            conversation = _Conversation(self._point, context, self._limit)
            await self._hold(conversation, self._peers.of(context))
        finally:
            self._ended()

    async def _hold(self, conversation: "_Conversation", envoy: Peer) -> None:
        first = await conversation.first()
        problem = "" if first is None else _unfit(first)
        if first is None or problem:
            if problem:
                self._log.error(
                    "Envoy's ext_proc filter is not set up as it has to be; its calls fail", problem=problem
                )
            await conversation.abort(grpc.StatusCode.FAILED_PRECONDITION, problem or "no request headers")
            return
        headers = envoy_headers.read(first.request_headers.headers)
        call = Call(
            method=envoy_headers.first(headers, ":path"), metadata=envoy_headers.metadata(headers),
            peer=self._behind(first, envoy), door=EXT_PROC, deadline=envoy_headers.deadline(headers),
        )  # fmt: skip
        try:
            await conversation.hold(call, headers, ended=first.request_headers.end_of_stream)
        except (asyncio.CancelledError, grpc.aio.BaseError):
            raise
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
            frames = traceback.extract_tb(error.__traceback__)[-3:]
            self._log.error(
                "unexpected failure; the call was failed", stage="intercept", failure=type(error).__name__,
                at=[f"{frame.name}:{frame.lineno}" for frame in frames],
            )  # fmt: skip
            await conversation.abort(grpc.StatusCode.UNAVAILABLE, _FAILED.message)

    def _behind(self, first: pb.ProcessingRequest, envoy: Peer) -> Peer:
        said = _attributes(first)
        address = said.get(ADDRESS_ATTRIBUTE, "")
        if not self._point.relays(envoy):
            return Peer(address=address)
        return envoy_headers.behind(said.get(PEER_ATTRIBUTE, ""), None, address, self._clock())


class _Conversation:
    """One HTTP stream, from its request headers to its end."""

    def __init__(self, point: Enforcement, context: Context, limit: int) -> None:
        self._point, self._context, self._limit = point, context, limit
        self._writing, self._showing = asyncio.Lock(), asyncio.Lock()
        self._shown = False
        """The answer's headers have gone on."""
        self._later: asyncio.Task[None] | None = None
        self._withheld: Metadata | None = None

    async def first(self) -> pb.ProcessingRequest | None:
        """What Envoy begins with; None when it goes before."""
        return await self._read()

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        """End in an error, at which Envoy fails the call."""
        await self._context.abort(code, message)

    async def hold(self, call: Call, headers: Headers, *, ended: bool) -> None:
        """Run the call through the enforcement point, and tell Envoy how it ends."""
        encoding = envoy_headers.first(headers, "grpc-encoding") or "identity"
        requests = Inbox(Frames(self._limit, encoding), self._limit)
        answers = Inbox(Frames(self._limit), self._limit)
        self._exchange = EnvoyExchange(self._send, headers, requests, answers)
        if ended:
            await requests.end()
        reading = asyncio.create_task(self._take())
        working = asyncio.create_task(self._work(call, headers))
        try:
            await asyncio.wait({reading, working}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                reading.result()  # a fault of ours in reading is one
            elif not working.cancelled():
                working.result()
                await requests.discard()
                await answers.discard()
                await asyncio.wait({reading}, timeout=CLOSE_SECONDS)
        finally:
            tasks = [task for task in (working, reading, self._later) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if working.cancelled():
            await self.abort(grpc.StatusCode.CANCELLED, "the caller has gone")
        if not reading.done() or reading.cancelled():
            await self.abort(grpc.StatusCode.UNAVAILABLE, "Envoy did not end its call")

    # -- what Envoy sends --------------------------------------------------------------------------------------------

    async def _read(self) -> pb.ProcessingRequest | None:
        data: object = await self._context.read()  # the stubs do not know of EOF
        if not isinstance(data, bytes):
            return None
        try:
            return pb.ProcessingRequest.FromString(data)
        except DecodeError:
            await self.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a ProcessingRequest")
            return None

    async def _take(self) -> None:
        """Put what comes where it belongs, until Envoy ends."""
        exchange = self._exchange
        while (one := await self._read()) is not None:
            match one.WhichOneof("request"):
                case "request_body":
                    await exchange.requests.feed(one.request_body.body, last=one.request_body.end_of_stream)
                case "request_trailers":
                    exchange.request_trailers = envoy_headers.read(one.request_trailers.trailers)
                    await exchange.requests.end()
                case "response_headers":
                    await self._answered(one)
                case "response_body":
                    await exchange.answers.feed(one.response_body.body, last=one.response_body.end_of_stream)
                    if one.response_body.end_of_stream:
                        exchange.finished.set()
                case "response_trailers":
                    exchange.trailers = envoy_headers.read(one.response_trailers.trailers)
                    exchange.finished.set()
                    await exchange.answers.end()
                case _:
                    raise InterceptError("Envoy sent what does not belong here")

    async def _answered(self, one: pb.ProcessingRequest) -> None:
        exchange = self._exchange
        exchange.response = envoy_headers.read(one.response_headers.headers)
        exchange.answers.frames = Frames(
            self._limit, envoy_headers.first(exchange.response, "grpc-encoding") or "identity"
        )
        exchange.bare = one.response_headers.end_of_stream
        details = _attributes(one).get(DETAILS_ATTRIBUTE, "")
        exchange.local = bool(details) and details != UPSTREAM
        exchange.answered.set()
        if exchange.bare:
            exchange.finished.set()
            await exchange.answers.end()

    # -- the call ----------------------------------------------------------------------------------------------------

    async def _work(self, call: Call, headers: Headers) -> None:
        exchange = self._exchange
        try:
            if not envoy_headers.is_grpc(headers) or envoy_headers.first(headers, ":method") != "POST":
                raise DescribeError(
                    "nothing says what this request reaches", reason=ReasonCode.UNDESCRIBED_METHOD,
                    operator="a request that is no gRPC came through ext_proc; only gRPC is read there.",
                )  # fmt: skip
            request = await self._one() if self._point.kind(call.method) == "unary" else None
        except StageError as error:
            named = call if envoy_headers.is_grpc(headers) else _unnamed(call)
            final = await self._point.inquire(named).decline(error)
        else:
            if request is not None:
                await self._unary(await self._point.unary(call, request, exchange))
                return
            final = await self._stream(call)
        await self._conclude(final, grpc_caller=envoy_headers.is_grpc(headers))

    async def _stream(self, call: Call) -> Final:
        requests = self._exchange.requests
        try:
            return await self._point.stream(call, requests, self, self._exchange)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if requests.error is None or (task is not None and task.cancelling()):
                raise
            return Final(code=requests.error.code, message=requests.error.message)

    async def _one(self) -> bytes:
        """The one message of a unary call. InterceptError."""
        request = await self._exchange.requests.get()
        if request is None or await self._exchange.requests.get() is not None:
            raise InterceptError("a unary call has exactly one message")
        return request

    async def _unary(self, reply: Reply) -> None:
        if reply.message is None or self._exchange.trailers is None:
            own = tuple(one for one in reply.headers if one[0].startswith("x-customhouse-"))
            await self._refuse(reply.final, own)
            return
        await self._show(reply.headers)
        await self._exchange.send_message(reply.message)
        await self._exchange.send_trailers(reply.final)

    async def headers(self, metadata: Metadata) -> None:
        """For streams: the answer's headers. Where nothing more is asked, they wait a little for the first message."""
        self._withheld = metadata
        if self._exchange.bare:
            return
        if not self._exchange.requests.ended:
            await self._show(metadata)
            return
        self._later = asyncio.create_task(self._show_later())

    async def message(self, data: bytes) -> None:
        """For streams: one answer message."""
        await self._show(self._withheld or ())
        await self._exchange.send_message(data)

    async def _show_later(self) -> None:
        await asyncio.sleep(HEADERS_SECONDS)
        await self._show(self._withheld or ())

    async def _show(self, metadata: Metadata) -> None:
        async with self._showing:
            if not self._shown:
                await self._exchange.send_headers(metadata)
                self._shown = True

    async def _conclude(self, final: Final, *, grpc_caller: bool) -> None:
        """Tell Envoy how the call ended."""
        exchange = self._exchange
        await exchange.requests.discard()
        await exchange.answers.discard()
        if self._later is not None:
            if not self._showing.locked():
                self._later.cancel()
            await asyncio.wait({self._later})
        if not self._shown and final.code is Code.OK and exchange.trailers is not None:
            await self._show(self._withheld or ())
        if not self._shown:
            await self._refuse(final, self._withheld or (), grpc_caller=grpc_caller)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(exchange.finished.wait(), REFUSAL_SECONDS)
        if exchange.trailers is None:
            await self._refuse(final, ())
            return
        await exchange.send_trailers(final)

    async def _refuse(self, final: Final, own: Metadata, *, grpc_caller: bool = True) -> None:
        """A local reply; where the answer has begun, a reset."""
        answer = pb.ProcessingResponse()
        reply = answer.immediate_response
        if grpc_caller:
            reply.status.code = 200
            reply.grpc_status.status = int(final.code)
            reply.body = final.message.encode()
            items = tuple(one for one in envoy_headers.status(final) if one[0] not in ("grpc-status", "grpc-message"))
        else:
            reply.status.code, items, reply.body = problem(final)
        items = (*items, *(own or envoy_headers.call_id(final)))
        reply.headers.set_headers.extend(envoy_headers.options(items, raw=True))
        await self._send(answer)

    async def _send(self, answer: pb.ProcessingResponse) -> None:
        async with self._writing:
            try:
                await self._context.write(answer.SerializeToString())
            except grpc.aio.BaseError:
                raise asyncio.CancelledError from None  # Envoy has gone


def _attributes(one: pb.ProcessingRequest) -> dict[str, str]:
    """The attributes that were asked for; Envoy keeps them under the filter's name."""
    return {key: value.string_value for said in one.attributes.values() for key, value in said.fields.items()}


def _unnamed(call: Call) -> Call:
    """A path may hold the id of a data subject, and a record would keep it."""
    return Call(method="/http/request", metadata=call.metadata, peer=call.peer, door=call.door, deadline=call.deadline)


def _unfit(first: pb.ProcessingRequest) -> str:
    """Why nothing can be guarded this way; empty if it can."""
    if first.observability_mode:
        return "observability_mode lets every call pass: take it away"
    if first.WhichOneof("request") != "request_headers":
        return "request_header_mode has to be SEND"
    said = first.protocol_config
    if (said.request_body_mode, said.response_body_mode) != (pb.FULL_DUPLEX_STREAMED, pb.FULL_DUPLEX_STREAMED):
        return "request_body_mode and response_body_mode have to be FULL_DUPLEX_STREAMED, all other modes SEND"
    return ""
