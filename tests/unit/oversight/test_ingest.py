"""A batch is taken only if every part of it is what its producer signed."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rig import Producer

from sidecar.oversight.ingest import RefusedError, check_batch
from sidecar.oversight.storage import Item, Link
from sidecar.oversight.wire import encode_header, header_of
from sidecar.record import EventBody, batch_message, encode_body, leaf_digest
from sidecar.tlog.merkle import leaf_hash

pytestmark = pytest.mark.unit


def check(producer, header, signature, items):
    return check_batch(header, signature, items, producer.key.public_key())


def refusal(producer, header, signature, items):
    with pytest.raises(RefusedError) as caught:
        check(producer, header, signature, items)
    assert not caught.value.retry
    return caught.value.code, caught.value.message


def signed(producer, first, items, /, **changes):
    """A batch whose header says something else, signed all the same."""
    header = replace(producer.header(first, items), **changes)
    header = replace(header, raw=encode_header(header))
    return header, producer.key.sign(batch_message(header.raw)), items


def test_a_good_batch_passes():
    producer = Producer().run(5)
    batch = check(producer, *producer.batch(1, 5))
    assert batch.digests == tuple(leaf_digest(item.leaf) for item in producer.items[1:])
    assert batch.prevs == tuple(leaf_digest(item.leaf) for item in producer.items[:4])
    assert batch.hashes == tuple(leaf_hash(item.leaf) for item in producer.items[1:])
    assert batch.types == ("decision",) * 4
    assert batch.header == header_of(batch.header.raw)


def test_another_key_is_refused():
    producer = Producer().run(2)
    header, _, items = producer.batch(0, 2)
    forged = Ed25519PrivateKey.generate().sign(batch_message(header.raw))
    assert refusal(producer, header, forged, items)[0] == "bad_signature"
    assert refusal(producer, header, b"", items)[0] == "bad_signature"
    unprefixed = producer.key.sign(header.raw)
    assert refusal(producer, header, unprefixed, items)[0] == "bad_signature"


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"count": 3}, "bad_batch", "count 3 with 2 items"),
        ({"count": 0}, "bad_batch", "count 0"),
        ({"epoch": "x"}, "bad_batch", "not a UUIDv7"),
        ({"epoch": "01a19467-e800-404d-a788-142cc2b79638"}, "bad_batch", "not a UUIDv7"),
        ({"epoch": "01A19467-E800-704D-A788-142CC2B79638"}, "bad_batch", "not a UUIDv7"),
        ({"epoch": "01a19467-e800-704d-a788-142cc2b79638"}, "bad_leaf", "another producer, slot, epoch or seq"),
        ({"producer": "somebody"}, "bad_leaf", "another producer, slot, epoch or seq"),
        ({"slot": 1}, "bad_leaf", "another producer, slot, epoch or seq"),
        ({"first_seq": 1}, "bad_leaf", "another producer, slot, epoch or seq"),
        ({"root": bytes(32)}, "bad_batch", "not the root of the leaves"),
        ({"root": b""}, "bad_batch", "not the root of the leaves"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes, code, message):
    producer = Producer().run(2)
    found = refusal(producer, *signed(producer, 0, producer.items, **changes))
    assert found[0] == code
    assert message in found[1]


def test_a_batch_of_none_or_too_many_is_refused():
    producer = Producer().run(257)
    assert refusal(producer, *signed(producer, 0, producer.items))[0] == "bad_batch"
    assert refusal(producer, *signed(producer, 0, []))[0] == "bad_batch"
    assert check(producer, *producer.batch(0, 256)).header.count == 256


def test_each_part_of_a_record_is_checked():
    producer = Producer().run(1)
    (item,) = producer.items
    big = producer.make(0, None, "open", b'"' + b"a" * 65_535 + b'"')
    empty = producer.make(0, None, "open", b"")
    for wrong, code in [
        (replace(item, body=item.body + b" "), "bad_leaf"),
        (replace(item, salt=bytes(32)), "bad_leaf"),
        (replace(item, salt=item.salt + b"\0"), "bad_batch"),
        (replace(item, leaf=item.leaf + b" "), "bad_leaf"),
        (replace(item, leaf=b"{}"), "bad_leaf"),
        (replace(item, nonce=bytes(12)), "bad_batch"),
        (replace(item, sealed=b"x"), "bad_batch"),
        (replace(item, nonce=bytes(11), sealed=b"x"), "bad_batch"),
        (replace(item, nonce=bytes(12), sealed=bytes(128 * 1024 + 1)), "bad_batch"),
        (big, "bad_batch"),
        (empty, "bad_batch"),
    ]:
        assert refusal(producer, *producer.sign(0, [wrong]))[0] == code


def test_the_chain_holds_inside_a_batch():
    producer = Producer().run(4)
    loose = producer.make(3, None, "decision", None)
    broken = [*producer.items[:3], loose]
    assert "does not name the leaf before it" in refusal(producer, *producer.sign(0, broken))[1]
    assert refusal(producer, *producer.sign(3, [loose])) == ("bad_leaf", "leaf 3 names no predecessor")


@pytest.mark.parametrize(
    ("details", "link"),
    [
        ({"previous_epoch": "e", "previous_seq": 7}, Link(epoch="e", last_seq=7)),
        ({"previous_epoch": None, "previous_seq": None}, None),
        ({"previous_epoch": "e", "previous_seq": -1}, None),
        ({"previous_epoch": "e", "previous_seq": True}, None),
        ({}, None),
    ],
)
def test_an_open_names_the_epoch_before(details, link):
    producer = Producer()
    producer.record("open", encode_body(EventBody(type="open", details=details)))
    assert check(producer, *producer.batch(0, 1)).link == link


def test_an_open_that_cannot_be_read_names_nothing():
    producer = Producer()
    producer.record("open", b"\xff not json")
    assert check(producer, *producer.batch(0, 1)).link is None


GOOD = Producer().run(3)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_byte_is_refused(data):
    header, signature, items = GOOD.batch(0, 3)
    parts = [header.raw, signature, *(part for item in items for part in (item.leaf, item.salt, item.body))]
    which = data.draw(st.integers(0, len(parts) - 1))
    at = data.draw(st.integers(0, len(parts[which]) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = bytearray(parts[which])
    changed[at] ^= flip
    parts[which] = bytes(changed)
    rest = parts[2:]
    altered = [Item(leaf=rest[n], salt=rest[n + 1], body=rest[n + 2]) for n in range(0, 9, 3)]
    with pytest.raises(RefusedError):
        check(GOOD, header_of(parts[0]), parts[1], altered)


def test_bytes_that_are_no_header_are_refused():
    with pytest.raises(RefusedError):
        header_of(b"\xff\xff\xff")
