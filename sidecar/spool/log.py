"""The spool of one producer slot.

A Spool belongs to one event loop: every method is called there, and only the fdatasync runs in a thread. `append` takes
the next seq, writes and moves the chain's head in one step without a pause.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime

from sidecar._native import Pseudonyms
from sidecar.errors import RecordError
from sidecar.record import OutcomeBody, RecordFormatError
from sidecar.spool.committer import Commit, Committer
from sidecar.spool.deletions import Deletions
from sidecar.spool.epoch import Epoch
from sidecar.spool.files import Files
from sidecar.spool.recovery import Recovered
from sidecar.spool.segment import Head, Segment
from sidecar.spool.shelf import Shelf
from sidecar.spool.slot import Decided, Drafted, SpoolOptions
from sidecar.spool.start import start
from sidecar.spool.waiters import Waiters, Waiting
from sidecar.vocabulary import Level, ReasonCode

RETRY_SECONDS = 0.25
"""How soon a failed disk is tried again."""
MAX_UNSYNCED = 64 * 1024 * 1024
"""Bytes kept in memory because they are not known durable. A disk that hangs is refused beyond it."""


class Spool:
    """Append-only, levelled, bounded.

    `append` raises RecordError (UNAVAILABLE, record_unavailable) when the record cannot be written; nothing of it is
    left behind then. Gauges for whoever exports them: `depth_records`, `depth_bytes`, `open_calls`, `last_error`,
    `receipt_lag`, `failed_syncs`, `refused`.
    """

    def __init__(self, *, options: SpoolOptions, epoch: Epoch, recovered: Recovered, shelf: Shelf, lock: int,
                 monotonic: Callable[[], float]) -> None:  # fmt: skip
        """Use `Spool.open`."""
        self.options = options
        self.epoch = epoch
        self.recovered = recovered
        self.durable = asyncio.Event()
        self.failed_syncs = 0
        self.refused = 0
        self.last_error = ""
        self.shelf = shelf
        self._for_permits = options.max_bytes - min(options.max_bytes // 16, 16 * 1024**2)
        self._segment_bytes = options.segment_bytes
        self._framer = epoch.framer
        self._retention = shelf.retention
        self._lock = lock
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._committer = Committer(self._loop, f"spool-commit-{options.slot}")
        self._before = recovered.head
        self._last = recovered.head.hash if recovered.head else b""
        self._seq = self._durable_seq = 0
        self._durable_head = recovered.head
        self._active: Segment | None = None
        self._unsynced: list[Segment] = []
        self._uncut: Segment | None = None
        self._pending: deque[tuple[int, bytes]] = deque()
        self._pending_bytes = 0
        self._trouble = ""
        self._generation = 0
        self._committing = self._commit_again = self._closed = False
        self._deletions = Deletions(shelf, self._committer, failed=self._undeleted, again=self._delete)
        self._commit_timer: asyncio.TimerHandle | None = None
        self._waiters = Waiters(self._loop)
        self._commit_times: deque[tuple[int, float]] = deque()

    @classmethod
    def open(cls, options: SpoolOptions, *, store_key: bytes, now: Callable[[], datetime],
             monotonic: Callable[[], float], files: Files | None = None,
             random: Callable[[int], bytes] = os.urandom) -> "Spool":  # fmt: skip
        """Take the slot, read what is there, and begin a new epoch. Call on the running event loop.

        `store_key`: the store's sealing key (X25519, 32 raw bytes). ConfigurationError when the folder cannot be used or
        another process has it; IntegrityError when a segment is damaged. Nothing is appended yet: the recorder writes
        the `open` record, and the outcomes in `recovered.unfinished`.
        """
        found = start(options, store_key=store_key, now=now, files=files, random=random)
        return cls(options=options, epoch=found.epoch, recovered=found.recovered, shelf=found.shelf, lock=found.lock,
                   monotonic=monotonic)  # fmt: skip

    @property
    def depth_bytes(self) -> int:
        """Bytes of all segments on disk."""
        return self.shelf.total

    @property
    def depth_records(self) -> int:
        """Records that no receipt covers yet."""
        return self.shelf.unacknowledged

    @property
    def open_calls(self) -> int:
        """Calls with a permit and no outcome."""
        return self.shelf.retention.open_calls

    @property
    def head(self) -> Head | None:
        """The chain's last record; None before the very first."""
        return Head(epoch=self.epoch.id, seq=self._seq - 1, hash=self._last) if self._seq else self._before

    @property
    def next_seq(self) -> int:
        """The seq that the next record gets."""
        return self._seq

    @property
    def receipts_wanted(self) -> bool:
        """Whether somebody waits for a record's receipt."""
        return self._waiters.want_receipt

    def receipt_lag(self) -> float:
        """Seconds since the oldest record of this epoch without a receipt became durable; 0 when there is none."""
        return self._monotonic() - self._commit_times[0][1] if self._commit_times else 0.0

    def append(self, drafts: Sequence[Drafted], *, spare: bool = False) -> int:
        """Write these records, all or none, and return the seq of the last. They have level `written` then.

        `spare`: may use the last part of `max_bytes`, which is kept for the outcomes of calls already under way.
        RecordError when they cannot be written.
        """
        if self._trouble or self._closed or self._pending_bytes > MAX_UNSYNCED:
            raise self._stopped()
        try:
            data, digest = self._framer.frames(self._seq, self._last, drafts)
        except (RecordFormatError, UnicodeEncodeError) as error:
            raise self._refusal(f"a record does not fit: {error}") from None
        number = self._add(data, digest, len(drafts), self.options.max_bytes if spare else self._for_permits)
        for kind, _, call_id, _, _, opens in drafts:
            if opens and call_id is not None:
                self._retention.opened(call_id, number)
            elif kind == "outcome" and call_id is not None:
                self._retention.ended(call_id)
        return self._seq - 1

    def decisions(self, key: Pseudonyms | None, entries: Sequence[Decided], now: float) -> int:
        """`append` for decisions that fit in one record each, without drafts; the seq of the first.

        `key` names the data subjects, None where there are none; `now`: unix seconds. RecordFormatError and
        UnicodeEncodeError, with nothing done, when one does not fit.
        """
        if self._trouble or self._closed or self._pending_bytes > MAX_UNSYNCED:
            raise self._stopped()
        first = self._seq
        data, digest = self._framer.decisions(first, self._last, key, entries, now)
        number = self._add(data, digest, len(entries), self._for_permits)
        for entry in entries:
            if entry.form.permits:
                self._retention.opened(entry.call_id, number)
        return first

    def outcomes(self, bodies: Sequence[OutcomeBody], now: float) -> int:
        """`append` for outcomes, which may use the spare part; like `decisions`."""
        if self._trouble or self._closed or self._pending_bytes > MAX_UNSYNCED:
            raise self._stopped()
        data, digest = self._framer.outcomes(self._seq, self._last, bodies, now)
        self._add(data, digest, len(bodies), self.options.max_bytes)
        for body in bodies:
            self._retention.ended(body.call_id)
        return self._seq - 1

    def reach(self, seq: int, level: Level, first: int | None = None) -> Waiting | None:
        """What to wait for until the record, and all from `first` on, has this level; None when it has it already.

        Ask again when it is done: receipts come for some records at a time. The future fails with RecordError when the
        disk does. Waiting may be given up at any time.
        """
        if level == "written" or (level == "committed" and seq < self._durable_seq):
            return None
        if level == "committed":
            future = self._waiters.for_durable(seq)
        else:
            missing = self.shelf.retention.missing(self.epoch.id, seq if first is None else first)
            if missing > seq:
                return None
            future = self._waiters.for_receipt(missing)
        if not self._committing:
            self._loop.call_soon(self._commit)
        else:
            self._commit_again = True
        return future

    def acknowledge(self, epoch: str, first_seq: int, count: int) -> None:
        """These records are in a published checkpoint, *verified by the caller*. Segments nobody needs are deleted."""
        self.shelf.acknowledge(epoch, first_seq, count)
        if epoch == self.epoch.id:
            self._waiters.received(first_seq, count)
            end = self.shelf.retention.acknowledged[epoch].end_of(0)
            while self._commit_times and self._commit_times[0][0] <= end:
                self._commit_times.popleft()
        self._deletions.want(self._seq)
        self._delete()

    async def close(self) -> None:
        """Make everything durable, delete what may go, give the slot back. Idempotent."""
        if self._closed:
            return
        if self._seq > self._durable_seq and not self._trouble:
            waiting = self.reach(self._seq - 1, "committed")
            if waiting is not None:
                await asyncio.wait([waiting])
                waiting.exception()
        self._closed = True
        if self._commit_timer is not None:
            self._commit_timer.cancel()
        await self._loop.run_in_executor(None, self._committer.stop)
        await asyncio.sleep(0)  # the committer's last reports run before what follows
        self._seal_active()
        for segment in self._unsynced:
            self.shelf.close(segment)
        try:
            if not self._trouble:
                self._deletions.finish(self._durable_head)
        finally:
            os.close(self._lock)

    def _add(self, data: bytes, digest: bytes, count: int, most: int) -> int:
        """Write these frames of so many records behind the head, which moves with them. The number of their segment.

        `digest`: of the last leaf; `most`: bytes that the spool may hold.
        """
        active, shelf, size = self._active, self.shelf, len(data)
        if shelf.total + size > most:
            self._seal_active()
            raise self._refusal(f"the spool holds {shelf.total} bytes; record.max_bytes is {self.options.max_bytes}. "
                                "Check that the oversight store takes records")  # fmt: skip
        try:
            if active is None or (active.size + size > self._segment_bytes and active.size > active.start):
                active = self._roll()
            shelf.write(active, data)
        except OSError as error:
            self._write_failed(active, error)
            raise self._refusal(f"{shelf.folder}: {error.strerror}. Give the disk space or replace it") from None
        active.next_seq = self._seq = seq = self._seq + count
        self._last = digest
        self._pending.append((seq, data))
        self._pending_bytes += size
        shelf.unacknowledged += count
        if self._commit_timer is None and not self._committing:
            self._commit_timer = self._loop.call_later(self.options.commit_interval, self._commit)
        return active.number

    def _stopped(self) -> RecordError:
        return self._refusal(self._trouble or "the disk does not answer, or the spool is closed")

    def _roll(self) -> Segment:
        old = self._active
        if old is not None and not old.named:
            # Names become durable in order, or a start after a power cut would miss a segment.
            self.shelf.files.sync_folder(self.shelf.folder)
            old.named = True
        segment = self.shelf.create(first_seq=self._seq, before=self.head)
        if old is not None:
            old.sealed = True
        self._active = segment
        self._unsynced.append(segment)
        return segment

    def _write_failed(self, active: Segment | None, error: OSError) -> None:
        """Cut what was half written. The segment is closed: once acknowledged it can go and give its space back."""
        if active is None or active.fd is None or active is not self._active:
            return
        try:
            self.shelf.files.truncate(active.fd, active.size)
        except OSError:
            self._uncut = active
            self._sync_failed(error)
        else:
            if active.next_seq > active.first_seq:
                self._seal_active()

    def _seal_active(self) -> None:
        if self._active is None:
            return
        self._active.sealed = True
        self._active = None
        self._let_go()

    def _let_go(self) -> None:
        """Close the files of segments that are sealed and durable."""
        for segment in [one for one in self._unsynced if one.sealed and one.durable == one.size]:
            self.shelf.close(segment)
            self._unsynced.remove(segment)

    def _commit(self) -> None:
        if self._commit_timer is not None:
            self._commit_timer.cancel()
            self._commit_timer = None
        if self._committing:
            self._commit_again = True
            return
        if self._trouble or self._seq == self._durable_seq:
            return
        self._start_commit()

    def _start_commit(self) -> None:
        self._committing, self._commit_again = True, False
        marks = [(one, one.size, one.next_seq) for one in self._unsynced if one.size > one.durable]
        commit = Commit(marks, self.head, self._generation)
        segments = [one for one, _, _ in marks]
        name = any(not one.named for one in segments)
        self._committer.submit(
            lambda: self.shelf.sync(segments, name=name), lambda error: self._committed(commit, error)
        )

    def _committed(self, commit: Commit, error: OSError | None) -> None:
        if commit.generation != self._generation:
            return
        self._committing = False
        if error is not None:
            self._sync_failed(error)
            return
        for segment, size, next_seq in commit.marks:
            segment.durable, segment.durable_seq = size, next_seq
            segment.named, segment.rewrite = True, False
            self._durable_seq = max(self._durable_seq, next_seq)
        self._durable_head = commit.head
        self._trouble = ""
        while self._pending and self._pending[0][0] <= self._durable_seq:
            self._pending_bytes -= len(self._pending.popleft()[1])
        self._let_go()
        if not self._commit_times or self._monotonic() - self._commit_times[-1][1] > 1:
            self._commit_times.append((self._durable_seq, self._monotonic()))
        self._waiters.durable(self._durable_seq)
        self.durable.set()
        self._delete()
        if self._commit_again or self._waiters.want_durable:
            self._commit()
        elif self._seq > self._durable_seq and self._commit_timer is None:
            self._commit_timer = self._loop.call_later(self.options.commit_interval, self._commit)

    def _sync_failed(self, error: OSError) -> None:
        """The segment's fate is unknown for good. Refuse, and write what was not known durable into the next one."""
        self.failed_syncs += 1
        self._generation += 1
        self._committing = False
        trouble = f"{self.shelf.folder}: could not be made durable ({error.strerror}). Check the disk"
        self._trouble = self.last_error = trouble
        self._waiters.fail_durable(lambda: self._refusal(trouble))
        self._active = None
        numbers = [one.number for one in self._unsynced]
        self._abandon(self._unsynced)
        self._unsynced = []
        self._rewrite(numbers)

    def _abandon(self, segments: Sequence[Segment]) -> None:
        """Give segments up; their files are closed behind a sync that may still be running on them."""
        descriptors = [fd for one in segments if (fd := self.shelf.give_up(one)) is not None]
        self._committer.submit(lambda: self.shelf.close_all(descriptors), lambda _: None)

    def _rewrite(self, numbers: list[int]) -> None:
        if self._closed:
            return
        segment = None
        try:
            if self._uncut is not None:
                self.shelf.cut(self._uncut)  # or what was refused would stand before what is written next
                self._uncut = None
            segment = self.shelf.create(first_seq=self._durable_seq, before=self._durable_head)
            segment.rewrite = True
            for next_seq, data in self._pending:
                self.shelf.write(segment, data)
                segment.next_seq = next_seq
        except OSError as error:
            self.last_error = f"{self.shelf.folder}: {error.strerror}"
            if segment is not None:
                self._abandon([segment])
            self._loop.call_later(RETRY_SECONDS, self._rewrite, numbers)
            return
        self.shelf.retention.rewritten(numbers, segment.number)
        self._active = segment
        self._unsynced.append(segment)
        self._start_commit()

    def _delete(self) -> None:
        """Delete what may go, once everything so far is durable: the outcome that freed a segment must stay."""
        if not (self._trouble or self._closed or self._deletions.go(self._durable_seq, self._durable_head)):
            self._commit()

    def _undeleted(self, error: OSError) -> None:
        self.last_error = f"{self.shelf.folder}: segments cannot be deleted: {error.strerror}"

    def _refusal(self, operator: str) -> RecordError:
        self.refused += 1
        self.last_error = operator
        return RecordError("the access cannot be recorded now", reason=ReasonCode.RECORD_UNAVAILABLE, operator=operator)
