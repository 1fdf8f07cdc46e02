"""A disk that is full, fails or hangs: guarded calls are refused, nothing is lost, and it recovers by itself."""

import asyncio
import errno
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from spooling import START, FailingFiles, entry, event, open_spool, sent, until

from sidecar._native import RandomPool
from sidecar.enforcement.bodies import decision_drafts
from sidecar.errors import RecordError
from sidecar.record import parse_leaf
from sidecar.spool.log import Spool
from sidecar.spool.reader import SpoolReader
from sidecar.spool.segment import list_segments

pytestmark = pytest.mark.fault


async def committed(spool: Spool, number: int) -> None:
    seq = spool.append([event(str(number), size=200)])
    waiting = spool.reach(seq, "committed")
    assert waiting is not None
    await waiting


def attempt(spool: Spool, number: int, size: int = 300) -> RecordError | None:
    """Append one record; the refusal, if it was refused."""
    try:
        spool.append([event(str(number), size=size)])
    except RecordError as error:
        return error
    return None


def seqs(spool: Spool) -> list[int]:
    reader, found = SpoolReader(spool), []
    while (chunk := reader.take(256, 1 << 20)) is not None:
        found += [parse_leaf(item.leaf).seq for item in sent(chunk)]
    return found


async def test_a_failed_sync_seals_the_segment_and_the_next_one_holds_everything_again(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    await committed(spool, 0)
    spool.append([event("written only")])
    files.fail["sync"] = errno.EIO
    with pytest.raises(RecordError) as caught:
        await committed(spool, 2)
    assert "could not be made durable" in caught.value.operator
    with pytest.raises(RecordError):
        spool.append([event("refused")])
    await asyncio.sleep(0.4)
    with pytest.raises(RecordError):
        spool.append([event("still refused")])
    files.fail.clear()
    await until(lambda: not spool._trouble)
    await committed(spool, 3)
    first, second = list_segments(tmp_path / "0").values()
    assert b"written only" in first.read_bytes()
    assert b"written only" in second.read_bytes(), "written again, not synced again"
    assert seqs(spool) == [0, 1, 2, 3]
    assert spool.failed_syncs >= 2
    head = spool.head
    await spool.close()
    again = open_spool(tmp_path)
    assert again.recovered.head == head
    assert again.recovered.records == 4, "copies count once"
    await again.close()


async def test_a_sealed_segment_may_have_lost_what_was_not_synced(tmp_path: Path) -> None:
    """After a failed fsync the kernel may drop the pages: the start passes over them, for they were written again."""
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    await committed(spool, 0)
    size = (tmp_path / "0" / "00000001.seg").stat().st_size
    files.fail["sync"] = errno.EIO
    with pytest.raises(RecordError):
        await committed(spool, 1)
    files.fail.clear()
    await until(lambda: not spool._trouble)
    await committed(spool, 2)
    await spool.close()
    path = tmp_path / "0" / "00000001.seg"
    data = path.read_bytes()
    path.write_bytes(data[:size] + bytes(len(data) - size))
    again = open_spool(tmp_path)
    assert again.recovered.records == 3
    assert [one.path.name for one in again.recovered.torn] == ["00000001.seg"]
    await again.close()


async def test_a_sync_failing_for_long_leaves_no_trail_of_segments(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    await committed(spool, 0)
    files.fail["sync"] = errno.EIO
    with pytest.raises(RecordError):
        await committed(spool, 1)
    await until(lambda: spool.failed_syncs >= 4)
    assert len(list_segments(tmp_path / "0")) <= 2
    files.fail.clear()
    await until(lambda: not spool._trouble)
    await committed(spool, 2)
    assert seqs(spool) == [0, 1, 2]
    await spool.close()


@pytest.mark.parametrize("operation", ["write", "create"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
async def test_a_failing_operation_refuses_and_recovers(tmp_path: Path, operation: str, code: int) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, segment_bytes=2048, max_bytes=1 << 20)
    count = 0
    for _ in range(3):
        files.fail[operation] = code
        refused = 0
        for _ in range(10):
            error = attempt(spool, count)
            count += error is None
            refused += error is not None
            assert error is None or error.reason == "record_unavailable"
            assert error is None or str(tmp_path) in error.operator
            assert error is None or str(tmp_path) not in error.message
        assert refused
        files.fail.clear()
        spool.append([event(str(count), size=300)])
        count += 1
    await committed(spool, count)
    assert seqs(spool) == list(range(count + 1))
    await spool.close()
    again = open_spool(tmp_path, segment_bytes=2048, max_bytes=1 << 20)
    assert again.recovered.records == count + 1
    await again.close()


async def test_a_write_cut_short_at_every_byte_leaves_whole_frames_only(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files)
    await committed(spool, 0)
    path = tmp_path / "0" / "00000001.seg"
    before = path.stat().st_size
    spool.append([event("cut", size=400)])
    frame = path.stat().st_size - before
    for room in range(0, frame, 7):
        files.room = room
        with pytest.raises(RecordError):
            spool.append([event("cut", size=400)])
        files.room = None
        spool.append([event("whole")])
    await committed(spool, 1)
    count = spool.head.seq + 1 if spool.head else 0
    assert seqs(spool) == list(range(count))
    await spool.close()
    again = open_spool(tmp_path)
    assert again.recovered.records == count
    assert again.recovered.torn == []
    await again.close()


async def test_what_cannot_be_cut_off_is_given_up_and_written_again(tmp_path: Path) -> None:
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    await committed(spool, 0)
    spool.append([event("one")])
    files.room = 100
    files.fail["truncate"] = errno.EIO
    with pytest.raises(RecordError):
        spool.append([event("two", size=300)])
    files.fail.clear()
    files.room = None
    await until(lambda: not spool._trouble)
    await committed(spool, 2)
    assert seqs(spool) == [0, 1, 2]
    await spool.close()
    again = open_spool(tmp_path)
    assert again.recovered.records == 3
    await again.close()


@pytest.mark.parametrize("durable", [False, True])
async def test_whole_frames_of_what_was_refused_are_gone_before_anything_is_written(
    tmp_path: Path, durable: bool
) -> None:
    """Cut short behind a whole frame, and not to be cut off: in the next segment another record gets the same seq."""
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60)
    spool.append([event("before")])
    if durable:
        await committed(spool, 1)
    kept = spool._seq
    path = tmp_path / "0" / "00000001.seg"
    size = path.stat().st_size
    files.room = 2 * len(spool.epoch.framer.frames(kept, bytes(32), [event("refused")])[0]) + 50
    files.fail["truncate"] = errno.EIO
    with pytest.raises(RecordError):
        spool.append([event("refused")] * 3)
    files.room = None
    await asyncio.sleep(0.6)
    with pytest.raises(RecordError):
        spool.append([event("refused while that stands there")])
    assert path.stat().st_size > size
    files.fail.clear()
    await until(lambda: not spool._trouble)
    assert path.stat().st_size == size
    await committed(spool, kept)
    assert seqs(spool) == list(range(kept + 1))
    await spool.close()
    again = open_spool(tmp_path)
    assert (again.recovered.records, again.recovered.torn) == (kept + 1, [])
    await again.close()


async def test_a_disk_that_hangs_is_refused_once_too_much_is_unsynced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    class Hanging(FailingFiles):
        def sync(self, fd: int) -> None:
            gate.wait()
            super().sync(fd)

    monkeypatch.setattr("sidecar.spool.log.MAX_UNSYNCED", 100_000)
    spool = open_spool(tmp_path, files=Hanging())
    written = 0
    while attempt(spool, written, 1000) is None:
        written += 1
        assert written < 1000, "what is not durable may not grow without end"
        await asyncio.sleep(0)
    gate.set()
    await until(lambda: spool._pending_bytes == 0)
    spool.append([event()])
    await spool.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 1 MiB, where that may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root: run the tests with sudo or in a container")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no tmpfs here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_refuses_at_once_and_recovers_as_soon_as_there_is_space(small_disk: Path) -> None:
    spool = open_spool(small_disk, segment_bytes=256 * 1024, max_bytes=64 << 20)
    await committed(spool, 0)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(600 * 1024))
    count = 1
    slowest = 0.0
    refusal = None
    while refusal is None:
        began = time.thread_time()  # a busy machine's other work is not the spool's
        refusal = attempt(spool, count, 3000)
        slowest = max(slowest, time.thread_time() - began)
        count += refusal is None
        await asyncio.sleep(0)
    assert slowest < 0.05
    assert "No space left" in refusal.operator
    ballast.unlink()
    spool.append([event("again")])
    await committed(spool, count)
    assert seqs(spool) == list(range(count + 2))
    await spool.close()
    again = open_spool(small_disk)
    assert again.recovered.records == count + 2
    await again.close()


async def test_a_disk_filled_by_the_spool_itself_is_freed_by_receipts(small_disk: Path) -> None:
    """The state must be written on a full disk, or nothing could ever be deleted."""
    spool = open_spool(small_disk, segment_bytes=8 << 20, max_bytes=64 << 20)
    for _ in range(3):
        while attempt(spool, 0, 3000) is None:
            await asyncio.sleep(0)
        await until(lambda: spool.head is not None and spool._durable_seq == spool.head.seq + 1)
        assert spool.head is not None
        spool.acknowledge(spool.epoch.id, 0, spool.head.seq + 1)
        await until(lambda: not list_segments(small_disk / "0"))
        spool.append([event("room again")])
    head = spool.head
    await spool.close()
    again = open_spool(small_disk)
    assert again.recovered.head == head
    await again.close()


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    script = """
import asyncio, resource, sys
from pathlib import Path
from spooling import event, open_spool
from sidecar.errors import RecordError

async def main():
    spool = open_spool(Path(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    refused = written = 0
    for number in range(200):
        try:
            spool.append([event(str(number), size=700)])
            written += 1
        except RecordError as error:
            refused += 1
            assert "File too large" in error.operator, error.operator
    assert refused, "the limit was met"
    await spool.close()
    print(written)

asyncio.run(main())
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [os.sys.executable, "-c", script, tmp_path], check=True, capture_output=True, text=True,
        env={"PYTHONPATH": f"{root}:{root / 'tests'}", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    async def recovered() -> int:
        spool = open_spool(tmp_path)
        assert spool.recovered.torn == []
        await spool.close()
        return spool.recovered.records

    assert asyncio.run(recovered()) == int(done.stdout)


async def test_copies_that_an_open_call_kept_do_not_overtake_the_records_before_them(tmp_path: Path) -> None:
    """Segments that were given up go, but not the one with a decision of an open call; its successor sends in order."""
    files = FailingFiles()
    spool = open_spool(tmp_path, files=files, commit_interval=60, segment_bytes=2000)
    await committed(spool, 0)
    for number in range(1, 12):
        spool.append([event(str(number), size=200)])
    spool.append(decision_drafts(entry("call"), None, "", START.timestamp(), RandomPool()))
    for number in range(13, 20):
        spool.append([event(str(number), size=200)])
    files.fail["sync"] = errno.EIO
    with pytest.raises(RecordError):
        await committed(spool, 20)
    files.fail.clear()
    await until(lambda: not spool._trouble)
    await spool.close()
    kept = list(list_segments(tmp_path / "0"))
    assert kept != list(range(1, kept[-1] + 1)), "some that were given up are gone"
    assert len(kept) == 3, "the first, the one with the decision, and all of it again"
    again = open_spool(tmp_path)
    assert seqs(again) == list(range(21))
    await again.close()
