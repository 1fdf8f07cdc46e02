"""Proof files: one leaf's place in a log, verified offline (c2sp.org/tlog-proof).

The file holds the index, the inclusion proof and the signed checkpoint. Who verifies it brings the leaf and a `Trust`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.tlog.checkpoint import SignedCheckpoint
from sidecar.tlog.encoding import MAX_SIZE, decode_base64, decode_decimal, encode_base64
from sidecar.tlog.errors import ProofError
from sidecar.tlog.merkle import HASH_SIZE, Digest, leaf_hash, verify_inclusion
from sidecar.tlog.note import MAX_NOTE_SIZE
from sidecar.tlog.trust import Trust

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PROOF_SIZE = 2 * MAX_NOTE_SIZE
_MAX_HASHES = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class TlogProof:
    """The parts of a proof file. Nothing in it is verified; ``extra`` is not even authenticated by verifying it."""

    index: int
    hashes: tuple[Digest, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def encode(self) -> bytes:
        """Return the bytes of the file; raise `ProofError` for what cannot be one."""
        if not 0 <= self.index <= MAX_SIZE:
            raise ProofError(f"index {self.index} is not from 0 to 2^63-1")
        _check_hashes(self.hashes)
        lines = [HEADER]
        if self.extra is not None:
            lines.append(f"extra {encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [encode_base64(item) for item in self.hashes]
        data = "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint
        _check_length(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> "TlogProof":
        """Take a proof file apart; raise `ProofError` unless it is exactly in the format.

        The checkpoint is handed on as it is: it is parsed when it is opened.
        """
        _check_length(data)
        head, blank, checkpoint = data.partition(b"\n\n")
        if not blank:
            raise ProofError("proof has no blank line before its checkpoint")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise ProofError(f"proof is not ASCII at byte {error.start}") from None
        if lines.pop(0) != HEADER:
            raise ProofError(f"proof does not begin with the line {HEADER!r}")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = decode_base64(lines.pop(0).removeprefix("extra "), error=ProofError, what="extra of the proof")
        if not lines or not lines[0].startswith("index "):
            raise ProofError("proof has no index line after its header and extra data")
        index = decode_decimal(lines.pop(0).removeprefix("index "), error=ProofError, what="index of the proof")
        hashes = tuple(
            Digest(decode_base64(line, error=ProofError, what=f"hash {number} of the proof"))
            for number, line in enumerate(lines)
        )
        _check_hashes(hashes)
        return cls(index=index, hashes=hashes, checkpoint=checkpoint, extra=extra)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedProof:
    """What a proof file proved: the leaf is at ``index`` of the tree that ``checkpoint`` states."""

    index: int
    checkpoint: SignedCheckpoint


def verify_proof(data: bytes, leaf: bytes, trust: Trust) -> VerifiedProof:
    """Verify that ``leaf`` is in a log that ``trust`` names; raise a `TlogError` otherwise.

    1. The file is a proof, and its checkpoint is a trusted log's.
    2. Enough witnesses cosigned it, as the trust policy wants.
    3. The leaf's hash leads to the checkpoint's root by way of the index and the hashes.

    It does not prove that the leaf is true, nor that the log has no other leaves: see ``merkle.verify_consistency``.
    """
    proof = TlogProof.parse(data)
    signed = trust.open_checkpoint(proof.checkpoint)
    checkpoint = signed.checkpoint
    verify_inclusion(leaf_hash(leaf), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return VerifiedProof(index=proof.index, checkpoint=signed)


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if len(hashes) > _MAX_HASHES:
        raise ProofError(f"proof has {len(hashes)} hashes, more than {_MAX_HASHES}")
    for number, item in enumerate(hashes):
        if len(item) != HASH_SIZE:
            raise ProofError(f"hash {number} of the proof has {len(item)} bytes, not {HASH_SIZE}")


def _check_length(data: bytes) -> None:
    if len(data) > MAX_PROOF_SIZE:
        raise ProofError(f"proof has {len(data)} bytes, more than {MAX_PROOF_SIZE}")
