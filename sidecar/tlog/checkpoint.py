"""Checkpoints: a log's signed statement of its size and root (c2sp.org/tlog-checkpoint).

A log must never sign two roots for one size, nor a tree that does not continue the one it signed before. Nothing here can
ensure that: who signs must have stored durably what it is about to sign, and compare.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sidecar.tlog.cosignature import Cosignature, CosignatureVerifier
from sidecar.tlog.encoding import MAX_SIZE, decode_base64, decode_decimal, encode_base64
from sidecar.tlog.errors import CheckpointError
from sidecar.tlog.key import NoteSigner, Verifier
from sidecar.tlog.merkle import EMPTY_ROOT, HASH_SIZE, Digest
from sidecar.tlog.note import Signature, check_text, open_note, sign_note


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is stated: the log's ``origin``, how many leaves its tree has, and the root over them."""

    origin: str
    size: int
    root: Digest
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `CheckpointError` (or `NoteError`, for characters a note cannot have) for what no log can state."""
        for line in (self.origin, *self.extensions):
            if not line or "\n" in line:
                raise CheckpointError(f"origin or extension is not one non-empty line: {line[:80]!r}")
            check_text(f"{line}\n".encode("utf-8", "surrogatepass"))
        if not 0 <= self.size <= MAX_SIZE:
            raise CheckpointError(f"size {self.size} of {self.origin!r} is not from 0 to 2^63-1")
        if len(self.root) != HASH_SIZE:
            raise CheckpointError(f"root of {self.origin!r} has {len(self.root)} bytes, not {HASH_SIZE}")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise CheckpointError(f"{self.origin!r} states size 0 with a root that is not the empty tree's")

    def encode(self) -> bytes:
        """Return the note text: origin, size, root and extensions, one line each."""
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> "Checkpoint":
        """Read a note text; raise `CheckpointError` (or `NoteError`) unless it is exactly a checkpoint's."""
        check_text(text)
        lines = text.decode().split("\n")[:-1]
        if len(lines) < 3:
            raise CheckpointError(f"checkpoint has {len(lines)} lines; origin, size and root are three")
        origin, size, root, *extensions = lines
        return cls(
            origin=origin,
            size=decode_decimal(size, error=CheckpointError, what=f"size of {origin[:80]!r}"),
            root=Digest(decode_base64(root, error=CheckpointError, what=f"root of {origin[:80]!r}")),
            extensions=tuple(extensions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    """A checkpoint that its log signed, the text that was signed, and the cosignatures that were verified.

    ``unknown`` are signatures of keys that the reader does not know: kept for republishing, worth nothing here.
    """

    checkpoint: Checkpoint
    text: bytes
    signatures: tuple[Signature, ...]
    cosignatures: tuple[Cosignature, ...]
    unknown: tuple[Signature, ...]


def sign_checkpoint(
    checkpoint: Checkpoint, signers: Iterable[NoteSigner], cosignatures: Iterable[Signature] = ()
) -> bytes:
    """Return the checkpoint as a signed note, the log's signatures before the witnesses'."""
    return sign_note(checkpoint.encode(), signers, cosignatures)


def open_checkpoint(
    message: bytes, logs: Sequence[Verifier], witnesses: Sequence[CosignatureVerifier] = ()
) -> SignedCheckpoint:
    """Read a checkpoint of one of ``logs``; raise `CheckpointError` or `NoteError` unless that is what it is.

    1. Every signature of a known key verifies, whether of a log or a witness.
    2. The text is a checkpoint.
    3. At least one signature is of a log key *whose name is the origin*: another log's key says nothing about it.

    How many witnesses are enough is not decided here: see ``trust``.
    """
    note = open_note(message, [*logs, *witnesses])
    checkpoint = Checkpoint.parse(note.text)
    times = {(by.key.name, by.key.key_id): by.key for by in witnesses}
    signatures: list[Signature] = []
    cosignatures: list[Cosignature] = []
    for signature in note.verified:
        key = times.get((signature.name, signature.key_id))
        if key is not None:
            cosignatures.append(Cosignature.of(key, signature))
        elif signature.name == checkpoint.origin:
            signatures.append(signature)
    if not signatures:
        raise CheckpointError(f"checkpoint of {checkpoint.origin!r} is not signed by a trusted key of that log")
    return SignedCheckpoint(
        checkpoint=checkpoint,
        text=note.text,
        signatures=tuple(signatures),
        cosignatures=tuple(cosignatures),
        unknown=note.unknown,
    )
