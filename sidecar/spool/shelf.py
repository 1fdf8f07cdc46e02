"""The segments of a slot: made, written, given up, deleted. No waiting and no chain here; see `log`."""

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sidecar.spool.epoch import Epoch
from sidecar.spool.files import Files, keep_spare, replace_durably
from sidecar.spool.frame import FRAME_OVERHEAD, FrameError, parse_item, read_frame
from sidecar.spool.recovery import Recovered
from sidecar.spool.retention import Retention
from sidecar.spool.segment import Head, Header, Segment, encode_header, parse_header, segment_path
from sidecar.spool.state import STATE, STATE_RESERVE, State, encode_state


@dataclass(slots=True, kw_only=True)
class Deletion:
    """Segments about to go, what stays, and the state that says so once it is written."""

    segments: list[Segment]
    staying: list[int]
    head: Head | None
    newest: int
    old: State
    state: State = field(default_factory=State)


class _Envelope(msgspec.Struct):
    type: str
    call_id: str | None


_envelope_decoder = msgspec.json.Decoder(_Envelope)


class Shelf:
    """The slot's segments by number. `total` counts their bytes, `unacknowledged` the records without a receipt."""

    def __init__(self, *, folder: Path, files: Files, epoch: Epoch, recovered: Recovered) -> None:
        self.folder = folder
        self.files = files
        self._write = files.write
        self.retention = Retention()
        self.segments = recovered.segments
        self.total = sum(one.size for one in self.segments)
        self.unacknowledged = recovered.records
        self._epoch = epoch
        self._state = recovered.state
        self._next_number = recovered.next_number
        keep_spare(files, folder / STATE, STATE_RESERVE)

    def create(self, *, first_seq: int, before: Head | None) -> Segment:
        """Begin a segment. OSError when that fails; nothing is left then."""
        number = self._next_number
        path = segment_path(self.folder, number)
        header = Header(
            number=number, producer=self._epoch.producer, slot=self._epoch.slot, epoch=self._epoch.id,
            sealed_epoch_key=self._epoch.sealed_key, first_seq=first_seq, before=before,
        )  # fmt: skip
        segment = Segment(
            number=number, path=path, epoch=header.epoch, sealed_epoch_key=header.sealed_epoch_key, first_seq=first_seq,
            next_seq=first_seq, durable_seq=first_seq, size=0, durable=0, fd=self.files.create(path), named=False,
            sealed=False,
        )  # fmt: skip
        try:
            self.write(segment, encode_header(header))
        except OSError:
            self.close(segment)
            self.files.remove(path)
            self.total -= segment.size
            raise
        segment.start = segment.size
        self._next_number += 1
        self.segments.append(segment)
        return segment

    def write(self, segment: Segment, data: bytes) -> None:
        """Append all of `data`. On OSError `size` is unchanged and more may stand in the file: truncate it."""
        fd, size = segment.fd, len(data)
        if fd is None:
            raise OSError(errno.EBADF, "the segment is closed")
        done = self._write(fd, data)
        while done < size:
            more = self._write(fd, data[done:])
            if not more:
                raise OSError(errno.ENOSPC, "nothing was written")
            done += more
        segment.size += size
        self.total += size

    def sync(self, segments: Sequence[Segment], *, name: bool) -> None:
        """Make what was written durable. Runs in the committer's thread."""
        for segment in segments:
            if segment.fd is not None:
                self.files.sync(segment.fd)
        if name:
            self.files.sync_folder(self.folder)

    def close(self, segment: Segment) -> None:
        """Close a segment's file; nothing more is appended."""
        fd, segment.fd, segment.sealed = segment.fd, None, True
        if fd is not None:
            self.files.close(fd)

    def give_up(self, segment: Segment) -> int | None:
        """Count on nothing but what is known durable in this segment. Returns the descriptor that is to be closed.

        A segment of mere copies is removed, and its number used again.
        """
        fd, segment.fd, segment.sealed = segment.fd, None, True
        segment.next_seq = segment.durable_seq
        if segment.rewrite and segment is self.segments[-1]:
            try:
                self.files.remove(segment.path)
            except OSError:
                return fd
            self.segments.pop()
            self.total -= segment.size
            self._next_number = segment.number
        return fd

    def cut(self, segment: Segment) -> None:
        """Take off for good what stands behind `size` in a segment that was given up, if there still is one. OSError."""
        if segment not in self.segments:
            return
        fd = self.files.open_read(segment.path)
        try:
            self.files.truncate(segment.path, segment.size)
            self.files.sync(fd)
        finally:
            self.files.close(fd)

    def close_all(self, descriptors: Sequence[int]) -> None:
        """Close these. Runs in the committer's thread, behind whatever still uses them."""
        for fd in descriptors:
            self.files.close(fd)

    def acknowledge(self, epoch: str, first: int, count: int) -> None:
        """Note that these records are in a published checkpoint."""
        self.unacknowledged -= self.retention.acknowledge(epoch, first, count)

    def plan_deletion(self, head: Head | None) -> Deletion | None:
        """What may be deleted now. `head` is the chain's last durable record."""
        going = self.retention.deletable(self.segments)
        if not going:
            return None
        numbers = {one.number for one in going}
        staying = [one.number for one in self.segments if one.number not in numbers]
        return Deletion(segments=going, staying=staying, head=head, newest=self._next_number - 1, old=self._state)

    def delete(self, plan: Deletion) -> None:
        """Write the state, then remove the files. Runs in the committer's thread.

        A crash before the state is durable deletes nothing; after it, the next start removes what is left.
        """
        gone = set(plan.old.deleted) | {one.number for one in plan.segments}
        below = min([*plan.staying, plan.newest + 1])
        closed = {entry for entry in plan.old.closed if _stays_before(entry[0], plan.staying)}
        for segment in plan.segments:
            if _stays_before(segment.number, plan.staying):
                closed.update((segment.number, call_id) for call_id in _ended_here(segment.path))
        plan.state = State(
            head=plan.head, newest=plan.newest, below=below, deleted=tuple(sorted(one for one in gone if one >= below)),
            closed=tuple(sorted(closed)),
        )  # fmt: skip
        replace_durably(self.files, self.folder / STATE, encode_state(plan.state))
        for segment in plan.segments:
            self.files.remove(segment.path)
        keep_spare(self.files, self.folder / STATE, STATE_RESERVE)

    def forget(self, plan: Deletion) -> None:
        """Note that the plan was carried out."""
        self._state = plan.state
        for segment in plan.segments:
            self.segments.remove(segment)
            self.total -= segment.size


def _stays_before(number: int, staying: Collection[int]) -> bool:
    return any(one < number for one in staying)


def _ended_here(path: Path) -> set[str]:
    """Calls whose outcome stands in this segment and whose decisions may stand in an earlier one."""
    data = path.read_bytes()
    ended: set[str] = set()
    try:
        _, at = parse_header(data)
        while at < len(data):
            payload = read_frame(data, at)
            at += FRAME_OVERHEAD + len(payload)
            envelope = _envelope_decoder.decode(parse_item(payload).leaf)
            if envelope.type == "outcome" and envelope.call_id is not None:
                ended.add(envelope.call_id)
    except (FrameError, msgspec.DecodeError) as error:
        raise OSError(errno.EIO, f"{path} is damaged and stays: {error}") from None
    return ended
