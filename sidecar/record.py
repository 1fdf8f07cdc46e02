"""The records and their exact bytes: the only place that gives leaves and bodies meaning.

A *leaf* is a small envelope that can be public for ever; the *body* it commits to (`SHA-256(salt || body)`) stands
beside it, behind roles, and can be erased while every proof stays valid. Invariants:

* a leaf's bytes are UTF-8 JSON with the keys of `Leaf` in that order and no white space; parsing is byte-strict, so
  two readers cannot understand one leaf differently;
* `prev` is the SHA-256 of the previous leaf of the same producer slot, across epochs; `seq` counts from 0 in an epoch;
* a body's bytes are hashed as the producer wrote them, never re-encoded;
* a data subject stands in a body only as `SHA-256(salt_i || pseudonym_i)`; the openings are sealed beside it.

Hashes and keys are raw bytes in memory and standard base64 in JSON. Times are RFC 3339 in UTC with microseconds.
"""

import hashlib
from base64 import b64decode, b64encode
from functools import lru_cache
from typing import Literal, NewType

import msgspec

from sidecar.vocabulary import Level, Phase, SubjectClass

Digest = NewType("Digest", bytes)
SALT_SIZE = 32
_BLOCK = 64
MAX_LEAF = 1024
MAX_BODY = 64 * 1024
MAX_SUBJECTS = 500
"""Subjects in one decision record; beyond it the record comes in parts."""
MAX_BATCH = 256
BATCH_CONTEXT = b"customhouse/batch/v1\n"
PROMISE_CONTEXT = b"customhouse/promise/v1\n"
EPOCH_KEY_INFO = b"customhouse/epoch-key/v1"
"""HPKE info under which an epoch key is sealed to the store."""

RecordType = Literal[
    "decision", "outcome", "open", "close", "heartbeat", "policy_activated", "directory_activated", "index_activated",
    "exception_opened", "exception_used", "exception_closed", "authorization", "attestation", "agreement",
    "engagement_opened", "engagement_closed", "audit_report", "report_filed", "revoked", "reviewer_access", "erasure",
    "admin_action", "shadow", "engine_disagreement",
]  # fmt: skip


class RecordFormatError(ValueError):
    """Bytes that are not a leaf or body of this version. Says which part and why."""


class _Json(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Leaf(_Json, frozen=True, kw_only=True):
    """The envelope. At most 1 kB. `slot` is the worker, `epoch` a UUIDv7 that is new at each start."""

    v: Literal[1] = 1
    type: RecordType
    producer: str
    slot: int
    epoch: str
    seq: int
    prev: str | None
    time: str
    call_id: str | None
    body: str


class Trace(_Json, frozen=True, kw_only=True):
    """W3C trace context, hex. `from` says whose trace it is: a caller's id is a claim."""

    trace_id: str | None
    span_id: str | None
    from_: Literal["caller", "sidecar"] = msgspec.field(name="from")


class PolicyRef(_Json, frozen=True, kw_only=True):
    """Which policy decided: its digest, and the ids of the keys that signed it."""

    revision: str | None
    signers: tuple[str, ...] = ()


class SubjectRef(_Json, frozen=True, kw_only=True):
    """A data subject as a body may hold one. `period` names the pseudonym key."""

    class_: SubjectClass = msgspec.field(name="class")
    ref: str
    period: str


class ObligationMet(_Json, frozen=True, kw_only=True):
    """Whether this door fulfils the obligation; where it could not, nothing was released."""

    id: str
    met: bool


class DecisionBody(_Json, frozen=True, kw_only=True):
    """One decision. `input` and `decision` are the documents' exact bytes."""

    v: Literal[1] = 1
    call_id: str
    type: Literal["decision"] = "decision"
    phase: Phase
    service: str
    method: str
    door: str
    trace: Trace
    policy: PolicyRef
    directory: str | None
    index: str | None
    input: msgspec.Raw
    decision: msgspec.Raw
    subjects: tuple[SubjectRef, ...]
    obligations: tuple[ObligationMet, ...]
    level: Level
    engine: str
    eval_us: int
    part: int = 1
    parts: int = 1


class MessageCounts(_Json, frozen=True, kw_only=True):
    """Messages forwarded and released."""

    in_: int = msgspec.field(name="in")
    out: int


class Released(_Json, frozen=True, kw_only=True):
    """Records (of distinct or repeated subjects) that left, and in how many of them each category did."""

    records: int = 0
    by_category: dict[str, int] = {}


class ReleasedByClass(_Json, frozen=True, kw_only=True):
    """What left, by class of data subject."""

    us: Released = Released()
    non_us: Released = Released()
    unknown: Released = Released()


class OutcomeBody(_Json, frozen=True, kw_only=True):
    """How a call ended. `status` is a gRPC status name, or "unknown" when a successor writes it after a crash.

    `seen` is there only where no answer passed through the sidecar: `reported` figures are the caller's own, and of an
    `unobserved` call nobody has said how it ended (its `status` is "unobserved", and it is not `complete`).
    `obligations`: those that a caller had to meet itself and says it has met; or has not, or says nothing of.
    """

    v: Literal[1] = 1
    call_id: str
    type: Literal["outcome"] = "outcome"
    status: str
    messages: MessageCounts
    released: ReleasedByClass
    dropped: int
    redacted: dict[str, int]
    bytes_out: int
    duration_ms: float
    complete: bool
    seen: Literal["reported", "unobserved"] | msgspec.UnsetType = msgspec.UNSET
    obligations: tuple[ObligationMet, ...] | msgspec.UnsetType = msgspec.UNSET


class EventBody(_Json, frozen=True, kw_only=True):
    """Any other record: what happened (`type`), with details that name no data subject."""

    v: Literal[1] = 1
    type: str
    details: dict[str, str | int | bool | list[str] | None]


class Opening(_Json, frozen=True, kw_only=True):
    """What opens a SubjectRef: both 32 bytes, base64."""

    salt: str
    pseudonym: str


_encoder = msgspec.json.Encoder()
_leaf_decoder = msgspec.json.Decoder(Leaf)
_openings_decoder = msgspec.json.Decoder(tuple[Opening, ...])


def encode_leaf(leaf: Leaf) -> bytes:
    """The leaf's bytes. RecordFormatError when longer than 1 kB."""
    data = _encoder.encode(leaf)
    if len(data) > MAX_LEAF:
        raise RecordFormatError(f"leaf of {len(data)} bytes; at most {MAX_LEAF}")
    return data


def parse_leaf(data: bytes) -> Leaf:
    """The leaf in these bytes, if they are exactly what `encode_leaf` would write."""
    if len(data) > MAX_LEAF:
        raise RecordFormatError(f"leaf of {len(data)} bytes; at most {MAX_LEAF}")
    try:
        leaf = _leaf_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"leaf is not version 1: {error}") from None
    if _encoder.encode(leaf) != data:
        raise RecordFormatError("leaf is not in canonical form")
    for name, value in (("prev", leaf.prev), ("body", leaf.body)):
        if value is not None:
            decode_digest(value, name)
    if leaf.seq < 0 or leaf.slot < 0:
        raise RecordFormatError("seq and slot are not negative")
    return leaf


def encode_body(body: DecisionBody | OutcomeBody | EventBody) -> bytes:
    """The body's bytes. RecordFormatError when longer than 64 kB."""
    data = _encoder.encode(body)
    if len(data) > MAX_BODY:
        raise RecordFormatError(f"body of {len(data)} bytes; at most {MAX_BODY}")
    return data


def body_digest(salt: bytes, body: bytes) -> Digest:
    """What a leaf's `body` commits to: SHA-256(salt || body)."""
    return Digest(hashlib.sha256(salt + body).digest())


def leaf_digest(leaf: bytes) -> Digest:
    """The hash that the next leaf's `prev` carries: plain SHA-256, not the Merkle leaf hash."""
    return Digest(hashlib.sha256(leaf).digest())


def encode_digest(digest: bytes) -> str:
    """Standard base64 with padding."""
    return b64encode(digest).decode("ascii")


def decode_digest(text: str, name: str) -> Digest:
    """The 32 bytes behind canonical base64."""
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        raise RecordFormatError(f"{name} is not base64") from None
    if len(raw) != hashlib.sha256().digest_size or encode_digest(raw) != text:
        raise RecordFormatError(f"{name} is not a SHA-256 digest in canonical base64")
    return Digest(raw)


def pseudonym(key: bytes, kind: str, subject_id: str) -> bytes:
    """HMAC-SHA-256 under the period's key over `kind || 0x00 || id` (UTF-8, exact)."""
    before, behind = _pads(key)
    inner, outer = before.copy(), behind.copy()
    inner.update(kind.encode() + b"\0" + subject_id.encode())
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=8)
def _pads(key: bytes) -> tuple["hashlib._Hash", "hashlib._Hash"]:
    """The hashes of both paddings of a key (RFC 2104, section 4), the same for a whole period."""
    block = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    return tuple(hashlib.sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))  # type: ignore[return-value]


def subject_digest(salt: bytes, subject_pseudonym: bytes) -> Digest:
    """SHA-256(salt_i || pseudonym_i)."""
    return Digest(hashlib.sha256(salt + subject_pseudonym).digest())


def subject_ref(salt: bytes, subject_pseudonym: bytes) -> str:
    """How a body names a data subject: base64 of the `subject_digest`."""
    return encode_digest(subject_digest(salt, subject_pseudonym))


def encode_openings(openings: list[tuple[bytes, bytes]]) -> bytes:
    """Plain bytes of a record's openings, in the order of its `subjects`; sealed before they leave the sidecar."""
    return _encoder.encode(
        [Opening(salt=encode_digest(salt), pseudonym=encode_digest(value)) for salt, value in openings]
    )


def parse_openings(data: bytes) -> list[tuple[bytes, bytes]]:
    """The (salt_i, pseudonym_i) pairs in unsealed openings."""
    try:
        openings = _openings_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"openings: {error}") from None
    return [(decode_digest(one.salt, "salt"), decode_digest(one.pseudonym, "pseudonym")) for one in openings]


def openings_aad(producer: str, slot: int, epoch: str, seq: int) -> bytes:
    """AES-GCM associated data: producer, slot, epoch, seq as text, each preceded by its length (uint32, big-endian)."""
    parts = (producer.encode(), str(slot).encode(), epoch.encode(), str(seq).encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def batch_message(header: bytes) -> bytes:
    """The bytes a producer signs (Ed25519) for a batch."""
    return BATCH_CONTEXT + header


def promise_message(promise: bytes) -> bytes:
    """The bytes the store signs (Ed25519) for an accepted batch."""
    return PROMISE_CONTEXT + promise
