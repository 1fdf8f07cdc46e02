"""Sorted 64-bit hashes in a snapshot, found in the same few steps whether there are a thousand or ten million.

Two sections: `<name>`, the hashes in ascending order, and `<name>.fan`, 2^b + 1 unsigned 32-bit numbers: entry s is
how many hashes are below s * 2^(64-b), so the hashes whose first b bits are s stand between entries s and s + 1. Hashes
are uniform, so that is about a dozen; a plain binary search of 80 MB would touch ten pages more.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from sidecar.attributes.snapshots import Snapshot, SnapshotWriter

_PER_SLOT = 16
_MAX_HASHES = (1 << 32) - 1


class HashTable:
    """Finds hashes. Raises KeyError, TypeError or ValueError when the sections are not what they should be."""

    __slots__ = ("_fan", "_numbers", "_shift")

    def __init__(self, snapshot: Snapshot, name: str) -> None:
        self._numbers = snapshot.section(name).cast("Q")
        self._fan = snapshot.section(f"{name}.fan").cast("I")
        slots = len(self._fan) - 1
        if slots < 1 or slots & (slots - 1) or self._fan[slots] != len(self._numbers):
            raise ValueError(f"{name}.fan does not belong to {name}")
        self._shift = 64 - (slots.bit_length() - 1)

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, number: int) -> range:
        """The places that hold this hash, an empty range when there are none."""
        slot = number >> self._shift
        low, high = self._fan[slot], self._fan[slot + 1]
        first = last = bisect_left(self._numbers, number, low, high)
        while last < high and self._numbers[last] == number:
            last += 1
        return range(first, last)

    def __contains__(self, number: int) -> bool:
        slot = number >> self._shift
        high = self._fan[slot + 1]
        at = bisect_left(self._numbers, number, self._fan[slot], high)
        return at < high and self._numbers[at] == number


def write_hashes(writer: SnapshotWriter, name: str, chunks: Iterable[Sequence[int]], expected: int) -> int:
    """Write both sections from sorted chunks of ascending hashes. Returns how many; `expected` sizes the fan."""
    shift = 64 - (expected // _PER_SLOT).bit_length()
    slots = 1 << (64 - shift)
    fan = array("I")
    count = 0
    writer.section(name)
    for chunk in chunks:
        writer.write(array("Q", chunk).tobytes())
        if chunk:
            for slot in range(len(fan), (chunk[-1] >> shift) + 1):
                fan.append(count + bisect_left(chunk, slot << shift))
        count += len(chunk)
    if count > _MAX_HASHES:
        raise ValueError(f"{count} hashes in {name}; at most {_MAX_HASHES}")
    fan.extend([count] * (slots + 1 - len(fan)))
    writer.section(f"{name}.fan")
    writer.write(fan.tobytes())
    return count
