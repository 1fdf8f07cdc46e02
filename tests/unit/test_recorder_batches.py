"""Several decisions in one go: one append, one wait, all or none; and what parts and outcomes have in common with it."""

import asyncio
import errno
import time
from pathlib import Path

import msgspec
import pytest
from spooling import Clock, FailingFiles, FixedKeys, entry, open_spool, outcome, period_key, sent, until

from sidecar.enforcement.recorder import SpoolRecorder
from sidecar.errors import RecordError
from sidecar.record import MAX_BODY, parse_leaf
from sidecar.spool.frame import Item
from sidecar.spool.log import Spool
from sidecar.spool.reader import SpoolReader
from sidecar.vocabulary import Effect

pytestmark = pytest.mark.unit


class CountingFiles(FailingFiles):
    """Counts the calls of write(2) and of fdatasync(2)."""

    writes = 0
    syncs = 0

    def write(self, fd: int, data: bytes) -> int:
        self.writes += 1
        return super().write(fd, data)

    def sync(self, fd: int) -> None:
        self.syncs += 1
        super().sync(fd)


def recorder(spool: Spool, keys: FixedKeys | None = None, **changes: object) -> SpoolRecorder:
    return SpoolRecorder(spool, keys or FixedKeys(), clock=Clock().unix, **changes)  # type: ignore[arg-type]


async def records(spool: Spool) -> list[Item]:
    waiting = spool.reach(spool.head.seq, "committed") if spool.head else None
    if waiting is not None:
        await waiting
    reader, items = SpoolReader(spool), []
    while (chunk := reader.take(256, 1 << 20)) is not None:
        items += sent(chunk)
    return items


async def test_a_batch_is_written_at_once_and_in_order(tmp_path: Path) -> None:
    files = CountingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    point = recorder(spool)
    await point.decision(entry("first"))
    before = files.writes
    await point.decisions([entry(f"c{number}", subjects=[("r", str(number), "us")]) for number in range(50)])
    assert files.writes == before + 1
    assert files.syncs == 0, "nobody asked for more than `written`"
    assert spool.open_calls == 51
    names = [parse_leaf(item.leaf).call_id for item in await records(spool)]
    assert names == ["first", *(f"c{number}" for number in range(50))]
    await spool.close()


async def test_an_empty_batch_is_nothing(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool)
    await point.decision(entry("a"))
    head = spool.head
    await point.decisions([])
    assert spool.head == head
    await point.decision(entry("b"))
    assert len(await records(spool)) == 2
    await spool.close()


async def test_each_of_a_batch_has_its_level_when_it_returns(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, commit_interval=60)
    point = recorder(spool)
    await point.decisions([entry("a"), entry("b", level="committed"), entry("c")])
    assert spool.reach(1, "committed") is None
    await spool.close()


async def test_a_batch_waits_for_the_receipts_of_all_its_records(tmp_path: Path) -> None:
    """Receipts come for ranges, in whatever order: the last one's says nothing of those before it."""
    spool = open_spool(tmp_path)
    point = recorder(spool, monotonic=time.monotonic)
    await point.decision(entry("before"))
    entries = [entry(f"c{number}", level="acknowledged") for number in range(3)]
    task = asyncio.get_running_loop().create_task(point.decisions(entries))
    await until(lambda: spool.head is not None and spool.head.seq == 3)
    for first, count in ((3, 1), (2, 1), (0, 1)):
        spool.acknowledge(spool.epoch.id, first, count)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
    spool.acknowledge(spool.epoch.id, 1, 1)
    await task
    await spool.close()


async def test_parts_of_one_decision_wait_for_the_receipts_of_all_of_them(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool, monotonic=time.monotonic)
    many = [("r", str(number), "us") for number in range(1001)]
    task = asyncio.get_running_loop().create_task(point.decision(entry(level="acknowledged", subjects=many)))
    await until(lambda: spool.head is not None and spool.head.seq == 2)
    spool.acknowledge(spool.epoch.id, 1, 2)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    spool.acknowledge(spool.epoch.id, 0, 1)
    await task
    await spool.close()


async def test_the_earliest_deadline_of_a_batch_bounds_its_wait(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool, monotonic=time.monotonic)
    began = time.monotonic()
    deadlines = (None, began + 0.3, began + 3600)
    with pytest.raises(RecordError) as caught:
        await point.decisions([entry(level="acknowledged", deadline=one) for one in deadlines])
    assert "acknowledged" in caught.value.operator
    assert spool.head is not None, "they are written, and stay"
    await spool.close()


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_one_that_cannot_be_recorded_keeps_the_whole_batch_out(tmp_path: Path, place: int) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool)
    some = [entry(f"c{number}") for number in range(3)]
    for bad in (
        entry("large", input=msgspec.Raw(b'"%b"' % (b"x" * MAX_BODY))),
        entry("surrogate", method="\ud800"),
        entry("\udfff"),
        entry("t" * 1024),
    ):
        batch = [*some[:place], bad, *some[place + 1 :]]
        with pytest.raises(RecordError) as caught:
            await point.decisions(batch)
        assert caught.value.reason == "record_unavailable"
        assert spool.head is None
        assert spool.open_calls == 0
        assert point.owed == 0
    await point.decisions(some)
    assert len(await records(spool)) == 3
    await spool.close()


async def test_without_a_period_key_a_batch_with_a_permit_is_refused_whole(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    keys = FixedKeys([])
    point = recorder(spool, keys)
    denials = [entry("d", Effect.DENY), entry("e", Effect.DENY)]
    with pytest.raises(RecordError) as caught:
        await point.decisions([*denials, entry("p")])
    assert "no period key" in caught.value.operator
    assert spool.head is None
    await point.decisions(denials)
    keys.keys.append(period_key())
    await point.decisions([*denials, entry("p")])
    assert spool.open_calls == 1
    await spool.close()


async def test_a_batch_that_the_disk_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    point = recorder(spool)
    await point.decision(entry("kept"))
    files.room = 3000
    with pytest.raises(RecordError) as caught:
        await point.decisions([entry(f"c{number}") for number in range(20)])
    assert "disk space" in caught.value.operator
    assert spool.open_calls == 1
    files.room = None
    await point.decisions([entry("after"), entry("last")])
    assert [parse_leaf(item.leaf).call_id for item in await records(spool)] == ["kept", "after", "last"]
    await spool.close()
    again = open_spool(tmp_path)
    assert again.recovered.torn == []
    assert sorted(one.call_id for one in again.recovered.unfinished) == ["after", "kept", "last"]
    await again.close()


async def test_a_batch_that_does_not_become_durable_is_refused(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    point = recorder(spool)
    files.fail["sync"] = errno.EIO
    with pytest.raises(RecordError):
        await point.decisions([entry("a"), entry("b", level="committed")])
    files.fail.clear()
    await until(lambda: not spool._trouble)
    await spool.close()


async def test_what_is_owed_is_written_before_a_batch(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    point = recorder(spool)
    await point.decision(entry("a"))
    files.room = 0
    with pytest.raises(RecordError):
        await point.outcome(outcome("a"))
    with pytest.raises(RecordError):
        await point.decisions([entry("b"), entry("c")])
    files.room = None
    await point.decisions([entry("d"), entry("e")])
    kinds = [(parse_leaf(item.leaf).type, parse_leaf(item.leaf).call_id) for item in await records(spool)]
    assert kinds == [("decision", "a"), ("outcome", "a"), ("decision", "d"), ("decision", "e")]
    await spool.close()
