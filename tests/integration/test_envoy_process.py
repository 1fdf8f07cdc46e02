"""A real Envoy lets the sidecar process its streams by ext_proc: the same answers, filters and records as the proxy."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from deployment import Answer, Deployment, ended, wait
from envoy_parts import Envoyed, beside, enveloped, http_filter
from puppet import Seen

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.world import CONSOLE

Needs = Callable[[str, str], Path]
FORGED = [
    ("x-customhouse-person", "root"), ("x-customhouse-workload", CONSOLE), ("x-customhouse-call-id", "forged"),
    ("x-customhouse-extra", "1"), ("x-forwarded-client-cert", f"By=spiffe://x/y;URI={CONSOLE}"),
]  # fmt: skip


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("process")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def envoy(deployed: Deployment, needs: Needs) -> Iterator[Envoyed]:
    with enveloped(deployed, needs, "ext_proc") as one:
        yield one


def asked(user: int) -> bytes:
    return pb.GetProfileRequest(user_id=user).SerializeToString()


def facts(deployed: Deployment, got: Answer, dialogue: bool) -> dict[str, object]:
    """What the records say of a call, but for ids, times and the producer.

    Of a dialogue, the decisions about what was asked: whether a question or an answer is decided first is chance, and so
    is whether the decisions before cover an answer.
    """
    found = deployed.recorded(got.call_id)
    (outcome,) = found.outcomes
    decisions = [one for one in found.decisions if not dialogue or one["phase"] == "request"]
    kept = ("status", "messages", "released", "dropped", "redacted", "bytes_out", "complete", "seen")
    return {
        "effects": [one["decision"]["effect"] for one in decisions],
        "reasons": [one["decision"]["reasons"] for one in decisions],
        "obligations": [one["obligations"] for one in decisions], "phases": [one["phase"] for one in decisions],
        **{key: outcome.get(key) for key in kept},
    }  # fmt: skip


def test_the_written_bootstrap_is_valid(envoy: Envoyed) -> None:
    found = envoy.validate()
    assert found.returncode == 0, found.stderr
    assert "eprecated" not in found.stderr, "nothing in it is about to be taken away"
    assert "admin" not in yaml.safe_load(envoy.bootstrap.read_text())


SCENES: dict[str, tuple[str, Callable[[Deployment], list[object]], dict[str, object]]] = {
    "redacted": ("GetProfile", lambda one: [asked(one.world.cast.us)], {}),
    "another purpose": ("GetProfile", lambda one: [asked(one.world.cast.us)], {"purpose": "curiosity"}),
    "a person abroad": ("GetProfile", lambda one: [asked(one.world.cast.us)], {"token": "niall"}),
    "a user at home": ("GetProfile", lambda one: [asked(one.world.cast.us)], {"token": "user-us", "certificate": "web"}),
    "another user": ("GetProfile", lambda one: [asked(one.world.cast.german)], {"token": "user-us", "certificate": "web"}),
    "acting alone": ("GetProfile", lambda one: [asked(one.world.cast.us)], {"token": None, "certificate": "ranker"}),
    "no token": ("GetProfile", lambda one: [asked(one.world.cast.us)], {"token": None}),
    "stolen": ("GetProfile", lambda one: [asked(one.world.cast.us)], {"certificate": "web"}),
    "unregistered": ("GetProfile", lambda one: [asked(one.world.cast.us)], {"certificate": "reviewer"}),
    "not there": ("GetProfile", lambda one: [asked(987_654)], {}),
    "unknown field": ("GetProfile", lambda one: [asked(one.world.cast.us) + b"\xba\x3e\x01x"], {}),
    "no message": ("GetProfile", lambda _: [b"\xff\xff"], {}),
    "a page": ("ListProfiles", lambda _: [pb.ListProfilesRequest()], {}),
    "a server stream": ("ListMessages", lambda one: [pb.ListMessagesRequest(user_id=one.world.cast.us)], {}),
    "a client stream": ("ImportContacts", lambda _: [pb.Contact(), pb.Contact()], {}),
    "a dialogue": ("Sync", lambda one: [pb.SyncRequest(user_id=one.world.cast.us), pb.SyncRequest(user_id=one.world.cast.german)], {}),
    "undescribed": ("Nope", lambda _: [b""], {}),
}  # fmt: skip


@pytest.mark.parametrize("scene", SCENES)
def test_callers_and_records_cannot_tell_it_from_the_proxy(envoy: Envoyed, deployed: Deployment, scene: str) -> None:
    method, requests, how = SCENES[scene]
    here = envoy.call(method, *requests(deployed), more=FORGED, **how)
    there = deployed.call(method, *requests(deployed), **how)  # type: ignore[arg-type]
    messages = [one for one in there.messages if there.status == "OK"]  # grpc gives b"" beside a unary error
    assert (here.said, here.messages) == (there.said, messages)
    assert here.info.keys() == there.info.keys()
    assert here.text.replace(here.call_id, "") == there.text.replace(there.call_id, "")
    assert facts(deployed, here, method == "Sync") == facts(deployed, there, method == "Sync")
    assert {key for key, _ in (*here.headers, *here.trailers)} <= {
        "x-customhouse-call-id", "grpc-status-details-bin", "date", "server",
    }  # fmt: skip
    for mine, its in zip(
        deployed.upstream.calls_of(here.call_id), deployed.upstream.calls_of(there.call_id), strict=True
    ):
        assert mine.requests == its.requests
        for name in (
            "x-customhouse-person",
            "x-customhouse-workload",
            "x-customhouse-extra",
            "x-forwarded-client-cert",
        ):
            assert mine.header(name) == its.header(name)
        assert mine.header("x-customhouse-call-id") == [here.call_id]


def test_questions_and_answers_of_a_dialogue_interleave(envoy: Envoyed, deployed: Deployment) -> None:
    cast = deployed.world.cast
    users = [cast.us, cast.german, cast.us_too] * 4
    say: queue.Queue[bytes | None] = queue.Queue()
    call = deployed.caller("console", "envoy").open("Sync", iter(say.get, None), deployed.metadata(), 60.0)
    heard = []
    for user in users:
        say.put(pb.SyncRequest(user_id=user).SerializeToString())
        heard.append(pb.SyncResponse.FromString(next(call)).profile.user_id)
    say.put(None)
    last = ended(call)
    assert (heard, last.status) == (users, "OK")
    assert deployed.recorded(last.call_id).outcomes[0]["messages"] == {"in": 12, "out": 12}


def test_large_messages_pass_in_pieces_and_larger_ones_do_not(envoy: Envoyed, deployed: Deployment) -> None:
    def large(size: int) -> Callable[..., Iterator[bytes]]:
        return lambda *_: iter([pb.Profile(user_id=deployed.world.cast.us, handle="h" * size).SerializeToString()])

    with deployed.upstream.behaving("GetProfile", large(3_500_000)):
        got = envoy.call("GetProfile", asked(deployed.world.cast.us))
    assert got.said == "OK"
    assert len(got.messages[0]) > 3_500_000
    with deployed.upstream.behaving("GetProfile", large(4_500_000)):
        got = envoy.call("GetProfile", asked(deployed.world.cast.us))
    assert (got.status, got.messages) == ("RESOURCE_EXHAUSTED", [])
    before = len(deployed.upstream.seen)
    got = envoy.call("GetProfile", bytes(5 << 20))
    assert (got.status, len(deployed.upstream.seen)) == ("RESOURCE_EXHAUSTED", before)
    got = envoy.call("ImportContacts", bytes(5 << 20))
    assert got.status == "RESOURCE_EXHAUSTED"


def test_compressed_messages_are_read_and_passed_on_expanded(envoy: Envoyed, deployed: Deployment) -> None:
    request = asked(deployed.world.cast.us)
    caller = deployed.new_caller("console", "envoy")
    call = caller.channel.unary_unary("/sidecar.demo.profiles.v1.Profiles/GetProfile")
    got, info = call.with_call(request, metadata=deployed.metadata(), timeout=60, compression=grpc.Compression.Gzip)
    caller.close()
    assert pb.Profile.FromString(got).user_id == deployed.world.cast.us
    call_id = {one[0]: one[1] for one in (*info.initial_metadata(), *info.trailing_metadata())}["x-customhouse-call-id"]
    (seen,) = deployed.upstream.calls_of(str(call_id))
    assert seen.requests == [request]


def after_the_first(deployed: Deployment, heard: threading.Event) -> Answer:
    """How a stream ends whose first message has come; the service learns that it has."""
    request = pb.ListMessagesRequest(user_id=deployed.world.cast.us).SerializeToString()
    call = deployed.caller("console", "envoy").open("ListMessages", iter([request]), deployed.metadata(), 30.0)
    assert pb.Message.FromString(next(call)).text == "fine"
    heard.set()
    return ended(call)


def test_what_cannot_be_read_ends_a_running_stream_with_its_status(envoy: Envoyed, deployed: Deployment) -> None:
    heard = threading.Event()

    def spoilt(*_: object) -> Iterator[bytes]:
        yield pb.Message(text="fine").SerializeToString()
        heard.wait(20)
        yield b"\xff\xff"
        yield pb.Message(text="never seen").SerializeToString()

    with deployed.upstream.behaving("ListMessages", spoilt):
        got = after_the_first(deployed, heard)
    assert got.said == "PERMISSION_DENIED obligation_unfulfillable"
    assert got.messages == []
    recorded = deployed.recorded(got.call_id)
    assert recorded.status == "PERMISSION_DENIED"
    assert recorded.outcomes[0]["messages"]["out"] == 1


def test_a_refused_stream_whose_service_does_not_end_is_cut(envoy: Envoyed, deployed: Deployment) -> None:
    heard = threading.Event()

    def endless(seen: Seen, *_: object) -> Iterator[bytes]:
        yield pb.Message(text="fine").SerializeToString()
        heard.wait(20)
        yield b"\xff\xff"
        while not seen.ended.wait(0.02):
            yield pb.Message(text="never seen").SerializeToString()

    with deployed.upstream.behaving("ListMessages", endless):
        begun = time.monotonic()
        got = after_the_first(deployed, heard)
        took = time.monotonic() - begun
    assert (got.status, got.messages) == ("INTERNAL", []), "a reset is all that HTTP/2 has for it"
    assert took < 20
    (asked,) = deployed.upstream.calls_of(got.call_id)
    assert asked.ended.wait(60), "the service was told"
    assert deployed.recorded(got.call_id).status == "PERMISSION_DENIED"


def test_a_caller_who_goes_takes_the_call_along(envoy: Envoyed, deployed: Deployment) -> None:
    say: queue.Queue[bytes | None] = queue.Queue()
    call = deployed.caller("console", "envoy").open("Sync", iter(say.get, None), deployed.metadata(), None)
    say.put(pb.SyncRequest(user_id=deployed.world.cast.us).SerializeToString())
    next(call)
    call_id = dict(call.initial_metadata())["x-customhouse-call-id"]
    call.cancel()
    say.put(None)
    assert deployed.recorded(call_id).status == "CANCELLED"
    (seen,) = deployed.upstream.calls_of(call_id)
    assert seen.ended.wait(60)
    assert seen.given_up, "half a dialogue is not told as all of it"


def test_a_deadline_is_kept(envoy: Envoyed, deployed: Deployment) -> None:
    def slow(seen: Seen, *_: object) -> Iterator[bytes]:
        seen.ended.wait(60)
        yield from ()

    before = len(deployed.upstream.seen)
    with deployed.upstream.behaving("GetProfile", slow):
        got = envoy.call("GetProfile", asked(deployed.world.cast.us), timeout=3.0)
    assert got.status == "DEADLINE_EXCEEDED"
    (seen,) = deployed.upstream.seen[before:]
    assert seen.ended.wait(60)
    assert deployed.recorded(seen.call_id).status in ("DEADLINE_EXCEEDED", "CANCELLED")


def test_a_slow_caller_is_waited_for(envoy: Envoyed, deployed: Deployment) -> None:
    """No timer of Envoy's runs while a message is awaited: `message_timeout` would be 200 ms."""

    def slowly() -> Iterator[bytes]:
        time.sleep(1.0)
        yield pb.Contact().SerializeToString()
        time.sleep(5.5)
        yield pb.Contact().SerializeToString()

    call = deployed.caller("console", "envoy").open("ImportContacts", slowly(), deployed.metadata(), 60.0)
    got = ended(call)
    assert got.said == "OK"
    assert pb.ImportContactsResponse.FromString(got.messages[0]).imported == 2


def test_a_slow_reader_slows_the_service_and_loses_nothing(envoy: Envoyed, deployed: Deployment) -> None:
    sent = 0

    def plenty(*_: object) -> Iterator[bytes]:
        nonlocal sent
        for _number in range(400):
            yield pb.Message(text="m" * 100_000).SerializeToString()
            sent += 1

    with deployed.upstream.behaving("ListMessages", plenty):
        call = deployed.caller("console", "envoy").open(
            "ListMessages", iter([pb.ListMessagesRequest(user_id=deployed.world.cast.us).SerializeToString()]),
            deployed.metadata(), 60.0,
        )  # fmt: skip
        next(call)
        time.sleep(1.5)
        held = sent
        got = ended(call)
    assert held < 390, "a service that is not read from stands still"
    assert (got.status, len(got.messages)) == ("OK", 399)


def test_an_envoy_that_only_watches_or_hides_who_calls_gets_nowhere(envoy: Envoyed, deployed: Deployment) -> None:
    before = len(deployed.upstream.seen)

    def halved(tree: dict) -> None:
        http_filter(tree)["processing_mode"]["response_body_mode"] = "NONE"

    with beside(envoy, halved) as other:
        assert other.call("GetProfile", asked(deployed.world.cast.us)).status == "UNAVAILABLE"
    with beside(envoy, lambda tree: http_filter(tree).pop("request_attributes")) as other:
        got = other.call("GetProfile", asked(deployed.world.cast.us), more=FORGED)
        told = f"{got.text}\n{other.log()[-600:]}\n{deployed.log('variant')[-900:]}"
        assert got.said == "UNAUTHENTICATED unidentified_workload", told
    assert len(deployed.upstream.seen) == before
    assert "have to be FULL_DUPLEX_STREAMED" in deployed.log("variant")


def test_a_sidecar_that_dies_fails_the_calls_it_held_and_lets_none_pass(envoy: Envoyed, deployed: Deployment) -> None:
    def secret(seen: Seen, *_: object) -> Iterator[bytes]:
        number = 0
        while not seen.ended.wait(0.02):
            number += 1
            yield pb.Message(text=f"secret {number}").SerializeToString()

    with deployed.upstream.behaving("ListMessages", secret):
        call = deployed.caller("console", "envoy").open(
            "ListMessages", iter([pb.ListMessagesRequest(user_id=deployed.world.cast.us).SerializeToString()]),
            deployed.metadata(), 30.0,
        )  # fmt: skip
        next(call)
        deployed.processes.kill("variant")
        killed = time.monotonic()
        with pytest.raises(grpc.RpcError):
            list(call)
        took = time.monotonic() - killed
    assert call.code() is not grpc.StatusCode.OK
    assert took < 20
    before = len(deployed.upstream.seen)
    for method, request in (("GetProfile", asked(1)), ("Sync", pb.SyncRequest(user_id=1))):
        assert envoy.call(method, request).status == "UNAVAILABLE"
    assert len(deployed.upstream.seen) == before
    envoy.start_sidecar()
    wait(lambda: envoy.call("GetProfile", asked(deployed.world.cast.us)).said == "OK", 60, "the sidecar serves again")
