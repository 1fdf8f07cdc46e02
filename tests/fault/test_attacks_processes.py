"""Attacks on a whole deployment: what a caller or a service can do to a running sidecar, seen from outside and in the store."""

import queue
import random
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from deployment import SOON, Deployment, wait
from puppet import Seen

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

SECRET = "us@person.example"
STORM, SEED = 300, 7


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("attacks")) as deployment:
        yield deployment


def get(user: int) -> bytes:
    return pb.GetProfileRequest(user_id=user).SerializeToString()


def test_callers_that_go_at_any_moment_leave_one_outcome_each(deployed: Deployment) -> None:
    """Cancelled within milliseconds: before, while and after the decision, the answer and the outcome are written."""
    dice, cast = random.Random(SEED), deployed.world.cast
    before = len(deployed.upstream.seen)
    caller = deployed.new_caller()
    try:
        for _ in range(STORM):
            method = dice.choice(("GetProfile", "ListMessages", "Sync"))
            call = caller.open(
                method, iter([get(cast.us)]), deployed.metadata(), timeout=dice.choice((None, 0.004, 0.02))
            )
            time.sleep(dice.uniform(0.0, 0.012))
            call.cancel()
        wait(lambda: deployed.status()["open_calls"] == 0, SOON, "no call is open")
    finally:
        caller.close()
    deployed.delivered()
    time.sleep(1.5)  # a recheck that outlived its call would come now
    calls = deployed.calls()
    assert {len(one.outcomes) for one in calls.values()} == {1}
    reached = {one.call_id for one in deployed.upstream.seen[before:]}
    assert reached <= calls.keys()
    assert all("permit" in calls[one].effects for one in reached)
    assert deployed.status()["open_calls"] == 0


def test_overwritten_data_of_somebody_else_does_not_leave(deployed: Deployment) -> None:
    cast = deployed.world.cast
    # Nothing that the policy clears or masks: such a message would be encoded anew in any case.
    hidden = pb.Profile(user_id=cast.us, handle=SECRET, display_name="123-45-6789").SerializeToString()
    shown = pb.Profile(user_id=cast.german, handle="h", display_name="d").SerializeToString()

    def answers(seen: Seen, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        list(requests)
        yield hidden + shown

    with deployed.upstream.behaving("GetProfile", answers):
        answer = deployed.call("GetProfile", get(cast.german), token="niall")
    assert SECRET.encode() not in b"".join(answer.messages)
    assert b"123-45-6789" not in b"".join(answer.messages)


def test_trailers_and_error_text_of_a_mixed_stream_tell_nothing(deployed: Deployment) -> None:
    cast = deployed.world.cast

    def answers(seen: Seen, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        list(requests)
        yield pb.Message(sender_id=cast.german, recipient_id=cast.us, text=SECRET).SerializeToString()
        yield pb.Message(sender_id=cast.german, recipient_id=cast.german, text="hi").SerializeToString()
        context.set_trailing_metadata((("x-last-sender", SECRET),))
        context.abort(grpc.StatusCode.NOT_FOUND, f"{SECRET} is gone")

    with deployed.upstream.behaving("ListMessages", answers):
        answer = deployed.call("ListMessages", get(cast.german), token="niall")
    assert SECRET not in repr(answer)


def test_who_is_dismissed_before_the_first_message_gets_nothing(deployed: Deployment) -> None:
    """A server stream that is opened in good time, and asked only after its caller has left."""
    asks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    caller = deployed.new_caller()
    try:
        call = caller.open("ListMessages", iter(asks.get, None), deployed.metadata("amy"), timeout=120)
        time.sleep(0.3)
        deployed.people(without="amy")
        asks.put(get(deployed.world.cast.us))
        asks.put(None)
        got = []
        with pytest.raises(grpc.RpcError):
            got.extend(call)
        assert got == []
        assert call.code() is grpc.StatusCode.PERMISSION_DENIED
    finally:
        asks.put(None)
        caller.close()
        deployed.people()


def test_a_giant_answer_does_not_stop_the_others(deployed: Deployment) -> None:
    """One page of a quarter of a million profiles, while somebody else asks for one."""
    rows = pb.ListProfilesResponse(profiles=[pb.Profile(user_id=one + 10, handle="h") for one in range(250_000)])
    giant = rows.SerializeToString()
    asked = threading.Event()

    def answers(seen: Seen, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        list(requests)
        asked.set()
        yield giant

    other = deployed.new_caller()
    try:
        with deployed.upstream.behaving("ListProfiles", answers):
            big = threading.Thread(target=lambda: deployed.call("ListProfiles", b"", timeout=120))
            big.start()
            try:
                asked.wait(SOON)
                slowest = 0.0
                for _ in range(20):
                    answer = other.call("GetProfile", [get(deployed.world.cast.us)], deployed.metadata(), 30)
                    assert answer.status == "OK", answer
                    slowest = max(slowest, answer.seconds)
            finally:
                big.join()
    finally:
        other.close()
    assert slowest < 5.0


@pytest.mark.parametrize(
    "path",
    ["//grpc.health.v1.Health/Check", "/x/" + "y" * 8000, "/%2e%2e/%00", "/\u00e9\u00e9/\u00fc", "/*/*"],
    ids=range(5),
)
def test_odd_paths_reach_nobody_and_stop_nothing(deployed: Deployment, path: str) -> None:
    before = len(deployed.upstream.seen)
    answer = deployed.caller().call(path, [b"\xff" * 100], deployed.metadata())
    assert answer.status in ("UNIMPLEMENTED", "INTERNAL")
    assert len(deployed.upstream.seen) == before
    assert deployed.call("GetProfile", get(deployed.world.cast.us)).status == "OK"


def test_nothing_raw_stands_in_the_records_or_the_logs(deployed: Deployment) -> None:
    """Neither token nor content, nor the bytes of a message that could not be read; and no user's id in a body."""
    cast, token = deployed.world.cast, deployed.world.tokens["niall"]
    first = deployed.call("GetProfile", get(cast.us), token="niall")
    second = deployed.call("GetProfile", get(cast.us) + SECRET.encode() + b"\xff", token="niall")
    assert (first.status, second.status) == ("PERMISSION_DENIED", "INVALID_ARGUMENT")
    deployed.delivered()
    bodies = [one for answer in (first, second) for one in deployed.recorded(answer.call_id).decisions]
    assert len(bodies) == 2
    for body in bodies:
        for one in body["subjects"]:
            assert set(one) == {"class", "ref", "period"}
    written = "".join(repr(record) for record in deployed.records())
    for text in (written, deployed.log("sidecar"), deployed.log("store")):
        assert token not in text
        assert token.split(".")[1] not in text
        assert SECRET not in text
