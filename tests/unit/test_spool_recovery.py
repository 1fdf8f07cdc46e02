"""What a start makes of the files it finds: torn ends, damage, missing segments, unfinished calls."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from spooling import START, TIME, FailingFiles, entry, event, open_spool, outcome, request

from sidecar._native import RandomPool
from sidecar.enforcement.bodies import decision_drafts
from sidecar.errors import IntegrityError
from sidecar.record import encode_body
from sidecar.spool.frame import FRAME_OVERHEAD, read_frame
from sidecar.spool.recovery import Recovered, recover
from sidecar.spool.segment import list_segments, parse_header
from sidecar.spool.slot import Draft
from sidecar.vocabulary import Effect, canonical

pytestmark = pytest.mark.unit


async def fill(folder: Path, records: int = 6, **changes: object) -> Path:
    """A slot with some records; returns its folder."""
    spool = open_spool(folder, **changes)
    for number in range(records):
        spool.append([event(f"n{number}")])
    await spool.close()
    return folder / "0"


def found(slot: Path) -> Recovered:
    return recover(slot, producer="profiles-1", slot=0)


def frames_of(path: Path) -> list[int]:
    """Offsets of the record frames."""
    data = path.read_bytes()
    _, at = parse_header(data)
    offsets = []
    while at < len(data):
        offsets.append(at)
        at += FRAME_OVERHEAD + len(read_frame(data, at))
    return offsets


async def test_a_tail_torn_at_any_byte_of_the_last_frame_is_cut_and_reported(tmp_path: Path) -> None:
    slot = await fill(tmp_path)
    path = slot / "00000001.seg"
    whole = path.read_bytes()
    last = frames_of(path)[-1]
    for size in range(last, len(whole)):
        path.write_bytes(whole[:size])
        result = found(slot)
        assert result.head is not None
        assert result.head.seq == 4
        assert result.records == 5
        assert path.read_bytes() == whole[:last]
        assert [one.offset for one in result.torn] == ([last] if size > last else [])
        assert sum(one.size for one in result.torn) == size - last


async def test_an_end_of_zeros_or_noise_is_cut_and_kept_aside(tmp_path: Path) -> None:
    slot = await fill(tmp_path)
    path = slot / "00000001.seg"
    whole = path.read_bytes()
    for tail in (bytes(5000), random.Random(3).randbytes(5000)):
        path.write_bytes(whole + tail)
        (torn,) = found(slot).torn
        assert path.read_bytes() == whole
        assert torn.offset == len(whole)
        assert torn.kept is not None
        assert torn.kept.read_bytes() == tail


async def test_a_flipped_bit_before_the_last_frame_stops_the_start_with_its_offset(tmp_path: Path) -> None:
    slot = await fill(tmp_path, records=4)
    path = slot / "00000001.seg"
    whole = path.read_bytes()
    offsets = frames_of(path)
    pick = random.Random(11)
    bits = [bit for at in offsets[:-1] for bit in range(at * 8, (at + FRAME_OVERHEAD + 6) * 8)]
    bits += [pick.randrange(offsets[0] * 8, offsets[-1] * 8) for _ in range(300)]
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        expected = max(at for at in offsets if at <= bit // 8)
        with pytest.raises(IntegrityError) as caught:
            found(slot)
        assert caught.value.where == f"{path}, offset {expected}"
        assert "truncate -s" in caught.value.fix
        assert path.read_bytes() == damaged, "nothing is changed"


async def test_a_damaged_header_stops_the_start_when_there_are_records(tmp_path: Path) -> None:
    slot = await fill(tmp_path)
    path = slot / "00000001.seg"
    whole = path.read_bytes()
    for at in range(frames_of(path)[0]):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match="offset 0"):
            found(slot)


async def test_a_segment_whose_header_was_never_finished_is_removed(tmp_path: Path) -> None:
    slot = await fill(tmp_path)
    head = found(slot).head
    data = (slot / "00000001.seg").read_bytes()
    _, start = parse_header(data)
    for size in (0, 3, 8, 20, start - 1):
        (slot / "00000002.seg").write_bytes(data[:size])
        result = found(slot)
        assert result.head == head
        assert result.next_number == 2
        assert [one.path.name for one in result.torn] == ["00000002.seg"]
        assert not (slot / "00000002.seg").exists()


async def test_damage_in_an_earlier_segment_stops_the_start_even_at_its_end(tmp_path: Path) -> None:
    slot = await fill(tmp_path, records=20, segment_bytes=4096, max_bytes=1 << 20)
    first = slot / "00000001.seg"
    whole = first.read_bytes()
    last = frames_of(first)[-1]
    for damaged in (whole[:-1], whole[:last], whole[:-3] + b"xyz", whole[:last] + bytes(len(whole) - last)):
        first.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=rf"00000001\.seg, offset {last}"):
            found(slot)
    first.write_bytes(whole + b"more")
    result = found(slot)
    assert result.records == 20, "bytes behind the last record took nothing away"
    assert [(one.path, one.offset, one.size) for one in result.torn] == [(first, len(whole), 4)]


async def test_records_missing_at_the_end_of_an_earlier_epoch_stop_the_start(tmp_path: Path) -> None:
    slot = await fill(tmp_path)
    await fill(tmp_path, records=2)
    path = slot / "00000001.seg"
    whole = path.read_bytes()
    last = frames_of(path)[-1]
    path.write_bytes(whole[:last])
    with pytest.raises(IntegrityError, match=rf"00000001\.seg, offset {last}"):
        found(slot)
    path.write_bytes(whole)
    assert found(slot).records == 8


async def test_a_missing_segment_stops_the_start(tmp_path: Path) -> None:
    slot = await fill(tmp_path, records=40, segment_bytes=4096, max_bytes=1 << 20)
    names = list(list_segments(slot))
    assert len(names) >= 3
    keep = tmp_path / "copy"
    shutil.copytree(slot, keep)
    (slot / "00000002.seg").unlink()
    with pytest.raises(IntegrityError, match=r"segment 00000002\.seg"):
        found(slot)
    shutil.copy(keep / "00000002.seg", slot / "00000002.seg")
    assert found(slot).records == 40


async def test_a_record_exchanged_for_another_with_a_good_checksum_breaks_the_chain(tmp_path: Path) -> None:
    one, other = await fill(tmp_path / "a"), await fill(tmp_path / "b")
    mine, theirs = one / "00000001.seg", other / "00000001.seg"
    data, offsets = mine.read_bytes(), frames_of(mine)
    foreign = theirs.read_bytes()[frames_of(theirs)[2] :][: frames_of(theirs)[3] - frames_of(theirs)[2]]
    mine.write_bytes(data[: offsets[2]] + foreign + data[offsets[3] :])
    with pytest.raises(IntegrityError, match=rf"offset {offsets[2]}.*chain"):
        found(one)
    mine.write_bytes(data[: offsets[2]] + data[offsets[3] :])
    with pytest.raises(IntegrityError, match="chain"):
        found(one)
    mine.write_bytes(data[: offsets[3]] + data[offsets[2] : offsets[3]] + data[offsets[3] :])
    with pytest.raises(IntegrityError, match="chain"):
        found(one)


async def test_a_damaged_state_stops_the_start(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    seq = spool.append([event()])
    waiting = spool.reach(seq, "committed")
    assert waiting is not None
    await waiting
    spool.acknowledge(spool.epoch.id, 0, 1)
    await spool.close()
    state = tmp_path / "0" / "state"
    whole = state.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 2
        state.write_bytes(damaged)
        with pytest.raises(IntegrityError, match="state is damaged"):
            found(tmp_path / "0")


async def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    slot = await fill(tmp_path, records=12, segment_bytes=4096, max_bytes=1 << 20)
    paths = list(list_segments(slot).values())
    contents = {path: path.read_bytes() for path in paths}
    pick = random.Random(5)
    stopped = 0
    for _ in range(400):
        for path, data in contents.items():
            path.write_bytes(data)
        path = pick.choice(paths)
        data = bytearray(contents[path])
        start = pick.randrange(len(data))
        kind = pick.randrange(4)
        if kind == 0:
            data[start : start + pick.randrange(1, 200)] = pick.randbytes(pick.randrange(0, 300))
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            data[start:start] = data[: pick.randrange(len(data))]
        else:
            data[start] ^= 1 << pick.randrange(8)
        path.write_bytes(data)
        damage = None
        try:
            found(slot)
        except IntegrityError as error:
            damage = error
        if damage is not None:
            stopped += 1
            assert re.search(r"(offset \d+|segment \d+)", damage.where)
    assert stopped > 100


def decided(call_id: str, effect: Effect = Effect.PERMIT, phase: str = "response", **counts: object) -> Draft:
    one = entry(call_id, effect, phase=phase, input=msgspec.Raw(canonical(request(**counts))))
    (draft,) = decision_drafts(one, None, "", START.timestamp(), RandomPool())
    return Draft(*draft)


async def test_calls_that_were_permitted_and_never_ended_get_an_unknown_outcome(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append(
        [decided("ended"), decided("denied", Effect.DENY), decided("open", phase="request", us=0, pending=True)]
    )
    spool.append([decided("open", us=2, unknown=3), decided("open", us=1, non_us=4)])
    spool.append([Draft("outcome", TIME, "ended", encode_body(outcome("ended")))])
    await spool.close()
    (body,) = found(tmp_path / "0").unfinished
    document = json.loads(encode_body(body))
    assert document == {
        "v": 1, "call_id": "open", "type": "outcome", "status": "unknown", "messages": {"in": 1, "out": 2},
        "released": {
            "us": {"records": 3, "by_category": {"id_contact": 3}},
            "non_us": {"records": 4, "by_category": {"id_contact": 4}},
            "unknown": {"records": 3, "by_category": {"id_contact": 3}},
        },
        "dropped": 0, "redacted": {}, "bytes_out": 0, "duration_ms": 0.0, "complete": False,
    }  # fmt: skip


async def test_parts_of_one_decision_count_once(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    draft = decided("open", us=700)
    second = json.loads(draft.body) | {"part": 2, "parts": 2}
    spool.append([draft, draft._replace(body=json.dumps(second).encode())])
    await spool.close()
    (body,) = found(tmp_path / "0").unfinished
    assert body.released.us.records == 700


async def test_a_slot_that_held_nothing_starts_a_chain(tmp_path: Path) -> None:
    slot = tmp_path / "0"
    slot.mkdir()
    result = found(slot)
    assert (result.head, result.next_number, result.records, result.segments) == (None, 1, 0, [])


async def test_recovery_can_be_interrupted_and_run_again(tmp_path: Path) -> None:
    """A start that dies right after the cut leaves what the next one accepts."""
    slot = await fill(tmp_path)
    path = slot / "00000001.seg"
    with path.open("ab") as file:
        file.write(b"\0\0\1\0half")
    first = found(slot)
    second = found(slot)
    assert first.head == second.head
    assert second.torn == []


async def test_what_a_killed_predecessor_only_wrote_is_synced_before_it_counts(tmp_path: Path) -> None:
    synced: list[str] = []
    slot = await fill(tmp_path)
    real = os.fsync

    def spy(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkey = pytest.MonkeyPatch()
    monkey.setattr(os, "fsync", spy)
    try:
        found(slot)
    finally:
        monkey.undo()
    assert str(slot / "00000001.seg") in synced


async def test_files_fake_is_not_needed_for_reading(tmp_path: Path) -> None:
    slot = await fill(tmp_path, files=FailingFiles())
    assert found(slot).records == 6
