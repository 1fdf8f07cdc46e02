"""Evidence files: what is in them is proven, and no byte of them can be changed."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from published_log import ORIGIN, SALT, PublishedLog, Writer, body_of, mixed

from sidecar.oversight.evidence import EvidenceError, make, verify
from sidecar.record import Leaf, body_digest, encode_digest, encode_leaf
from sidecar.tlog.errors import TlogError
from sidecar.tlog.proof import TlogProof
from sidecar.tlog.trust import Trust

SIZE = 300


@pytest.fixture(scope="module")
def log() -> PublishedLog:
    return PublishedLog().grow(Writer().leaves(SIZE))


def body(index: int) -> bytes:
    return body_of("profiles-1", 1, index)


def evidence(log: PublishedLog, index: int) -> bytes:
    return make(log.proof(index), log.leaves[index], SALT, body(index))


def with_extra(data: bytes, extra: bytes | None) -> bytes:
    parsed = TlogProof.parse(data)
    return TlogProof(index=parsed.index, hashes=parsed.hashes, checkpoint=parsed.checkpoint, extra=extra).encode()


def extra_of(data: bytes) -> dict[str, str | None]:
    found: dict[str, str | None] = json.loads(TlogProof.parse(data).extra or b"")
    return found


@pytest.mark.parametrize("index", [0, 1, 128, 255, 256, SIZE - 1])
def test_what_was_made_is_proven(log: PublishedLog, index: int) -> None:
    proven = verify(evidence(log, index), log.trust)
    assert (proven.index, proven.body) == (index, body(index))
    assert (proven.leaf.seq, proven.leaf.producer) == (index, "profiles-1")
    assert (proven.checkpoint.origin, proven.checkpoint.size) == (ORIGIN, SIZE)


@given(st.integers(1, 70), st.data())
@settings(max_examples=40, deadline=None)
def test_any_record_of_any_log(size: int, data: st.DataObject) -> None:
    made = PublishedLog().grow(Writer().leaves(size))
    index = data.draw(st.integers(0, size - 1))
    assert verify(evidence(made, index), made.trust).index == index


def test_a_record_without_its_body_is_proven_all_the_same(log: PublishedLog) -> None:
    for salt in (b"", SALT):
        proven = verify(make(log.proof(9), log.leaves[9], salt, b""), log.trust)
        assert (proven.index, proven.body) == (9, None)


def test_every_flipped_bit_of_every_byte_fails() -> None:
    made = PublishedLog().grow(Writer().leaves(5))
    for data in (evidence(made, 3), make(made.proof(3), made.leaves[3], b"", b"")):
        for at in range(len(data)):
            for bit in range(8):
                changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
                with pytest.raises(EvidenceError):
                    verify(changed, made.trust)


def test_every_cut_and_every_addition_fails() -> None:
    made = PublishedLog().grow(Writer().leaves(5))
    data = evidence(made, 3)
    for at in range(len(data)):
        with pytest.raises(EvidenceError):
            verify(data[:at], made.trust)
        with pytest.raises(EvidenceError):
            verify(data[:at] + b"A" + data[at:], made.trust)
    for more in (b"\n", b" ", b"\0", data):
        with pytest.raises(EvidenceError):
            verify(data + more, made.trust)


def test_another_body(log: PublishedLog) -> None:
    with pytest.raises(EvidenceError, match="not the one that the record commits to"):
        verify(make(log.proof(9), log.leaves[9], SALT, body(10)), log.trust)


def test_another_salt(log: PublishedLog) -> None:
    with pytest.raises(EvidenceError, match="not the one that the record commits to"):
        verify(make(log.proof(9), log.leaves[9], b"\x08" * 32, body(9)), log.trust)


def test_salt_and_body_cannot_be_divided_otherwise(log: PublishedLog) -> None:
    """SHA-256(salt || body) is the same wherever the border is; the salt has its own length, and nothing else."""
    whole = SALT + body(9)
    for border in (0, 1, 31, 33, len(whole) - 1):
        with pytest.raises(EvidenceError, match=f"salt of {border} bytes, not 32"):
            verify(make(log.proof(9), log.leaves[9], whole[:border], whole[border:]), log.trust)


def test_another_leaf(log: PublishedLog) -> None:
    with pytest.raises(EvidenceError, match="not proven to be in a trusted log"):
        verify(make(log.proof(9), log.leaves[10], SALT, body(10)), log.trust)


def test_another_log(log: PublishedLog) -> None:
    other = PublishedLog(key=Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)).grow(log.leaves)
    with pytest.raises(EvidenceError, match="not proven to be in a trusted log"):
        verify(evidence(log, 9), other.trust)
    assert verify(evidence(other, 9), other.trust).index == 9


def test_a_quorum_of_witnesses_that_is_not_met(log: PublishedLog) -> None:
    witness = PublishedLog(key=Ed25519PrivateKey.from_private_bytes(b"\x03" * 32)).signer.key
    vkey = type(witness)("witness.test", 4, witness.public_key)
    trust = Trust.parse(f"log {log.signer.key}\nwitness w {vkey}\nquorum w\n".encode())
    with pytest.raises(EvidenceError, match="quorum 'w' is not met"):
        verify(evidence(log, 9), trust)


def test_a_proof_of_another_size(log: PublishedLog) -> None:
    smaller = PublishedLog().grow(log.leaves[:100])
    parsed = TlogProof.parse(evidence(log, 9))
    mixed_up = TlogProof(index=9, hashes=parsed.hashes, checkpoint=smaller.files["checkpoint"], extra=parsed.extra)
    with pytest.raises(EvidenceError):
        verify(mixed_up.encode(), log.trust)


@pytest.mark.parametrize(
    "extra", [None, b"", b"{}", b"[]", b"null", b"\xff", b'{"leaf":7}', b'{"leaf":"!"}', b"[" * 5000]
)
def test_a_proof_without_a_record(log: PublishedLog, extra: bytes | None) -> None:
    with pytest.raises(EvidenceError, match="holds no record|not a proof file"):
        verify(with_extra(log.proof(9), extra), log.trust)


def test_a_record_in_another_spelling(log: PublishedLog) -> None:
    data = evidence(log, 9)
    fields = extra_of(data)
    spaced = json.dumps(fields).encode()
    swapped = json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode()
    doubled = json.dumps(fields, separators=(",", ":")).encode().replace(b'{"leaf"', b'{"leaf":"AAAA","leaf"')
    for extra in (spaced, swapped, doubled):
        with pytest.raises(EvidenceError, match="not written in its one form|holds no record"):
            verify(with_extra(data, extra), log.trust)


def test_an_unknown_field(log: PublishedLog) -> None:
    data = evidence(log, 9)
    extra = json.dumps(extra_of(data) | {"note": "trust me"}, separators=(",", ":")).encode()
    with pytest.raises(EvidenceError, match="holds no record"):
        verify(with_extra(data, extra), log.trust)


def test_a_salt_without_its_body(log: PublishedLog) -> None:
    data = evidence(log, 9)
    for name in ("salt", "body"):
        extra = json.dumps(extra_of(data) | {name: None}, separators=(",", ":")).encode()
        with pytest.raises(EvidenceError, match="without its"):
            verify(with_extra(data, extra), log.trust)


def test_what_is_proven_but_is_no_record() -> None:
    made = PublishedLog().grow([*mixed(3), b'{"any":"thing"}'])
    with pytest.raises(EvidenceError, match="what is proven is no record"):
        verify(make(made.proof(3), made.leaves[3], SALT, b"x"), made.trust)


@given(st.binary(max_size=300))
def test_no_bytes_make_another_error(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        verify(data, PublishedLog().trust)


def test_make_needs_a_proof(log: PublishedLog) -> None:
    with pytest.raises(TlogError):
        make(b"no proof", log.leaves[9], SALT, body(9))


def test_the_largest_record_fits() -> None:
    salt, large = b"\x01" * 32, bytes(64 * 1024)
    leaf = encode_leaf(Leaf(type="open", producer="p" * 60, slot=0, epoch="e", seq=0, prev=None, time="t", call_id=None,
                            body=encode_digest(body_digest(salt, large))))  # fmt: skip
    made = PublishedLog().grow([leaf])
    assert verify(make(made.proof(0), leaf, salt, large), made.trust).body == large


def test_the_file_is_a_c2sp_proof(log: PublishedLog) -> None:
    lines = evidence(log, 9).decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert json.loads(base64.b64decode(lines[1].removeprefix("extra ")))["leaf"]
    assert lines[2] == "index 9"
