"""The spool: chain, levels, limits, acknowledgement, deletion, and what the sender reads."""

import asyncio
import hashlib
import json
import os
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from spooling import PUBLIC, STORE_KEY, TIME, Clock, FailingFiles, event, open_spool, options, outcome, sent, until

from sidecar.errors import ConfigurationError, IntegrityError, RecordError
from sidecar.record import EPOCH_KEY_INFO, encode_body, leaf_digest, openings_aad, parse_leaf
from sidecar.spool.frame import Item
from sidecar.spool.log import Spool
from sidecar.spool.reader import SpoolReader
from sidecar.spool.segment import list_segments, parse_header
from sidecar.spool.slot import Draft
from sidecar.spool.state import read_state

pytestmark = pytest.mark.unit


async def settle(spool: Spool) -> None:
    """Make everything durable."""
    waiting = spool.reach(spool.head.seq, "committed") if spool.head else None
    if waiting is not None:
        await waiting


def drain(spool: Spool) -> list[Item]:
    reader, items = SpoolReader(spool), []
    while (chunk := reader.take(256, 1 << 20)) is not None:
        items += sent(chunk)
    return items


async def acknowledge_all(spool: Spool) -> None:
    """Give receipts for all there is, and wait until deletion is over."""
    await settle(spool)
    for segment in list(spool.shelf.segments):
        spool.acknowledge(segment.epoch, segment.first_seq, segment.next_seq - segment.first_seq)
    await settle_deletion(spool)


async def settle_deletion(spool: Spool) -> None:
    await until(lambda: not spool._deletions._running and spool._deletions._after is None)


async def test_records_are_chained_by_the_hash_of_the_leaf_before(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for number in range(5):
        spool.append([event(str(number))])
    await settle(spool)
    leaves = [item.leaf for item in drain(spool)]
    parsed = [parse_leaf(leaf) for leaf in leaves]
    assert [leaf.seq for leaf in parsed] == [0, 1, 2, 3, 4]
    assert parsed[0].prev is None
    for before, after in zip(leaves, parsed[1:], strict=False):
        assert after.prev == b64encode(hashlib.sha256(before).digest()).decode()
    assert {leaf.epoch for leaf in parsed} == {spool.epoch.id}
    await spool.close()


async def test_a_leaf_commits_to_salt_and_body(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append([event("a"), event("a")])
    await settle(spool)
    first, second = drain(spool)
    assert parse_leaf(first.leaf).body == b64encode(hashlib.sha256(first.salt + first.body).digest()).decode()
    assert first.body == second.body
    assert first.salt != second.salt
    await spool.close()


async def test_openings_open_with_the_epoch_key_that_the_store_unseals(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append([event(), event()])
    spool.append([Draft("decision", TIME, "c", b"{}", b"[openings]", True)])
    await settle(spool)
    chunk = SpoolReader(spool).take(10, 1 << 20)
    assert chunk is not None
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    key = suite.decrypt(chunk.sealed_epoch_key, STORE_KEY, EPOCH_KEY_INFO)
    item = sent(chunk)[2]
    aad = openings_aad("profiles-1", 0, chunk.epoch, 2)
    assert AESGCM(key).decrypt(item.nonce, item.sealed_openings, aad) == b"[openings]"
    assert sent(chunk)[0].nonce == b""
    await spool.close()


async def test_written_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, commit_interval=60)
    spool.append([event("needle-in-the-page-cache")])
    (path,) = list_segments(tmp_path / "0").values()
    assert b"needle-in-the-page-cache" in path.read_bytes()
    assert SpoolReader(spool).take(10, 1 << 20) is None, "what is not durable is not sent"
    await spool.close()


async def test_waiters_of_one_moment_share_a_sync(tmp_path: Path) -> None:
    class Counting(FailingFiles):
        syncs = 0

        def sync(self, fd: int) -> None:
            self.syncs += 1
            super().sync(fd)

    files = Counting()
    spool = open_spool(tmp_path, files=files)

    async def one(number: int) -> None:
        seq = spool.append([event(str(number))])
        waiting = spool.reach(seq, "committed")
        assert waiting is not None
        await waiting

    await asyncio.gather(*(one(number) for number in range(200)))
    assert files.syncs <= 3
    assert spool.reach(199, "committed") is None
    await spool.close()


async def test_acknowledged_waits_for_a_receipt(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    seq = spool.append([event(), event(), event()])
    waiting = spool.reach(seq, "acknowledged")
    assert waiting is not None
    await settle(spool)
    spool.acknowledge(spool.epoch.id, 0, 2)
    await asyncio.sleep(0)
    assert not waiting.done()
    assert spool.depth_records == 1
    spool.acknowledge(spool.epoch.id, 2, 1)
    await waiting
    assert spool.reach(seq, "acknowledged") is None
    assert spool.depth_records == 0
    await spool.close()


async def test_the_chain_goes_on_in_the_next_epoch(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    first.append([event("a"), event("b")])
    await first.close()
    second = open_spool(tmp_path)
    assert second.recovered.head == first.head
    second.append([event("c")])
    await settle(second)
    items = drain(second)
    assert [parse_leaf(item.leaf).seq for item in items] == [0, 1, 0]
    assert parse_leaf(items[2].leaf).prev == b64encode(leaf_digest(items[1].leaf)).decode()
    assert first.epoch.id != second.epoch.id
    await second.close()


async def test_the_chain_survives_the_deletion_of_every_segment(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    first.append([event("a"), event("b")])
    await acknowledge_all(first)
    await first.close()
    assert list_segments(tmp_path / "0") == {}
    second = open_spool(tmp_path)
    assert second.recovered.head == first.head
    second.append([event("c")])
    await settle(second)
    (item,) = drain(second)
    assert first.head is not None
    assert parse_leaf(item.leaf).prev == b64encode(first.head.hash).decode()
    await second.close()


async def test_a_segment_goes_only_when_every_record_has_a_receipt(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=4096, max_bytes=1 << 20)
    for number in range(30):
        spool.append([event(str(number), size=400)])
    await settle(spool)
    first, second, *_ = spool.shelf.segments
    spool.acknowledge(spool.epoch.id, 0, first.next_seq - 1)
    await settle_deletion(spool)
    assert first.path.exists()
    spool.acknowledge(spool.epoch.id, second.first_seq, second.next_seq - second.first_seq)
    await settle_deletion(spool)
    assert first.path.exists()
    assert not second.path.exists()
    spool.acknowledge(spool.epoch.id, first.next_seq - 1, 1)
    await settle_deletion(spool)
    assert not first.path.exists()
    await spool.close()
    again = open_spool(tmp_path, segment_bytes=4096, max_bytes=1 << 20)
    assert again.recovered.head == spool.head
    await again.close()


async def test_a_segment_stays_while_it_holds_a_decision_of_an_open_call(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=4096, max_bytes=1 << 20)
    spool.append([Draft("decision", TIME, "call", b"{}", b"", True)])
    for number in range(30):
        spool.append([event(str(number), size=400)])
    first = spool.shelf.segments[0].path
    await acknowledge_all(spool)
    assert first.exists()
    assert spool.open_calls == 1
    spool.append([Draft("outcome", TIME, "call", encode_body(outcome("call")))])
    await acknowledge_all(spool)
    assert not first.exists()
    assert spool.open_calls == 0
    await spool.close()


async def test_a_segment_goes_only_once_the_outcome_that_freed_it_is_durable(tmp_path: Path) -> None:
    """Otherwise a host crash would leave a permit at the store and no outcome anywhere."""
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, segment_bytes=4096, max_bytes=1 << 20, commit_interval=60)
    spool.append([Draft("decision", TIME, "call", b"{}", b"", True)])
    for number in range(30):
        spool.append([event(str(number), size=400)])
    await acknowledge_all(spool)
    first = spool.shelf.segments[0].path
    files.fail["sync"] = 5
    spool.append([Draft("outcome", TIME, "call", encode_body(outcome("call")))])
    spool.acknowledge(spool.epoch.id, 0, 1)
    await until(lambda: spool.failed_syncs > 0)
    await asyncio.sleep(0.05)
    assert first.exists()
    files.fail.clear()
    await until(lambda: not first.exists())
    await spool.close()


async def test_an_outcome_deleted_before_its_decision_is_remembered(tmp_path: Path) -> None:
    """Segment 1 holds two open calls; one ends in a segment that goes first. Its outcome must not be written again."""
    spool = open_spool(tmp_path, segment_bytes=4096, max_bytes=1 << 20)
    decision = json.dumps({"decision": {"effect": "permit"}, "phase": "request", "input": {}}).encode()
    spool.append([Draft("decision", TIME, call, decision, b"", True) for call in ("ends", "stays")])
    for number in range(12):
        spool.append([event(str(number), size=400)])
    spool.append([Draft("outcome", TIME, "ends", encode_body(outcome("ends")))])
    for number in range(20):
        spool.append([event(str(number), size=400)])
    await acknowledge_all(spool)
    state = read_state(tmp_path / "0")
    assert [call for _, call in state.closed] == ["ends"]
    spool._closed = True
    await asyncio.to_thread(spool._committer.stop)
    os.close(spool._lock)
    successor = open_spool(tmp_path, segment_bytes=4096, max_bytes=1 << 20)
    assert [body.call_id for body in successor.recovered.unfinished] == ["stays"]
    await successor.close()


async def test_state_is_durable_before_a_segment_goes(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, segment_bytes=4096, max_bytes=1 << 20)
    for number in range(30):
        spool.append([event(str(number), size=400)])
    await settle(spool)
    files.calls.clear()
    await acknowledge_all(spool)
    assert files.calls[:2] == [("replace", "state"), ("sync_folder", "0")]
    assert files.calls[2] == ("remove", "00000001.seg")
    await spool.close()


async def test_no_segment_goes_when_the_state_cannot_be_written(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, segment_bytes=4096, max_bytes=1 << 20)
    for number in range(30):
        spool.append([event(str(number), size=400)])
    await settle(spool)
    files.fail["overwrite"] = 28
    before = list(list_segments(tmp_path / "0"))
    await acknowledge_all(spool)
    assert list(list_segments(tmp_path / "0")) == before
    assert "cannot be deleted" in spool.last_error
    files.fail.clear()
    spool.append([event()])
    await acknowledge_all(spool)
    assert len(list_segments(tmp_path / "0")) == 1
    await spool.close()


async def test_a_crash_between_state_and_removal_is_finished_by_the_next_start(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, segment_bytes=4096, max_bytes=1 << 20)
    for number in range(30):
        spool.append([event(str(number), size=400)])
    await settle(spool)
    files.fail["remove"] = 5
    await acknowledge_all(spool)
    head = spool.head
    left = list(list_segments(tmp_path / "0"))
    assert 1 in left
    files.fail.clear()
    await spool.close()
    again = open_spool(tmp_path, segment_bytes=4096, max_bytes=1 << 20)
    assert again.recovered.head == head
    assert 1 not in list_segments(tmp_path / "0")
    await again.close()


async def test_a_full_spool_refuses_decisions_but_takes_outcomes(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=16384, max_bytes=65536)
    decision = Draft("decision", TIME, "c", b"x" * 500, b"", True)

    def fill() -> None:
        for _ in range(1000):
            spool.append([decision])

    with pytest.raises(RecordError) as caught:
        fill()
    assert caught.value.code == 14
    assert caught.value.reason == "record_unavailable"
    assert "record.max_bytes is 65536" in caught.value.operator
    assert "max_bytes" not in caught.value.message
    seq = spool.append([Draft("outcome", TIME, "c", encode_body(outcome("c")))], spare=True)
    assert spool.head is not None
    assert spool.head.seq == seq
    await acknowledge_all(spool)
    assert spool.append([decision]) == seq + 1, "receipts make room again"
    await spool.close()


async def test_records_are_written_all_or_none(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    spool.append([event("kept")])
    files.room = 700
    with pytest.raises(RecordError):
        spool.append([event("first part", 400), event("second part", 400)])
    files.room = None
    spool.append([event("after")])
    await settle(spool)
    texts = [json.loads(item.body)["details"]["text"] for item in drain(spool)]
    assert texts == ["kept", "after"]
    await spool.close()
    again = open_spool(tmp_path)
    assert again.recovered.torn == []
    assert again.recovered.records == 2
    await again.close()


async def test_two_processes_cannot_have_one_slot(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(ConfigurationError, match="another process uses this spool slot"):
        open_spool(tmp_path)
    other = open_spool(tmp_path, slot=1)
    await other.close()
    await spool.close()
    again = open_spool(tmp_path)
    await again.close()


async def test_a_folder_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("a file in the way")
    with pytest.raises(ConfigurationError, match=r"record\.spool"):
        open_spool(tmp_path)
    with pytest.raises(ConfigurationError, match="four segments"):
        options(tmp_path, segment_bytes=1000, max_bytes=3999)


async def test_another_producers_spool_is_refused(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append([event()])
    await spool.close()
    with pytest.raises(IntegrityError, match="profiles-1"):
        open_spool(tmp_path, producer="someone-else")


async def test_the_reader_gives_each_record_once_in_order_and_again_after_rewind(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=4096, max_bytes=1 << 20)
    for number in range(100):
        spool.append([event(str(number), size=150)])
    await settle(spool)
    reader = SpoolReader(spool)
    assert reader.pending(1000) == 100
    chunks = []
    while (chunk := reader.take(7, 1 << 20)) is not None:
        assert chunk.records <= 7
        chunks.append(chunk)
    seqs = [chunk.first_seq + place for chunk in chunks for place in range(chunk.records)]
    assert seqs == list(range(100))
    assert reader.pending(1) == 0
    spool.acknowledge(spool.epoch.id, 0, 40)
    spool.acknowledge(spool.epoch.id, 50, 10)
    reader.rewind()
    assert reader.pending(1000) >= 50
    seqs = []
    while (chunk := reader.take(256, 1 << 20)) is not None:
        seqs += range(chunk.first_seq, chunk.first_seq + chunk.records)
    assert seqs == [*range(40, 50), *range(60, 100)]
    await spool.close()


async def test_a_chunk_is_bounded_in_bytes(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for _ in range(20):
        spool.append([event(size=10_000)])
    await settle(spool)
    chunk = SpoolReader(spool).take(256, 30_000)
    assert chunk is not None
    assert 1 <= chunk.records <= 4
    chunk = SpoolReader(spool).take(256, 1)
    assert chunk is not None
    assert chunk.records == 1
    await spool.close()


async def test_the_reader_stops_at_a_record_that_was_changed_on_disk(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for number in range(10):
        spool.append([event(f"number-{number}")])
    await settle(spool)
    (path,) = list_segments(tmp_path / "0").values()
    data = bytearray(path.read_bytes())
    at = data.find(b"number-5")
    data[at] ^= 1
    path.write_bytes(data)
    reader = SpoolReader(spool)
    before = reader.take(256, 1 << 20)
    assert before is not None
    assert (before.first_seq, before.records) == (0, 5), "what stands before the damage is sent"
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"00000001\.seg, offset \d+"):
            reader.take(256, 1 << 20)
    await spool.close()


async def test_the_header_carries_the_sealed_key_and_the_record_before(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    first.append([event()])
    await first.close()
    second = open_spool(tmp_path)
    second.append([event()])
    header, _ = parse_header((tmp_path / "0" / "00000002.seg").read_bytes())
    assert header.before == first.head
    assert header.epoch == second.epoch.id
    assert header.sealed_epoch_key == second.epoch.sealed_key
    assert PUBLIC not in header.sealed_epoch_key
    await second.close()


async def test_the_lag_is_that_of_the_oldest_record_without_a_receipt(tmp_path: Path) -> None:
    clock = Clock()
    spool = open_spool(tmp_path, clock=clock)
    assert spool.receipt_lag() == 0.0
    spool.append([event()])
    await settle(spool)
    clock.move(90)
    assert spool.receipt_lag() == 90.0
    spool.acknowledge(spool.epoch.id, 0, 1)
    assert spool.receipt_lag() == 0.0
    await spool.close()


async def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    await spool.close()
    await spool.close()
    with pytest.raises(RecordError):
        spool.append([event()])
