"""The service behind Envoy's own client, which the test plays: what it is sent, and what becomes of what it answers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyqwest import Headers, Request, Response

from sidecar.doors.grpc_frames import FrameError, Frames, frame
from sidecar.doors.hosted_upstream import Asked, EnvoyUpstream
from sidecar.errors import Code, ForwardError

LIMIT = 64
ANSWERED = (("content-type", "application/grpc"), ("x-envoy-upstream-service-time", "0"), ("x-tag", "1"))
METADATA = (("x-tag", "a"), ("x-tag", "b"), ("x-bin", b"\x00\xff"), ("authorization", "Bearer t"))


class Transport:
    """Answers with these pieces and trailers, and remembers what it was asked."""

    def __init__(self, pieces, trailers=(("grpc-status", "0"),), headers=ANSWERED):
        self.pieces, self.trailers, self.headers, self.asked = pieces, trailers, headers, []

    async def execute(self, request):
        self.asked.append(request)
        return Response(
            status=200, headers=Headers(self.headers), content=self._content(), trailers=Headers(self.trailers)
        )

    async def _content(self):
        for one in self.pieces:
            yield one


async def answered(transport, timeout=None):
    upstream = EnvoyUpstream(transport, None, LIMIT, "service.example")
    return await upstream.unary("/t.S/Unary", b"hello", METADATA, timeout)


async def test_what_is_sent_says_to_envoys_client_what_its_own_request_would() -> None:
    transport = Transport([frame(b"x")])
    await answered(transport, 2.0)
    asked = transport.asked[0]
    own = Request(asked.method, asked.url, Headers(list(asked.headers.items())), asked.content)
    assert isinstance(asked, Asked)
    assert (asked.method, asked.url) == (own.method, own.url) == ("POST", "http://service.example/t.S/Unary")
    assert asked.content == frame(b"hello")
    assert not asked._json
    assert len(asked.headers) == len(list(asked.headers.items()))
    assert sorted(asked.headers.items()) == sorted(own.headers.items()) == [
        ("authorization", "Bearer t"), ("content-type", "application/grpc"), ("grpc-timeout", "2000001u"),
        ("te", "trailers"), ("user-agent", "customhouse"), ("x-bin", "AP8"), ("x-tag", "a"), ("x-tag", "b"),
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["/t.S/A/b", "t.S/A", "/t.S/A?x", "/t.S/A\n", "//evil.example/x", ""])
async def test_what_is_no_methods_path_is_not_sent_however_often_it_is_asked(method) -> None:
    transport = Transport([frame(b"x")])
    upstream = EnvoyUpstream(transport, None, LIMIT, "service.example")
    for _ in range(2):
        with pytest.raises(ForwardError):
            await upstream.unary(method, b"", (), None)
    assert transport.asked == []


async def test_only_what_may_be_shown_of_headers_and_trailers_comes_back() -> None:
    reply = await answered(Transport([frame(b"x")], (("grpc-status", "0"), ("x-late", "2"), ("x-customhouse-a", "3"))))
    assert (reply.message, reply.headers) == (b"x", (("x-tag", "1"),))
    assert (reply.final.code, reply.final.trailing) == (Code.OK, (("x-late", "2"),))


@pytest.mark.parametrize("piece", [frame(b"x"), frame(b"x")[:-1], frame(b"x") + b"\0", b"\0\0\0\0\x3f" + b"x" * 64])
async def test_an_answer_without_end_is_given_up(piece) -> None:
    given = 0

    async def endless():
        nonlocal given
        while given < 50:
            given += 1
            yield piece

    transport = Transport([])
    transport._content = endless
    reply = await answered(transport)
    assert reply.message is None
    assert reply.final.code in {Code.INTERNAL, Code.RESOURCE_EXHAUSTED}
    assert given <= 5


def expected(pieces):
    """The message, or the code: what `Frames` makes of the pieces, one after the other."""
    frames, found = Frames(LIMIT), []
    try:
        for one in pieces:
            found += frames.feed(one)
            if len(found) > 1:
                return Code.INTERNAL
    except FrameError as error:
        return error.code
    return Code.INTERNAL if len(found) != 1 or frames.partial else found[0]


MESSAGES = st.lists(st.binary(max_size=LIMIT + 6), max_size=3).map(lambda texts: b"".join(map(frame, texts)))
PIECES = st.lists(st.one_of(MESSAGES, st.binary(max_size=12), st.just(b"")), max_size=3)


@given(PIECES, st.integers(min_value=0, max_value=80))
def test_an_answer_is_what_its_frames_are_however_it_is_cut(pieces: list[bytes], at: int) -> None:
    for cut in (pieces, [part for one in pieces for part in (one[:at], one[at:])]):
        reply = asyncio.run(answered(Transport(cut)))
        assert (reply.final.code if reply.message is None else reply.message) == expected(cut)
