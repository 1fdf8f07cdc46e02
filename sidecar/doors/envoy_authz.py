"""Envoy's ext_authz filter (envoy.service.auth.v3): Envoy asks about a request, and forwards it or refuses it itself.

This door sees a request and nothing after it.

* Who is behind Envoy is Envoy's word, believed only of a registered workload that `relays`; headers say nothing about it.
* A unary call is decided with its message, so it comes with its whole body (`with_request_body`, `pack_as_bytes`).
  A streaming call is decided before its first message, and is never held back for a body.
* The request goes on as Envoy has it: where the enforcement point would have forwarded other bytes, it is a deny.
* A permit is given once its outcome, `unobserved`, is recorded as well.
* A fault of ours is an error of the gRPC call, which Envoy answers with `status_on_error`: never a deny, never a permit.
"""

from collections.abc import Callable, Iterable
from typing import Final as Constant
from typing import NamedTuple, Protocol, cast

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value

from sidecar.api.envoy.v3.authorization_pb2 import AttributeContext, CheckRequest, CheckResponse
from sidecar.api.envoy.v3.parts_pb2 import HeaderValue
from sidecar.attributes.routes import check_content
from sidecar.doors import envoy_headers
from sidecar.doors.envoy_headers import Headers
from sidecar.doors.grpc_frames import Frames, only
from sidecar.doors.problems import http_status, problem
from sidecar.enforcement.call import CALL_ID, Call, Final, Metadata, Peer
from sidecar.enforcement.declarations import EXT_AUTHZ
from sidecar.enforcement.inquiry import MethodInquiry
from sidecar.enforcement.peer import PeerReader
from sidecar.enforcement.permits import Permit
from sidecar.errors import Code, EnforceError, InterceptError, StageError
from sidecar.vocabulary import ReasonCode

CHECK: Constant = "/envoy.service.auth.v3.Authorization/Check"
ENVELOPE: Constant = 256 << 10
"""Bytes of a CheckRequest besides the body: headers, certificate, framing."""
_PARTIAL = "x-envoy-auth-partial-body"
_MOST_MADE, _MOST_NAMED = 256, 1024
"""Shapes of permits that are remembered, and characters of the names in one: they come from callers."""
_GIVEN_UP = Final(code=Code.CANCELLED, message="Envoy was given no answer")
_CHANGED = (
    "the request holds fields that nobody described; through ext_authz they cannot be taken out of it, so it is "
    "refused. Describe them, permit `unclassified`, or guard the service with ext_proc"
)


class Asked(Protocol):
    """An HTTP request as a call of a described method."""

    @property
    def method(self) -> str:
        """Its path, `/package.Service/Method`."""

    @property
    def message(self) -> bytes:
        """The request message."""


class HttpRoute(Protocol):
    """What requests of one shape mean."""

    method: str


class HttpRoutes(Protocol):
    """What HTTP requests mean: `attributes.routes.Routes`."""

    def find(self, verb: str, path: str) -> tuple[HttpRoute, object]:
        """The route of a request. InterceptError UNIMPLEMENTED where there is none."""

    def match(self, verb: str, target: str, body: bytes) -> Asked:
        """A request as a call. InterceptError, INVALID_ARGUMENT for what does not fit its route."""


class Enforcement(Protocol):
    """What stands behind this door: `pipeline.EnforcementPoint`."""

    def kind(self, method: str) -> str | None:
        """`unary` for a described unary method, `stream` for any other known one, None for unknown ones."""

    def relays(self, peer: Peer) -> bool:
        """Whether the peer's word on the workload behind it is believed."""

    def inquire(self, call: Call) -> MethodInquiry:
        """Ask about a call that goes another way."""


class AuthorizationHandler(grpc.GenericRpcHandler):
    """The one method of the service. `ended` is told of each call that has been answered."""

    def __init__(
        self, point: Enforcement, peers: PeerReader, *, limit: int, clock: Callable[[], float],
        routes: HttpRoutes | None = None, ended: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """`limit`: bytes of one message. `clock`: UTC, unix seconds. `routes`: without, HTTP requests are refused."""
        self._point, self._peers, self._limit, self._clock = point, peers, limit, clock
        self._routes, self._ended = routes, ended
        self._permits = Permits()
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._on_check)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """A handler for Check, and for nothing else."""
        if handler_call_details.method != CHECK:
            return None
        return self._handler

    async def _on_check(self, data: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        try:
            try:
                attributes = CheckRequest.FromString(data).attributes
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a CheckRequest")
            remaining = cast("float | None", context.time_remaining())  # None without a deadline; unknown to the stubs
            return await self.check(attributes, self._peers.of(context), remaining)
        finally:
            self._ended()

    async def check(self, attributes: AttributeContext, envoy: Peer, remaining: float | None) -> bytes:
        """Decide about one request: the CheckResponse, encoded. Raises only what is a fault of ours."""
        http = attributes.request.http
        headers = envoy_headers.read(http.header_map) if http.HasField("header_map") else _joined(http)
        peer = self._behind(attributes.source, envoy)
        if envoy_headers.is_grpc(headers):
            return await self._grpc(http, headers, peer, remaining)
        return await self._http(http, headers, peer, remaining)

    def _behind(self, source: AttributeContext.Peer, envoy: Peer) -> Peer:
        where = source.address.socket_address
        address = f"{where.address}:{where.port_value}"
        if not self._point.relays(envoy):
            return Peer(address=address)
        return envoy_headers.behind(source.certificate, source.principal, address, self._clock())

    # -- gRPC --------------------------------------------------------------------------------------------------------

    async def _grpc(
        self, http: AttributeContext.HttpRequest, headers: Headers, peer: Peer, remaining: float | None
    ) -> bytes:
        inquiry = self._inquiry(http.path, headers, peer, remaining)
        message: bytes | None = None
        try:
            if http.method != "POST":
                raise InterceptError("a gRPC request is a POST")
            if self._point.kind(http.path) == "unary":
                message = self._message(http, headers)
        except StageError as error:
            return _denied_grpc(await inquiry.decline(error))
        found = await _asked(inquiry, message)
        if isinstance(found, Final):
            return _denied_grpc(found)
        return self._permits.rendered(found, headers, inquiry.call.metadata)

    def _message(self, http: AttributeContext.HttpRequest, headers: Headers) -> bytes:
        """The one message of a unary call. StageError."""
        body = _whole_body(http, headers)
        if not body:
            raise EnforceError(
                "the request cannot be decided without its message", reason=ReasonCode.OBLIGATION_UNFULFILLABLE,
                operator=f"{http.path} came without its body. Set with_request_body {{max_request_bytes, pack_as_bytes: "
                "true}} in Envoy's ext_authz filter, and disable it only on the routes of streaming methods "
                "(`sidecar envoy-config` writes them).",
            )  # fmt: skip
        whole = only(body, self._limit)
        if whole is not None:
            return whole
        frames = Frames(self._limit, envoy_headers.first(headers, "grpc-encoding") or "identity")
        messages = frames.feed(body)
        frames.end()
        if len(messages) != 1:
            raise InterceptError(f"a unary call has one message, and this one has {len(messages)}")
        return messages[0]

    # -- HTTP --------------------------------------------------------------------------------------------------------

    async def _http(
        self, http: AttributeContext.HttpRequest, headers: Headers, peer: Peer, remaining: float | None
    ) -> bytes:
        # Of a request without route the record holds no path: it may hold the id of a data subject.
        method = f"/http/{http.method[:16]}"
        try:
            if self._routes is None:
                raise InterceptError("unknown route", code=Code.UNIMPLEMENTED)
            route, _ = self._routes.find(http.method, http.path.partition("?")[0])
            method = route.method
            body = _whole_body(http, headers)
            check_content(headers, body)
            asked = self._routes.match(http.method, http.path, body)
        except StageError as error:
            return _denied_http(await self._inquiry(method, headers, peer, remaining).decline(error))
        inquiry = self._inquiry(asked.method, headers, peer, remaining)
        found = await _asked(inquiry, asked.message)
        if isinstance(found, Final):
            return _denied_http(found)
        return self._permits.rendered(found, headers, inquiry.call.metadata)

    def _inquiry(self, method: str, headers: Headers, peer: Peer, remaining: float | None) -> MethodInquiry:
        return self._point.inquire(
            Call(
                method=method, metadata=envoy_headers.metadata(headers), peer=peer, door=EXT_AUTHZ,
                deadline=envoy_headers.deadline(headers, remaining),
            )
        )  # fmt: skip


async def _asked(inquiry: MethodInquiry, message: bytes | None) -> Permit | Final:
    """Decide, and record that nobody will say how it ended. The permit, or the refusal."""
    try:
        found = await inquiry.request(message)
        if isinstance(found, Final):
            return found
        if message is not None and found.forward != message:
            return await inquiry.decline(
                EnforceError(
                    "the request cannot be forwarded as it is",
                    reason=ReasonCode.OBLIGATION_UNFULFILLABLE,
                    operator=_CHANGED,
                )
            )
        ended = await inquiry.unobserved()
    except BaseException:
        await inquiry.gone(_GIVEN_UP)  # Envoy has gone, or this is a fault of ours: it forwards nothing
        raise
    return found if ended.code is Code.OK else ended


def _joined(http: AttributeContext.HttpRequest) -> Headers:
    """Headers as Envoy joins them without `encode_raw_headers`: repeated ones with commas, so that none is hidden."""
    return sorted((key.lower(), value) for key, value in http.headers.items())


def _whole_body(http: AttributeContext.HttpRequest, headers: Headers) -> bytes:
    """The body. EnforceError for a part of one."""
    if envoy_headers.first(headers, _PARTIAL) == "true":
        raise EnforceError(
            "the request is larger than what can be inspected", code=Code.RESOURCE_EXHAUSTED,
            reason=ReasonCode.OBLIGATION_UNFULFILLABLE,
            operator="Envoy sent a part of a body. Set allow_partial_message: false in its ext_authz filter.",
        )  # fmt: skip
    return http.raw_body


class _Begun(NamedTuple):
    """A permit without what a call brings, which is overwritten call after call, and the places of that."""

    answer: CheckResponse
    said: tuple[HeaderValue, ...]
    call_ids: tuple[HeaderValue, Value]
    revision: Value


class Permits:
    """Renders permits. What is the same for requests with the same headers to take away is made once. One event loop."""

    def __init__(self) -> None:
        self._made: dict[tuple[tuple[str, ...], tuple[str, ...]], _Begun] = {}

    def rendered(self, permit: Permit, headers: Headers, seen: Metadata) -> bytes:
        """The CheckResponse, encoded. `seen`: what of the headers the enforcement point has seen."""
        said = envoy_headers.added(permit.metadata)
        names = tuple([key for key, _ in said])
        withheld = tuple([one for one in envoy_headers.withheld(headers, seen) if one not in names])
        begun = self._made.get((names, withheld))
        if begun is None:
            begun = _begun(said, withheld)
            if len(self._made) >= _MOST_MADE:
                self._made.clear()
            if sum(map(len, withheld)) <= _MOST_NAMED:
                self._made[names, withheld] = begun
        for place, (_, value) in zip(begun.said, said, strict=True):
            place.value = envoy_headers.as_text(value)
        in_header, in_metadata = begun.call_ids
        in_header.value = in_metadata.string_value = permit.call_id
        begun.revision.string_value = permit.revision or ""
        return begun.answer.SerializeToString()


def _begun(said: Metadata, withheld: Iterable[str]) -> _Begun:
    answer = CheckResponse()
    answer.status.code = int(Code.OK)
    ok = answer.ok_response
    ok.headers.extend(envoy_headers.options(said, raw=False))
    ok.headers_to_remove.extend(withheld)
    ok.response_headers_to_add.extend(envoy_headers.options(((CALL_ID, ""),), raw=False))
    answer.dynamic_metadata.update({"call_id": "", "policy_revision": ""})
    found, call_id = answer.dynamic_metadata.fields, ok.response_headers_to_add[0].header
    said_at = tuple([one.header for one in ok.headers])
    return _Begun(answer, said_at, (call_id, found["call_id"]), found["policy_revision"])


def _denied_grpc(final: Final) -> bytes:
    """For a gRPC client: its status in the headers, where Envoy's own mapping of an HTTP status gives way to it."""
    answer = _refused(final)
    items = (*envoy_headers.status(final), *envoy_headers.call_id(final))
    answer.denied_response.headers.extend(envoy_headers.options(items, raw=False))
    return answer.SerializeToString()


def _denied_http(final: Final) -> bytes:
    answer = _refused(final)
    _, headers, body = problem(final)
    answer.denied_response.body = body.decode()
    answer.denied_response.headers.extend(envoy_headers.options((*headers, *envoy_headers.call_id(final)), raw=False))
    return answer.SerializeToString()


def _refused(final: Final) -> CheckResponse:
    answer = CheckResponse()
    answer.status.code, answer.status.message = int(final.code), final.message
    answer.denied_response.status.code = http_status(final.code)
    info = final.error_info
    if info is not None:
        answer.dynamic_metadata.update({
            "call_id": info.metadata.get("call_id", ""), "policy_revision": info.metadata.get("policy_revision", ""),
        })  # fmt: skip
    return answer
