"""The decision API in memory, on the enforcement point of `pipeline_rig`; and a deployment that has its door."""

from contextlib import asynccontextmanager

import grpc
from pipeline_rig import SERVICE, US, Rig, Sink, describer, get, several

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.attributes import entities
from sidecar.doors.check import SERVICE as API
from sidecar.doors.check import DecisionApi
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.call import Call, Peer
from sidecar.enforcement.declarations import CHECK
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.enforcement.peer import NamedPeer
from sidecar.errors import Code

CONSOLE, OTHER = "spiffe://t/console", "spiffe://t/other"
METHOD = f"/{SERVICE}/GetProfile"
RESOURCES = f"""
types:
  profile:
    service: {SERVICE}
    message: sidecar.demo.profiles.v1.Profile
    subject: user_id
    actions: {{can_view: read}}
  banner: {{service: {SERVICE}, personal: false, subject: none}}
"""
USER = "user_id"
TYPES = entities.Entities(
    entities.parse(
        f"""
types:
  profile: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.Profile, subject: person}}
  ticket: {{service: desk.Tickets, categories: [id_contact], subject: person}}
  banner: {{service: desk.Tickets, personal: false, subject: none}}
""",
        "r.yaml",
    ),
    describer(),
)
"""Entity types for questions that no door has read."""


class Log:
    """Remembers what the operator is told."""

    def __init__(self):
        self.lines = []

    def error(self, event, **details):
        self.lines.append((event, details))

    warning = error


class Checks:
    """Everything, and what a caller may say. `rig` bends what stands behind it."""

    def __init__(self, *, within=300.0, most=100, resources=RESOURCES, **waiting):
        self.rig, self.log, self.monotonic = Rig(), Log(), 1000.0
        found = None if resources is None else entities.Entities(entities.parse(resources, "r.yaml"), describer())
        self.waiting = Waiting(lambda: self.monotonic, within, most, **waiting)
        self.api = DecisionApi(self.rig.point, found, self.waiting, lambda: self.rig.now, self.log)

    @property
    def decisions(self):
        return self.rig.records.decisions

    @property
    def outcomes(self):
        return self.rig.records.outcomes

    def call(self, name, who=CONSOLE, metadata=(), deadline=None):
        peer = Peer(identities=() if who is None else (who,))
        return Call(method=f"/{API}/{name}", metadata=metadata, peer=peer, door=CHECK, deadline=deadline)

    async def raw(self, name, data, **how):
        return await self.api.unary(self.call(name, **how), data)

    async def check(self, request=None, *, status=Code.OK, **how):
        request = request or method()
        reply = await self.raw("Check", request.SerializeToString(), **how)
        assert reply.final.code is status, reply.final
        return pb.CheckResponse.FromString(reply.message) if status is Code.OK else reply.final

    async def batch(self, *questions, subject=None, context=None, status=Code.OK, **how):
        items = [pb.BatchItem(id=f"i{at}", question=one) for at, one in enumerate(questions)]
        request = pb.BatchCheckRequest(items=items, subject=subject, context=context)
        reply = await self.raw("BatchCheck", request.SerializeToString(), **how)
        assert reply.final.code is status, reply.final
        if status is not Code.OK:
            return reply.final
        results = pb.BatchCheckResponse.FromString(reply.message).results
        assert [one.id for one in results] == [one.id for one in items]
        return [one.response for one in results]

    async def report(self, *outcomes, status=Code.OK, **how):
        request = pb.ReportOutcomeRequest(outcomes=outcomes)
        reply = await self.raw("ReportOutcome", request.SerializeToString(), **how)
        assert reply.final.code is status, reply.final
        if status is not Code.OK:
            return reply.final
        return [Code(one.code).name for one in pb.ReportOutcomeResponse.FromString(reply.message).results]

    async def stream(self, *requests, then=None, **how):
        sink = Sink()
        final = await self.api.stream(
            self.call("CheckStream", **how), several(*(one.SerializeToString() for one in requests), then=then), sink
        )
        return final, {one.id: one for one in map(pb.CheckStreamResponse.FromString, sink.messages)}

    @asynccontextmanager
    async def served(self, folder):
        """The same over real gRPC, on a Unix socket that is the console's; its address."""
        server = grpc.aio.server(handlers=(ProxyHandler(self.api, CHECK, NamedPeer(CONSOLE), self.log),))
        address = f"unix:{folder}/check.sock"
        server.add_insecure_port(address)
        await server.start()
        try:
            yield address
        finally:
            await server.stop(0)


def method(number=US, *, path=METHOD, message=None, subject=None, context=None, **question):
    call = pb.MethodCall(method=path, message=get(number) if message is None else message)
    return pb.CheckRequest(question=pb.Question(call=call, **question), subject=subject, context=context)


def entity(*ids, type="profile", action="read", subject=None, context=None, **question):
    what = pb.Entity(type=type, action=action, ids=[str(one) for one in ids])
    return pb.CheckRequest(question=pb.Question(entity=what, **question), subject=subject, context=context)


def going_on(call_id, *, message=None, ids=None, type="profile", action="read"):
    """A question about an answer of a call that goes on."""
    question = pb.Question(call_id=call_id, phase=pb.PHASE_RESPONSE)
    if ids is None:
        question.call.message = message
    else:
        question.entity.CopyFrom(pb.Entity(type=type, action=action, ids=[str(one) for one in ids]))
    return pb.CheckRequest(question=question)


def outcome(call_id, code=0, **figures):
    return pb.Outcome(call_id=call_id, code=code, **figures)
