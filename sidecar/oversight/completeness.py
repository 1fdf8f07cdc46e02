"""What a reviewer must know before believing that nothing is missing."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sidecar.oversight.producers import STORE
from sidecar.oversight.storage import Discovery, Gap, Head, Storage, StreamId

Standing = Literal["chain", "gap", "tail_unknown", "equivocation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`kind`: gap, equivocation, tail_unknown, silent_producer, or a `Discovery`'s kind. `count` 0: not countable."""

    kind: str
    producer: str
    slot: int
    epoch: str
    first_seq: int
    count: int
    since: str


class Completeness:
    """The findings about every attested epoch at one moment, and the standing of each record."""

    def __init__(
        self, heads: Mapping[StreamId, Head], gaps: Iterable[Gap], discoveries: Iterable[Discovery], *,
        now: datetime, silent_after: timedelta,
    ) -> None:  # fmt: skip
        """Epochs of one slot follow one another in the order of their UUIDv7, whatever order they came in.

        An epoch's tail is known if a later epoch's first leaf names the hash of its last one. The last epoch of a slot
        is running; it is silent when nothing came for `silent_after` and it did not end with a `close`.
        """
        self._heads = heads
        self._gaps: dict[StreamId, list[Gap]] = defaultdict(list)
        for gap in gaps:
            self._gaps[gap.stream].append(gap)
        self._equivocations = {(one.stream, one.seq) for one in discoveries if one.kind == "equivocation"}
        self._unknown_tails: set[StreamId] = set()
        self.findings: list[Finding] = [
            _finding(one.kind, heads[one.stream], one.seq, 1, one.since) for one in discoveries if one.stream in heads
        ]
        slots: dict[tuple[str, int], list[Head]] = defaultdict(list)
        for head in heads.values():
            if head.attested:
                slots[head.producer, head.slot].append(head)
        for epochs in slots.values():
            self._examine(sorted(epochs, key=lambda head: head.epoch), now, silent_after)

    @classmethod
    def of(cls, storage: Storage, *, now: datetime, silent_after: timedelta) -> "Completeness":
        """Read the books and examine them."""
        return cls(storage.heads(), storage.gaps(), storage.discoveries(), now=now, silent_after=silent_after)

    def standing(self, stream: StreamId, seq: int) -> Standing:
        """How far a record's place in its epoch can be believed."""
        if (stream, seq) in self._equivocations:
            return "equivocation"
        if any(gap.last_seq < seq for gap in self._gaps[stream]):
            return "gap"
        return "tail_unknown" if stream in self._unknown_tails else "chain"

    def _examine(self, epochs: list[Head], now: datetime, silent_after: timedelta) -> None:
        named = {head.opened_prev for head in epochs if head.opened}
        missing_tails = {head.link.epoch: head.link.last_seq for head in epochs if head.link is not None}
        for place, head in enumerate(epochs):
            for gap in self._gaps[head.stream]:
                self._find("gap", head, gap.first_seq, gap.last_seq - gap.first_seq + 1, gap.since)
            if place == len(epochs) - 1:
                # The store's own epoch cannot be silent while the store is answering.
                excused = head.closed or head.producer == STORE
                if not excused and datetime.fromisoformat(head.received) < now - silent_after:
                    self._find("silent_producer", head, head.last_seq + 1, 0, head.received)
            elif head.last_digest not in named:
                self._unknown_tails.add(head.stream)
                last = missing_tails.get(head.epoch, -1)
                self._find("tail_unknown", head, head.last_seq + 1, max(last - head.last_seq, 0), head.received)
        self._forks(epochs)

    def _forks(self, epochs: list[Head]) -> None:
        """Two epochs that name one predecessor: a copied key or a slot that ran twice."""
        first: dict[bytes, Head] = {}
        for head in epochs:
            if head.opened and head.opened_prev is not None and first.setdefault(head.opened_prev, head) is not head:
                self._find("equivocation", head, 0, 1, head.received)

    def _find(self, kind: str, head: Head, first_seq: int, count: int, since: str) -> None:
        self.findings.append(_finding(kind, head, first_seq, count, since))


def _finding(kind: str, head: Head, first_seq: int, count: int, since: str) -> Finding:
    return Finding(kind=kind, producer=head.producer, slot=head.slot, epoch=head.epoch, first_seq=first_seq,
                   count=count, since=since)  # fmt: skip
