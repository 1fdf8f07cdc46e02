"""Races inside one call: what changes while something else of the same call is waiting."""

import asyncio
import dataclasses
import datetime as dt
import functools
import itertools
import tempfile
from pathlib import Path

import msgspec
import pytest
from pipeline_rig import GERMAN, NOBODY_KNOWS, NOW, US, Records, Rig, Sink, answer, deny, get, permit, profile, several
from pipeline_rig import Exchange as RigExchange
from trial_api import compile_text, describer

from sidecar.attributes.resource import Classifier
from sidecar.attributes.subject import Identity
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.call import Final
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.errors import Code, IdentifyError
from sidecar.vocabulary import ExceptionGrant, GrantScope, Person, Subject, Workload

SOON = 60.0
REDACT = {"id": "redact_fields", "categories": ["id_contact"]}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def wants(number: int) -> bytes:
    return pb.SyncRequest(user_id=number).SerializeToString()


def synced(number: int) -> bytes:
    return pb.SyncResponse(profile=pb.Profile.FromString(profile(number))).SerializeToString()


def letter(sender: int, recipient: int) -> bytes:
    return pb.Message(sender_id=sender, recipient_id=recipient, text="hi").SerializeToString()


async def until(condition) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0)


async def settled() -> None:
    """Whatever can go on has gone on."""
    for _ in range(50):
        await asyncio.sleep(0)


class Held(Records):
    """A recorder whose disk waits on `gate` for those that `holds` chooses, after the record has been appended."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.holds = lambda _entry: False
        self.held = 0

    async def decision(self, entry) -> None:
        await super().decision(entry)
        await self._wait(entry)

    async def outcome(self, body, level) -> None:
        await super().outcome(body, level)
        await self._wait(body)

    async def _wait(self, entry) -> None:
        if self.holds(entry):
            self.held += 1
            await self.gate.wait()


def with_held_records(rig: Rig, **parts: object) -> Held:
    rig.records = Held()
    rig.point = EnforcementPoint(dataclasses.replace(rig.point._parts, recorder=rig.records, **parts))
    return rig.records


class Dialogue:
    """A bidirectional stream whose two sides the test moves one message at a time."""

    def __init__(self, rig: Rig, method: str = "Sync", *metadata: tuple[str, str], sink: Sink | None = None) -> None:
        self.rig, self.sink = rig, sink or Sink()
        self._asks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.task = asyncio.create_task(rig.point.stream(rig.call(method, *metadata), self._requests(), self.sink))

    async def _requests(self):
        while (message := await self._asks.get()) is not None:
            yield message

    @property
    def exchange(self) -> RigExchange:
        return self.rig.upstream.exchanges[-1]

    async def ask(self, message: bytes) -> None:
        """The caller sends, and the upstream has it."""
        await until(lambda: self.rig.upstream.exchanges or self.task.done())
        before = len(self.exchange.sent)
        self._asks.put_nowait(message)
        await until(lambda: len(self.exchange.sent) > before or self.task.done())

    async def give(self, message: bytes) -> None:
        """The upstream answers, and the sidecar has dealt with it."""
        self.exchange.answers.put_nowait(message)
        await settled()

    async def end(self) -> Final:
        """Both sides close."""
        self._asks.put_nowait(None)
        async with asyncio.timeout(SOON):
            return await self.task


# -- two requests, one answer ---------------------------------------------------------------------------------------


async def test_an_answer_is_not_released_under_the_duties_of_another_request(rig):
    """What was ordered for one subject holds when the caller has meanwhile asked about another."""
    rig.engine.rule = lambda request: permit(REDACT) if request.resource.subjects.us else permit()
    stream = Dialogue(rig)
    await stream.ask(wants(US))
    await stream.ask(wants(GERMAN))
    await stream.give(synced(US))
    final = await stream.end()
    assert final.code is Code.OK
    (released,) = stream.sink.messages
    assert pb.SyncResponse.FromString(released).profile.email == ""
    assert rig.records.outcomes[0].redacted == {"id_contact": 1}


async def test_the_limit_of_a_grant_holds_whatever_is_asked_next(rig):
    rig.engine.rule = lambda request: (
        permit({"id": "limit_records", "max": 1}) if request.resource.subjects.us else permit()
    )
    stream = Dialogue(rig)
    await stream.ask(wants(US))
    await stream.ask(wants(GERMAN))
    for _ in range(3):
        await stream.give(synced(US))
    await stream.end()
    assert sum(bool(one) for one in stream.sink.messages) <= 1, (
        "an empty message says that something was withheld, no more"
    )
    assert rig.records.outcomes[0].released.us.records <= 1


async def test_subjects_decided_one_by_one_are_not_thereby_decided_together(rig):
    """A permit for one subject each is no permit for an answer that names both: the input document differs."""
    rig.engine.rule = lambda request: deny("volume_limit") if _named(request) > 1 else permit()
    found = compile_both()
    with_held_records(rig, describer=found)
    call = rig.call("Ask", service="t.S")
    sink, go = Sink(), asyncio.Event()
    message = found.method("/t.S/Ask").answer.plan.new
    ask = found.method("/t.S/Ask").request.plan.new
    rig.upstream.echo = lambda _message: None
    task = asyncio.create_task(
        rig.point.stream(
            call, several(ask(id=str(US)).SerializeToString(), ask(id=str(GERMAN)).SerializeToString(), then=go), sink
        )
    )
    await until(lambda: rig.upstream.exchanges and len(rig.upstream.exchanges[0].sent) == 2)
    rig.upstream.exchanges[0].answers.put_nowait(message(one=str(US), other=str(GERMAN), text="hi").SerializeToString())
    await settled()
    go.set()
    final = await asyncio.wait_for(task, SOON)
    assert (final.code, sink.messages) == (Code.PERMISSION_DENIED, [])


def _named(request) -> int:
    subjects = request.resource.subjects
    return subjects.us + subjects.non_us + subjects.unknown


API = """
service S {
  rpc Ask(stream Who) returns (stream Pair) {
    option (sidecar.api.v1.access) = {action: "read" resource: "r" subject: REQUEST_FIELD};
  }
  rpc Track(Who) returns (stream Point) {
    option (sidecar.api.v1.access) = {action: "read" resource: "r" subject: REQUEST_FIELD};
  }
  rpc Put(stream Who) returns (Pair) {
    option (sidecar.api.v1.access) = {action: "write" resource: "r" subject: REQUEST_FIELD};
  }
}
message Who { string id = 1 [(sidecar.api.v1.subject_id) = {}]; }
message Pair {
  option (sidecar.api.v1.record) = {};
  string one = 1 [(sidecar.api.v1.subject_id) = {}];
  string other = 2 [(sidecar.api.v1.subject_id) = {}];
  string text = 3 [(sidecar.api.v1.data) = {category: "communication_content"}];
}
message Point { string at = 1 [(sidecar.api.v1.data) = {category: "precise_geolocation"}]; }
"""


@functools.cache
def compile_both():
    """`Ask`: each request names somebody, an answer may name two. `Track`: a request names somebody, answers nobody."""
    with tempfile.TemporaryDirectory() as folder:
        return describer(compile_text(Path(folder), API))


# -- a permit does not outlive itself --------------------------------------------------------------------------------


async def test_answers_that_name_nobody_are_covered_only_within_the_permit_s_life(rig):
    found = compile_both()
    with_held_records(rig, describer=found)
    point = found.method("/t.S/Track").answer.plan.new(at="47.1,8.2").SerializeToString()
    who = found.method("/t.S/Track").request.plan.new(id=str(US)).SerializeToString()
    rig.engine.rule = lambda _request: permit(ttl=0)
    go, sink = asyncio.Event(), Sink()
    task = asyncio.create_task(rig.point.stream(rig.call("Track", service="t.S"), several(who, then=go), sink))
    await until(lambda: rig.upstream.exchanges)
    rig.engine.rule = lambda _request: deny("personnel_ineligible")
    await asyncio.sleep(0.01)
    rig.upstream.exchanges[0].answers.put_nowait(point)
    await settled()
    go.set()
    final = await asyncio.wait_for(task, SOON)
    assert (final.code, sink.messages) == (Code.PERMISSION_DENIED, [])


async def test_trailers_stay_reduced_once_anything_in_the_call_was_under_obligations(rig):
    """The last message needed nothing taken out; an earlier one did, and the trailers may speak of it."""
    rig.engine.rule = lambda request: (
        permit({"id": "drop_records", "subjects": "us"}) if request.resource.subjects.us else permit()
    )
    rig.upstream.answers = [letter(GERMAN, US), letter(GERMAN, GERMAN)]
    rig.upstream.final = Final(
        code=Code.NOT_FOUND, message="user 1 a@b.example is gone", trailing=(("x-trailer", "1"),)
    )
    final, sink = await rig.stream("ListMessages", get(GERMAN))
    assert sink.messages == [letter(GERMAN, GERMAN)]
    assert final == Final(code=Code.NOT_FOUND, message="reduced")


async def test_an_exception_that_has_ended_no_longer_carries_a_stream(rig):
    ends = "2026-11-18T10:00:30Z"
    instant = dt.datetime.fromisoformat(ends).timestamp()
    rig.now = instant - 20
    rig.identifier.identity = msgspec.structs.replace(rig.identifier.identity, expires_at=instant + 3600)
    rig.grants.grant = ExceptionGrant(
        id="EX",
        person="amy",
        scope=GrantScope(),
        justification="j",
        ticket="T-1",
        not_before="2026-11-18T09:00:00Z",
        expires=ends,
        requested_by="x",
        approvers=("a", "b"),
    )
    rig.engine.rule = lambda request: (
        permit(code="exception", ttl=3600) if request.context.exceptions else deny("not_us_personnel")
    )
    watch = asyncio.create_task(rig.point.watch())
    stream = Dialogue(rig, "Sync", ("x-customhouse-exception", "EX"))
    try:
        await stream.ask(wants(US))
        rig.grants.grant = None  # ended, so it can be claimed no more
        rig.now = instant + 1
        final = await asyncio.wait_for(asyncio.shield(stream.task), SOON)
        assert final.code is Code.PERMISSION_DENIED
    finally:
        stream.task.cancel()
        watch.cancel()
        await asyncio.gather(stream.task, watch, return_exceptions=True)


@pytest.mark.parametrize("method", ["ListMessages", "ImportContacts"])
async def test_who_is_dismissed_before_the_first_message_is_not_served(rig, method):
    """The call was opened while its caller was somebody; the message came when they no longer were."""
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def requests():
        yield await first

    rig.upstream.answers = [letter(US, US), None]
    watch = asyncio.create_task(rig.point.watch())
    sink = Sink()
    task = asyncio.create_task(rig.point.stream(rig.call(method), requests(), sink))
    try:
        await until(lambda: rig.identifier.asked)
        rig.identifier.error = IdentifyError("dismissed", reason="unidentified_person", code=Code.PERMISSION_DENIED)
        rig.point.reconsider()
        await asyncio.sleep(0.3)
        if not first.done():
            first.set_result(get(US))
        final = await asyncio.wait_for(task, SOON)
        assert final.code is Code.PERMISSION_DENIED
        assert sink.messages == []
        assert all(one.sent == [] for one in rig.upstream.exchanges)
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_a_lapsed_token_serves_no_first_message(rig):
    first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def requests():
        yield await first

    rig.upstream.answers = [letter(US, US)]
    sink = Sink()
    task = asyncio.create_task(rig.point.stream(rig.call("ListMessages"), requests(), sink))
    await until(lambda: rig.identifier.asked)
    rig.now = NOW + 3601
    rig.identifier.error = IdentifyError("the token has lapsed", reason="unidentified_person")
    first.set_result(get(US))
    await asyncio.wait([task], timeout=1)
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sink.messages == []
    assert rig.upstream.exchanges == []


# -- deciding again --------------------------------------------------------------------------------------------------


async def test_a_change_during_a_recheck_is_not_forgotten(rig):
    """The recheck under way began with what was in force before; the change wants another one."""
    records = with_held_records(rig)
    watch = asyncio.create_task(rig.point.watch())
    stream = Dialogue(rig)
    try:
        await stream.ask(wants(US))
        records.holds = lambda entry: hasattr(entry, "form")
        rig.point.reconsider()
        await until(lambda: records.held)
        rig.identifier.error = IdentifyError("dismissed", reason="unidentified_person", code=Code.PERMISSION_DENIED)
        rig.point.reconsider()
        records.holds = lambda _entry: False
        records.gate.set()
        final = await asyncio.wait_for(asyncio.shield(stream.task), SOON)
        assert final.code is Code.PERMISSION_DENIED
    finally:
        watch.cancel()
        stream.task.cancel()
        await asyncio.gather(watch, stream.task, return_exceptions=True)


async def test_one_slow_recheck_does_not_keep_other_streams_alive(rig):
    """A stream whose record is slow to become durable must not delay the end of somebody else's permit."""
    records = with_held_records(rig)
    watch = asyncio.create_task(rig.point.watch())
    first, second = Dialogue(rig), None
    try:
        await first.ask(wants(US))
        rig.upstream.exchanges.clear()
        second = Dialogue(rig)
        await second.ask(wants(US))
        records.holds = lambda entry: hasattr(entry, "form") and not records.held
        rig.engine.rule = lambda _request: deny("personnel_ineligible") if records.held else permit()
        rig.point.reconsider()
        await until(lambda: records.held)
        done, _ = await asyncio.wait([first.task, second.task], timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
    finally:
        records.gate.set()
        watch.cancel()
        tasks = [one.task for one in (first, second) if one is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(watch, *tasks, return_exceptions=True)


async def test_nothing_is_recorded_of_a_call_after_its_outcome(rig):
    """A recheck that is under way when the stream ends stops, or the outcome waits for it."""
    records = with_held_records(rig)
    watch = asyncio.create_task(rig.point.watch())
    stream = Dialogue(rig)
    try:
        await stream.ask(wants(US))
        await stream.give(synced(GERMAN))  # two covers: request and response
        records.holds = lambda entry: hasattr(entry, "form")
        rig.point.reconsider()
        await until(lambda: records.held)
        records.holds = lambda _entry: False
        ending = asyncio.create_task(stream.end())
        await asyncio.sleep(0.05)
        records.gate.set()
        await ending
        await asyncio.sleep(0.3)
        assert [hasattr(one, "form") for one in rig.records.log][-1] is False
        assert len(rig.records.outcomes) == 1
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def test_a_fault_in_one_recheck_ends_that_stream_and_no_other(rig):
    """The watcher is one for all; whoever makes it fail would take everybody's permits out of its care."""
    watch = asyncio.create_task(rig.point.watch())
    stream = Dialogue(rig)
    try:
        await stream.ask(wants(US))
        rig.engine.rule = lambda _request: RuntimeError("a bug of ours")
        rig.point.reconsider()
        final = await asyncio.wait_for(asyncio.shield(stream.task), SOON)
        assert final.code in (Code.UNAVAILABLE, Code.PERMISSION_DENIED)
        assert not watch.done()
        rig.engine.rule = lambda _request: permit()
        rig.upstream.exchanges.clear()
        other = Dialogue(rig)
        await other.ask(wants(US))
        rig.engine.rule = lambda _request: deny("personnel_ineligible")
        rig.point.reconsider()
        assert (await asyncio.wait_for(other.task, SOON)).code is Code.PERMISSION_DENIED
    finally:
        watch.cancel()
        stream.task.cancel()
        await asyncio.gather(watch, stream.task, return_exceptions=True)


async def test_a_recheck_asks_the_index_again(rig):
    """Who has become a US subject since the stream began is one when it is decided again."""

    class Moving:
        revision = "i1"
        us: frozenset[str] = frozenset()

        def classify(self, kind: str, id: str) -> str:
            return "us" if id in self.us else "non_us"

        def fresh(self, now: float) -> bool:
            return True

    index = Moving()
    found = compile_both()
    with_held_records(rig, describer=found, classifier=Classifier(index))
    who = found.method("/t.S/Track").request.plan.new(id="9").SerializeToString()
    rig.engine.rule = lambda request: deny("not_us_personnel") if request.resource.subjects.us else permit()
    watch = asyncio.create_task(rig.point.watch())
    go = asyncio.Event()
    task = asyncio.create_task(rig.point.stream(rig.call("Track", service="t.S"), several(who, then=go), Sink()))
    try:
        await until(lambda: rig.upstream.exchanges)
        await settled()
        index.us = frozenset({"9"})
        rig.point.reconsider()
        final = await asyncio.wait_for(asyncio.shield(task), SOON)
        assert final.code is Code.PERMISSION_DENIED
    finally:
        watch.cancel()
        task.cancel()
        await asyncio.gather(watch, task, return_exceptions=True)


# -- exactly one outcome, with the right figures ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unary", "stream", "refused"])
async def test_a_caller_that_goes_while_the_outcome_is_written_leaves_one_outcome(rig, kind):
    records = with_held_records(rig)
    records.holds = lambda entry: not hasattr(entry, "form")
    if kind == "refused":
        rig.engine.rule = lambda _request: deny("not_us_personnel")
    if kind == "stream":
        rig.upstream.answers = [letter(US, US), None]
        task = asyncio.create_task(rig.point.stream(rig.call("ListMessages"), several(get(US)), Sink()))
    else:
        task = asyncio.create_task(rig.point.unary(rig.call(), get(US)))
    await until(lambda: records.held)
    task.cancel()
    records.gate.set()
    await asyncio.gather(task, return_exceptions=True)
    await settled()
    assert len(rig.records.outcomes) == 1


async def test_a_caller_that_goes_at_any_moment_leaves_one_outcome_and_it_comes_last():
    """Cancelled after 0, 1, 2 … steps of the loop, until the call is through."""
    for steps in range(200):
        rig = Rig()
        rig.upstream.answers = [letter(US, US), letter(US, GERMAN), None]
        task = asyncio.create_task(rig.point.stream(rig.call("ListMessages"), several(get(US)), Sink()))
        for _ in range(steps):
            await asyncio.sleep(0)
        through = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settled()
        if steps:  # before its first step the call has not begun
            assert len(rig.records.outcomes) == 1, steps
            assert rig.records.log[-1] is rig.records.outcomes[0], steps
        if through:
            return
    pytest.fail("the call never ended")


async def test_a_message_that_was_handed_over_is_counted_even_if_the_caller_never_took_it(rig):
    """It may have left: the sidecar has given it to the transport."""

    class Slow(Sink):
        async def message(self, data: bytes) -> None:
            await super().message(data)
            await asyncio.Event().wait()

    sink = Slow()
    rig.upstream.answers = [letter(US, US)]
    task = asyncio.create_task(rig.point.stream(rig.call("ListMessages"), several(get(US)), sink))
    await asyncio.wait_for(sink.came.wait(), SOON)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (outcome,) = rig.records.outcomes
    assert (outcome.messages.out, outcome.bytes_out) == (1, len(letter(US, US)))
    assert outcome.released.us.records == 1


async def test_the_only_answer_of_an_upload_that_is_dropped_is_a_refusal(rig):
    """OK without a message is no answer of a client-streaming method; clients report it as a broken protocol."""
    found = compile_both()
    with_held_records(rig, describer=found)
    put = found.method("/t.S/Put")
    rig.engine.rule = lambda _request: permit({"id": "drop_records", "subjects": "us"})
    rig.upstream.answers = [put.answer.plan.new(one=str(US), text="hi").SerializeToString()]
    sink = Sink()
    final = await rig.point.stream(
        rig.call("Put", service="t.S"), several(put.request.plan.new(id=str(US)).SerializeToString()), sink
    )
    assert (final.code, sink.messages) == (Code.PERMISSION_DENIED, [])
    assert rig.records.outcomes[0].status == "PERMISSION_DENIED"


# -- records -----------------------------------------------------------------------------------------------------------


async def test_personnel_behind_a_user_s_token_are_recorded_as_personnel(rig):
    """A support agent acts for a user (RFC 8693): the access is the agent's too."""
    workload = Workload(id="spiffe://t/console", operated_from="US")
    rig.identifier.identity = Identity(
        subjects=(
            Subject(kind="data_subject", workload=workload, delegation=("amy",)),
            Subject(kind="personnel", person=Person(id="amy"), workload=workload, delegation=("amy",)),
        ),
        person="amy",
        workload=workload.id,
        own=("person", str(US)),
        expires_at=NOW + 60,
        directory="d1",
    )
    reply = await rig.unary()
    assert reply.final.code is Code.OK
    assert "committed" in {one.level for one in rig.records.decisions}
    assert rig.records.decisions[1].level == "committed"
    assert rig.records.levels == ["committed"]


async def test_an_exception_counts_as_used_only_when_the_call_was_permitted(rig):
    rig.identifier.identity = msgspec.structs.replace(
        rig.identifier.identity,
        subjects=(
            Subject(kind="personnel", person=Person(id="amy")),
            Subject(kind="personnel", person=Person(id="niall")),
        ),
    )
    rig.grants.grant = ExceptionGrant(
        id="EX",
        person="amy",
        scope=GrantScope(),
        justification="j",
        ticket="T-1",
        not_before="2026-01-01T00:00:00Z",
        expires="2026-11-30T00:00:00Z",
        requested_by="x",
        approvers=("a", "b"),
    )
    rig.engine.rule = lambda request: (
        permit(code="exception") if request.subject.person.id == "amy" else deny("not_us_personnel")
    )
    reply = await rig.unary(get(US), ("x-customhouse-exception", "EX"))
    assert reply.final.code is Code.PERMISSION_DENIED
    assert rig.grants.uses == []


async def test_a_record_names_the_directory_that_the_identity_came_from(rig):
    """The snapshot may be exchanged between identifying the caller and recording the decision."""
    rig.standing.directory = lambda: "d2"
    await rig.unary()
    assert rig.records.decisions[0].directory == rig.identifier.identity.directory == "d1"


async def test_a_refused_request_is_recorded_as_of_the_request_while_an_answer_is_under_way(rig):
    records = with_held_records(rig)
    stream = Dialogue(rig)
    await stream.ask(wants(GERMAN))
    records.holds = lambda entry: hasattr(entry, "form") and entry.form.phase == "request"
    rig.engine.rule = lambda request: permit(ttl=0)
    asked = asyncio.create_task(stream.ask(wants(US)))
    await until(lambda: records.held)
    await stream.give(synced(NOBODY_KNOWS))
    records.holds = lambda _entry: False
    records.gate.set()
    await asked
    stream._asks.put_nowait(b"\xff\xff")
    await asyncio.wait_for(asyncio.gather(stream.task), SOON)
    refused = rig.records.decisions[-1]
    assert (refused.phase, rig.records.outcomes[0].status) == ("request", "INVALID_ARGUMENT")


async def test_reflection_is_counted_as_permitted(rig):
    call = rig.call("ServerReflectionInfo", service="grpc.reflection.v1.ServerReflection")
    rig.upstream.answers = [b"files", None]
    final = await rig.point.stream(call, several(b"list"), Sink())
    assert final.code is Code.OK
    assert {effect for _, effect, _, _ in rig.stats.calls} == {"permit"}


async def test_unary_headers_and_trailers_wait_for_the_answer_s_decision(rig):
    rig.upstream.reply = lambda _message: answer(profile(GERMAN), trailing=(("x-trailer", "1"),))
    rig.engine.rule = lambda request: permit(REDACT) if request.resource.subjects.non_us else permit()
    reply = await rig.unary()
    assert dict(reply.headers).keys() == {"x-customhouse-call-id"}
    assert reply.final.trailing == ()


async def test_a_call_that_is_cancelled_twice_is_ended_all_the_same():
    """The caller goes, and the server is being stopped: the second comes while the first is being dealt with."""
    for steps, more in itertools.product(range(1, 30), range(4)):
        rig = Rig()
        rig.upstream.answers, rig.upstream.ends = [letter(US, US), letter(US, GERMAN)], False
        task = asyncio.create_task(
            rig.point.stream(rig.call("ListMessages"), several(get(US), then=asyncio.Event()), Sink())
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(more):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settled()
        assert rig.point._streams._open == set(), (steps, more)
        assert [one.cancelled for one in rig.upstream.exchanges] in ([], [True]), (steps, more)
        assert len(rig.records.outcomes) == 1, (steps, more)
        assert rig.records.log[-1] is rig.records.outcomes[0], (steps, more)


async def test_a_recheck_that_cannot_even_be_refused_ends_the_stream(rig):
    """A fault in deciding again, and another in recording it: the permit is not in force any more."""
    records = with_held_records(rig)
    watch = asyncio.create_task(rig.point.watch())
    stream = Dialogue(rig)
    try:
        await stream.ask(wants(US))

        failed = asyncio.Event()

        def broken(_entry):
            failed.set()
            raise RuntimeError("a bug of ours")

        records.fail = broken
        rig.point.reconsider()
        await asyncio.wait_for(failed.wait(), SOON)
        await asyncio.sleep(0.6)
        records.fail = lambda _entry: False
        assert (await asyncio.wait_for(asyncio.shield(stream.task), SOON)).code is Code.UNAVAILABLE
        assert not watch.done()
    finally:
        watch.cancel()
        stream.task.cancel()
        await asyncio.gather(watch, stream.task, return_exceptions=True)
