"""The demo's client, for doors that gRPC calls do not pass through: scenes are played with it unchanged.

`DecisionCaller` and `AuthZenCaller` enforce by themselves: they ask, call the service, hand on what may be released, and
report. `HttpCaller` sends the request that a route stands for. What a door has no words for is an `InexpressibleError`.
"""

import asyncio
import base64
import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import grpc
from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sidecar.attributes.peers import read_certificate
from sidecar.client import OBLIGATIONS, Context, DecisionClient, Denied, DeniedError, MethodCall, Tls, Token
from sidecar.demo.client import CALL_ID, Client, Got, Sent
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE, Profiles
from sidecar.demo.world import World

ANSWERS = {"GetProfile": pb.Profile, "ListProfiles": pb.ListProfilesResponse, "ListMessages": pb.Message}
RESOURCES = f"""
types:
  profile: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.Profile, subject: person, actions: {{can_view: read}}}}
routes:
  - {{http: "GET /v1/profiles/{{user_id}}", rpc: {SERVICE}/GetProfile}}
  - {{http: "GET /v1/profiles", rpc: {SERVICE}/ListProfiles}}
"""
DUTIES = ["redact_fields", "mask_fields", "drop_records", "limit_records"]
_LONG = 60.0
_REFUSED = re.compile(r".*\(call ([0-9a-f-]+)\)")


class InexpressibleError(Exception):
    """The door has no words for this."""


class RefusedError(grpc.RpcError):
    """What a call is told, in the form in which grpc tells it; also a stream that ends with it at once."""

    def __init__(self, got: Got) -> None:
        super().__init__(got.status)
        self._got = got

    def __next__(self) -> Message:
        raise self

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self._got.status]

    def initial_metadata(self) -> tuple[()]:
        return ()

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=self._got.reason))
        details = status_pb2.Status(details=[detail]).SerializeToString()
        return ((CALL_ID, self._got.call_id), ("grpc-status-details-bin", details))


class Caller:
    """What the doors have in common: calls of the demo's stub, and one raw call of a method that nobody described."""

    @property
    def channel(self) -> SimpleNamespace:
        """As much of a channel as a scene uses."""

        def unary_unary(path: str) -> Callable[..., bytes]:
            def invoke(message: bytes, *, metadata: Sent, timeout: float) -> bytes:
                got = self.raw(path, message, dict(metadata))
                if got.status != "OK":
                    raise RefusedError(got)
                return b""

            return invoke

        return SimpleNamespace(unary_unary=unary_unary)

    def call(self, method: str, request: Message | Iterable[Message], metadata: Sent = ()) -> Got:
        """As `sidecar.demo.client.Client.call`."""
        said = dict(metadata)
        return self.asked(method, request, said) if isinstance(request, Message) else self.opened(method, said)

    @contextmanager
    def open(self, method: str, requests: Iterable[Message], metadata: Sent) -> Iterator[RefusedError]:
        """As `sidecar.demo.client.Client.open`, of a stream that does not open."""
        yield RefusedError(self.opened(method, dict(metadata)))

    def opened(self, method: str, said: dict[str, str]) -> Got:
        """How the opening of a stream of requests is refused."""
        raise InexpressibleError("requests that come one by one")

    def asked(self, method: str, request: Message, said: dict[str, str]) -> Got:
        raise NotImplementedError

    def raw(self, path: str, message: bytes, said: dict[str, str]) -> Got:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is kept open."""


def service(world: World) -> Client:
    """The guarded service, as whoever enforces by itself reaches it."""
    return Client(f"localhost:{world.ports['upstream']}", world.ca.read_bytes(), world.certificates["to-upstream"])


class DecisionCaller(Caller):
    """Asks the decision API, has every answer checked, and reports."""

    def __init__(self, world: World, certificate: str, port: int) -> None:
        pair = world.certificates[certificate]
        self._client = DecisionClient(
            f"localhost:{port}", Tls(ca=world.ca, cert=pair.cert, key=pair.key), deadline=_LONG
        )
        self._service = service(world)

    def asked(self, method: str, request: Message, said: dict[str, str]) -> Got:
        question = MethodCall(f"/{SERVICE}/{method}", request.SerializeToString(), checked=True)
        try:
            with self._client.guard(question, **_claims(said), meets=OBLIGATIONS) as course:
                answer = self._service.call(method, request)
                assert answer.status == "OK", answer
                shown = [course.release(one.SerializeToString()) for one in answer.messages]
        except DeniedError as error:
            return _denied(error.denied)
        messages = [ANSWERS[method].FromString(one) for one in shown if one is not None]
        return Got("OK", call_id=course.call_id, messages=messages)

    def opened(self, method: str, said: dict[str, str]) -> Got:
        question = MethodCall(f"/{SERVICE}/{method}", None, checked=True)
        found = self._client.check(question, **_claims(said), meets=OBLIGATIONS)
        assert isinstance(found, Denied), "every stream's permit asks for rechecks, which are not the caller's to do"
        return _denied(found)

    def raw(self, path: str, message: bytes, said: dict[str, str]) -> Got:
        found = self._client.check(MethodCall(path, message), **_claims(said), meets=OBLIGATIONS)
        return _denied(found) if isinstance(found, Denied) else Got("OK", call_id=found.call_id)

    def close(self) -> None:
        self._client.close()
        self._service.close()


def _claims(said: dict[str, str]) -> dict[str, object]:
    token = said.get("authorization", "").removeprefix("Bearer ")
    claimed = {key: said.get(f"x-customhouse-{key}", "") for key in ("purpose", "ticket", "exception")}
    return {"subject": Token(token) if token else None, "context": Context(**claimed)}


def _denied(denied: Denied) -> Got:
    status = next(one.name for one in grpc.StatusCode if one.value[0] == denied.code)
    return Got(status, denied.reasons[0] if denied.reasons else denied.message, denied.call_id)


class AuthZenCaller(Caller):
    """Asks for an evaluation, and reports what came of a permit. Sees nothing of the service."""

    def __init__(self, world: World, certificate: str, port: int) -> None:
        pair = world.certificates[certificate]
        self._context = ssl.create_default_context(cafile=str(world.ca))
        self._context.load_cert_chain(pair.cert, pair.key)
        (self._workload,) = read_certificate(pair.cert.read_bytes()).identities
        self._port = port

    def asked(self, method: str, request: Message, said: dict[str, str]) -> Got:
        if not isinstance(request, pb.GetProfileRequest):
            raise InexpressibleError("an evaluation names one resource")
        resource = {"type": "profile", "id": str(request.user_id)}
        if request.country:
            resource["properties"] = {"country": request.country}
        return self._evaluated("can_view", resource, said)

    def raw(self, path: str, message: bytes, said: dict[str, str]) -> Got:
        return self._evaluated("read", {"type": path.rpartition("/")[2], "id": "1"}, said)

    def _evaluated(self, action: str, resource: dict[str, object], said: dict[str, str]) -> Got:
        claims = {key.removeprefix("x-customhouse-"): value for key, value in said.items() if key.startswith("x-c")}
        asked = {
            "subject": self._subject(said.get("authorization", "")), "action": {"name": action}, "resource": resource,
            "context": {**claims, "obligations": DUTIES},
        }  # fmt: skip
        token = {key: value for key, value in said.items() if key == "authorization"}
        status, found = self._posted("evaluation", asked, token)
        if status != 200:
            named = _REFUSED.fullmatch(str(found).strip())
            assert named is not None and status == 401, f"{status} {found}"
            return Got("UNAUTHENTICATED", call_id=named[1])
        context = found["context"]
        if not found["decision"]:
            return Got("PERMISSION_DENIED", context["reason"], context["id"])
        met = dict.fromkeys((one["id"] for one in context.get("obligations", ())), True)
        report = {"call_id": context["id"], "status": "OK", "messages": {"in": 1, "out": 1}, "met": met}
        assert self._posted("outcome", report, {})[0] == 200
        return Got("OK", call_id=context["id"])

    def _subject(self, bearer: str) -> dict[str, str]:
        if not bearer:
            return {"type": "workload", "id": self._workload}
        payload = bearer.split(".")[1]
        return {"type": "user", "id": json.loads(base64.urlsafe_b64decode(payload + "=="))["sub"]}

    def _posted(self, what: str, document: dict[str, object], headers: dict[str, str]) -> tuple[int, object]:
        link = http.client.HTTPSConnection("localhost", self._port, context=self._context, timeout=_LONG)
        try:
            link.request("POST", f"/access/v1/{what}", json.dumps(document),
                         {"Content-Type": "application/json", **headers})  # fmt: skip
            answer = link.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if "json" in answer.headers["Content-Type"] else data.decode()
        finally:
            link.close()


class HttpCaller(Caller):
    """Sends requests to a guarded ASGI application on its own loop, with the certificate a server would have verified."""

    def __init__(self, world: World, certificate: str, app: Callable, loop: asyncio.AbstractEventLoop) -> None:
        self._app, self._loop = app, loop
        self._chain = [world.certificates[certificate].cert.read_text()]

    def asked(self, method: str, request: Message, said: dict[str, str]) -> Got:
        if method not in ("GetProfile", "ListProfiles"):
            raise InexpressibleError("a route is one request and one answer")
        fields = json_format.MessageToDict(request, preserving_proto_field_name=True)
        number = fields.pop("user_id", "")
        target = f"/v1/profiles/{number}" if number else "/v1/profiles"
        return self._got(target, urlencode(fields), ANSWERS[method], said)

    def raw(self, path: str, message: bytes, said: dict[str, str]) -> Got:
        return self._got(f"/v1/{path.rpartition('/')[2]}", "", pb.Profile, said)

    def _got(self, path: str, query: str, kind: type[Message], said: dict[str, str]) -> Got:
        sent = asyncio.run_coroutine_threadsafe(self._exchange(path, query, said), self._loop).result(_LONG)
        start, body = sent[0], json.loads(b"".join(one.get("body", b"") for one in sent[1:]))
        headers = {key.decode(): value.decode() for key, value in start["headers"]}
        call_id = headers.get(CALL_ID, "")
        if start["status"] != 200:
            assert headers["content-type"] == "application/problem+json", body
            return Got(body["code"], (body.get("reasons") or [""])[0], call_id or body.get("call_id", ""))
        return Got("OK", call_id=call_id, messages=[json_format.ParseDict(body, kind())])

    async def _exchange(self, path: str, query: str, said: dict[str, str]) -> list[dict]:
        events, sent = [{"type": "http.request", "body": b"", "more_body": False}], []

        async def receive() -> dict:
            return events.pop() if events else {"type": "http.disconnect"}

        async def send(event: dict) -> None:
            sent.append(event)

        headers = [(key.encode(), value.encode()) for key, value in said.items()]
        await self._app({
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": headers, "client": ("127.0.0.1", 1),
            "extensions": {"tls": {"client_cert_chain": self._chain}},
        }, receive, send)  # fmt: skip
        return sent


class JsonProfiles:
    """The demo's service as an ordinary ASGI application."""

    def __init__(self, database: Path) -> None:
        self._plain = Profiles(database)

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        name = scope["path"].rpartition("/")[2]
        if name.isdigit():
            found = self._plain.GetProfile(pb.GetProfileRequest(user_id=int(name)), None)
        else:
            asked = dict(one.split("=") for one in scope["query_string"].decode().split("&") if one)
            found = self._plain.ListProfiles(json_format.ParseDict(asked, pb.ListProfilesRequest()), None)
        body = json.dumps(json_format.MessageToDict(found, preserving_proto_field_name=True)).encode()
        kind = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        await send({"type": "http.response.body", "body": body})
