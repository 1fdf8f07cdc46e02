"""Which segments may be deleted: all records acknowledged, and no decision in it of a call that is still open."""

from bisect import bisect_right
from collections.abc import Collection, Iterable

from sidecar.spool.segment import Segment


class Ranges:
    """A set of seqs, kept as disjoint ranges in order. Nearly always there is one."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, first: int, count: int) -> int:
        """Add `[first, first + count)`; return how many of them are new."""
        if count <= 0:
            return 0
        start, end = first, first + count
        low = bisect_right(self._ends, start - 1)
        high = bisect_right(self._starts, end)
        known = sum(min(self._ends[i], end) - max(self._starts[i], start) for i in range(low, high))
        if low < high:
            start, end = min(start, self._starts[low]), max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]
        return count - known

    def end_of(self, seq: int) -> int:
        """The first seq at or after `seq` that is not in the set."""
        index = bisect_right(self._starts, seq) - 1
        return self._ends[index] if index >= 0 and seq < self._ends[index] else seq

    def start_of(self, seq: int) -> int | None:
        """The first seq at or after `seq` that is in the set; None when there is none."""
        index = bisect_right(self._ends, seq)
        return max(seq, self._starts[index]) if index < len(self._starts) else None

    def covers(self, start: int, end: int) -> bool:
        """Whether all of `[start, end)` is in the set; true for an empty range."""
        return start >= end or self.end_of(start) >= end


class Retention:
    """Acknowledged records by epoch, and the segments that open calls hold."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, Ranges] = {}
        self._calls: dict[str, list[int]] = {}
        self._holds: dict[int, int] = {}

    @property
    def open_calls(self) -> int:
        """Calls of this process with a permit and no outcome yet."""
        return len(self._calls)

    def acknowledge(self, epoch: str, first: int, count: int) -> int:
        """Note that these records are in a published checkpoint; return how many were not noted before."""
        return self.acknowledged.setdefault(epoch, Ranges()).add(first, count)

    def missing(self, epoch: str, first: int) -> int:
        """The first record at or after `first` that is in no published checkpoint."""
        ranges = self.acknowledged.get(epoch)
        return first if ranges is None else ranges.end_of(first)

    def opened(self, call_id: str, number: int) -> None:
        """A decision of this call, which permits, stands in segment `number`."""
        held = self._calls.get(call_id)
        if held is None:
            self._calls[call_id] = [number]
        elif number in held:
            return
        else:
            held.append(number)
        self._holds[number] = self._holds.get(number, 0) + 1

    def ended(self, call_id: str) -> None:
        """The outcome of this call is written."""
        for number in self._calls.pop(call_id, ()):
            self._holds[number] -= 1
            if not self._holds[number]:
                del self._holds[number]

    def rewritten(self, numbers: Collection[int], into: int) -> None:
        """Records of these segments were written again into `into`."""
        for call_id, held in list(self._calls.items()):
            if any(number in numbers for number in held):
                self.opened(call_id, into)

    def deletable(self, segments: Iterable[Segment]) -> list[Segment]:
        """The segments nothing needs any more."""
        return [one for one in segments if one.sealed and one.fd is None and self._is_free(one)]

    def _is_free(self, segment: Segment) -> bool:
        if segment.number in self._holds:
            return False
        ranges = self.acknowledged.get(segment.epoch)
        if ranges is None:
            return segment.first_seq >= segment.durable_seq
        return ranges.covers(segment.first_seq, segment.durable_seq)
