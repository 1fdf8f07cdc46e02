"""Frames: encode and decode are inverse, damage is found, and a whole frame behind damage is found too."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.spool.frame import FrameError, Item, find_frame, frame, frame_item, parse_item, read_frame
from sidecar.spool.retention import Ranges
from sidecar.spool.segment import Head, Header, encode_header, parse_header

pytestmark = pytest.mark.unit

items = st.builds(
    lambda leaf, salt, body, sealed: Item(b'{"v":1,"type":"' + leaf, salt, body, b"n" * 12 if sealed else b"", sealed),
    st.binary(max_size=900), st.binary(min_size=32, max_size=32), st.binary(max_size=3000), st.binary(max_size=300),
)  # fmt: skip


@given(items)
def test_an_item_comes_back_as_it_was(item: Item) -> None:
    assert parse_item(read_frame(frame_item(item), 0)) == item


@given(items, st.data())
def test_every_flipped_bit_is_found(item: Item, data: st.DataObject) -> None:
    good = bytearray(frame_item(item))
    bit = data.draw(st.integers(0, len(good) * 8 - 1))
    good[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameError):
        read_frame(bytes(good), 0)


@given(items, st.data())
def test_every_cut_is_found_and_called_short(item: Item, data: st.DataObject) -> None:
    good = frame_item(item)
    with pytest.raises(FrameError) as caught:
        read_frame(good[: data.draw(st.integers(0, len(good) - 1))], 0)
    assert caught.value.short


@given(st.binary(max_size=200), items)
def test_a_whole_frame_is_found_behind_any_bytes(junk: bytes, item: Item) -> None:
    assert find_frame(junk + frame_item(item), 0) == len(junk)


@given(st.binary(max_size=2000))
@settings(max_examples=500)
def test_readers_raise_nothing_but_frame_errors(data: bytes) -> None:
    for read in (lambda: read_frame(data, 0), lambda: parse_item(data), lambda: parse_header(data)):
        try:
            read()
        except FrameError:
            continue
    assert find_frame(data, 0) is None


def test_no_frame_is_found_in_a_long_run_of_zeros_or_noise() -> None:
    noise = random.Random(7).randbytes(100_000)
    assert find_frame(bytes(1_000_000) + noise, 0) is None


def test_a_frame_may_not_be_empty_or_longer_than_any_record() -> None:
    with pytest.raises(FrameError, match="a frame of 0 bytes"):
        read_frame(frame(b""), 0)
    with pytest.raises(FrameError, match="at most"):
        read_frame((1 << 30).to_bytes(4, "big") + bytes(100), 0)


def test_the_header_is_strict() -> None:
    header = Header(number=1, producer="p", slot=0, epoch="e", sealed_epoch_key=b"k", first_seq=0,
                    before=Head(epoch="d", seq=9, hash=b"h" * 32))  # fmt: skip
    data = encode_header(header)
    assert parse_header(data + b"rest") == (header, len(data))
    with pytest.raises(FrameError, match="version 1"):
        parse_header(b"CHSPOOL2" + data[8:])
    with pytest.raises(FrameError, match="version 1"):
        parse_header(b"CHSPOOL1" + frame(b'{"v":1}'))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30))
def test_ranges_behave_like_a_set(adds: list[tuple[int, int]]) -> None:
    ranges, model = Ranges(), set[int]()
    for first, count in adds:
        fresh = set(range(first, first + count)) - model
        assert ranges.add(first, count) == len(fresh)
        model |= fresh
    for seq in range(75):
        end = seq
        while end in model:
            end += 1
        assert ranges.end_of(seq) == end
        assert ranges.covers(seq, seq + 3) == all(one in model for one in range(seq, seq + 3))
