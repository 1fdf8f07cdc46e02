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
        entry("surrogate", subjects=[("r", "\ud800", "us")]),
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


async def test_outcomes_are_written_at_once_and_in_order(tmp_path: Path) -> None:
    files = CountingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    point = recorder(spool)
    await point.decisions([entry(f"c{number}") for number in range(50)])
    before = files.writes
    await point.outcomes([outcome(f"c{number}") for number in range(40)])
    assert (files.writes, files.syncs) == (before + 1, 0)
    assert spool.open_calls == 10
    names = [parse_leaf(item.leaf) for item in (await records(spool))[50:]]
    assert [(one.type, one.call_id) for one in names] == [("outcome", f"c{number}") for number in range(40)]
    await spool.close()


async def test_no_outcomes_are_nothing_and_none_waits_for_a_receipt(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    point = recorder(spool)
    await point.outcomes([])
    assert spool.head is None
    with pytest.raises(ValueError, match="at most committed"):
        await point.outcomes([outcome()], "acknowledged")
    await point.outcomes([outcome("a"), outcome("b")], "committed")
    assert spool.reach(1, "committed") is None
    await spool.close()


async def test_outcomes_that_the_disk_refused_are_all_owed_in_order_and_as_of_then(tmp_path: Path) -> None:
    files, clock = FailingFiles(), Clock()
    spool = open_spool(tmp_path, files=files)
    point = SpoolRecorder(spool, FixedKeys(), clock=clock.unix)
    await point.decisions([entry("a"), entry("b"), entry("c")])
    files.room = 100
    with pytest.raises(RecordError):
        await point.outcomes([outcome("a"), outcome("b")])
    clock.move(1)
    with pytest.raises(RecordError):
        await point.outcomes([outcome("c")])
    assert (point.owed, spool.open_calls) == (3, 3)
    files.room = None
    clock.move(1)
    await point.outcomes([outcome("d")])
    assert (point.owed, spool.open_calls) == (0, 0)
    leaves = [parse_leaf(item.leaf) for item in (await records(spool))[3:]]
    assert [(one.call_id, one.time[17:19]) for one in leaves] == [("a", "00"), ("b", "00"), ("c", "01"), ("d", "02")]
    await spool.close()


@pytest.mark.parametrize("bad", ["\ud800", "t" * 1024, "large"])
@pytest.mark.parametrize("full", [False, True])
async def test_an_outcome_that_can_never_be_written_keeps_no_other_out(tmp_path: Path, bad: str, full: bool) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    point = recorder(spool)
    never = outcome(bad)
    if bad == "large":
        never = msgspec.structs.replace(never, status="x" * MAX_BODY)
    await point.decisions([entry("a"), entry("b")])
    files.room = 0 if full else None
    for some in ([never], [outcome("a"), never, outcome("b")]):
        with pytest.raises(RecordError):
            await point.outcomes(some)
    files.room = None
    await point.decision(entry("c"))
    assert point.owed == 0
    leaves = [parse_leaf(item.leaf) for item in await records(spool)]
    assert [(one.type, one.call_id) for one in leaves[2:]] == [("outcome", "a"), ("outcome", "b"), ("decision", "c")]
    await spool.close()


async def test_a_full_spool_takes_the_outcomes_of_what_it_took_but_no_decision(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, segment_bytes=16384, max_bytes=65536)
    point = recorder(spool)
    taken = 0

    async def fill() -> None:
        nonlocal taken
        while True:
            await point.decision(entry(f"c{taken}"))
            taken += 1

    with pytest.raises(RecordError) as caught:
        await fill()
    assert "record.max_bytes is 65536" in caught.value.operator
    assert spool.open_calls == taken
    await point.outcomes([outcome("c0"), outcome("c1")])
    await point.outcome(outcome("c2"))
    assert (spool.open_calls, point.owed) == (taken - 3, 0)
    with pytest.raises(RecordError):
        await point.decision(entry("refused"))
    leaves = [parse_leaf(item.leaf) for item in await records(spool)]
    assert [one.type for one in leaves] == ["decision"] * taken + ["outcome"] * 3
    await spool.close()
