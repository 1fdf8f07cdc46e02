"""A hosted call's request body: however it is cut, it is what `Frames` makes of it, and its caller is looked after."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from sidecar.doors.grpc_frames import FrameError, Frames, frame
from sidecar.doors.hosted_body import Body

LIMIT = 64
TEXTS = st.lists(st.binary(max_size=LIMIT + 6), max_size=3)
RUBBISH = st.binary(max_size=20)


class Server:
    """Hands over the pieces one by one, then answers at once, as pyvoy does. `gone`: that the caller has gone."""

    def __init__(self, pieces):
        self.pieces, self.asked, self.gone = list(pieces), 0, False

    def receive(self):
        self.asked += 1
        future = asyncio.get_running_loop().create_future()
        data = self.pieces.pop(0) if self.pieces else b""
        event = {"type": "http.request", "body": data, "more_body": bool(self.pieces)}
        future.set_result({"type": "http.disconnect"} if self.gone else event)
        return future


def opened(server):
    told = []
    return Body(server.receive, LIMIT, "identity", lambda: told.append("gone"), told.append), told


def cut(data, cuts):
    at = sorted({0, len(data), *(one % (len(data) + 1) for one in cuts)})
    return [data[a:b] for a, b in zip(at, at[1:], strict=False)] or [b""]


def framed(data):
    """All messages; None for a body that is broken."""
    frames = Frames(LIMIT)
    try:
        found = frames.feed(data)
        frames.end()
    except FrameError:
        return None
    return found


async def whole(pieces):
    """The one message; None when there is none or several, or the body is broken."""
    body, told = opened(Server(pieces))
    reading = asyncio.ensure_future(body.whole())
    while not reading.done():
        if told and not reading.done():
            reading.cancel()  # as the door does when it is told
        await asyncio.sleep(0)
    if reading.cancelled() or isinstance(reading.exception(), FrameError):
        return None
    return reading.result()


async def streamed(pieces):
    body, told = opened(Server(pieces))
    try:
        found = [message async for message in body]
    except asyncio.CancelledError:
        return None
    assert not told
    return found


BODIES = st.one_of(
    TEXTS.map(lambda texts: b"".join(map(frame, texts))), RUBBISH, RUBBISH.map(lambda r: frame(b"a") + r)
)
CUTS = st.lists(st.integers(min_value=0, max_value=200), max_size=4)


@given(BODIES, CUTS)
def test_however_a_body_is_cut_it_is_what_its_frames_are(data: bytes, cuts: list[int]) -> None:
    messages = framed(data)
    assert asyncio.run(streamed(cut(data, cuts))) == messages
    one = messages[0] if messages is not None and len(messages) == 1 else None
    assert asyncio.run(whole(cut(data, cuts))) == one


async def test_a_caller_is_looked_for_late_and_then_less_and_less_often() -> None:
    server = Server([frame(b"x")])
    body, _ = opened(server)
    await body.whole()
    at = []
    for tick in range(80):
        before = server.asked
        body.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        at += [tick + 1] * (server.asked - before)
    assert at == [2, 6, 14, 30, 50, 70], "not at the first tick, which may come at once; at most 20 ticks apart"


async def test_a_caller_who_has_gone_is_told_of_once_and_not_after_the_end() -> None:
    server = Server([frame(b"x")])
    body, told = opened(server)
    await body.whole()
    server.gone = True
    for _ in range(10):
        body.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert told == ["gone"]
    other, heard = opened(server)
    other.close()
    other.look()
    await asyncio.sleep(0)
    assert (heard, server.asked) == ([], 2)
