"""Evidence: one record with its proof in one file, which anybody verifies offline with a trust file.

The file is a C2SP tlog-proof whose `extra` carries the record (leaf, salt, body) as JSON. `extra` is not authenticated by
the format; here it is, because the leaf in it must hash to the proof's leaf, the body to what the leaf commits to, and
the JSON is the only spelling of them: no byte of it can be changed.
"""

from dataclasses import dataclass

import msgspec

from sidecar.record import SALT_SIZE, Leaf, RecordFormatError, body_digest, decode_digest, parse_leaf
from sidecar.tlog.checkpoint import Checkpoint
from sidecar.tlog.errors import TlogError
from sidecar.tlog.proof import TlogProof, verify_proof
from sidecar.tlog.trust import Trust


class EvidenceError(ValueError):
    """The file proves nothing. Says which step failed."""


class _Extra(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    leaf: bytes
    salt: bytes | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A verified record. `body` is None when it was not in the file: the leaf is proven all the same."""

    index: int
    leaf: Leaf
    body: bytes | None
    checkpoint: Checkpoint


def make(proof: bytes, leaf: bytes, salt: bytes, body: bytes) -> bytes:
    """The proof with the record put into it; without a body (an erased one, or none shown) the leaf alone.

    TlogError when `proof` is none.
    """
    parsed = TlogProof.parse(proof)
    extra = _Extra(leaf=leaf, salt=salt, body=body) if body else _Extra(leaf=leaf)
    return TlogProof(
        index=parsed.index, hashes=parsed.hashes, checkpoint=parsed.checkpoint, extra=msgspec.json.encode(extra)
    ).encode()


def verify(data: bytes, trust: Trust) -> Evidence:
    """Verify a file that `make` made. EvidenceError names the step that failed.

    1. The file is a tlog-proof with a record in it. 2. The leaf is in a tree that a trusted log has signed, with the
    quorum of witnesses the trust file asks for. 3. The leaf is a record. 4. The body is what the leaf commits to.
    """
    extra = _record(data)
    try:
        proven = verify_proof(data, extra.leaf, trust)
    except TlogError as error:
        raise EvidenceError(f"the record is not proven to be in a trusted log: {error}") from None
    try:
        leaf = parse_leaf(extra.leaf)
        committed = decode_digest(leaf.body, "body")
    except RecordFormatError as error:
        raise EvidenceError(f"what is proven is no record: {error}") from None
    if extra.body is not None and body_digest(extra.salt or b"", extra.body) != committed:
        raise EvidenceError("the body is not the one that the record commits to")
    return Evidence(index=proven.index, leaf=leaf, body=extra.body, checkpoint=proven.checkpoint.checkpoint)


def _record(data: bytes) -> _Extra:
    try:
        written = TlogProof.parse(data).extra
        extra = msgspec.json.decode(written or b"", type=_Extra)
    except TlogError as error:
        raise EvidenceError(f"not a proof file: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EvidenceError(f"the proof file holds no record: {error}") from None
    if msgspec.json.encode(extra) != written:
        raise EvidenceError("the proof file holds a record that is not written in its one form")
    if (extra.salt is None) != (extra.body is None):
        raise EvidenceError("the proof file holds a salt without its body, or a body without its salt")
    if extra.salt is not None and len(extra.salt) != SALT_SIZE:
        # SHA-256(salt || body) would hold as well for a body without its beginning, behind a longer salt.
        raise EvidenceError(f"the proof file holds a salt of {len(extra.salt)} bytes, not {SALT_SIZE}")
    return extra
