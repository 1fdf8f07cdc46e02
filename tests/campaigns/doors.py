"""Every door that takes tokens, before one `Guarded` world, with a caller that sends any header.

Each is a context manager that gives `ask(attack)`: the status that the caller was told, in gRPC's words; `CUT` where the
transport itself would not carry the request.
"""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

import grpc
from authzen_parts import http
from identity_provider import BATCH, WEB
from pipeline_rig import US, describer, profile
from proxy_parts import Authority, frame, headers, message, until
from token_attacks import Attack

from campaigns.guarded import ENVOY, METHOD, REQUEST, Current, Guarded
from sidecar.api.envoy.v3 import processing_pb2
from sidecar.api.envoy.v3.authorization_pb2 import CheckRequest, CheckResponse
from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.attributes.entities import Route
from sidecar.attributes.routes import Routes
from sidecar.doors import asgi
from sidecar.doors.authzen import AuthZen, Parts
from sidecar.doors.authzen_evaluation import Evaluator
from sidecar.doors.authzen_outcome import Outcomes
from sidecar.doors.authzen_search import Searches
from sidecar.doors.check import SERVICE as API
from sidecar.doors.check import DecisionApi
from sidecar.doors.envoy_authz import CHECK as ENVOY_CHECK
from sidecar.doors.envoy_authz import AuthorizationHandler
from sidecar.doors.envoy_process import PEER_ATTRIBUTE, PROCESS, ProcessingHandler
from sidecar.doors.grpc_frames import frame as grpc_frame
from sidecar.doors.hosted import HostedDoor
from sidecar.doors.https import HttpsListener
from sidecar.doors.interceptor import AioInterceptor
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.declarations import CHECK, PROXY
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.transport import Limits
from sidecar.errors import Code

CUT = "cut"
SECONDS = 20.0
_HTTP = {200: "OK", 401: "UNAUTHENTICATED", 400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 431: CUT}
Ask = Callable[[Attack], Awaitable[str]]


def _pairs(attack: Attack) -> list[tuple[str, str]]:
    return [(attack.name, value) for value in attack.values]


def _raw(attack: Attack) -> list[tuple[bytes, bytes]]:
    """What a transport that looks at nothing would hand on."""
    return [(key.encode(), value.encode("utf-8", "surrogatepass")) for key, value in _pairs(attack)]


# -- gRPC over the wire ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(*handlers: grpc.GenericRpcHandler, interceptors: tuple[object, ...] = ()) -> AsyncIterator[str]:
    """A server with the limits that the sidecar's own have; its address."""
    options = (*Limits().server_options(share_port=False), ("grpc.server_handshake_timeout_ms", 2000))
    server = grpc.aio.server(handlers=handlers, interceptors=interceptors, options=options)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Ask]:
    """Calls the guarded method: by an ordinary client what one would send, frame by frame what none would."""
    options = [("grpc.max_metadata_size", 1 << 22), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call = channel.unary_unary(METHOD)

        async def ask(attack: Attack) -> str:
            if not attack.plain and all(len(one) < 12_000 for one in attack.values):
                return await by_frames(address, attack)
            try:
                await call(REQUEST, metadata=_pairs(attack), timeout=SECONDS)
            except grpc.aio.AioRpcError as error:
                return CUT if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else error.code().name
            except (grpc.aio.UsageError, grpc._cython.cygrpc.ExecuteBatchError, UnicodeError):
                return CUT
            return "OK"

        yield ask


async def by_frames(address: str, attack: Attack) -> str:
    """One call by hand. What it was told is not read (that takes HPACK): the records say what became of it."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        first = headers(1, METHOD.encode(), _raw(attack))
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + first + message(1, REQUEST))
        async with asyncio.timeout(SECONDS):
            while True:
                head = await reader.readexactly(9)
                kind, flags, stream = head[3], head[4], struct.unpack(">I", head[5:])[0]
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if kind == 7 or (stream == 1 and (kind == 3 or (kind in (0, 1) and flags & 1))):
                    return CUT
    except (OSError, EOFError):
        return CUT
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def proxy(world: Guarded) -> AsyncIterator[Ask]:
    """The proxy, over TCP."""
    async with serving(ProxyHandler(world.point, PROXY, Current(world), world.log)) as at, calling(at) as ask:
        yield ask


@asynccontextmanager
async def in_process(world: Guarded) -> AsyncIterator[Ask]:
    """The interceptor in a server of the service's own, over TCP."""

    async def handle(request: bytes, _context: object) -> bytes:
        world.rig.upstream.seen.append((request, (), None))
        return profile(US)

    class Service(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> object:
            return grpc.unary_unary_rpc_method_handler(handle)

    with ThreadPoolExecutor(1) as threads:
        guard = AioInterceptor(world.point, Current(world), world.log, threads)
        async with serving(Service(), interceptors=(guard,)) as at, calling(at) as ask:
            yield ask


@asynccontextmanager
async def check(world: Guarded) -> AsyncIterator[Ask]:
    """The decision API, over TCP: a token is a field of the message; headers are sent as metadata."""
    waiting = Waiting(lambda: 1000.0, 300.0, 10_000)
    api = DecisionApi(world.point, world.entities, waiting, lambda: world.rig.now, world.log)
    handler = ProxyHandler(api, CHECK, Current(world), world.log)
    question = pb.Question(call=pb.MethodCall(method=METHOD, message=REQUEST))
    async with serving(handler) as at, grpc.aio.insecure_channel(at) as channel:
        call = channel.unary_unary(f"/{API}/Check")

        async def ask(attack: Attack) -> str:
            request = pb.CheckRequest(question=question)
            if attack.token:
                try:
                    request.subject.token = attack.token
                except ValueError:
                    return CUT  # a lone surrogate stands in no protobuf string
            elif not attack.plain:
                return CUT  # as metadata: what the proxy is asked over the same transport
            metadata = () if attack.token else _pairs(attack)
            try:
                found = pb.CheckResponse.FromString(await call(request.SerializeToString(), metadata=metadata))
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK" if found.decision == pb.DECISION_PERMIT else Code(found.code).name

        yield ask


# -- HTTP ------------------------------------------------------------------------------------------------------------


QUESTION = {
    "subject": {"type": "user", "id": "p1"}, "action": {"name": "read"}, "resource": {"type": "profile", "id": str(US)},
}  # fmt: skip


def pdp(world: Guarded) -> AuthZen:
    """AuthZEN's application."""
    waiting = Waiting(lambda: 1000.0, 300.0, 10_000)
    evaluator = Evaluator(world.point, world.entities, waiting, lambda: world.rig.now, lambda _denied: {})
    searches, outcomes = Searches(world.point, world.entities, world.desk.people), Outcomes(world.point, waiting)
    return AuthZen(
        Parts(evaluator=evaluator, searches=searches, outcomes=outcomes, requests=None, asserts=lambda _peer: False)
    )


@asynccontextmanager
async def authzen(world: Guarded) -> AsyncIterator[Ask]:
    """AuthZEN's HTTP listener, over TCP; about the person whose the token was."""
    app = pdp(world)
    listen = Listen(address="127.0.0.1:0", plaintext=True)
    listener = HttpsListener(listen, app, Limits(), world.log, lambda: world.rig.now)
    listener._terms.peers = Current(world)
    await listener.start()

    async def ask(attack: Attack) -> str:
        host, _, port = listener.address.rpartition(":")
        before = world.mark()
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            plain = http("/access/v1/evaluation", QUESTION, "X-Attack: 1", "Connection: close")
            extra = b"".join(key + b": " + value + b"\r\n" for key, value in _raw(attack))
            writer.write(plain.replace(b"X-Attack: 1\r\n", extra))
            async with asyncio.timeout(SECONDS):
                found = await reader.read()
        except OSError:
            return CUT
        finally:
            writer.close()
        head, _, body = found.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1]) if head.startswith(b"HTTP/1.1 ") else 431
        if status == 200:
            return "OK" if json.loads(body)["decision"] else "PERMISSION_DENIED"
        return CUT if status == 400 and world.mark() == before else _HTTP.get(status, str(status))

    try:
        yield ask
    finally:
        await listener.stop(0.1)


@asynccontextmanager
async def middleware(world: Guarded) -> AsyncIterator[Ask]:
    """The ASGI middleware, with the headers that a server would hand over."""

    async def app(_scope: object, receive: asgi.Receive, send: asgi.Send) -> None:
        await receive()
        world.rig.upstream.seen.append((b"", (), None))
        body = json.dumps({"user_id": US, "handle": "h"}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    routes = Routes([Route(http="GET /v1/profiles/{user_id}", rpc=METHOD.removeprefix("/"))], describer(), "r.yaml")
    door = asgi.Guarded(app, world.point, routes, Current(world), world.log)

    async def ask(attack: Attack) -> str:
        sent: list[dict[str, object]] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(event: dict[str, object]) -> None:
            sent.append(event)

        path = f"/v1/profiles/{US}"
        scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
                 "headers": _raw(attack), "client": ("127.0.0.1", 1), "extensions": {}}  # fmt: skip
        await door(scope, receive, send)
        return _HTTP.get(sent[0]["status"], str(sent[0]["status"]))

    yield ask


@asynccontextmanager
async def hosted(world: Guarded) -> AsyncIterator[Ask]:
    """The door inside Envoy, with the headers that Envoy would hand over."""
    peers = Current(world)
    door = HostedDoor(world.point, PROXY, peers, world.rig.upstream, Limits(), world.log)

    async def ask(attack: Attack) -> str:
        sent: list[dict[str, object]] = []
        pieces = [{"type": "http.request", "body": grpc_frame(REQUEST), "more_body": False}]

        def receive() -> asyncio.Future[dict[str, object]]:
            future: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
            future.set_result(pieces.pop() if pieces else {"type": "http.request", "body": b"", "more_body": False})
            return future

        async def send(event: dict[str, object]) -> None:
            sent.append(event)

        given = [(b"content-type", b"application/grpc"), (b"te", b"trailers"), *_raw(attack)]
        scope = {"type": "http", "method": "POST", "path": METHOD, "raw_path": METHOD.encode(), "query_string": b"",
                 "headers": given, "client": ("192.0.2.1", 7)}  # fmt: skip
        await door(scope, receive, send)
        last = dict(next(one for one in reversed(sent) if "headers" in one)["headers"])
        code = Code(int(last[b"grpc-status"]))
        return CUT if code is Code.RESOURCE_EXHAUSTED else code.name

    yield ask


# -- asked by Envoy ----------------------------------------------------------------------------------------------------


def certificates(world: Guarded) -> dict[str, str]:
    """Certificates of the callers behind an Envoy, as it shows them."""
    authority = Authority(world.folder, "callers")
    return {
        name: quote(authority.issue(f"caller{at}", uris=[name])[0].read_text()) for at, name in enumerate((BATCH, WEB))
    }


@asynccontextmanager
async def ext_authz(world: Guarded) -> AsyncIterator[Ask]:
    """The authorization service, over TCP, asked by an Envoy whose word counts."""
    shown = certificates(world)
    handler = AuthorizationHandler(world.point, Current(world, ENVOY), limit=4 << 20, clock=lambda: 0.0)
    async with serving(handler) as at, grpc.aio.insecure_channel(at) as channel:
        call = channel.unary_unary(ENVOY_CHECK)

        async def ask(attack: Attack) -> str:
            asked = CheckRequest()
            request, source = asked.attributes.request.http, asked.attributes.source
            request.method, request.path, request.raw_body = "POST", METHOD, grpc_frame(REQUEST)
            source.principal, source.certificate = world.peer, shown[world.peer]
            for key, value in ((b"content-type", b"application/grpc"), *_raw(attack)):
                request.header_map.headers.add(key=key.decode(), raw_value=value)
            try:
                found = CheckResponse.FromString(await call(asked.SerializeToString(), timeout=SECONDS))
            except grpc.aio.AioRpcError as error:
                return error.code().name
            assert (found.status.code == 0) == (found.WhichOneof("http_response") == "ok_response")
            return Code(found.status.code).name

        yield ask


@asynccontextmanager
async def ext_proc(world: Guarded) -> AsyncIterator[Ask]:
    """The processing service, over TCP, as Envoy begins a call."""
    shown = certificates(world)
    handler = ProcessingHandler(world.point, Current(world, ENVOY), world.log, limit=4 << 20, clock=lambda: 0.0)
    async with serving(handler) as at, grpc.aio.insecure_channel(at) as channel:
        call = channel.stream_stream(PROCESS)

        async def ask(attack: Attack) -> str:
            first = processing_pb2.ProcessingRequest()
            first.protocol_config.request_body_mode = processing_pb2.FULL_DUPLEX_STREAMED
            first.protocol_config.response_body_mode = processing_pb2.FULL_DUPLEX_STREAMED
            first.attributes["envoy.filters.http.ext_proc"].update({PEER_ATTRIBUTE: shown[world.peer]})
            given = [
                (b":method", b"POST"),
                (b":path", METHOD.encode()),
                (b"content-type", b"application/grpc"),
                *_raw(attack),
            ]
            for key, value in given:
                first.request_headers.headers.headers.add(key=key.decode(), raw_value=value)
            body = processing_pb2.ProcessingRequest()
            body.request_body.body, body.request_body.end_of_stream = grpc_frame(REQUEST), True
            ended, conversation = len(world.rig.records.outcomes), call(timeout=SECONDS)
            try:
                for one in (first, body):
                    await conversation.write(one.SerializeToString())
                while (data := await conversation.read()) is not grpc.aio.EOF:
                    found = processing_pb2.ProcessingResponse.FromString(data)
                    if found.WhichOneof("response") == "immediate_response":
                        return Code(found.immediate_response.grpc_status.status).name
                    if found.WhichOneof("response") == "request_body":
                        world.rig.upstream.seen.append((b"", (), None))
                        conversation.cancel()
                        await until(lambda: len(world.rig.records.outcomes) > ended, SECONDS)
                        return "OK"
            except grpc.aio.AioRpcError as error:
                return error.code().name
            finally:
                conversation.cancel()
            return CUT

        yield ask


DOORS = {
    "proxy": proxy, "in-process": in_process, "ASGI": middleware, "hosted": hosted, "Check": check, "AuthZEN": authzen,
    "ext_authz": ext_authz, "ext_proc": ext_proc,
}  # fmt: skip
