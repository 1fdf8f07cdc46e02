"""The enforcement point: streams."""

import asyncio

import pytest
from pipeline_rig import GERMAN, NOW, SERVICE, US, Rig, Sink, deny, get, permit, profile, several

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.errors import Code, IdentifyError


@pytest.fixture
def rig() -> Rig:
    return Rig()


def wants(number: int) -> bytes:
    return pb.SyncRequest(user_id=number).SerializeToString()


def synced(request: bytes) -> bytes:
    number = pb.SyncRequest.FromString(request).user_id
    return pb.SyncResponse(profile=pb.Profile.FromString(profile(number))).SerializeToString()


def letter(sender: int, recipient: int) -> bytes:
    return pb.Message(sender_id=sender, recipient_id=recipient, text="hi").SerializeToString()


def contact(number: int) -> bytes:
    return pb.Contact(user_id=number, name="A").SerializeToString()


async def test_a_server_stream_is_decided_message_by_message(rig):
    rig.upstream.answers = [letter(US, US), letter(US, GERMAN), letter(US, GERMAN)]
    final, sink = await rig.stream("ListMessages", get(US))
    assert final.code is Code.OK
    assert sink.messages == list(rig.upstream.answers)
    assert dict(sink.initial)["x-customhouse-call-id"] == "call-1"
    assert dict(sink.initial)["x-upstream"] == "1"
    # one for the request, one for the German who shows in the answer; the third message names nobody new
    assert [one.phase for one in rig.records.decisions] == ["request", "response"]
    assert rig.records.outcomes[0].messages.out == 3
    assert rig.upstream.exchanges[0].closed


async def test_a_refused_answer_ends_the_stream_and_the_upstream_call(rig):
    rig.upstream.answers = [letter(US, US), letter(US, GERMAN), letter(US, US)]
    rig.engine.rule = lambda request: deny("not_us_personnel") if request.resource.subjects.non_us else permit()
    final, sink = await rig.stream("ListMessages", get(US))
    assert final.code is Code.PERMISSION_DENIED
    assert sink.messages == [letter(US, US)]
    assert rig.upstream.exchanges[0].cancelled
    assert rig.records.outcomes[0].messages.out == 1


async def test_records_are_dropped_from_a_stream_and_the_rest_goes_on(rig):
    rig.upstream.answers = [letter(GERMAN, GERMAN), letter(US, GERMAN), letter(GERMAN, GERMAN)]
    rig.engine.rule = lambda _request: permit({"id": "drop_records", "subjects": "us"})
    final, sink = await rig.stream("ListMessages", get(GERMAN))
    assert final.code is Code.OK
    assert sink.messages == [letter(GERMAN, GERMAN)] * 2
    assert rig.records.outcomes[0].dropped == 1
    assert "x-upstream" not in dict(sink.initial)


async def test_a_limit_holds_over_the_whole_stream(rig):
    rig.upstream.answers = [letter(US, US)] * 5
    rig.engine.rule = lambda _request: permit({"id": "limit_records", "max": 2})
    _, sink = await rig.stream("ListMessages", get(US))
    assert len(sink.messages) == 2


async def test_a_client_stream_is_decided_before_each_message_is_forwarded(rig):
    rig.upstream.answers = []
    sent_when = []
    rig.upstream.echo = lambda _message: sent_when.append(len(rig.records.decisions))
    final, _ = await rig.stream("ImportContacts", contact(US), contact(GERMAN), contact(US))
    assert final.code is Code.OK
    assert sent_when == [1, 2, 2] or sent_when == [1, 2, 3]
    assert rig.upstream.exchanges[0].sent == [contact(US), contact(GERMAN), contact(US)]
    released = rig.records.outcomes[0].released
    assert (released.us.records, released.non_us.records) == (1, 1)


async def test_a_write_stream_reaches_the_upstream_only_after_its_first_decision(rig):
    rig.engine.rule = lambda _request: deny("action_not_allowed")
    final, _ = await rig.stream("ImportContacts", contact(US))
    assert final.code is Code.PERMISSION_DENIED
    assert rig.upstream.exchanges == []


async def test_a_write_stream_without_messages_concerns_somebody_unknown(rig):
    final, _ = await rig.stream("ImportContacts")
    assert final.code is Code.OK
    assert rig.engine.documents[0].resource.subjects.unknown == 1
    rig.engine.rule = lambda _request: deny("subjects_unknown")
    final, _ = await rig.stream("ImportContacts")
    assert final.code is Code.PERMISSION_DENIED


async def test_a_server_stream_without_its_request_is_malformed(rig):
    final, _ = await rig.stream("ListMessages")
    assert final.code is Code.INVALID_ARGUMENT
    assert rig.upstream.exchanges == []


async def test_a_bidirectional_stream_that_reads_opens_while_subjects_are_pending(rig):
    rig.upstream.echo = synced
    final, sink = await rig.stream("Sync", wants(US), wants(GERMAN))
    assert final.code is Code.OK
    assert len(sink.messages) == 2
    assert rig.engine.documents[0].resource.subjects.pending


async def test_a_refused_request_ends_a_stream_in_the_middle(rig):
    rig.upstream.echo = synced
    rig.engine.rule = lambda request: deny("not_us_personnel") if request.resource.subjects.us else permit()
    go = asyncio.Event()
    sink = Sink()

    async def requests():
        yield wants(GERMAN)
        await sink.came.wait()
        yield wants(US)
        await go.wait()

    final = await rig.point.stream(rig.call("Sync"), requests(), sink)
    assert final.code is Code.PERMISSION_DENIED
    assert sink.messages == [synced(wants(GERMAN))]
    assert rig.upstream.exchanges[0].sent == [wants(GERMAN)]
    assert rig.upstream.exchanges[0].cancelled
    assert not rig.upstream.exchanges[0].closed


async def test_an_undecided_stream_that_is_denied_never_opens(rig):
    rig.engine.rule = lambda _request: deny("not_us_personnel")
    final, _ = await rig.stream("Sync", wants(US))
    assert final.code is Code.PERMISSION_DENIED
    assert rig.upstream.exchanges == []


async def test_an_unreachable_upstream_ends_a_stream(rig):
    rig.upstream.unreachable = True
    final, _ = await rig.stream("Sync", wants(US))
    assert final.code is Code.UNAVAILABLE
    assert rig.records.outcomes[0].status == "UNAVAILABLE"


class Open:
    """A stream that stays open until the test ends it."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.sink, self.go = rig, Sink(), asyncio.Event()

    async def __aenter__(self):
        self.rig.upstream.echo = synced
        self.watch = asyncio.create_task(self.rig.point.watch())
        self.call = asyncio.create_task(
            self.rig.point.stream(self.rig.call("Sync"), several(wants(US), then=self.go), self.sink)
        )
        await asyncio.wait_for(self.sink.came.wait(), 60)
        return self

    async def __aexit__(self, *_error):
        self.go.set()
        self.watch.cancel()
        await asyncio.gather(self.call, self.watch, return_exceptions=True)


async def test_a_stream_goes_on_while_its_permit_holds(rig):
    async with Open(rig) as stream:
        before = len(rig.engine.documents)
        rig.point.reconsider()
        await asyncio.sleep(0.3)
        assert not stream.call.done()
        assert len(rig.engine.documents) > before
        stream.go.set()
        assert (await stream.call).code is Code.OK


@pytest.mark.parametrize(
    ("lapse", "code", "reason"),
    [
        (
            lambda rig: setattr(rig.engine, "rule", lambda _request: deny("personnel_ineligible")),
            Code.PERMISSION_DENIED,
            "personnel_ineligible",
        ),
        (
            lambda rig: setattr(
                rig.identifier,
                "error",
                IdentifyError("gone", reason="unidentified_person", code=Code.PERMISSION_DENIED),
            ),
            Code.PERMISSION_DENIED,
            "unidentified_person",
        ),
        (
            lambda rig: setattr(rig.identifier, "error", IdentifyError("expired", reason="unidentified_person")),
            Code.PERMISSION_DENIED,
            "unidentified_person",
        ),
        (
            lambda rig: setattr(
                rig.identifier, "error", IdentifyError("stale", reason="stale_directory", code=Code.UNAVAILABLE)
            ),
            Code.UNAVAILABLE,
            "stale_directory",
        ),
    ],
)
async def test_a_permit_that_lapses_ends_the_stream(rig, lapse, code, reason):
    async with Open(rig) as stream:
        lapse(rig)
        rig.point.reconsider()
        final = await asyncio.wait_for(stream.call, 60)
        assert (final.code, final.error_info.reason) == (code, reason)
        assert rig.upstream.exchanges[0].cancelled
        assert rig.records.outcomes[0].status == code.name


async def test_a_stream_is_decided_again_when_the_policy_wants_it(rig):
    rig.engine.rule = lambda _request: permit({"id": "recheck_seconds", "seconds": 1})
    async with Open(rig) as stream:
        rig.engine.rule = lambda _request: deny("personnel_ineligible")
        final = await asyncio.wait_for(stream.call, 60)
        assert final.code is Code.PERMISSION_DENIED


async def test_an_identity_that_expires_ends_the_stream(rig):
    async with Open(rig) as stream:
        rig.now = NOW + 3601
        final = await asyncio.wait_for(stream.call, 60)
        assert final.code is Code.PERMISSION_DENIED


async def test_a_caller_that_goes_away_ends_the_upstream_call(rig):
    async with Open(rig) as stream:
        stream.call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream.call
        assert rig.upstream.exchanges[0].cancelled
        assert rig.records.outcomes[0].status == "CANCELLED"


async def test_a_fault_of_ours_leaves_an_outcome(rig):
    async def broken(*_arguments):
        raise RuntimeError("a bug")
        yield

    with pytest.raises(RuntimeError):
        await rig.point.stream(rig.call("Sync"), broken(), Sink())
    assert rig.records.outcomes[0].status == "UNAVAILABLE"


async def test_unguarded_calls_pass_without_a_record(rig):
    rig.upstream.answers = [b"serving", None]
    sink = Sink()
    final = await rig.point.stream(rig.call("Check", service="grpc.health.v1.Health"), several(b"ask"), sink)
    assert (final.code, sink.messages) == (Code.OK, [b"serving"])
    assert rig.records.log == []
    assert rig.identifier.asked == 0


@pytest.mark.parametrize("method", ["ServerReflectionInfo"])
async def test_reflection_is_for_identified_callers(rig, method):
    call = rig.call(method, service="grpc.reflection.v1.ServerReflection")
    rig.upstream.answers = [b"files", None]
    sink = Sink()
    final = await rig.point.stream(call, several(b"list"), sink)
    assert (final.code, sink.messages) == (Code.OK, [b"files"])
    rig.identifier.error = IdentifyError("no token", reason="unidentified_person")
    final = await rig.point.stream(call, several(b"list"), Sink())
    assert final.code is Code.UNAUTHENTICATED


def test_service_name_is_the_demo_s():
    assert SERVICE == pb.DESCRIPTOR.services_by_name["Profiles"].full_name
