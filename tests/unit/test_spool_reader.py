"""The reader on segments that somebody damaged or cut: whole records, then IntegrityError; never a gap, never no end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from spooling import event, open_spool

from sidecar.errors import IntegrityError
from sidecar.spool.log import Spool
from sidecar.spool.reader import SpoolReader
from sidecar.spool.segment import list_segments, parse_header

pytestmark = [pytest.mark.unit, pytest.mark.timeout(120)]  # an endless loop lets nothing else end it

COUNT = 3
Damage = Callable[[bytes, int], bytes]


def cut(data: bytes, at: int) -> bytes:
    return data[:at]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]


def zeroed(data: bytes, at: int) -> bytes:
    """What a host that lost power leaves of pages that were never written."""
    return data[:at] + bytes(len(data) - at)


async def durable(spool: Spool) -> None:
    for number in range(COUNT):
        spool.append([event(str(number))])
    waiting = spool.reach(COUNT - 1, "committed")
    if waiting is not None:
        await waiting


def read(spool: Spool) -> tuple[int, IntegrityError | None]:
    """How many records come, in order from the first on, and what ended it."""
    reader, count = SpoolReader(spool), 0
    try:
        while (chunk := reader.take(2, 1 << 20)) is not None:
            assert chunk.first_seq == count, "no record is passed over"
            count += chunk.records
    except IntegrityError as error:
        return count, error
    return count, None


@pytest.mark.parametrize("damage", [cut, flipped, zeroed])
async def test_damage_at_any_byte_ends_reading_behind_the_last_whole_record(tmp_path: Path, damage: Damage) -> None:
    spool = open_spool(tmp_path)
    await durable(spool)
    (path,) = list_segments(tmp_path / "0").values()
    data = path.read_bytes()
    _, start = parse_header(data)
    ends = [start]
    while ends[-1] < len(data):
        ends.append(ends[-1] + 8 + int.from_bytes(data[ends[-1] : ends[-1] + 4], "big"))
    assert len(ends) == COUNT + 1
    for at in range(start, len(data)):
        path.write_bytes(damage(data, at))
        count, error = read(spool)
        changed = next(
            (number for number in range(COUNT) if path.read_bytes()[: ends[number + 1]] != data[: ends[number + 1]]),
            COUNT,
        )
        assert count == changed, at
        assert (error is None) == (changed == COUNT), at
    path.write_bytes(data)
    assert read(spool) == (COUNT, None)
    await spool.close()


async def test_a_segment_cut_between_two_records_is_damage_and_no_endless_loop(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    await durable(spool)
    (path,) = list_segments(tmp_path / "0").values()
    data = path.read_bytes()
    _, start = parse_header(data)
    path.write_bytes(data[:start])
    count, error = read(spool)
    assert count == 0
    assert error is not None
    assert error.where == f"{path}, offset {start}"
    path.write_bytes(data)
    chunk = SpoolReader(spool).take(1, 1 << 20)
    assert chunk is not None
    assert chunk.records == 1
    await spool.close()
