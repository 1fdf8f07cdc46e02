"""The writer: one durable transaction for many, nothing promised when it fails, and the database under one process."""

import asyncio
import contextlib
import sqlite3

import pytest
from ledger_rig import SECRET, Local
from ledger_simulator import DAY, NOON

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.ledger import backup, book, inspection
from sidecar.ledger.calendar import day_of
from sidecar.ledger.items import Item, LedgerError, RefusedError, Seen, Settlement
from sidecar.ledger.writer import MOST_WAITING

HEALTH = Seen(frozenset({"personal_health"}))


@pytest.fixture
def local(tmp_path):
    found = Local(tmp_path / "ledger.sqlite")
    yield found
    found.close()


def person(number):
    return [Item("person", str(number), HEALTH)]


async def reserve(local, number):
    return await local.reserve(f"c{number}", 1, "acme", "s", person(number))


def nothing(_done, _of):
    return None


async def test_requests_that_wait_together_are_committed_together(local):
    before = local.writer.commits
    await asyncio.gather(*(reserve(local, number) for number in range(200)))
    assert local.writer.commits - before < 100


async def test_one_that_is_refused_leaves_the_others_of_its_transaction_alone(local):
    await reserve(local, 1)
    found = await asyncio.gather(
        reserve(local, 2), local.reserve("c1", 1, "acme", "s", person(9)), reserve(local, 3), return_exceptions=True
    )
    assert isinstance(found[1], RefusedError)
    assert await local.peek("acme") == {"personal_health": 3}
    local.reopen()
    assert await local.peek("acme") == {"personal_health": 3}


async def test_when_the_disk_says_no_nobody_is_promised_anything_and_the_figures_are_those_of_the_disk(local):
    await reserve(local, 1)
    local.database.execute("PRAGMA max_page_count = 1")  # SQLITE_FULL, as when the disk is
    big = [Item("person", str(number), HEALTH) for number in range(10, 5_010)]
    with pytest.raises(LedgerError):
        await local.reserve("big", 1, "acme", "s", big)
    assert await local.peek("acme") == {"personal_health": 1}
    local.database.execute("PRAGMA max_page_count = 1000000")
    assert (await local.reserve("big", 1, "acme", "s", big))["personal_health"] == 5_001
    assert not local.broken


async def test_a_fault_of_ours_stops_the_process_and_changes_nothing(local):
    def fault(rules, now):
        rules.reserve("s", "c", 1, "acme", "s", person(1), now)
        raise ZeroDivisionError

    with pytest.raises(LedgerError):
        await local.writer.run(fault)
    assert isinstance(local.broken.pop(), ZeroDivisionError)
    assert await local.peek("acme") == {}


async def test_a_database_that_is_damaged_stops_the_process(local):
    await local.settle(Settlement("c", groups=["acme"], source="s", items=person(1), released_at=local.now))
    local.database.execute("UPDATE sighting SET days = x'0102'")
    with pytest.raises(LedgerError):
        await reserve(local, 1)
    assert isinstance(local.broken.pop(), IntegrityError)


async def test_no_more_wait_than_can_be_served(local):
    local.writer._waiting = MOST_WAITING
    with pytest.raises(RefusedError) as refused:
        await reserve(local, 1)
    assert refused.value.reason == "full"
    local.writer._waiting = 0


async def test_a_clock_that_leaps_stops_the_answers_until_it_is_set_right(local):
    await reserve(local, 1)
    local._now = NOON + 5 * DAY
    with pytest.raises(LedgerError, match="leapt"):
        await local.peek("acme")
    local._now = NOON + DAY
    assert await local.peek("acme") == {"personal_health": 1}


def test_two_processes_never_share_a_database(local):
    with pytest.raises(ConfigurationError, match="another ledger process"):
        book.lock(local.path)
    assert book.locked(local.path)


def test_a_ledger_is_never_begun_over_another(local):
    with pytest.raises(ConfigurationError, match="never overwritten"):
        book.create(local.path, SECRET, day_of(NOON))


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, None])
def test_what_is_no_ledger_is_refused(tmp_path, content):
    path = tmp_path / "other.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((ConfigurationError, IntegrityError)):
        book.connect(path, write=True)
    assert path.exists() == (content is not None)


async def test_verification_finds_a_figure_that_was_changed(local):
    await reserve(local, 1)
    await local.settle(Settlement("c2", groups=["acme"], source="s", items=person(2), released_at=local.now))
    assert inspection.verify(local.path, nothing) == []
    local.database.execute("UPDATE tally SET subjects = subjects - 1 WHERE subjects > 1")
    (line,) = inspection.verify(local.path, nothing)
    assert line == "acme, personal_health, 2026-11-22: 1 counted, 2 there"


async def test_nothing_that_is_written_holds_an_id(local, tmp_path):
    names = ("somebody@example.com", "imei-490154203237518")
    items = [Item("person", names[0], Seen(frozenset({"precise_geolocation"})), (names[1],))]
    await local.reserve("c1", 1, "acme", "s", items)
    await local.settle(Settlement("c2", groups=["acme"], source="s", items=items, released_at=local.now))
    written = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert b"acme" in written
    assert not any(name.encode() in written for name in names)


async def test_a_backup_is_of_one_moment_while_others_write(local, tmp_path):
    for number in range(50):
        await local.settle(
            Settlement(f"c{number}", groups=["acme"], source="s", items=person(number), released_at=local.now)
        )
    target = tmp_path / "copy.sqlite"
    steps = []

    def write(done, of):
        steps.append((done, of))
        with contextlib.suppress(sqlite3.OperationalError):
            local.database.execute("UPDATE tally SET subjects = subjects + 1")

    backup._PAGES, pages = 2, backup._PAGES
    try:
        assert backup.copy(local.path, target, write) == target.stat().st_size
    finally:
        backup._PAGES = pages
    assert len(steps) > 2
    assert inspection.verify(target, nothing) == []
    assert inspection.exposure(target, "acme") == {"personal_health": 50}
    assert inspection.verify(local.path, nothing) != []
    with pytest.raises(ConfigurationError, match="never overwritten"):
        backup.copy(local.path, target, nothing)


async def test_status_tells_how_it_is(local):
    await reserve(local, 1)
    await local.settle(Settlement("c2", groups=["acme"], source="s", items=person(2), released_at=local.now))
    found = inspection.status(local.path)
    assert found["bytes"] > 0
    del found["bytes"]
    assert found == {
        "running": True, "day": "2026-11-22", "window_from": "2025-11-22", "groups": 1, "subjects": 1, "reservations": 1,
        "reserved_subjects": 1, "oldest_reservation": "2026-11-22T12:00:00+00:00",
    }  # fmt: skip
    assert inspection.groups(local.path) == ["acme"]
    assert inspection.exposure(local.path, "other") is None
