"""The sender's view: durable records without a receipt, in order.

Frames are read by `_native.parcel`, which makes of them what is sent without an object for each record. What it will
not read is read again by `frame`, whose word it is what a frame is, to say why.
"""

from typing import NamedTuple

from sidecar import _native
from sidecar.errors import IntegrityError
from sidecar.spool.frame import FRAME_OVERHEAD, MAX_PAYLOAD, FrameError, parse_item, read_frame
from sidecar.spool.log import Spool
from sidecar.spool.retention import Ranges
from sidecar.spool.segment import Segment

_NEVER = 2**63
"""Beyond every seq."""


class Chunk(NamedTuple):
    """`records` consecutive records of one epoch, from `first_seq` on. `sealed_epoch_key` opens the epoch at the store.

    `items`: the records as the field `items` of a `Batch`, encoded. `leaf_hashes`: 32 bytes each, in order; `root`: of
    the tree over them (RFC 6962).
    """

    epoch: str
    sealed_epoch_key: bytes
    first_seq: int
    records: int
    items: bytes
    leaf_hashes: bytes
    root: bytes


class SpoolReader:
    """Goes once through the segments, oldest first; `rewind` starts again at the first record without a receipt."""

    def __init__(self, spool: Spool) -> None:
        self._shelf = spool.shelf
        self.rewind()

    def rewind(self) -> None:
        """Start again: everything that has no receipt will be given once more."""
        self._number = 0
        self._offset = 0
        self._seq = 0
        self._next: dict[str, int] = {}

    def pending(self, enough: int) -> int:
        """How many records `take` could give now; stops counting at `enough`."""
        count = 0
        for segment in self._ahead():
            ranges = self._acknowledged(segment)
            start = self._seq if segment.number == self._number else segment.first_seq
            start = ranges.end_of(max(start, self._next.get(segment.epoch, 0)))
            count += max(0, segment.durable_seq - start)
            if count >= enough:
                return enough
        return count

    def take(self, limit: int, max_bytes: int) -> Chunk | None:
        """The next records, at most `limit` and about `max_bytes`, at least one; None when there is nothing durable.

        IntegrityError when a record on disk is no longer what was written.
        """
        for segment in self._ahead():
            if segment.number != self._number:
                self._number, self._offset, self._seq = segment.number, segment.start, segment.first_seq
            chunk = self._take_from(segment, limit, max_bytes)
            if chunk is not None:
                return chunk
            if not segment.sealed or segment.durable_seq < segment.next_seq:
                return None
        return None

    def _ahead(self) -> list[Segment]:
        return [one for one in self._shelf.segments if one.number >= self._number]

    def _acknowledged(self, segment: Segment) -> Ranges:
        return self._shelf.retention.acknowledged.get(segment.epoch) or Ranges()

    def _take_from(self, segment: Segment, limit: int, max_bytes: int) -> Chunk | None:
        done = self._acknowledged(segment)
        if done.end_of(max(self._seq, self._next.get(segment.epoch, 0))) >= segment.durable_seq:
            return None
        files = self._shelf.files
        fd = files.open_read(segment.path)
        try:
            while self._offset < segment.durable:
                size = min(segment.durable - self._offset, max_bytes + FRAME_OVERHEAD + MAX_PAYLOAD)
                data = files.read_at(fd, self._offset, size)
                chunk = self._parse(segment, data, done, limit, max_bytes)
                if chunk is not None:
                    return chunk
        finally:
            files.close(fd)
        return None

    def _parse(self, segment: Segment, data: bytes, done: Ranges, limit: int, max_bytes: int) -> Chunk | None:
        """Read frames until the chunk is full or `data` ends; records sent before or with a receipt are passed over."""
        begin, seq = self._offset, self._seq
        after = done.end_of(max(seq, self._next.get(segment.epoch, 0)))
        until = done.start_of(after)
        found = _native.parcel(data, seq, after, _NEVER if until is None else until, limit, max_bytes)
        self._seq, self._offset = found.next_seq, begin + found.end
        if not found.count:
            # What stands before damage is sent first; without data there would be no end of reading on.
            if found.stopped or not data:
                _explain(segment, data, found.end, begin, whole=found.next_seq < after)
            return None
        self._next[segment.epoch] = found.next_seq
        return Chunk(
            segment.epoch, segment.sealed_epoch_key, found.first_seq, found.count, found.items, found.leaf_hashes,
            found.root,
        )  # fmt: skip


def _explain(segment: Segment, data: bytes, at: int, begin: int, *, whole: bool) -> None:
    """Return if `data`, of which the segment has more, merely ends before the frame at `at` does; else IntegrityError.

    `whole`: the frame only has to be whole, since its record is not sent.
    """
    why: object = "it cannot be read"
    try:
        payload = read_frame(data, at)
        if not whole:
            parse_item(payload)
    except FrameError as error:
        if error.short and at:
            return
        why = error
    raise IntegrityError(
        f"a record in the spool is damaged: {why}",
        where=f"{segment.path}, offset {begin + at}",
        fix="Keep a copy of the slot's folder for the reviewers and check the disk; nothing was deleted",
    )
