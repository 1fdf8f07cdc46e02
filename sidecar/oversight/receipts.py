"""Receipts: the proof that a producer's records are in a published tree. Only with one may it delete its own copy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sidecar.oversight.integrator import Published
from sidecar.oversight.storage import Run
from sidecar.tlog.merkle import range_proof

MOST_LEAVES = 4096
"""Leaves under one receipt. The proof grows with the logarithm of the tree, not with this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive seqs of an epoch at consecutive indices: what a Range on the wire says."""

    epoch: str
    slot: int
    first_seq: int
    count: int
    first_index: int

    @property
    def end(self) -> int:
        """The index after the last."""
        return self.first_index + self.count

    def continues(self, other: "Span") -> bool:
        """Whether this span follows `other` without a hole and both fit under one receipt."""
        return (
            (self.epoch, self.slot) == (other.epoch, other.slot)
            and self.first_seq == other.first_seq + other.count
            and self.first_index == other.end
            and self.count + other.count <= MOST_LEAVES
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptParts:
    """What a Receipt on the wire says."""

    span: Span
    checkpoint: bytes
    proof: tuple[bytes, ...]


def span_of(run: Run, *, epoch: str, slot: int) -> Span:
    """The run as its producer sees it."""
    return Span(epoch=epoch, slot=slot, first_seq=run.first_seq, count=run.count, first_index=run.first_index)


def join(spans: Iterable[Span]) -> list[Span]:
    """Join neighbours, so that a long run of batches needs one proof."""
    joined: list[Span] = []
    for span in spans:
        if joined and span.continues(joined[-1]):
            last = joined[-1]
            joined[-1] = Span(epoch=last.epoch, slot=last.slot, first_seq=last.first_seq,
                              count=last.count + span.count, first_index=last.first_index)  # fmt: skip
        else:
            joined.append(span)
    return joined


def issue(spans: Sequence[Span], tree: Published) -> tuple[list[ReceiptParts], list[Span]]:
    """Receipts for the spans that the tree covers, and the spans that must wait for a larger one."""
    covered = [span for span in spans if span.end <= tree.size]
    waiting = [span for span in spans if span.end > tree.size]
    receipts = [
        ReceiptParts(
            span=span, checkpoint=tree.note,
            proof=tuple(range_proof(span.first_index, span.count, tree.size, tree.nodes)),
        )
        for span in join(covered)
    ]  # fmt: skip
    return receipts, waiting
