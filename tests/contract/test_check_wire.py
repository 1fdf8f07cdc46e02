"""The decision API over real gRPC: statuses, details, deadlines, cancelled calls and streams."""

import asyncio

import grpc
import pytest
from check_parts import Checks, entity, method, outcome
from google.rpc import error_details_pb2, status_pb2
from pipeline_rig import GERMAN, NOBODY_KNOWS, US

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.api.v1.decision_point_pb2_grpc import DecisionPointStub

LONG = 60.0


@pytest.fixture
def checks():
    return Checks()


def slowly(checks, *, when=lambda _request: True):
    """Decisions about these never come; the event tells that one was asked for."""
    asked, decide = asyncio.Event(), checks.rig.engine.decide

    async def wait(request, canonical, *, valid_for):
        if when(request):
            asked.set()
            await asyncio.Event().wait()
        return await decide(request, canonical, valid_for=valid_for)

    checks.rig.engine.decide = wait
    return asked


async def until(holds):
    async with asyncio.timeout(LONG):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_misuse_carries_its_reason_and_call_id(checks, tmp_path):
    async with checks.served(tmp_path) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await DecisionPointStub(channel).Check(pb.CheckRequest(), timeout=LONG)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        details = status_pb2.Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
        info = error_details_pb2.ErrorInfo()
        details.details[0].Unpack(info)
        assert (info.domain, info.metadata["call_id"]) == ("customhouse", "call-1")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/sidecar.api.v1.DecisionPoint/Decide")(b"", timeout=LONG)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/other.Service/Check")(method().SerializeToString(), timeout=LONG)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert len(checks.outcomes) == len(checks.decisions) == 3


async def test_a_caller_whose_deadline_passes_leaves_an_outcome(checks, tmp_path):
    slowly(checks)
    async with checks.served(tmp_path) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await DecisionPointStub(channel).Check(method(), timeout=2.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: checks.outcomes and len(checks.waiting) == 0)
    assert [one.status for one in checks.outcomes] == ["DEADLINE_EXCEEDED"]
    assert len(checks.waiting) == 0


async def test_a_caller_that_cancels_leaves_an_outcome_for_every_item(checks, tmp_path):
    asked = slowly(checks, when=lambda request: request.resource.subjects.unknown)
    some = [US, GERMAN] * 32  # are answered together, and before those that follow
    items = [
        pb.BatchItem(id=str(at), question=entity(one).question) for at, one in enumerate([*some, NOBODY_KNOWS, US])
    ]
    async with checks.served(tmp_path) as address, grpc.aio.insecure_channel(address) as channel:
        call = DecisionPointStub(channel).BatchCheck(pb.BatchCheckRequest(items=items), timeout=LONG)
        running = asyncio.ensure_future(call)
        await asked.wait()
        assert len(checks.waiting) == len(some)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(lambda: len(checks.outcomes) == len(items) and len(checks.waiting) == 0)
    assert {one.status for one in checks.outcomes} == {"CANCELLED"}, "of the permits nobody was told"
    assert len(checks.waiting) == 0


async def test_a_stream_is_answered_in_any_order_and_reported_on(checks, tmp_path):
    asked = slowly(checks, when=lambda request: request.resource.subjects.unknown)
    async with checks.served(tmp_path) as address, grpc.aio.insecure_channel(address) as channel:
        stream = DecisionPointStub(channel).CheckStream(timeout=LONG)
        await stream.write(pb.CheckStreamRequest(id="slow", check=entity(NOBODY_KNOWS)))
        await asked.wait()
        await stream.write(pb.CheckStreamRequest(id="quick", check=entity(US)))
        answer = await stream.read()
        assert (answer.id, answer.check.decision) == ("quick", pb.DECISION_PERMIT)
        await stream.write(pb.CheckStreamRequest(id="quick", report=outcome(answer.check.call_id)))
        told = await stream.read()
        assert (told.id, told.reported.code) == ("quick", 0)
        stream.cancel()
        await until(lambda: len(checks.outcomes) == 2)
    assert sorted(one.status for one in checks.outcomes) == ["CANCELLED", "OK"]


async def test_a_stream_of_many_is_answered_whole(checks, tmp_path):
    async def asking():
        for number in range(1_000):
            yield pb.CheckStreamRequest(id=str(number), check=entity(US if number % 2 else GERMAN))

    checks.waiting._most = checks.waiting._per_owner = 2_000
    checks.rig.numbers = iter(range(1, 10_000))
    async with checks.served(tmp_path) as address, grpc.aio.insecure_channel(address) as channel:
        found = [one async for one in DecisionPointStub(channel).CheckStream(asking(), timeout=LONG)]
    assert sorted(int(one.id) for one in found) == list(range(1_000))
    assert {one.check.decision for one in found} == {pb.DECISION_PERMIT}
    assert len({one.check.call_id for one in found}) == len(checks.decisions) == 1_000


async def test_a_message_on_a_stream_that_is_none_ends_it_with_everything_accounted_for(checks, tmp_path):
    asked = slowly(checks)
    async with checks.served(tmp_path) as address, grpc.aio.insecure_channel(address) as channel:
        stream = channel.stream_stream("/sidecar.api.v1.DecisionPoint/CheckStream")(timeout=LONG)
        await stream.write(pb.CheckStreamRequest(id="a", check=entity(US)).SerializeToString())
        await asked.wait()
        await stream.write(b"\xff\xff")
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: len(checks.outcomes) == 2)
    assert sorted(one.status for one in checks.outcomes) == ["CANCELLED", "INVALID_ARGUMENT"]
