"""gRPC's framing of a body: what is framed comes back however it is cut, and nothing else is believed."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.doors.grpc_frames import PREFIX, FrameError, Frames, frame, only
from sidecar.errors import Code

LIMIT = 1000
MESSAGES = st.lists(st.binary(max_size=LIMIT), max_size=6)
PACK = {"gzip": gzip.compress, "deflate": zlib.compress}


def compressed(message: bytes, encoding: str) -> bytes:
    """A message with the flag of compressed ones."""
    packed = PACK[encoding](message)
    return b"\x01" + len(packed).to_bytes(4) + packed


def fed(frames: Frames, body: bytes, cuts: list[int]) -> list[bytes]:
    """Feed a body in pieces, to its end."""
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    found = [one for start, end in zip(edges, edges[1:], strict=False) for one in frames.feed(body[start:end])]
    frames.end()
    return found


@given(MESSAGES, st.lists(st.integers(min_value=0), max_size=12))
def test_what_was_framed_comes_back_however_it_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    assert fed(Frames(LIMIT), b"".join(map(frame, messages)), cuts) == messages


@given(st.data(), MESSAGES, st.sampled_from(["gzip", "deflate"]), st.lists(st.integers(min_value=0), max_size=12))
def test_compressed_and_plain_messages_may_alternate(
    data: st.DataObject, messages: list[bytes], encoding: str, cuts: list[int]
) -> None:
    plain = [data.draw(st.booleans()) for _ in messages]
    body = b"".join(
        frame(one) if as_is else compressed(one, encoding) for one, as_is in zip(messages, plain, strict=True)
    )
    assert fed(Frames(2 * LIMIT, encoding), body, cuts) == messages


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=6))
def test_any_bytes_are_either_exactly_messages_or_refused(body: bytes, cuts: list[int]) -> None:
    frames = Frames(50)
    refused: FrameError | None = None
    found: list[bytes] = []
    try:
        found = fed(frames, body, cuts)
    except FrameError as error:
        refused = error
    if refused is None:
        assert b"".join(map(frame, found)) == body
        assert all(len(one) <= 50 for one in found)
        return
    assert refused.code in (Code.INTERNAL, Code.RESOURCE_EXHAUSTED)
    with pytest.raises(FrameError):
        frames.feed(frame(b"more"))


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_body_that_ends_inside_a_message_is_refused(message: bytes, data: st.DataObject) -> None:
    whole = frame(message)
    frames = Frames(LIMIT)
    assert frames.feed(whole[: data.draw(st.integers(1, len(whole) - 1))]) == []
    assert frames.partial
    with pytest.raises(FrameError, match="inside a message") as refused:
        frames.end()
    assert refused.value.code is Code.INTERNAL
    assert not frames.partial


def test_nothing_is_taken_after_the_end() -> None:
    frames = Frames(LIMIT)
    assert frames.feed(frame(b"a")) == [b"a"]
    frames.end()
    with pytest.raises(FrameError, match="ended already"):
        frames.feed(frame(b"b"))


def test_a_message_of_just_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert Frames(LIMIT).feed(frame(b"x" * LIMIT)) == [b"x" * LIMIT]
    with pytest.raises(FrameError) as refused:
        Frames(LIMIT).feed(frame(b"x" * (LIMIT + 1)))
    assert refused.value.code is Code.RESOURCE_EXHAUSTED


def test_a_length_beyond_the_limit_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(FrameError, match="larger than the limit"):
        Frames(LIMIT).feed(b"\x00\xff\xff\xff\xff")


@pytest.mark.parametrize("flag", [2, 0x7F, 0xFF])
def test_a_flag_nobody_knows_is_refused_at_its_first_byte(flag: int) -> None:
    with pytest.raises(FrameError, match="not gRPC") as refused:
        Frames(LIMIT).feed(frame(b"first") + bytes([flag]))
    assert refused.value.code is Code.INTERNAL
    with pytest.raises(FrameError, match="not gRPC"):
        Frames(LIMIT).feed(bytes([flag]) + bytes(PREFIX - 1))


@pytest.mark.parametrize(
    ("encoding", "code"), [("identity", Code.INTERNAL), ("zstd", Code.UNIMPLEMENTED), ("", Code.UNIMPLEMENTED)]
)
def test_a_compressed_message_without_a_known_encoding_is_refused(encoding: str, code: Code) -> None:
    with pytest.raises(FrameError) as refused:
        Frames(LIMIT, encoding).feed(compressed(b"a", "gzip"))
    assert refused.value.code is code


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_expanded_no_further_than_the_limit(encoding: str) -> None:
    bomb = compressed(bytes(50_000_000), encoding)
    frames = Frames(len(bomb), encoding)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="beyond the limit") as refused:
            frames.feed(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assert peak < 1_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("spoil", [lambda whole: whole[:-1], lambda whole: whole + b"x", lambda whole: b"x" + whole])
def test_a_compressed_message_that_is_cut_or_followed_by_more_is_refused(encoding: str, spoil: object) -> None:
    packed = spoil(PACK[encoding](b"hello"))  # type: ignore[operator]
    with pytest.raises(FrameError) as refused:
        Frames(LIMIT, encoding).feed(b"\x01" + len(packed).to_bytes(4) + packed)
    assert refused.value.code is Code.INTERNAL


BODIES = st.one_of(
    st.binary(max_size=30),
    st.binary(max_size=LIMIT + 5).map(frame),
    st.tuples(st.binary(max_size=30), st.integers(0, 40), st.integers(0, 255)).map(
        lambda parts: bytes([parts[2] % 3]) + parts[1].to_bytes(4) + parts[0]
    ),
)


@given(BODIES)
def test_the_short_way_for_one_message_is_what_the_long_one_makes_of_it(body: bytes) -> None:
    found = only(body, LIMIT)
    frames = Frames(LIMIT)
    try:
        messages = frames.feed(body)
        frames.end()
    except FrameError:
        messages = []
    assert ([] if found is None else [found]) == (messages if len(messages) == 1 else [])
