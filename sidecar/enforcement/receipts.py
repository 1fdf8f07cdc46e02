"""Receipts: what makes a record's own copy deletable.

A receipt counts if a checkpoint, signed by a log that the trust policy names and cosigned as it demands, continues the
checkpoints seen before, and the range proof leads from *our own* leaf hashes to its root. Nothing the store merely says
is believed.

What is not checked: that a larger tree extends the smaller one (no consistency proof comes with a receipt). Witnesses
check that, and the trust policy says how many of them must have.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar import _native
from sidecar.record import promise_message
from sidecar.tlog.checkpoint import Checkpoint
from sidecar.tlog.errors import TlogError
from sidecar.tlog.merkle import HASH_SIZE, verify_range
from sidecar.tlog.trust import Trust

_REMEMBERED = 4096


class ReceiptError(ValueError):
    """A receipt or promise that proves nothing. Says why."""


class SplitViewError(Exception):
    """The log signed two histories. `notes` are the two signed checkpoints that show it."""

    def __init__(self, what: str, notes: tuple[bytes, bytes]) -> None:
        super().__init__(what)
        self.notes = notes


@dataclass(frozen=True, slots=True)
class _Seen:
    checkpoint: Checkpoint
    note: bytes


class ReceiptVerifier:
    """Remembers the largest checkpoint of each log, and the roots of many before it."""

    def __init__(self, trust: Trust) -> None:
        self._largest: dict[str, _Seen] = {}
        self._roots: OrderedDict[tuple[str, int], _Seen] = OrderedDict()
        self._latest: _Seen | None = None
        self.trust(trust)

    def trust(self, trust: Trust) -> None:
        """From now on, this policy: the next receipt is held to it. What was seen of each log stays known."""
        self._trust, self._checked = trust, b""
        self._keys = [(log.key.name, Ed25519PublicKey.from_public_bytes(log.key.public_key)) for log in trust.logs]

    def resume(self, note: bytes) -> None:
        """Take up the checkpoint that was kept when the process last ran; ReceiptError when it is not a trusted one."""
        try:
            checkpoint = self._trust.open_checkpoint(note).checkpoint
        except TlogError as error:
            raise ReceiptError(f"the kept checkpoint is not one of a trusted log: {error}") from None
        self._remember(_Seen(checkpoint, note))

    def check_checkpoint(self, note: bytes) -> bool:
        """Accept this checkpoint; true when it is larger than all before and so must be kept.

        1. It is signed and cosigned as the trust policy demands: ReceiptError.
        2. Its root is the one seen before for this size: SplitViewError.
        3. Its tree is no smaller than the largest seen, unless it was itself seen then: SplitViewError.
        """
        if note == self._checked:
            return False
        try:
            checkpoint = self._trust.open_checkpoint(note).checkpoint
        except TlogError as error:
            raise ReceiptError(f"checkpoint: {error}") from None
        seen = self._roots.get((checkpoint.origin, checkpoint.size))
        if seen is not None and seen.checkpoint.root != checkpoint.root:
            raise SplitViewError(f"two roots of {checkpoint.origin!r} for size {checkpoint.size}", (seen.note, note))
        largest = self._largest.get(checkpoint.origin)
        if largest is not None and checkpoint.size < largest.checkpoint.size and seen is None:
            raise SplitViewError(
                f"the tree of {checkpoint.origin!r} shrank from {largest.checkpoint.size} to {checkpoint.size}",
                (largest.note, note),
            )
        return self._remember(_Seen(checkpoint, note))

    def check_range(self, note: bytes, first_index: int, leaf_hashes: bytes, proof: Sequence[bytes]) -> None:
        """ReceiptError unless these leaves stand from `first_index` on in the tree of `note`, checked just before.

        `leaf_hashes`: 32 bytes each. `_native.range_root` works the root out as `verify_range` does; what does not lead
        to the root of `note` there is put to `verify_range` itself, which says why.
        """
        if self._latest is None or note != self._checked:
            raise ReceiptError("its checkpoint was not checked")
        checkpoint = self._latest.checkpoint
        if _native.range_root(leaf_hashes, first_index, checkpoint.size, list(proof)) == checkpoint.root:
            return
        leaves = [leaf_hashes[at : at + HASH_SIZE] for at in range(0, len(leaf_hashes), HASH_SIZE)]
        try:
            verify_range(leaves, first_index, checkpoint.size, proof, checkpoint.root)
        except TlogError as error:
            raise ReceiptError(f"range proof: {error}") from None

    def check_promise(self, promise: bytes, signature: bytes, origin: str) -> None:
        """ReceiptError unless a trusted log of this origin signed the promise."""
        for name, key in self._keys:
            if name == origin:
                try:
                    key.verify(signature, promise_message(promise))
                except InvalidSignature:
                    continue
                return
        raise ReceiptError(f"the promise is not signed by a trusted log {origin!r}")

    def _remember(self, seen: _Seen) -> bool:
        origin, size = seen.checkpoint.origin, seen.checkpoint.size
        self._checked, self._latest = seen.note, seen
        self._roots[origin, size] = seen
        self._roots.move_to_end((origin, size))  # forgotten, one that still comes would look like a tree that shrank
        if len(self._roots) > _REMEMBERED:
            self._roots.popitem(last=False)
        largest = self._largest.get(origin)
        if largest is not None and size <= largest.checkpoint.size:
            return False
        self._largest[origin] = seen
        return True
