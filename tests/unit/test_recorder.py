"""The recorder: pseudonyms, parts, levels and deadlines, what is owed, and what a start and a stop write."""

import asyncio
import errno
import json
import os
import time
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from spooling import (
    STORE_KEY,
    Clock,
    FailingFiles,
    FixedKeys,
    entry,
    event,
    open_spool,
    outcome,
    period_key,
    sent,
    until,
)

from sidecar.enforcement.periods import PeriodKey
from sidecar.enforcement.recorder import SpoolRecorder
from sidecar.errors import RecordError
from sidecar.record import (
    EPOCH_KEY_INFO,
    MAX_BODY,
    openings_aad,
    parse_leaf,
    parse_openings,
    pseudonym,
    subject_ref,
)
from sidecar.spool.frame import Item
from sidecar.spool.log import Spool
from sidecar.spool.reader import SpoolReader
from sidecar.vocabulary import Effect

pytestmark = pytest.mark.unit


def recorder(spool: Spool, keys: FixedKeys | None = None, **changes: object) -> SpoolRecorder:
    return SpoolRecorder(spool, keys or FixedKeys(), clock=Clock().unix, **changes)  # type: ignore[arg-type]


async def records(spool: Spool) -> list[Item]:
    assert spool.head is not None
    waiting = spool.reach(spool.head.seq, "committed")
    if waiting is not None:
        await waiting
    reader, items = SpoolReader(spool), []
    while (chunk := reader.take(256, 1 << 20)) is not None:
        items += sent(chunk)
    return items


def bodies(items: list[Item]) -> list[dict[str, object]]:
    return [json.loads(item.body) for item in items]


async def unseal(spool: Spool, item: Item) -> list[tuple[bytes, bytes]]:
    leaf = parse_leaf(item.leaf)
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    key = suite.decrypt(spool.epoch.sealed_key, STORE_KEY, EPOCH_KEY_INFO)
    aad = openings_aad(leaf.producer, leaf.slot, leaf.epoch, leaf.seq)
    return parse_openings(AESGCM(key).decrypt(item.nonce, item.sealed_openings, aad))


async def test_a_subject_stands_in_the_body_only_as_a_salted_pseudonym(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool)
    await point.decision(entry(subjects=[("rider", "ann@example.org", "us"), ("rider", "ann@example.org", "us")]))
    (item,) = await records(spool)
    body = json.loads(item.body)
    openings = await unseal(spool, item)
    assert b"ann@example.org" not in b"".join(item)
    assert [value for _, value in openings] == [pseudonym(b"k" * 32, "rider", "ann@example.org")] * 2
    assert [one["ref"] for one in body["subjects"]] == [subject_ref(*opening) for opening in openings]
    assert body["subjects"][0]["ref"] != body["subjects"][1]["ref"], "every reference has a salt of its own"
    assert {one["period"] for one in body["subjects"]} == {"2026-11-01"}
    assert {one["class"] for one in body["subjects"]} == {"us"}
    await spool.close()


async def test_the_body_holds_the_documents_exact_bytes(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool)
    odd = msgspec.Raw(b'{"resource": {"subjects": {"us": 1e0}},   "z": 1}')
    await point.decision(entry(input=odd))
    (item,) = await records(spool)
    assert bytes(odd) in item.body
    leaf = parse_leaf(item.leaf)
    assert (leaf.type, leaf.call_id, leaf.time) == ("decision", "call-1", "2026-11-22T12:00:00.000000Z")
    await spool.close()


@pytest.mark.parametrize("count", [500, 501, 1000, 1001, 2750])
async def test_beyond_500_subjects_a_decision_comes_in_parts(tmp_path: Path, count: int) -> None:
    spool = open_spool(tmp_path)
    await recorder(spool).decision(entry(subjects=[("rider", str(number), "unknown") for number in range(count)]))
    items = await records(spool)
    opened: list[bytes] = []
    for number, item in enumerate(items, start=1):
        body = json.loads(item.body)
        assert len(item.body) <= MAX_BODY
        assert (body["part"], body["parts"]) == (number, len(items))
        assert len(body["subjects"]) <= 500
        openings = await unseal(spool, item)
        assert [one["ref"] for one in body["subjects"]] == [subject_ref(*opening) for opening in openings]
        opened += [value for _, value in openings]
    assert len(items) == -(-count // 500)
    assert opened == [pseudonym(b"k" * 32, "rider", str(number)) for number in range(count)]
    await spool.close()


@pytest.mark.parametrize("size", [10_000, 20_000, 50_000, 63_000])
async def test_large_documents_make_smaller_parts(tmp_path: Path, size: int) -> None:
    spool = open_spool(tmp_path)
    large = msgspec.Raw(json.dumps({"pad": "x" * size}).encode())
    await recorder(spool).decision(entry(input=large, subjects=[("r", str(n), "unknown") for n in range(520)]))
    items = await records(spool)
    assert sum(len(json.loads(item.body)["subjects"]) for item in items) == 520
    assert max(len(item.body) for item in items) <= MAX_BODY
    await spool.close()


async def test_documents_that_do_not_fit_are_refused_and_say_so(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool)
    large = msgspec.Raw(json.dumps({"pad": "x" * MAX_BODY}).encode())
    for subjects in ((), [("r", "1", "us")], [("r", str(n), "us") for n in range(600)]):
        with pytest.raises(RecordError) as caught:
            await point.decision(entry(input=large, subjects=subjects))
        assert caught.value.reason == "record_unavailable"
        assert "a.B" in caught.value.operator or "/C" in caught.value.operator or " C " in caught.value.operator
    assert spool.head is None
    await spool.close()


async def test_without_a_period_key_nothing_is_permitted(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    keys = FixedKeys([period_key(start=datetime(2027, 1, 1, tzinfo=UTC))])
    point = recorder(spool, keys)
    for one in (entry(), entry(subjects=[("r", "1", "us")]), entry(effect=Effect.DENY, subjects=[("r", "1", "us")])):
        with pytest.raises(RecordError, match="cannot be recorded") as caught:
            await point.decision(one)
        assert "no period key" in caught.value.operator
    await point.decision(entry(effect=Effect.DENY))
    (item,) = await records(spool)
    assert json.loads(item.body)["decision"]["effect"] == "deny", "a denial that names nobody is recorded all the same"
    await spool.close()


async def test_a_deny_holds_no_segment(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool)
    await point.decision(entry("denied", Effect.DENY))
    assert spool.open_calls == 0
    await point.decision(entry("permitted"))
    assert spool.open_calls == 1
    await point.outcome(outcome("permitted"))
    assert spool.open_calls == 0
    await spool.close()


async def test_acknowledged_honours_the_deadline_of_the_call(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    now = 1000.0
    point = recorder(spool, monotonic=lambda: now)
    began = time.monotonic()
    with pytest.raises(RecordError) as caught:
        await point.decision(entry(level="acknowledged", deadline=now + 0.3))
    assert time.monotonic() - began > 0.1
    assert caught.value.code == 14
    # So the refusal still reaches a caller who waits until the deadline.
    assert "did not become acknowledged in 0.250 s" in caught.value.operator
    with pytest.raises(RecordError):
        await point.decision(entry(level="acknowledged", deadline=now - 5))

    async def receipt() -> None:
        await asyncio.sleep(0.02)
        spool.acknowledge(spool.epoch.id, 0, 3)

    async with asyncio.TaskGroup() as group:
        group.create_task(receipt())
        await point.decision(entry(level="acknowledged", deadline=now + 60))
    await spool.close()


async def test_without_a_deadline_the_wait_ends_with_patience(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(RecordError):
        await recorder(spool, patience=0.05).decision(entry(level="acknowledged"))
    await spool.close()


async def test_committed_means_synced(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    point = recorder(spool)
    await point.decision(entry(level="committed"))
    assert spool._durable_seq == 1
    files.fail["sync"] = errno.EIO
    await point.decision(entry("second"))
    with pytest.raises(RecordError):
        await point.decision(entry("third", level="committed"))
    files.fail.clear()
    await until(lambda: not spool._trouble)
    await spool.close()


async def test_an_outcome_is_at_most_committed(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(ValueError, match="at most committed"):
        await recorder(spool).outcome(outcome(), "acknowledged")
    await spool.close()


async def test_an_outcome_that_the_disk_refused_is_owed_and_written_before_anything_else(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    point = recorder(spool)
    await point.decision(entry("a"))
    files.room = 0
    with pytest.raises(RecordError):
        await point.outcome(outcome("a"))
    with pytest.raises(RecordError):
        await point.decision(entry("b"))
    assert point.owed == 1
    assert spool.open_calls == 1
    files.room = None
    await point.decision(entry("c"))
    assert point.owed == 0
    kinds = [(parse_leaf(item.leaf).type, parse_leaf(item.leaf).call_id) for item in await records(spool)]
    assert kinds == [("decision", "a"), ("outcome", "a"), ("decision", "c")]
    await spool.close()


async def test_what_is_owed_is_written_as_soon_as_there_is_space_without_any_call(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    point = recorder(spool)
    await point.start()
    files.room = 0
    with pytest.raises(RecordError):
        await point.outcome(outcome("a"))
    with pytest.raises(RecordError):
        await point.event("policy_activated", {"revision": "r2"})
    files.room = None
    await until(lambda: point.owed == 0)
    await point.stop()
    types = [parse_leaf(item.leaf).type for item in await records(spool)]
    assert types == ["open", "outcome", "policy_activated", "close"]
    await spool.close()


async def test_open_names_the_previous_epoch_and_close_ends_it(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    point = recorder(first)
    await point.start()
    await point.stop()
    await first.close()
    second = open_spool(tmp_path)
    await recorder(second).start()
    items = await records(second)
    assert [parse_leaf(item.leaf).type for item in items] == ["open", "close", "open"]
    opened, _, again = bodies(items)
    assert opened["details"]["previous_epoch"] is None
    assert opened["details"]["previous_seq"] is None
    details = again["details"]
    assert (details["previous_epoch"], details["previous_seq"]) == (first.epoch.id, 1)
    assert first.head is not None
    assert b64decode(details["previous_hash"]) == first.head.hash
    assert parse_leaf(items[2].leaf).prev == details["previous_hash"]
    await second.close()


def crash(spool: Spool) -> None:
    """Give up a spool the way a killed process does: no close, no last sync."""
    spool._closed = True
    spool._committer.stop()
    os.close(spool._lock)


async def test_the_successor_of_a_crash_writes_the_outcomes_that_are_missing_once(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    point = recorder(first)
    await point.decision(entry("lost", subjects=[("r", "1", "us")]))
    await point.decision(entry("done"))
    await point.outcome(outcome("done"))
    crash(first)
    second = open_spool(tmp_path)
    again = recorder(second)
    await again.start()
    items = await records(second)
    last = json.loads(items[-1].body)
    assert parse_leaf(items[-1].leaf).call_id == "lost"
    assert (last["status"], last["complete"], last["released"]["us"]["records"]) == ("unknown", False, 1)
    assert json.loads(items[-2].body)["details"]["unfinished"] == 1
    crash(second)
    third = open_spool(tmp_path)
    assert third.recovered.unfinished == []
    await third.close()


async def test_a_torn_tail_is_reported_in_the_open_record(tmp_path: Path) -> None:
    first = open_spool(tmp_path)
    first.append([event("a")])
    await first.close()
    with (tmp_path / "0" / "00000001.seg").open("ab") as file:
        file.write(b"\0\0\3\0torn")
    second = open_spool(tmp_path)
    await recorder(second).start()
    torn = bodies(await records(second))[-1]["details"]["torn"]
    assert len(torn) == 1
    assert torn[0].startswith("00000001.seg@")
    await second.close()


async def test_an_event_with_what_is_no_text_is_recorded_all_the_same(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    source = os.fsdecode(b"/policies/caf\xe9.tar.gz")
    details = {"source": source, "files": ["a", source], "count": 1}
    await recorder(spool).event("policy_activated", details)  # type: ignore[arg-type]
    (item,) = await records(spool)
    written = "/policies/caf\\udce9.tar.gz"
    assert json.loads(item.body)["details"] == {"source": written, "files": ["a", written], "count": 1}
    await spool.close()


async def test_heartbeats_are_written(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = SpoolRecorder(spool, FixedKeys(), clock=Clock().unix, heartbeat=0.02)
    await point.start()
    await until(lambda: spool.head is not None and spool.head.seq >= 3)
    await point.stop()
    types = [parse_leaf(item.leaf).type for item in await records(spool)]
    assert types[0] == "open"
    assert types[-1] == "close"
    assert set(types[1:-1]) == {"heartbeat"}
    await spool.close()


async def test_many_calls_at_once_keep_one_chain(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=32768, max_bytes=1 << 22)
    point = recorder(spool)

    async def call(number: int) -> None:
        level = ("written", "committed")[number % 2]
        await point.decision(entry(f"c{number}", level=level, subjects=[("r", str(number), "us")]))
        await asyncio.sleep(0)
        await point.outcome(outcome(f"c{number}"), level)

    await asyncio.gather(*(call(number) for number in range(100)))
    assert len(await records(spool)) == 200
    await spool.close()
    again = open_spool(tmp_path, segment_bytes=32768, max_bytes=1 << 22)
    assert again.recovered.records == 200
    assert again.recovered.unfinished == []
    await again.close()


async def test_each_period_has_its_own_key_from_its_first_moment_on(tmp_path: Path) -> None:
    """The key is kept for as long as its period lasts, and asked for again when the clock leaves it, either way."""
    clock, spool = Clock(), open_spool(tmp_path)
    turn = clock.now + timedelta(hours=1)
    first = period_key("first")._replace(until=turn)
    second = PeriodKey("second", turn, turn + timedelta(hours=1), b"s" * 32)
    point = SpoolRecorder(spool, FixedKeys([first, second]), clock=clock.unix)
    moments = (-3600.0, -0.000_001, 0.0, 3599.999_999, -1.0, 0.000_001)
    for seconds in moments:
        clock.now = turn + timedelta(seconds=seconds)
        await point.decision(entry(subjects=[("r", "1", "us")]))
    clock.now = turn + timedelta(hours=1)
    with pytest.raises(RecordError):
        await point.decision(entry(subjects=[("r", "1", "us")]))
    items = await records(spool)
    assert [body["subjects"][0]["period"] for body in bodies(items)] == [
        "first" if seconds < 0 else "second" for seconds in moments
    ]
    for seconds, item in zip(moments, items, strict=True):
        ((_, value),) = await unseal(spool, item)
        assert value == pseudonym(b"k" * 32 if seconds < 0 else b"s" * 32, "r", "1")
    await spool.close()
