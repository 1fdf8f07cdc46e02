"""The door's own judgement, on contexts that misbehave as grpc.aio does."""

import asyncio

import grpc
import pytest
from proxy_parts import Remembering

from sidecar.enforcement.call import Final, Peer, Reply
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.errors import Code
from sidecar.vocabulary import Obligation

pytestmark = pytest.mark.unit


class Details:
    invocation_metadata = ()

    def __init__(self, method):
        self.method = method


class Peers:
    def of(self, transport):
        return Peer(address="here")


class Context:
    """A servicer context of a caller who may have gone."""

    def __init__(self, *, gone=False, messages=()):
        self.gone, self.messages, self.reads = gone, list(messages), 0
        self.headers = self.code = self.details = self.trailers = None
        self.sent = []

    def time_remaining(self):
        return None

    def invocation_metadata(self):
        return ()

    def _there(self):
        if self.gone:
            raise grpc.aio.UsageError("RPC already finished.")

    async def send_initial_metadata(self, metadata):
        self._there()
        self.headers = metadata

    async def write(self, message):
        self._there()
        self.sent.append(message)

    async def read(self):
        self.reads += 1
        self._there()
        return self.messages.pop(0) if self.messages else grpc.aio.EOF

    def set_code(self, code):
        self.code = code

    def set_details(self, details):
        self.details = details

    def set_trailing_metadata(self, metadata):
        self.trailers = metadata


class Point:
    """Answers as told."""

    def __init__(self, *, kind="stream", unary=None, stream=None):
        self._kind, self._unary, self._stream = kind, unary, stream

    def kind(self, method):
        return self._kind

    async def unary(self, call, request):
        return self._unary

    async def stream(self, call, requests, answer):
        return await self._stream(requests, answer)


def door(point, log=None):
    return ProxyHandler(point, PROXY, Peers(), log or Remembering())


def test_the_proxy_fulfils_every_obligation_there_is():
    known = {str(one.__struct_config__.tag) for one in Obligation.__subclasses__()} - {"?"}
    assert PROXY.fulfils == known


def test_a_unary_calls_handler_is_its_own_and_those_of_known_streams_are_kept():
    known, unknown = door(Point(kind="unary")), door(Point(kind=None))
    streams = door(Point(kind="stream"))
    assert known.service(Details("/a/B")) is not known.service(Details("/a/B"))
    assert streams.service(Details("/a/B")) is streams.service(Details("/a/B"))
    assert unknown.service(Details("/a/B")) is not unknown.service(Details("/a/B"))
    assert known.service(Details("/a/B")).unary_unary is not None
    assert unknown.service(Details("/a/B")).stream_stream is not None


def test_a_method_whose_kind_changes_gets_the_other_handler():
    point = Point(kind="unary")
    one = door(point)
    assert one.service(Details("/a/B")).unary_unary is not None
    point._kind = "stream"
    assert one.service(Details("/a/B")).stream_stream is not None


async def test_two_unary_calls_of_one_method_each_keep_what_their_own_caller_said():
    seen = []

    class Slow(Point):
        async def unary(self, call, request):
            await asyncio.sleep(0.01)
            seen.append(call.metadata)
            return Reply(message=b"", headers=(), final=Final(code=Code.OK))

    proxy = door(Slow(kind="unary"))
    first, second, third = (Details("/a/B") for _ in range(3))
    first.invocation_metadata, second.invocation_metadata = (("a", "1"),), (("a", "2"),)
    third.invocation_metadata = None
    handlers = [proxy.service(one) for one in (first, second, third)]
    await asyncio.gather(*(one.unary_unary(b"", Context()) for one in handlers))
    assert sorted(seen) == [(), (("a", "1"),), (("a", "2"),)]


async def test_the_sidecars_own_headers_of_a_unary_answer_travel_as_trailers():
    headers = (("x-up", "1"), ("x-customhouse-call-id", "c"))
    reply = Reply(message=b"m", headers=headers, final=Final(code=Code.OK, trailing=(("x-end", "2"),)))
    context = Context()
    handler = door(Point(kind="unary", unary=reply)).service(Details("/a/B"))
    assert await handler.unary_unary(b"q", context) == b"m"
    assert context.headers == (("x-up", "1"),)
    assert context.trailers == (("x-end", "2"), ("x-customhouse-call-id", "c"))
    assert context.code is None


async def test_headers_that_find_no_caller_end_the_call_quietly():
    reply = Reply(message=b"m", headers=(("x-up", "1"),), final=Final(code=Code.OK))
    log = Remembering()
    handler = door(Point(kind="unary", unary=reply), log).service(Details("/a/B"))
    with pytest.raises(asyncio.CancelledError):
        await handler.unary_unary(b"q", Context(gone=True))
    assert log.lines == []


@pytest.mark.parametrize("what", ["headers", "message", "requests"])
async def test_a_stream_whose_caller_has_gone_is_cancelled(what):
    async def stream(requests, answer):
        if what == "headers":
            await answer.headers((("a", "b"),))
        elif what == "message":
            await answer.message(b"m")
        else:
            await anext(requests)
        raise AssertionError("went on")

    log = Remembering()
    handler = door(Point(stream=stream), log).service(Details("/a/B"))
    context = Context(gone=True)
    with pytest.raises(asyncio.CancelledError):
        await handler.stream_stream(None, context)
    assert log.lines == []


async def test_an_end_is_believed_only_after_a_second_look():
    got = []

    async def stream(requests, answer):
        got.extend([one async for one in requests])
        got.append(await anext(requests, "end"))
        return Final(code=Code.OK)

    context = Context(messages=[b"a", b""])
    await door(Point(stream=stream)).service(Details("/a/B")).stream_stream(None, context)
    assert got == [b"a", b"", "end"]
    assert context.reads == 4


async def test_an_end_that_was_a_cancellation_is_none():
    """The reader sees an end; the task of the call is cancelled before the second look returns."""
    ended = []

    class Cancelling(Context):
        async def read(self):
            await super().read()
            if self.reads == 2:
                call.cancel()
            return grpc.aio.EOF

    async def stream(requests, answer):
        async def pump():
            async for _ in requests:
                pass
            ended.append("clean")

        pumping = asyncio.create_task(pump())
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.wait((pumping,))
            ended.append("cancelled" if pumping.cancelled() else "ended")
        return Final(code=Code.OK)

    handler = door(Point(stream=stream)).service(Details("/a/B"))
    call = asyncio.ensure_future(handler.stream_stream(None, Cancelling()))
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == ["cancelled"]
