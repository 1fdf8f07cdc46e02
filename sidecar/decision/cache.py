"""The decision cache: an equal question, asked while nothing has changed, is answered from memory.

A key is the canonical input document and the revisions (policy, directory, index) it was decided under. The input
holds `context.time` with minute resolution, so entries turn over each minute by themselves. Invariants:

* A decision with `ttl_seconds` 0 is never kept.
* An entry made while a revision changed is discarded: `Ticket` remembers under which generation the question was put.
* Life is counted from when the question was put, not from when the answer came.
* The cache is bounded in entries and bytes; the oldest goes first.

One event loop, no threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Protocol

from sidecar.vocabulary import AccessRequest, Decision

Revisions = tuple[str, ...]
_ENTRY_BYTES = 320
"""What an entry takes: the digest of its question, the tuple, the slot. Equal decisions are one object."""
_MOST_SHARED = 4096


class DecisionPoint(Protocol):
    """Whoever decides (XACML's PDP)."""

    @property
    def name(self) -> str:
        """The word for it in the record."""

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        """Decide. Raises DecideError when there is no well-formed answer in time."""


class Ticket(NamedTuple):
    """When, and under which generation, a question was put."""

    generation: int
    at: float


class _Entry(NamedTuple):
    expires: float
    revisions: Revisions
    decision: Decision


class DecisionCache:
    """Decisions by question. `clock` is monotonic seconds."""

    __slots__ = (
        "_bytes",
        "_clock",
        "_entries",
        "_generation",
        "_max_bytes",
        "_max_entries",
        "_shared",
        "hits",
        "misses",
    )

    def __init__(self, *, clock: Callable[[], float], entries: int = 65_536, max_bytes: int = 32 << 20) -> None:
        self._clock = clock
        self._max_entries = entries
        self._max_bytes = max_bytes
        self._entries: dict[bytes, _Entry] = {}
        self._shared: dict[Decision, Decision] = {}
        self._bytes = 0
        self._generation = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """About how much memory the entries take."""
        return self._bytes

    def get(self, canonical: bytes, revisions: Revisions) -> Decision | None:
        """The decision on an equal question, while it lives."""
        entry = self._entries.get(getattr(canonical, "digest", None) or _digest(canonical))
        if entry is not None:
            expires, under, decision = entry
            if expires > self._clock() and under == revisions:
                self.hits += 1
                return decision
        self.misses += 1
        return None

    def left(self, canonical: bytes, revisions: Revisions) -> float:
        """Seconds for which `get` still answers this; 0 where it does not."""
        entry = self._entries.get(_digest(canonical))
        return max(0.0, entry.expires - self._clock()) if entry is not None and entry.revisions == revisions else 0.0

    def ticket(self) -> Ticket:
        """To be taken before the question is put."""
        return Ticket(self._generation, self._clock())

    def put(
        self,
        canonical: bytes,
        revisions: Revisions,
        decision: Decision,
        ticket: Ticket,
        *,
        valid_for: float | None = None,
    ) -> bool:
        """Keep a decision; return whether it was kept.

        `valid_for` (seconds from the ticket) is when the first thing in the input expires: a token, a grant, vetting.
        """
        life = float(decision.ttl_seconds) if valid_for is None else min(decision.ttl_seconds, valid_for)
        if life <= 0 or ticket.generation != self._generation or self._max_entries <= 0:
            return False
        if self._max_bytes < _ENTRY_BYTES:
            return False
        key = _digest(canonical)
        self._forget(key)
        while self._entries and (
            len(self._entries) >= self._max_entries or self._bytes + _ENTRY_BYTES > self._max_bytes
        ):
            self._forget(next(iter(self._entries)))
        self._entries[key] = _Entry(ticket.at + life, revisions, self._one(decision))
        self._bytes += _ENTRY_BYTES
        return True

    def _one(self, decision: Decision) -> Decision:
        """The object that stands for all equal decisions: there are few, and thousands of questions."""
        if len(self._shared) >= _MOST_SHARED:
            self._shared.clear()
        return self._shared.setdefault(decision, decision)

    def drop(self) -> None:
        """Forget everything, and whatever is being decided now: policy, directory or index changed."""
        self._generation += 1
        self._entries.clear()
        self._shared.clear()
        self._bytes = 0

    def _forget(self, key: bytes) -> None:
        if self._entries.pop(key, None) is not None:
            self._bytes -= _ENTRY_BYTES


def _digest(canonical: bytes) -> bytes:
    """SHA-256; bytes that bring their own (`enforcement.questions`) have worked it out once."""
    known: bytes | None = getattr(canonical, "digest", None)
    return sha256(canonical).digest() if known is None else known


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedDecisionPoint:
    """A `DecisionPoint` that asks `inner` only what `cache` cannot answer.

    `revisions` tells policy, directory and index revisions in force. Whoever swaps one of them calls `cache.drop()`.
    """

    inner: DecisionPoint
    cache: DecisionCache
    revisions: Callable[[], Revisions]

    @property
    def name(self) -> str:
        """The word of the engine behind."""
        return self.inner.name

    def peek(self, canonical: bytes) -> Decision | None:
        """The cached decision, without a coroutine: the fast path of a pipeline."""
        return self.cache.get(canonical, self.revisions())

    def left(self, canonical: bytes) -> float:
        """Seconds for which `peek` still gives the decision; 0 where it gives none."""
        return self.cache.left(canonical, self.revisions())

    async def decide(self, request: AccessRequest, canonical: bytes, *, valid_for: float | None = None) -> Decision:
        """Decide, from memory where that is allowed. Raises what `inner` raises; failures are never kept."""
        revisions = self.revisions()
        known = self.cache.get(canonical, revisions)
        if known is not None:
            return known
        ticket = self.cache.ticket()
        decision = await self.inner.decide(request, canonical)
        if self.revisions() == revisions:
            self.cache.put(canonical, revisions, decision, ticket, valid_for=valid_for)
        return decision
