"""Streams of every kind through the gRPC door."""

import asyncio
import gc
import os

import grpc
import psutil
import pytest
from proxy_parts import RawClient, collect, headers, message, patiently, running, until

from sidecar.enforcement.transport import Limits

pytestmark = pytest.mark.integration


async def send(call, *messages):
    for one in messages:
        await call.write(one)
    await call.done_writing()


async def test_bytes_of_a_stream_pass_unchanged_in_order():
    bodies = [os.urandom(size) for size in (0, 1, 100, 16_384, 70_001, 1_000_000)]
    async with running() as it:
        call = it.stream("Bidi")
        sending = asyncio.create_task(send(call, *bodies))
        assert await collect(call) == (bodies, grpc.StatusCode.OK)
        await sending


async def test_turns_interleave():
    async with running() as it:
        call = it.stream("Bidi")
        for turn in range(20):
            await call.write(b"%d" % turn)
            assert await call.read() == b"%d" % turn
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_headers_come_before_any_message():
    async with running() as it:
        call = it.stream("First")
        got = dict(await asyncio.wait_for(call.initial_metadata(), 60))
        assert got == {"x-up": "1", "x-customhouse-call-id": "0197-test"}
        await call.write(b"now")
        assert await call.read() == b"now"
        call.cancel()


async def test_half_close_reaches_the_service_and_the_answer_comes_after_it():
    async with running() as it:
        call = it.stream("Upload")
        await send(call, b"a", b"b", b"c")
        assert await collect(call) == ([b"3"], grpc.StatusCode.OK)
        assert it.service.seen == [("upload complete", 3)]


async def test_every_kind_of_call_of_a_client_works():
    async with running() as it:
        channel = it.channel
        assert await channel.unary_unary("/t.S/Echo")(b"u") == b"u"
        assert [m async for m in channel.unary_stream("/t.S/Count")(b"3 0")] == [b"0", b"1", b"2"]
        assert await channel.stream_unary("/t.S/Upload")(iter([b"1", b"2"])) == b"2"
        assert [m async for m in channel.stream_stream("/t.S/Bidi")(iter([b"1", b"2"]))] == [b"1", b"2"]


@pytest.mark.parametrize("number", [0, 1, 7])
@pytest.mark.parametrize("code", [0, 9, 14])
async def test_status_message_and_trailers_follow_the_messages(number, code):
    async with running() as it:
        call = it.stream("Count")
        await send(call, b"%d %d" % (number, code))
        messages, status = await collect(call)
        assert messages == [b"%d" % n for n in range(number)]
        assert status is list(grpc.StatusCode)[code]
        assert await call.details() == ("after some" if code else "")
        assert dict(await call.trailing_metadata())["x-end"] == "2"


async def test_no_message_before_an_error_is_lost_to_a_slow_reader():
    async with running() as it:
        call = it.stream("Count")
        await send(call, b"500 9")
        await asyncio.sleep(0.3)
        messages, status = await collect(call)
        assert len(messages) == 500
        assert status is grpc.StatusCode.FAILED_PRECONDITION


async def test_an_early_error_is_told_while_the_caller_still_sends():
    """The synchronous client: the asynchronous one loses the status of a call that ends while it writes."""

    def pour(channel):
        def endless():
            while True:
                yield bytes(20_000)

        call = channel.stream_stream("/t.S/Early")(endless(), timeout=20)
        messages = []
        try:
            messages.extend(call)
        except grpc.RpcError:
            pass
        return messages, call.code(), call.details()

    async with running() as it:
        with grpc.insecure_channel(it.listener.address) as channel:
            for _ in range(50):
                messages, code, details = await asyncio.to_thread(pour, channel)
                assert (code, details) == (grpc.StatusCode.FAILED_PRECONDITION, "early")
                assert messages == [b"%d" % n for n in range(5)]


async def test_a_cancelled_stream_is_cancelled_at_the_service():
    async with running() as it:
        call = it.stream("Flood")
        assert await call.read()
        call.cancel()
        await until(lambda: ("flood ended",) in it.service.seen)
        await until(lambda: it.point.ended == ["cancelled"])
        assert it.log.lines == []


async def test_a_cancelled_upload_never_looks_complete_to_the_service():
    """Half an upload that is committed as a whole one would be the worst way to lose data."""
    async with running() as it:

        async def one(pause):
            call = it.stream("Upload")
            try:
                for _ in range(3):
                    await call.write(b"x" * 100)
            except grpc.aio.AioRpcError:
                return  # core refuses new streams of a connection that cancels very many
            await asyncio.sleep(pause)
            call.cancel()

        for _ in range(15):
            await asyncio.gather(*[one(0.001 * (n % 5)) for n in range(20)])
        await until(lambda: len(it.point.ended) == len(it.point.calls))
        await asyncio.sleep(0.5)
        assert len(it.point.ended) > 50
        assert it.point.closed == 0, "the door called a cancelled stream complete"
        assert {one[0] for one in it.service.seen} == {"upload cancelled"}
        assert await it.unary("Echo", b"x", timeout=60) == b"x"


async def test_a_lost_connection_cancels_the_upload():
    async with running() as it:
        raw = RawClient(it.listener.address)
        raw.send(headers(1, b"/t.S/Upload"), message(1, b"half", end=False))
        await until(lambda: it.point.calls)
        raw.close()
        # Whether the message or the end of the connection was read first is chance.
        await until(lambda: it.service.seen)
        assert it.service.seen in ([("upload cancelled", 1)], [("upload cancelled", 0)])


async def test_a_streams_deadline_ends_it_on_both_sides():
    async with running() as it:
        call = it.stream("Flood", timeout=2)
        _, status = await collect(call)
        assert status is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: ("flood ended",) in it.service.seen)


async def test_a_service_that_dies_mid_stream_is_unavailable_after_what_it_sent():
    async with running() as it:
        call = it.stream("Bidi")
        await call.write(b"a")
        assert await call.read() == b"a"
        await it.server.stop(0)
        messages, status = await collect(call)
        assert messages == []
        assert status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        assert "127.0.0.1" not in await call.details()


async def test_a_service_that_was_never_there_is_unavailable_for_streams_too():
    async with running() as it:
        await it.server.stop(0)
        call = it.stream("Bidi", timeout=60)
        _, status = await collect(call)
        assert (status, await call.details()) == (grpc.StatusCode.UNAVAILABLE, "the service cannot be reached")


async def settled(count):
    """What a counter stands at once it has stood still for a second."""
    end = asyncio.get_running_loop().time() + 60
    last, now = -1, count()
    while last != now:
        assert asyncio.get_running_loop().time() < end, f"it goes on and on: {now}"
        await asyncio.sleep(1)
        last, now = now, count()
    return now


async def test_a_slow_reader_slows_the_service_down_and_memory_stays():
    process = psutil.Process()
    async with running() as it:
        call = it.stream("Flood")
        assert await call.read()
        before = process.memory_info().rss
        first = await settled(lambda: it.service.sent)
        assert first * 65_536 < 32 << 20
        assert process.memory_info().rss - before < 48 << 20
        for _ in range(first + 20):
            assert await call.read()
        assert it.service.sent > first
        call.cancel()


async def test_a_service_that_does_not_read_slows_the_caller_down():
    async with running() as it:
        call = it.stream("Sink")
        sent = 0

        async def pour():
            nonlocal sent
            while True:
                await call.write(bytes(64 << 10))
                sent += 1

        pouring = asyncio.create_task(pour())
        first = await settled(lambda: sent)
        assert first * 65_536 < 32 << 20
        call.cancel()
        await asyncio.gather(pouring, return_exceptions=True)


async def test_a_thousand_streams_one_after_another_leave_nothing_behind():
    async with running() as it:

        async def some(number):
            for _ in range(number):
                call = it.stream("Bidi")
                await send(call, b"x")
                assert await collect(call) == ([b"x"], grpc.StatusCode.OK)

        async def left():
            it.point.calls.clear()
            it.service.seen.clear()
            await asyncio.sleep(0.2)
            gc.collect()
            return len(asyncio.all_tasks()), len(gc.get_objects()), psutil.Process().memory_info().rss

        await some(200)
        before = await left()
        await some(1000)
        for _ in range(100):  # what ends a moment later is not left behind
            tasks, objects, rss = (after - one for after, one in zip(await left(), before, strict=True))
            if tasks <= 2 and objects < 500:
                break
        assert tasks <= 2
        assert objects < 500
        assert rss < 16 << 20


async def test_one_call_too_many_is_refused_and_room_comes_back():
    async with running(limits=Limits(streams=8, streams_per_connection=100)) as it:
        calls = [it.stream("First") for _ in range(8)]
        for call in calls:
            await call.initial_metadata()
        extra = it.stream("First", timeout=60)
        assert (await collect(extra))[1] is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()
        await until(lambda: len(it.point.ended) == 8)
        # A call's place comes back a moment after it has ended.
        exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await patiently(lambda: it.unary("Echo", b"x", timeout=60), exhausted) == b"x"


async def test_one_connection_cannot_take_all_places():
    async with running(limits=Limits(streams=16)) as it:
        calls = [it.stream("First") for _ in range(16)]
        await until(lambda: len(it.point.calls) == 4)
        await asyncio.sleep(0.2)
        assert len(it.point.calls) == 4
        other = grpc.aio.insecure_channel(it.listener.address, options=[("grpc.use_local_subchannel_pool", 1)])
        assert await other.unary_unary("/t.S/Echo")(b"x", timeout=60) == b"x"
        await other.close()
        for call in calls:
            call.cancel()


async def test_stop_lets_calls_under_way_end_and_then_cancels():
    async with running() as it:
        ending, staying = it.stream("First"), it.stream("First")
        for call in (ending, staying):
            await call.initial_metadata()
        stopping = asyncio.create_task(it.listener.stop(4.0))
        await asyncio.sleep(0.2)
        await ending.write(b"last")
        assert await ending.read() == b"last"
        await ending.done_writing()
        assert (await collect(ending))[1] is grpc.StatusCode.OK
        assert (await asyncio.wait_for(collect(staying), 60))[1] in (
            grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE,
        )  # fmt: skip
        await asyncio.wait_for(stopping, 60)
