"""What was sent to the store and has no receipt yet: leaf hashes by epoch and seq, a batch at a time."""

from bisect import bisect_right

_SIZE = 32


class _Epoch:
    """Runs of leaf hashes in order of their first seq; no two hold the same seq."""

    __slots__ = ("firsts", "runs")

    def __init__(self) -> None:
        self.firsts: list[int] = []
        self.runs: list[bytes] = []

    def end(self, place: int) -> int:
        return self.firsts[place] + len(self.runs[place]) // _SIZE

    def place(self, seq: int) -> int:
        """Which run holds `seq`, or would come next."""
        place = bisect_right(self.firsts, seq) - 1
        return place if place >= 0 and seq < self.end(place) else place + 1


class Awaited:
    """The leaf hashes that a receipt is checked against. `len` counts records."""

    def __init__(self) -> None:
        self._epochs: dict[str, _Epoch] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Forget all."""
        self._epochs.clear()
        self._count = 0

    def add(self, epoch: str, first_seq: int, leaf_hashes: bytes) -> None:
        """Records from `first_seq` on were sent; 32 bytes for each. What was known of the same seqs is replaced."""
        count = len(leaf_hashes) // _SIZE
        self.drop(epoch, first_seq, count)
        if count:
            found = self._epochs.setdefault(epoch, _Epoch())
            place = found.place(first_seq)
            found.firsts.insert(place, first_seq)
            found.runs.insert(place, leaf_hashes)
            self._count += count

    def of(self, epoch: str, first_seq: int, count: int) -> bytes | None:
        """The leaf hashes of these records; None unless every one of them is awaited."""
        found, end, seq = self._epochs.get(epoch), first_seq + count, first_seq
        if found is None or count <= 0:
            return None
        parts = []
        for place in range(found.place(seq), len(found.runs)):
            first = found.firsts[place]
            if seq >= end or first > seq:
                break
            parts.append(found.runs[place][(seq - first) * _SIZE : (end - first) * _SIZE])
            seq = min(end, found.end(place))
        return b"".join(parts) if seq == end else None

    def drop(self, epoch: str, first_seq: int, count: int) -> None:
        """These records are awaited no more, as far as they were."""
        found, end = self._epochs.get(epoch), first_seq + count
        if found is None:
            return
        start = stop = found.place(first_seq)
        kept: list[tuple[int, bytes]] = []
        while stop < len(found.runs) and found.firsts[stop] < end:
            first, run = found.firsts[stop], found.runs[stop]
            self._count -= len(run) // _SIZE
            before, behind = run[: max(0, first_seq - first) * _SIZE], run[max(0, end - first) * _SIZE :]
            kept += [(at, part) for at, part in ((first, before), (end, behind)) if part]
            stop += 1
        found.firsts[start:stop] = [first for first, _ in kept]
        found.runs[start:stop] = [run for _, run in kept]
        self._count += sum(len(run) for _, run in kept) // _SIZE
        if not found.runs:
            del self._epochs[epoch]
