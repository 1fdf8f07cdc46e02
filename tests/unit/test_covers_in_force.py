"""A decision covers those it was about, and comes too late once what it rests on has been found out anew."""

import asyncio
import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Self

import msgspec
import pytest
from pipeline_rig import GERMAN, NOBODY_KNOWS, NOW, US, Engine, Rig, Sink, answer, deny, permit, personnel
from trial_api import compile_text, describer

from sidecar.attributes.subject import Identity
from sidecar.decision.document import parse_decision
from sidecar.enforcement.call import Final
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.errors import Code
from sidecar.vocabulary import AccessRequest, Decision

pytestmark = pytest.mark.unit
SOON = 60.0
API = """
service S {
  rpc Follow(stream Who) returns (stream Point) {
    option (sidecar.api.v1.access) = {action: "read" resource: "r" subject: REQUEST_FIELD};
  }
  rpc Look(Two) returns (Pair) {
    option (sidecar.api.v1.access) = {action: "read" resource: "r" subject: REQUEST_FIELD};
  }
}
message Who { string id = 1 [(sidecar.api.v1.subject_id) = {}]; }
message Two { repeated string ids = 1 [(sidecar.api.v1.subject_id) = {}]; }
message Point { string at = 1 [(sidecar.api.v1.data) = {category: "precise_geolocation"}]; }
message Pair { repeated Letter letters = 1; }
message Letter {
  option (sidecar.api.v1.record) = {};
  string sender = 1 [(sidecar.api.v1.subject_id) = {}];
  string text = 2 [(sidecar.api.v1.data) = {category: "communication_content"}];
}
"""


@functools.cache
def compiled():
    """`Follow`: each request names somebody, answers nobody. `Look`: both name several."""
    with tempfile.TemporaryDirectory() as folder:
        return describer(compile_text(Path(folder), API))


class Slow(Engine):
    """Answers by the rule of when it was asked; those that `holds` chooses only once `gate` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.held = asyncio.Event(), 0
        self.holds = lambda _request: False

    async def decide(self, request: AccessRequest, canonical: bytes, *, valid_for: float) -> Decision:
        found = await super().decide(request, canonical, valid_for=valid_for)
        if self.holds(request):
            self.held += 1
            await self.gate.wait()
        return found


async def until(condition) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0)


class Followed:
    """A `Follow` stream at a slow engine, moved by the test one message at a time."""

    def __init__(self, identity: Identity | None = None) -> None:
        self.rig, self.engine, self.sink = Rig(), Slow(), Sink()
        self.rig.identifier.identity = identity or self.rig.identifier.identity
        parts = dataclasses.replace(self.rig.point._parts, decisions=self.engine, describer=compiled())
        self.rig.point = EnforcementPoint(parts)
        self._asks: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        self._watch = asyncio.create_task(self.rig.point.watch())
        call = self.rig.call("Follow", service="t.S")
        self.task = asyncio.create_task(self.rig.point.stream(call, self._requests(), self.sink))
        await until(lambda: self.rig.upstream.exchanges)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.engine.gate.set()
        self._watch.cancel()
        self.task.cancel()
        await asyncio.gather(self._watch, self.task, return_exceptions=True)

    async def _requests(self):
        while (message := await self._asks.get()) is not None:
            yield message

    @property
    def forwarded(self) -> int:
        return len(self.rig.upstream.exchanges[0].sent)

    def ask(self, number: int) -> None:
        who = compiled().method("/t.S/Follow").request.plan.new(id=str(number))
        self._asks.put_nowait(who.SerializeToString())

    async def asked(self, number: int) -> None:
        """The caller asks, and the service has it, or the call has ended."""
        before = self.forwarded
        self.ask(number)
        await until(lambda: self.forwarded > before or self.task.done())

    def give(self) -> None:
        point = compiled().method("/t.S/Follow").answer.plan.new(at="47.1,8.2")
        self.rig.upstream.exchanges[0].answers.put_nowait(point.SerializeToString())

    async def ended(self) -> Final:
        async with asyncio.timeout(SOON):
            return await self.task


def of_phase(phase: str):
    return lambda request: request.context.phase == phase


def of_german(request: AccessRequest) -> bool:
    return request.resource.subjects.non_us > 0


async def test_a_record_names_those_who_were_decided_about_whoever_is_named_meanwhile():
    async with Followed() as stream:
        await stream.asked(US)
        await stream.asked(GERMAN)
        stream.engine.holds = of_phase("response")
        stream.give()
        await until(lambda: stream.engine.held)
        await stream.asked(NOBODY_KNOWS)
        stream.engine.gate.set()
        await until(lambda: stream.sink.messages)
        (found,) = [one for one in stream.rig.records.decisions if one.phase == "response"]
        counted = msgspec.json.decode(found.input, type=AccessRequest).resource.subjects
        assert (counted.us, counted.non_us, counted.unknown) == (1, 1, 0)
        assert {name for _, name, _ in found.subjects} == {str(US), str(GERMAN)}
        # And what it covers is decided again as what it was.
        before = len(stream.engine.documents)
        stream.rig.point.reconsider()
        await until(lambda: len(stream.engine.documents) >= before + 2)
        again = [one for one in stream.rig.records.decisions if one.phase == "response"][-1]
        assert {name for _, name, _ in again.subjects} == {str(US), str(GERMAN)}


async def test_what_was_asked_before_a_recheck_covers_nothing_after_it():
    """The recheck found what was in force; a permit that was still under way then is of the policy before."""
    async with Followed() as stream:
        await stream.asked(US)
        stream.engine.holds = of_german
        stream.ask(GERMAN)
        await until(lambda: stream.engine.held)
        stream.engine.rule = lambda request: deny("not_us_personnel") if of_german(request) else permit()
        before = len(stream.rig.records.decisions)
        stream.rig.point.reconsider()
        await until(lambda: len(stream.rig.records.decisions) > before)
        stream.engine.holds = lambda _request: False
        stream.engine.gate.set()
        await until(lambda: stream.forwarded == 2)
        await stream.asked(GERMAN)
        assert (await stream.ended()).code is Code.PERMISSION_DENIED
        assert stream.forwarded == 2


async def test_what_was_asked_as_somebody_who_has_lapsed_covers_nothing_after_it():
    async with Followed(personnel("amy", expires_at=NOW + 5)) as stream:
        await stream.asked(US)
        stream.engine.holds = of_german
        stream.ask(GERMAN)
        await until(lambda: stream.engine.held)
        stream.rig.now, stream.rig.identifier.identity = NOW + 6, personnel("amy")
        stream.engine.holds = lambda _request: False
        stream.engine.rule = lambda request: deny("personnel_ineligible") if of_german(request) else permit()
        stream.give()
        await until(lambda: stream.sink.messages)
        stream.engine.gate.set()
        await until(lambda: stream.forwarded == 2)
        await stream.asked(GERMAN)
        assert (await stream.ended()).code is Code.PERMISSION_DENIED
        assert stream.forwarded == 2


async def test_a_remembered_decision_covers_no_longer_than_it_is_remembered():
    """Its `ttl_seconds` run from when the policy was asked, not from when this call was told."""
    async with Followed() as stream:
        await stream.asked(US)
        engine = stream.engine
        engine.peek, engine.left = lambda _data: parse_decision(permit(ttl=300)), lambda _data: 0.0
        await stream.asked(GERMAN)
        engine.peek, engine.rule = lambda _data: None, lambda _request: deny("not_us_personnel")
        await stream.asked(GERMAN)
        assert (await stream.ended()).code is Code.PERMISSION_DENIED
        assert stream.forwarded == 2


async def test_the_life_of_a_decision_begins_before_the_policy_answers():
    async with Followed() as stream:
        stream.engine.rule = lambda request: permit(ttl=1) if of_german(request) else permit()
        await stream.asked(US)
        stream.engine.holds = of_german
        stream.ask(GERMAN)
        await until(lambda: stream.engine.held)
        await asyncio.sleep(1.1)
        stream.engine.holds, stream.engine.rule = lambda _request: False, lambda _request: deny("not_us_personnel")
        stream.engine.gate.set()
        await until(lambda: stream.forwarded == 2)
        await stream.asked(GERMAN)
        assert (await stream.ended()).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(("senders", "phases"), [
    (("8", "9"), ["request"]),
    (("8",), ["request", "response"]),
    (("8", ""), ["request", "response"]),  # as many unknown as were asked about, but nobody knows whether the same
])  # fmt: skip
async def test_an_answer_about_somebody_whom_nobody_names_is_not_about_those_asked_for(senders, phases):
    rig = Rig()
    rig.point = EnforcementPoint(dataclasses.replace(rig.point._parts, describer=compiled()))
    look = compiled().method("/t.S/Look")
    pair = look.answer.plan.new(letters=[{"sender": one, "text": "hi"} for one in senders])
    rig.upstream.reply = lambda _message: answer(pair.SerializeToString())
    reply = await rig.point.unary(
        rig.call("Look", service="t.S"), look.request.plan.new(ids=["8", "9"]).SerializeToString()
    )
    assert reply.final.code is Code.OK
    assert [one.phase for one in rig.records.decisions] == phases
