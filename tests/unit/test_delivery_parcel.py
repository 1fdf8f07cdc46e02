"""What is sent is made from the spool's bytes in one pass: held against frames, tree and messages read one by one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar import _native
from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.record import SALT_SIZE
from sidecar.spool.frame import FRAME_OVERHEAD, NONCE_SIZE, FrameError, Item, frame, frame_item, parse_item, read_frame
from sidecar.spool.retention import Ranges
from sidecar.tlog.errors import TlogError
from sidecar.tlog.merkle import EMPTY_ROOT, leaf_hash, range_proof, root_hash, verify_range

pytestmark = pytest.mark.unit

NEVER = 2**63
SIZES = st.sampled_from([0, 1, 5, 127, 128, 129, 300, 16384])
ITEMS = st.builds(
    lambda leaf, body, sealed, byte: Item(
        bytes([byte]) * min(leaf, 1024), bytes([byte ^ 1]) * SALT_SIZE, bytes([byte ^ 2]) * body,
        bytes([byte ^ 3]) * (NONCE_SIZE if sealed else 0), bytes([byte ^ 4]) * sealed,
    ),
    SIZES, SIZES, SIZES, st.integers(0, 255),
)  # fmt: skip


def one_by_one(data: bytes, seq: int, after: int, until: int, limit: int, most: int) -> tuple[object, ...]:
    """The same, by the modules that say what each thing means."""
    items: list[Item] = []
    at, stopped = 0, False
    while at < len(data) and at < most and len(items) < limit:
        try:
            payload = read_frame(data, at)
            if seq >= until:
                break
            if seq >= after:
                items.append(parse_item(payload))
        except FrameError:
            stopped = True
            break
        at += FRAME_OVERHEAD + len(payload)
        seq += 1
    hashes = [leaf_hash(one.leaf) for one in items]
    sent = wire.Batch(items=[wire.Item(**one._asdict()) for one in items]).SerializeToString()
    return seq - len(items), len(items), sent, b"".join(hashes), root_hash(hashes), seq, at, stopped


def in_one_pass(*arguments: object) -> tuple[object, ...]:
    found = _native.parcel(*arguments)  # type: ignore[arg-type]
    return (
        found.first_seq, found.count, found.items, found.leaf_hashes, found.root, found.next_seq, found.end,
        found.stopped,
    )  # fmt: skip


@given(st.lists(ITEMS, max_size=9), st.integers(0, 5), st.integers(0, 12), st.integers(0, 16), st.integers(0, 9),
       st.integers(0, 60_000), st.data())  # fmt: skip
def test_the_records_are_those_that_are_read_one_by_one(
    items: list[Item], seq: int, after: int, beyond: int, limit: int, most: int, draw: st.DataObject
) -> None:
    data = b"".join(map(frame_item, items))
    cut = draw.draw(st.integers(0, len(data)) | st.just(len(data)))
    until = NEVER if beyond == 16 else after + beyond
    arguments = (data[:cut], seq, after, until, limit, most)
    assert in_one_pass(*arguments) == one_by_one(*arguments)


@given(st.lists(ITEMS, min_size=1, max_size=4), st.integers(0, 3), st.data())
def test_it_stops_at_every_byte_that_is_not_what_was_written(
    items: list[Item], after: int, draw: st.DataObject
) -> None:
    data = bytearray(b"".join(map(frame_item, items)))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= draw.draw(st.integers(1, 255))
    found = in_one_pass(bytes(data), 0, after, NEVER, 9, 1 << 20)
    assert found == one_by_one(bytes(data), 0, after, NEVER, 9, 1 << 20)
    assert found[-1] is True


@given(st.lists(st.binary(max_size=90), min_size=1, max_size=3), st.integers(0, 2))
@example([bytes(6) + bytes(32)], 0)
@example([bytes(5)], 0)
@example([bytes(6) + bytes(32) + bytes(12)], 0)
@example([b"\0\1\xff\xff\xff\xff" + bytes(60)], 0)
def test_payloads_whose_parts_do_not_add_up_stop_it_too(payloads: list[bytes], after: int) -> None:
    data = b"".join(frame(one) for one in payloads if one) or b"\0"
    assert in_one_pass(data, 0, after, NEVER, 9, 1 << 20) == one_by_one(data, 0, after, NEVER, 9, 1 << 20)


def test_nothing_is_an_empty_tree() -> None:
    found = _native.parcel(b"", 4, 4, NEVER, 256, 1 << 20)
    assert (found.count, found.items, found.leaf_hashes, found.root) == (0, b"", b"", EMPTY_ROOT)


@given(st.integers(1, 70), st.data())
def test_a_range_leads_to_the_root_that_the_verifier_accepts(size: int, draw: st.DataObject) -> None:
    leaves = [leaf_hash(bytes([number])) for number in range(size)]
    first = draw.draw(st.integers(0, size - 1))
    count = draw.draw(st.integers(1, size - first))
    proof = range_proof(first, count, size, lambda level, at: root_hash(leaves[at << level : (at + 1) << level]))
    assert _native.range_root(b"".join(leaves[first : first + count]), first, size, proof) == root_hash(leaves)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 14) | st.just(2**63), st.integers(0, 6), st.data())
def test_a_range_that_the_verifier_refuses_has_no_root_or_another(
    count: int, first: int, size: int, hashes: int, draw: st.DataObject
) -> None:
    some = [leaf_hash(bytes([number])) for number in range(24)]
    leaves, proof = some[:count], list(draw.draw(st.permutations(some)))[:hashes]
    if proof and draw.draw(st.booleans()):
        proof[-1] = proof[-1][: draw.draw(st.integers(0, 31))]  # type: ignore[assignment]
    found = _native.range_root(b"".join(leaves), first, size, proof)
    wanted = some[23] if found is None else found
    try:
        verify_range(leaves, first, size, proof, wanted)
    except TlogError:
        assert found is None
    else:
        assert found == wanted


@pytest.mark.parametrize("length", [31, 33])
def test_hashes_of_another_length_are_no_range(length: int) -> None:
    assert _native.range_root(bytes(length), 0, 1, []) is None


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=6), st.integers(0, 50))
def test_where_the_next_receipt_begins(spans: list[tuple[int, int]], seq: int) -> None:
    ranges, known = Ranges(), set[int]()
    for first, count in spans:
        ranges.add(first, count)
        known |= set(range(first, first + count))
    assert ranges.start_of(seq) == min((one for one in known if one >= seq), default=None)
