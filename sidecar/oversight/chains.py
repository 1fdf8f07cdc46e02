"""Continuity: every producer slot's records form one chain, epoch after epoch, without gap or fork.

Records of an epoch may stand in the log out of order (a gap that was filled late), so those that run ahead wait until
what is before them has come; what still waits at the end is a gap. Epochs are joined by what their first record names,
not by their times: a clock that was set back between two starts breaks nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.record import Leaf, decode_digest, leaf_digest


class Problem(NamedTuple):
    """Something that breaks a chain. `kind`: gap, fork, tail_unknown or order."""

    kind: str
    where: str
    detail: str


class _Ahead(NamedTuple):
    prev: bytes | None
    digest: bytes
    leaf_index: int
    type: str


@dataclass(slots=True)
class _Epoch:
    next_seq: int = 0
    last: bytes | None = None
    opened_prev: bytes | None = None
    ahead: dict[int, _Ahead] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    records: int = 0

    @property
    def end(self) -> bytes | None:
        """Digest of the epoch's last record that is known."""
        return self.ahead[max(self.ahead)].digest if self.ahead else self.last


class Chains:
    """Takes leaves in the order of the log; says at the end what does not fit together."""

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, int], dict[str, _Epoch]] = {}

    def add(self, index: int, leaf: Leaf, data: bytes) -> None:
        """One leaf and its exact bytes."""
        epochs = self._epochs.setdefault((leaf.producer, leaf.slot), {})
        epoch = epochs.setdefault(leaf.epoch, _Epoch())
        epoch.records += 1
        prev = None if leaf.prev is None else bytes(decode_digest(leaf.prev, "prev"))
        one = _Ahead(prev, bytes(leaf_digest(data)), index, leaf.type)
        where = f"{leaf.producer}/{leaf.slot} epoch {leaf.epoch} seq {leaf.seq}"
        if leaf.seq < epoch.next_seq or leaf.seq in epoch.ahead:
            epoch.problems.append(Problem("fork", where, f"leaf {index} is a second record of this seq"))
        elif leaf.seq > epoch.next_seq:
            epoch.ahead[leaf.seq] = one
        else:
            self._link(epoch, one, where, leaf.seq)
            while (waiting := epoch.ahead.pop(epoch.next_seq, None)) is not None:
                later = f"{leaf.producer}/{leaf.slot} epoch {leaf.epoch} seq {epoch.next_seq}"
                self._link(epoch, waiting, later, epoch.next_seq)

    @staticmethod
    def _link(epoch: _Epoch, one: _Ahead, where: str, seq: int) -> None:
        if seq == 0:
            epoch.opened_prev = one.prev
            if one.type != "open":
                epoch.problems.append(Problem("order", where, f"leaf {one.leaf_index} begins the epoch and is no open"))
        elif one.type == "open":
            epoch.problems.append(Problem("order", where, f"leaf {one.leaf_index} is an open within the epoch"))
        if seq > 0 and one.prev != epoch.last:
            epoch.problems.append(Problem("fork", where, f"leaf {one.leaf_index} does not follow the record before it"))
        epoch.last, epoch.next_seq = one.digest, seq + 1

    def problems(self) -> Iterator[Problem]:
        """Everything that breaks a chain, by producer and epoch."""
        for (producer, slot), epochs in sorted(self._epochs.items()):
            where = f"{producer}/{slot}"
            for name, epoch in sorted(epochs.items()):
                yield from epoch.problems
                yield from _gaps(f"{where} epoch {name}", epoch)
            yield from _links(where, dict(sorted(epochs.items())))

    def counts(self) -> dict[str, int]:
        """Records by producer."""
        found: dict[str, int] = {}
        for (producer, _), epochs in self._epochs.items():
            found[producer] = found.get(producer, 0) + sum(epoch.records for epoch in epochs.values())
        return found


def _gaps(where: str, epoch: _Epoch) -> Iterator[Problem]:
    expected = epoch.next_seq
    for seq in sorted(epoch.ahead):
        if seq > expected:
            yield Problem("gap", where, f"records {expected} to {seq - 1} are missing")
        elif epoch.ahead[seq].prev != epoch.ahead[seq - 1].digest:
            yield Problem("fork", f"{where} seq {seq}", "does not follow the record before it")
        expected = seq + 1


def _links(where: str, epochs: dict[str, _Epoch]) -> Iterator[Problem]:
    """Each epoch but one begins where another ended, and no two where the same one did."""
    ends = {epoch.end: name for name, epoch in epochs.items()}
    taken: dict[bytes | None, str] = {}
    before: str | None = None  # the epoch before this one by its time (UUIDv7), for naming what may be missing
    for name, epoch in epochs.items():
        prev = epoch.opened_prev
        if not epoch.next_seq:
            pass  # its first record is missing: that gap has been named
        elif prev is not None and prev in taken:
            yield Problem("fork", f"{where} epoch {name}", f"begins after the same record as epoch {taken[prev]}")
        elif prev in taken or (prev is not None and prev not in ends):
            yield _unjoined(where, name, before)
        else:
            taken[prev] = name
        before = name


def _unjoined(where: str, name: str, before: str | None) -> Problem:
    if before is None:
        return Problem("tail_unknown", f"{where} epoch {name}", "begins after a record that is not in the log")
    return Problem("tail_unknown", f"{where} epoch {before}",
                   f"epoch {name} does not begin where this one ended: records may be missing between")  # fmt: skip
