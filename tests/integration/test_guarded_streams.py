"""Streams end to end: decided again while they are open, cut when a permit lapses, filtered message by message."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Self

import grpc
import pytest
from deployment import Deployment, ended, wait
from minimal_policy import write_policy

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

SOON = 60.0


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("guarded")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def rechecking(deployed: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A second sidecar whose policy permits everything Amy does, and wants to be asked again every second."""
    folder = write_policy(tmp_path_factory.mktemp("policy"), [{"id": "recheck_seconds", "seconds": 1}])
    with deployed.variant(policy__bundle__folder=str(folder), identity__leeway="1s"):
        yield deployed


class Talk:
    """The caller's side of an open stream: say something, hear something."""

    def __init__(self, deployment: Deployment, method: str = "Sync", token: str = "amy", port: str = "proxy",
                 timeout: float | None = 60.0) -> None:  # fmt: skip
        self._say: queue.Queue[bytes | None] = queue.Queue()
        metadata = deployment.metadata(token)
        self.call = deployment.caller("console", port).open(method, iter(self._say.get, None), metadata, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self.call.cancel()

    def ask(self, user: int) -> pb.Profile:
        self.say(pb.SyncRequest(user_id=user).SerializeToString())
        return self.hear()

    def say(self, data: bytes) -> None:
        self._say.put(data)

    def hear(self) -> pb.Profile:
        return pb.SyncResponse.FromString(next(self.call)).profile

    def hang_up(self) -> None:
        self._say.put(None)

    @property
    def call_id(self) -> str:
        return dict(self.call.initial_metadata())["x-customhouse-call-id"]


def test_requests_and_answers_of_a_stream_interleave(deployed: Deployment) -> None:
    cast = deployed.world.cast
    users = [cast.us, cast.german, cast.us_too, cast.french] * 5
    with Talk(deployed) as talk:
        heard = [talk.ask(user).user_id for user in users]
        talk.hang_up()
        last = ended(talk.call)
    assert heard == users, "each answer came before the next question was put"
    assert (last.status, last.messages) == ("OK", [])
    recorded = deployed.recorded(last.call_id)
    assert recorded.status == "OK"
    assert recorded.outcomes[0]["messages"] == {"in": 20, "out": 20}
    assert set(recorded.effects) == {"permit"}


def test_many_streams_at_once_do_not_mix(deployed: Deployment) -> None:
    users = range(1, 17)
    heard: dict[int, list[int]] = {}

    def follow(user: int) -> None:
        with Talk(deployed, timeout=60.0) as talk:
            heard[user] = [talk.ask(user).user_id for _ in range(10)]

    threads = [threading.Thread(target=follow, args=(user,)) for user in users]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert heard == {user: [user] * 10 for user in users}


def test_a_stream_is_cut_when_its_person_leaves_and_others_go_on(deployed: Deployment) -> None:
    user = deployed.world.cast.us
    with Talk(deployed, token="lou") as leaver, Talk(deployed, token="amy") as stayer:
        leaver.ask(user)
        stayer.ask(user)
        try:
            deployed.people(without="lou")
            cut = ended(leaver.call)
            assert cut.said == "PERMISSION_DENIED unidentified_person"
            assert stayer.ask(user).user_id == user
            stayer.hang_up()
            assert ended(stayer.call).status == "OK"
        finally:
            deployed.people()
    recorded = deployed.recorded(cut.call_id)
    assert (recorded.status, recorded.effects[-1]) == ("PERMISSION_DENIED", "deny")
    seen = deployed.upstream.calls_of(cut.call_id)[0]
    assert seen.ended.wait(SOON)
    assert seen.given_up, "the service was told to stop"
    kept = deployed.recorded(stayer.call_id)
    assert set(kept.effects) == {"permit"}
    assert len(kept.decisions) >= 2, "the change made it be decided again"


def test_a_stream_is_cut_when_its_person_becomes_ineligible(deployed: Deployment) -> None:
    user = deployed.world.cast.us
    with Talk(deployed, token="lou") as talk:
        talk.ask(user)
        try:
            deployed.people({"id": "lou", "vetted_until": "2025-01-01T00:00:00Z"}, without="lou")
            cut = ended(talk.call)
        finally:
            deployed.people()
    assert cut.said == "PERMISSION_DENIED personnel_ineligible"
    assert deployed.recorded(cut.call_id).codes == ["personnel_ineligible"]


def test_an_open_stream_is_decided_again_every_so_often(rechecking: Deployment) -> None:
    with Talk(rechecking, port="abroad") as talk:
        talk.ask(1)
        time.sleep(4.2)
        talk.hang_up()
        last = ended(talk.call)
    recorded = rechecking.recorded(last.call_id)
    seconds = {leaf["time"][:19] for leaf, _ in rechecking.records(call_id=last.call_id, type="decision")}
    assert len(seconds) >= 3, "about once a second, and the stream was idle"
    assert (recorded.status, set(recorded.effects)) == ("OK", {"permit"})


def test_a_token_revoked_during_a_stream_ends_it(rechecking: Deployment) -> None:
    token = rechecking.token("amy", jti="to-be-revoked")
    with Talk(rechecking, token=token, port="abroad") as talk:
        talk.ask(1)
        rechecking.revoke(jti="to-be-revoked")
        begun = time.monotonic()
        cut = ended(talk.call)
    assert cut.said == "PERMISSION_DENIED unidentified_person"
    assert time.monotonic() - begun < SOON
    recorded = rechecking.recorded(cut.call_id)
    assert (recorded.status, recorded.effects[-1]) == ("PERMISSION_DENIED", "deny")
    again = rechecking.call("GetProfile", pb.GetProfileRequest(user_id=1), token=token, port="abroad")
    assert again.status == "UNAUTHENTICATED"


def test_a_token_that_lapses_during_a_stream_ends_it(rechecking: Deployment) -> None:
    token = rechecking.token("amy", exp=int(time.time()) + 5)
    with Talk(rechecking, token=token, port="abroad") as talk:
        talk.ask(1)
        cut = ended(talk.call)
    assert cut.status == "PERMISSION_DENIED", cut
    assert cut.reason == "unidentified_person"
    assert rechecking.recorded(cut.call_id).codes == ["unidentified_person"]


def test_a_caller_who_cancels_cancels_the_service_and_leaves_an_outcome(deployed: Deployment) -> None:
    with Talk(deployed) as talk:
        talk.ask(deployed.world.cast.us)
        call_id = talk.call_id
        talk.call.cancel()
    seen = deployed.upstream.calls_of(call_id)[0]
    assert seen.ended.wait(SOON)
    assert seen.given_up
    recorded = deployed.recorded(call_id)
    assert (recorded.status, recorded.outcomes[0]["complete"]) == ("CANCELLED", True)
    assert recorded.outcomes[0]["messages"] == {"in": 1, "out": 1}


def test_a_cancelled_upload_is_not_taken_for_a_whole_one(deployed: Deployment) -> None:
    """The service must see a cancelled call, never the clean end of a shorter one."""
    contact = pb.Contact(user_id=deployed.world.cast.us, name="A Friend").SerializeToString()
    before = len(deployed.upstream.seen)
    for _ in range(10):
        with Talk(deployed, "ImportContacts") as talk:
            talk.say(contact)
            talk.say(contact)
            wait(lambda: len(deployed.upstream.seen) > before, SOON, "the upload reaches the service")
            talk.call.cancel()
        before = len(deployed.upstream.seen)
        seen = deployed.upstream.seen[-1]
        assert seen.ended.wait(SOON)
        assert seen.given_up
        assert deployed.recorded(seen.call_id).status == "CANCELLED"


@pytest.mark.parametrize("method", ["GetProfile", "ListMessages", "Sync"])
def test_a_deadline_that_passes_reaches_the_service_and_the_record(deployed: Deployment, method: str) -> None:
    gate = threading.Event()

    def silent(seen, requests, context):
        next(requests)
        gate.wait(SOON)
        yield b""

    request = pb.GetProfileRequest(user_id=deployed.world.cast.us)
    with deployed.upstream.behaving(method, silent):
        answer = deployed.call(method, request, timeout=2.0)
        seen = deployed.upstream.seen[-1]
        assert seen.ended.wait(SOON), "the service's call ended too"
        gate.set()
    assert answer.status == "DEADLINE_EXCEEDED"
    assert answer.seconds < SOON / 4
    assert deployed.recorded(seen.call_id).status == "DEADLINE_EXCEEDED"


def test_a_listing_loses_the_messages_of_us_users(deployed: Deployment) -> None:
    """A stream of one record a message: what names a US user does not reach personnel abroad."""
    cast = deployed.world.cast
    pairs = [(cast.german, cast.french), (cast.german, cast.us), (cast.german, cast.french), (cast.french, cast.german)]

    def mixed(seen, requests, context):
        next(requests)
        for sender, recipient in pairs:
            yield pb.Message(sender_id=sender, recipient_id=recipient, text="hello").SerializeToString()

    with deployed.upstream.behaving("ListMessages", mixed):
        answer = deployed.call("ListMessages", pb.ListMessagesRequest(user_id=cast.german), token="niall")
    left = [pb.Message.FromString(data) for data in answer.messages]
    recorded = deployed.recorded(answer.call_id)
    assert cast.us not in {one.recipient_id for one in left}
    assert recorded.outcomes[0]["released"]["us"]["records"] == 0
    assert (answer.status, len(left)) == ("OK", 3), answer.said
    assert recorded.outcomes[0]["dropped"] == 1


def test_a_stream_of_pages_drops_us_records_from_each(deployed: Deployment) -> None:
    answer = deployed.call("ListProfiles", pb.ListProfilesRequest(page_size=60), token="niall")
    assert answer.status == "OK"
    page = pb.ListProfilesResponse.FromString(answer.messages[0])
    assert page.profiles
    assert not {one.country for one in page.profiles} & {"US", "PR", "ZZ"}
    outcome = deployed.recorded(answer.call_id).outcomes[0]
    assert outcome["dropped"] == 60 - len(page.profiles)
    assert outcome["released"]["us"]["records"] == outcome["released"]["unknown"]["records"] == 0


def test_a_stream_refused_half_way_releases_nothing_more(deployed: Deployment) -> None:
    """Niall follows a German user; then the service itself answers with a US user's profile."""
    cast = deployed.world.cast

    def straying(seen, requests, context):
        for number, _ in enumerate(requests):
            who = cast.us if number else cast.german
            yield pb.SyncResponse(
                profile=pb.Profile(user_id=who, country="DE", email="x@mail.example")
            ).SerializeToString()

    with deployed.upstream.behaving("Sync", straying), Talk(deployed, token="niall") as talk:
        assert talk.ask(cast.german).user_id == cast.german
        talk.say(pb.SyncRequest(user_id=cast.german).SerializeToString())
        last = ended(talk.call)
    assert (last.said, last.messages) == ("PERMISSION_DENIED not_us_personnel", [])
    recorded = deployed.recorded(last.call_id)
    assert (recorded.status, recorded.decisions[-1]["phase"], recorded.effects[-1]) == (
        "PERMISSION_DENIED",
        "response",
        "deny",
    )
    assert recorded.outcomes[0]["released"]["us"]["records"] == 0


def test_a_half_closed_stream_still_gets_its_answers(deployed: Deployment) -> None:
    answer = deployed.call("ListMessages", pb.ListMessagesRequest(user_id=deployed.world.cast.us))
    assert (answer.status, len(answer.messages) > 0) == ("OK", True)
    upload = deployed.call("ImportContacts", *(pb.Contact(user_id=user, name="F") for user in range(1, 31)))
    assert pb.ImportContactsResponse.FromString(upload.messages[0]).imported == 30
    released = deployed.recorded(upload.call_id).outcomes[0]["released"]
    assert sum(one["records"] for one in released.values()) == 30, "a write counts the subjects it names"


def test_a_service_that_dies_in_a_stream_ends_it_with_a_recorded_outcome(deployed: Deployment) -> None:
    def breaking(seen, requests, context):
        yield pb.SyncResponse(profile=pb.Profile(user_id=deployed.world.cast.us)).SerializeToString()
        context.abort(grpc.StatusCode.DATA_LOSS, "the disk of host db-7 holding jo@mail.example failed")

    with deployed.upstream.behaving("Sync", breaking), Talk(deployed) as talk:
        assert talk.ask(deployed.world.cast.us).user_id == deployed.world.cast.us
        last = ended(talk.call)
    assert last.status == "DATA_LOSS", "the service's status code always passes"
    assert "mail.example" not in last.text, "its words do not, where fields are withheld"
    assert deployed.recorded(last.call_id).status == "DATA_LOSS"
