"""The hosted door over a server that the test plays: what it accepts, what it answers, and how calls are given up."""

import asyncio
import time

import pytest

from sidecar.doors.grpc_frames import frame
from sidecar.doors.hosted import HostedDoor
from sidecar.doors.hosted_peers import Unverified
from sidecar.enforcement.call import Final, Reply
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.transport import Limits
from sidecar.errors import Code

HEADERS = [(b"content-type", b"application/grpc"), (b"te", b"trailers")]


class Point:
    """An enforcement point that echoes, or does what the test wants. Remembers how calls ended."""

    def __init__(self, wanted=None):
        self.wanted, self.calls, self.ended = wanted, [], []

    def kind(self, method):
        return "unary" if method.endswith("Unary") else "stream"

    async def unary(self, call, request, upstream=None):
        self.calls.append((call, request))
        try:
            if self.wanted is not None:
                return await self.wanted()
            return Reply(
                message=request, headers=(("x-up", "1"), ("x-customhouse-call-id", "7")), final=Final(code=Code.OK)
            )
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise

    async def stream(self, call, requests, answer, upstream=None):
        self.calls.append((call, None))
        try:
            async for message in requests:
                await answer.message(message)
            return Final(code=Code.OK)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise


class Log:
    def __init__(self):
        self.lines = []

    def error(self, event, **details):
        self.lines.append(event)

    warning = error


class Server:
    """What pyvoy does: `receive` gives futures, answers at once after the end, and says when the caller has gone."""

    def __init__(self, *pieces, open_ended=False):
        self._pieces = [{"type": "http.request", "body": one, "more_body": True} for one in pieces]
        if not open_ended:
            self._pieces = self._pieces or [{"type": "http.request", "body": b""}]
            self._pieces[-1]["more_body"] = False
        self._open, self._gone, self._waiting = open_ended, False, []
        self.sent, self.asked = [], 0

    def receive(self):
        self.asked += 1
        future = asyncio.get_running_loop().create_future()
        if self._gone:
            future.set_result({"type": "http.disconnect"})
        elif self._pieces:
            future.set_result(self._pieces.pop(0))
        elif self._open:
            self._waiting.append(future)
        else:
            future.set_result({"type": "http.request", "body": b"", "more_body": False})
        return future

    async def send(self, event):
        if self._gone:
            raise ConnectionError
        self.sent.append(event)

    def go(self):
        self._gone = True
        for future in self._waiting:
            future.set_result({"type": "http.disconnect"})

    @property
    def body(self):
        return b"".join(one.get("body", b"") for one in self.sent)

    @property
    def end(self):
        """The last block of headers."""
        return dict(next(one for one in reversed(self.sent) if "headers" in one)["headers"])

    @property
    def status(self):
        return Code(int(self.end[b"grpc-status"]))


def scope(path="/t.S/Unary", more=(), headers=HEADERS, method="POST"):
    return {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [*headers, *more], "client": ("192.0.2.1", 7)}  # fmt: skip


def door(point=None, **limits):
    point, log = point or Point(), Log()
    made = HostedDoor(point, PROXY, Unverified(), None, Limits(**limits), log)
    made.point, made.log = point, log
    return made


async def served(one, server, **how):
    await one(scope(**how), server.receive, server.send)
    return server


async def test_a_unary_call_is_answered_with_headers_message_and_trailers() -> None:
    server = await served(door(), Server(frame(b"hello")))
    assert [one["type"].rpartition(".")[2] for one in server.sent] == ["start", "body", "trailers"]
    assert (server.body, server.status) == (frame(b"hello"), Code.OK)
    assert dict(server.sent[0]["headers"])[b"x-up"] == b"1"
    assert server.end[b"x-customhouse-call-id"] == b"7", "the sidecar's own go with the end, as with the other host"


async def test_a_message_may_come_in_pieces() -> None:
    whole = frame(b"hello")
    server = await served(door(), Server(*(whole[n : n + 1] for n in range(len(whole)))))
    assert server.body == whole


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([], Code.INTERNAL), ([frame(b"a") + frame(b"b")], Code.INTERNAL), ([frame(b"hello")[:-1]], Code.INTERNAL),
        ([b"\x02\0\0\0\0"], Code.INTERNAL), ([b"\x01\0\0\0\x01x"], Code.INTERNAL),
        ([b"\0\xff\xff\xff\xff"], Code.RESOURCE_EXHAUSTED), ([frame(bytes(2000))], Code.RESOURCE_EXHAUSTED),
    ],
)  # fmt: skip
async def test_what_is_not_one_message_within_the_limit_reaches_nothing(pieces, code) -> None:
    one = door(message=1000)
    server = await served(one, Server(*pieces))
    assert (server.status, one.point.calls, len(server.sent)) == (code, [], 2)
    assert one.ended == 1


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"headers": [(b"content-type", b"application/grpc")]}, Code.INTERNAL),
        ({"more": [(b"grpc-timeout", b"soon")]}, Code.INTERNAL),
        ({"more": [(b"grpc-encoding", b"snappy")]}, Code.UNIMPLEMENTED),
        ({"more": [(b"x-long", b"v" * 20_000)]}, Code.RESOURCE_EXHAUSTED),
        ({"more": [(b"a", b"")] * 600}, Code.RESOURCE_EXHAUSTED),
    ],
)
async def test_headers_that_make_no_call_are_refused_with_a_status(how, code) -> None:
    one = door()
    server = await served(one, Server(frame(b"x")), **how)
    assert (server.status, one.point.calls) == (code, [])
    assert server.end[b"grpc-accept-encoding"] == b"identity,deflate,gzip"


@pytest.mark.parametrize(
    "how", [{"method": "GET"}, {"headers": []}, {"headers": [(b"content-type", b"application/grpc-web")]}]
)
async def test_what_is_not_grpc_is_told_so(how) -> None:
    server = await served(door(), Server(frame(b"x")), **how)
    assert (server.sent[0]["status"], len(server.sent)) == (415, 2)


async def test_metadata_is_stripped_as_at_the_other_door() -> None:
    one = door()
    sent = [(b"x-tag", b"a"), (b"x-tag", b"b"), (b"x-bin", b"AP8"), (b"grpc-foo", b"1"), (b"x-customhouse-person", b"eve"),
            (b"x-forwarded-client-cert", b"Hash=1"), (b"user-agent", b"u"), (b"x-odd", b"\xff")]  # fmt: skip
    await served(one, Server(frame(b"x")), more=sent)
    call, _ = one.point.calls[0]
    assert call.metadata == (("x-tag", "a"), ("x-tag", "b"), ("x-bin", b"\x00\xff"))
    assert (call.method, call.peer.address, call.peer.identities) == ("/t.S/Unary", "192.0.2.1:7", ())


async def test_a_deadline_ends_the_call_and_says_so() -> None:
    one = door(Point(lambda: asyncio.sleep(30)))
    begun = time.monotonic()
    server = await served(one, Server(frame(b"x")), more=[(b"grpc-timeout", b"100m")])
    assert 0.09 < time.monotonic() - begun < 25
    assert (server.status, one.point.ended) == (Code.DEADLINE_EXCEEDED, ["CancelledError"])


async def test_a_caller_who_goes_ends_a_call_that_lasts_and_is_told_nothing() -> None:
    one = door(Point(lambda: asyncio.sleep(30)))
    server = Server(frame(b"x"))
    asyncio.get_running_loop().call_later(0.1, server.go)
    await asyncio.wait_for(served(one, server), 25)
    assert (server.sent, one.point.ended, one.log.lines) == ([], ["CancelledError"], [])


async def test_a_call_that_lasts_is_looked_after_less_and_less_often() -> None:
    server, one = Server(frame(b"x")), door(Point(lambda: asyncio.sleep(1.2)))
    asyncio.get_running_loop().call_later(1.1, server.go)
    await served(one, server)
    assert server.asked <= 8


async def test_a_stream_echoes_until_its_end() -> None:
    server = await served(door(), Server(frame(b"a") + frame(b"b"), frame(b"c")), path="/t.S/Stream")
    assert (server.body, server.status) == (frame(b"a") + frame(b"b") + frame(b"c"), Code.OK)


async def test_a_stream_whose_caller_goes_is_never_taken_for_a_whole_one() -> None:
    server, one = Server(frame(b"a"), open_ended=True), door()
    asyncio.get_running_loop().call_later(0.05, server.go)
    await asyncio.wait_for(served(one, server, path="/t.S/Stream"), 60)
    assert one.point.ended == ["CancelledError"]
    assert not any(event["type"].endswith("trailers") for event in server.sent)


async def test_a_stream_that_breaks_half_way_says_why() -> None:
    server, one = Server(frame(b"a"), b"\x07"), door()
    await served(one, server, path="/t.S/Stream")
    assert (server.status, one.point.ended) == (Code.INTERNAL, ["CancelledError"])


async def test_one_call_too_many_is_refused() -> None:
    gate = asyncio.Event()
    one = door(Point(gate.wait), streams=2)
    waiting = [asyncio.create_task(served(one, Server(frame(b"x")))) for _ in range(2)]
    await asyncio.sleep(0.01)
    assert (await served(one, Server(frame(b"x")))).status is Code.RESOURCE_EXHAUSTED
    gate.set()
    await asyncio.gather(*waiting)


async def test_draining_lets_calls_end_and_then_ends_them() -> None:
    one = door(Point(lambda: asyncio.sleep(30)))
    server = Server(frame(b"x"))
    call = asyncio.create_task(served(one, server))
    await asyncio.sleep(0.01)
    draining = asyncio.create_task(one.drain(0.1))
    await asyncio.sleep(0.01)
    assert (await served(one, Server(frame(b"x")))).status is Code.UNAVAILABLE
    await asyncio.wait_for(asyncio.gather(draining, call), 25)
    assert (server.status, one.point.ended) == (Code.UNAVAILABLE, ["CancelledError"])


async def test_a_fault_of_ours_refuses_and_names_only_the_place() -> None:
    async def broken():
        raise ValueError("jo@mail.example")

    one = door(Point(broken))
    server = await served(one, Server(frame(b"x")))
    assert (server.status, len(one.log.lines)) == (Code.UNAVAILABLE, 1)
    assert b"jo@" not in b"".join(server.end.values())


async def test_an_ok_without_a_message_is_no_answer() -> None:
    async def silent():
        return Reply(message=None, headers=(), final=Final(code=Code.OK))

    assert (await served(door(Point(silent)), Server(frame(b"x")))).status is Code.UNAVAILABLE


class Unread(Server):
    """Its caller takes nothing of the answer's body."""

    def send(self, event):
        self.sent.append(event)
        future = asyncio.get_running_loop().create_future()
        if event["type"] != "http.response.body":
            future.set_result(None)
        return future


async def test_an_answer_that_nobody_takes_ends_at_the_deadline() -> None:
    one = door()
    await asyncio.wait_for(served(one, Unread(frame(b"hello")), more=[(b"grpc-timeout", b"50m")]), 60)
    assert not one._open


async def test_an_answer_that_nobody_takes_does_not_hold_up_a_stop() -> None:
    one = door()
    call = asyncio.ensure_future(served(one, Unread(frame(b"hello"))))
    while not one.point.calls:
        await asyncio.sleep(0)
    await asyncio.wait_for(one.drain(0.01), 60)
    await call
