"""Messages that are nearly right, at the handlers of every door; tokens that are nearly right, at identification.

The engine denies whatever it is asked, so any permit is a wrong one. A seed says all: the same one makes the same run.
"""

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import grpc
from identity_provider import BATCH
from pipeline_rig import SERVICE, Sink, deny, several
from token_attacks import honest

from campaigns.doors import QUESTION, certificates, pdp
from campaigns.guarded import ENVOY, METHOD, REQUEST, Current, Guarded
from sidecar.api.envoy.v3 import processing_pb2
from sidecar.api.envoy.v3.authorization_pb2 import CheckRequest, CheckResponse
from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.doors.authzen_http import HttpHead
from sidecar.doors.check import SERVICE as API
from sidecar.doors.check import DecisionApi
from sidecar.doors.envoy_authz import CHECK as ENVOY_CHECK
from sidecar.doors.envoy_authz import AuthorizationHandler
from sidecar.doors.envoy_process import PEER_ATTRIBUTE, PROCESS, ProcessingHandler
from sidecar.doors.grpc_frames import frame
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.call import Call, Peer
from sidecar.enforcement.declarations import CHECK, PROXY
from sidecar.errors import Code, IdentifyError

_TIMES_OUT = 20.0
_ODD = (
    b"\xff" * 9 + b"\x01",
    b"\x00",
    b"\x80",
    b"\x0b\x0b\x0b",
    b"\x7f\xff\xff\xff\x0f",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\n" * 40,
    b"NaN",
    b"[" * 64,
)


class Mutator:
    """Bytes from bytes."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def __call__(self, data: bytes, other: bytes = b"") -> bytes:
        """One to five changes; now and then nothing of the original is left."""
        if self.dice.random() < 0.03:
            return self.dice.randbytes(self.dice.randrange(200))
        found = bytearray(data)
        for _ in range(self.dice.choice((1, 1, 1, 2, 5))):
            self._change(found, other or data)
        return bytes(found)

    def _change(self, data: bytearray, other: bytes) -> None:
        at = self.dice.randrange(len(data) + 1)
        to = min(len(data), at + self.dice.randrange(1, 24))
        match self.dice.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << self.dice.randrange(8)
            case 1:
                del data[at:to]
            case 2:
                data[at:at] = data[at:to] * self.dice.randrange(1, 9)
            case 3:
                data[at:at] = self.dice.choice(_ODD)
            case 4:
                data[at:to] = self.dice.randbytes(to - at)
            case 5:
                begin = self.dice.randrange(len(other) + 1)
                data[at:to] = other[begin : begin + 24]
            case _:
                del data[at : len(data) if self.dice.random() < 0.3 else at + 1]


@dataclass(slots=True)
class Fuzzed:
    """`wrong`: what must never be, with the seed and number that repeat it."""

    seed: int
    tried: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        each = ", ".join(f"{count} {door}" for door, count in self.tried.items())
        return f"seed {self.seed}: {self.tried.total()} messages ({each}), {len(self.wrong)} crashes or wrong permits; {dict(self.ended)}"


class Handlers:
    """What is fed, by door: a coroutine function of bytes that gives the status the caller would see."""

    def __init__(self, world: Guarded) -> None:
        self.world = world
        world.rig.engine.rule = lambda _request: deny("not_us_personnel")
        self._bearer = (("authorization", f"Bearer {honest()}"),)
        self._api = DecisionApi(
            world.point, world.entities, Waiting(lambda: 1.0, 300.0, 100), lambda: world.rig.now, world.log
        )
        self._pdp, self._shown = pdp(world), certificates(world)[BATCH]
        envoy = Current(world, ENVOY)
        authz = AuthorizationHandler(world.point, envoy, limit=1 << 20, clock=lambda: 0.0)
        process = ProcessingHandler(world.point, envoy, world.log, limit=1 << 20, clock=lambda: 0.0)
        self._authz = authz.service(SimpleNamespace(method=ENVOY_CHECK)).unary_unary
        self._process = process.service(SimpleNamespace(method=PROCESS)).stream_stream

    def corpus(self) -> dict[str, tuple[Callable[[bytes], Awaitable[str]], list[bytes]]]:
        """Each door with what is right."""
        call, entity = (
            pb.MethodCall(method=METHOD, message=REQUEST),
            pb.Entity(type="profile", action="read", ids=["1", "2"]),
        )
        asked = [pb.Question(call=call), pb.Question(entity=entity), pb.Question(call=call, answers=2)]
        checks = [
            pb.CheckRequest(question=one, subject=pb.Subject(token=honest())).SerializeToString() for one in asked
        ]
        batch = [
            pb.BatchCheckRequest(
                items=[pb.BatchItem(id=str(n), question=one) for n, one in enumerate(asked)]
            ).SerializeToString()
        ]
        listed = profiles_pb2.ListProfilesRequest(page_size=3, page_token="x").SerializeToString()
        reports = [pb.ReportOutcomeRequest(outcomes=[pb.Outcome(call_id="call-1", code=0)]).SerializeToString()]
        return {
            "proxy unary": (self._unary, [REQUEST, listed]), "proxy stream": (self._stream, [REQUEST]),
            "Check": (self._check("Check"), checks), "BatchCheck": (self._check("BatchCheck"), batch),
            "ReportOutcome": (self._check("ReportOutcome"), reports), "ext_authz": (self._ext_authz, [_authz_request(self._shown)]),
            "ext_proc": (self._ext_proc, _process_requests(self._shown)), "AuthZEN": (self._authzen, [json.dumps(QUESTION).encode(), _batch()]),
        }  # fmt: skip

    def _call(self, method: str, door: object = PROXY) -> Call:
        peer = Peer(identities=(BATCH,))
        return Call(method=method, metadata=self._bearer if door is PROXY else (), peer=peer, door=door, deadline=None)

    async def _unary(self, data: bytes) -> str:
        return (await self.world.point.unary(self._call(METHOD), data)).final.code.name

    async def _stream(self, data: bytes) -> str:
        method = f"/{SERVICE}/ListMessages"
        return (await self.world.point.stream(self._call(method), several(data, data), Sink())).code.name

    def _check(self, name: str) -> Callable[[bytes], Awaitable[str]]:
        async def feed(data: bytes) -> str:
            reply = await self._api.unary(self._call(f"/{API}/{name}", CHECK), data)
            if reply.final.code is not Code.OK or name == "ReportOutcome":
                return "told" if reply.final.code is Code.OK else reply.final.code.name
            if name == "Check":
                return _decided([pb.CheckResponse.FromString(reply.message)])
            return _decided([one.response for one in pb.BatchCheckResponse.FromString(reply.message).results])

        return feed

    async def _authzen(self, data: bytes) -> str:
        path = "/access/v1/evaluations" if b"evaluations" in data else "/access/v1/evaluation"
        given = (("host", "pdp.example"), ("content-type", "application/json"), *self._bearer)
        head = HttpHead(method="POST", path=path, headers=given, peer=Peer(identities=(BATCH,)))
        found = await self._pdp.answer(head, data)
        return "OK" if b'"decision":true' in found.body.replace(b" ", b"") else str(found.status)

    async def _ext_authz(self, data: bytes) -> str:
        try:
            found = CheckResponse.FromString(await self._authz(data, _Context()))
        except grpc.aio.AbortError as error:
            return str(error)
        return Code(found.status.code).name

    async def _ext_proc(self, data: bytes) -> str:
        first, *_ = _process_requests(self._shown)
        pieces = [data] if PEER_ATTRIBUTE.encode() in data else [first, data]
        context = _Context(*pieces)
        try:
            await self._process(None, context)
        except grpc.aio.AbortError as error:
            return str(error)
        except asyncio.CancelledError:
            return "CANCELLED"
        said = [processing_pb2.ProcessingResponse.FromString(one) for one in context.written]
        if any(one.WhichOneof("response") in ("request_body", "response_body") for one in said):
            return "OK"
        return "refused"


class _Context:
    """A call of ours, as grpc.aio would hand it over."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces, self.written = list(pieces), list[bytes]()

    def time_remaining(self) -> None:
        return None

    async def read(self) -> object:
        return self._pieces.pop(0) if self._pieces else grpc.aio.EOF

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        raise grpc.aio.AbortError(code.name)


def _decided(found: list[pb.CheckResponse]) -> str:
    return "OK" if any(one.decision == pb.DECISION_PERMIT for one in found) else "denied"


def _batch() -> bytes:
    return json.dumps({**QUESTION, "evaluations": [{"resource": {"type": "profile", "id": "2"}}, {}]}).encode()


def _authz_request(certificate: str) -> bytes:
    asked = CheckRequest()
    asked.attributes.source.certificate = certificate
    http = asked.attributes.request.http
    http.method, http.path, http.raw_body = "POST", METHOD, frame(REQUEST)
    asked.attributes.source.principal = BATCH
    for key, value in (("content-type", "application/grpc"), ("authorization", f"Bearer {honest()}"), ("x-a", "1")):
        http.header_map.headers.add(key=key, raw_value=value.encode())
    return asked.SerializeToString()


def _process_requests(certificate: str) -> list[bytes]:
    first, body = processing_pb2.ProcessingRequest(), processing_pb2.ProcessingRequest()
    first.attributes["envoy.filters.http.ext_proc"].update({PEER_ATTRIBUTE: certificate})
    config = first.protocol_config
    config.request_body_mode = config.response_body_mode = processing_pb2.FULL_DUPLEX_STREAMED
    for key, value in ((":method", "POST"), (":path", METHOD), ("content-type", "application/grpc"),
                       ("authorization", f"Bearer {honest()}")):  # fmt: skip
        first.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    body.request_body.body, body.request_body.end_of_stream = frame(REQUEST), True
    return [first.SerializeToString(), body.SerializeToString()]


async def messages(world: Guarded, *, seed: int, number: int = 10**9, seconds: float = 1e9) -> Fuzzed:
    """Mutate and feed, until the number or the time is reached."""
    found, mutate, until = Fuzzed(seed), Mutator(seed), time.monotonic() + seconds
    corpus = Handlers(world).corpus()
    every = [one for _, known in corpus.values() for one in known]
    for at in range(number):
        if time.monotonic() > until:
            break
        door = mutate.dice.choice(list(corpus))
        feed, known = corpus[door]
        data = mutate(mutate.dice.choice(known), mutate.dice.choice(every))
        world.rig.records.log.clear()
        world.rig.engine.documents.clear()
        found.tried[door] += 1
        try:
            said = await asyncio.wait_for(feed(data), _TIMES_OUT)
        except Exception as error:  # noqa: BLE001 - whatever it is, it should not have come out
            found.wrong.append(f"{door} {at}: {error!r} at {data.hex()}")
            continue
        found.ended[said] += 1
        failed = [line for line in world.log.lines if line[1].get("failure", "InterceptError") != "InterceptError"]
        world.log.lines.clear()
        records = world.rig.records
        open_calls = {one.call_id for one in records.decisions} - {one.call_id for one in records.outcomes}
        if said == "OK" or failed or open_calls or world.rig.upstream.seen:
            found.wrong.append(f"{door} {at}: {said}, {failed}, open {open_calls} at {data.hex()}")
            world.rig.upstream.seen.clear()
    return found


def tokens(world: Guarded, *, seed: int, number: int = 10**9, seconds: float = 1e9) -> Fuzzed:
    """Mutated tokens: bytes of the whole, and of a part behind its base64url."""
    found, mutate, until = Fuzzed(seed), Mutator(seed), time.monotonic() + seconds
    good = honest()
    parts = good.split(".")
    for at in range(number):
        if time.monotonic() > until:
            break
        kind = mutate.dice.choice(("whole", "header", "payload", "signature"))
        if kind == "whole":
            token = mutate(good.encode()).decode("latin-1")
        else:
            place = ("header", "payload", "signature").index(kind)
            changed = list(parts)
            inner = base64.urlsafe_b64decode(parts[place] + "==")
            changed[place] = base64.urlsafe_b64encode(mutate(inner)).rstrip(b"=").decode()
            token = ".".join(changed)
        if token == good:
            continue
        found.tried[kind] += 1
        try:
            world.desk.ask(token, peer=(BATCH,))
            found.wrong.append(f"{kind} {at}: accepted {token}")
        except IdentifyError as error:
            found.ended[error.code.name] += 1
        except Exception as error:  # noqa: BLE001 - as above
            found.wrong.append(f"{kind} {at}: {error!r} at {token!r}")
    return found
