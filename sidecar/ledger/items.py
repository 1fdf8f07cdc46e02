"""What a sidecar and the ledger say to each other: who was seen, with which data, and why something is refused."""

from collections.abc import Sequence
from typing import NamedTuple

MOST_ITEMS = 10_000
"""Data subjects in one request, at most: as many as one message may name."""


class Seen(NamedTuple):
    """What is shown of one data subject: categories as annotated, listed identifiers as (letter, how many)."""

    categories: frozenset[str] = frozenset()
    listed: tuple[tuple[str, int], ...] = ()

    def __or__(self, other: "Seen") -> "Seen":
        """Both: of each letter the larger number, since nothing tells whether they are the same identifiers."""
        if self == other:
            return self
        most = dict(self.listed)
        for letter, count in other.listed:
            most[letter] = max(count, most.get(letter, 0))
        return Seen(self.categories | other.categories, tuple(sorted(most.items())))

    def within(self, other: "Seen") -> bool:
        """Whether `other` holds all of this."""
        most = dict(other.listed)
        return self.categories <= other.categories and all(most.get(one, 0) >= count for one, count in self.listed)


class Item(NamedTuple):
    """One data subject, by namespace and exact id. `devices`: ids of the devices whose location it is, if named."""

    kind: str
    id: str
    seen: Seen
    devices: tuple[str, ...] = ()


class Settlement(NamedTuple):
    """What became of a call, or of some of its reservations. See `ledger.proto`."""

    call: str
    sequences: Sequence[int] = ()
    everything: bool = False
    groups: Sequence[str] = ()
    source: str = ""
    items: Sequence[Item] = ()
    released_at: float = 0.0


class LedgerError(Exception):
    """The ledger has not done what was asked, or nobody knows whether it has. Says why, without any id."""


class RefusedError(LedgerError):
    """The ledger refuses: `reason` is malformed, differs, settled or full."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
