"""Trust policies (c2sp.org/tlog-policy) and proof files (c2sp.org/tlog-proof)."""

import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sidecar.tlog.checkpoint import Checkpoint, sign_checkpoint
from sidecar.tlog.cosignature import CosignatureSigner
from sidecar.tlog.encoding import encode_base64
from sidecar.tlog.errors import CheckpointError, MerkleError, NoteError, ProofError, TlogError, TrustError
from sidecar.tlog.key import Signer
from sidecar.tlog.merkle import Digest, inclusion_proof, leaf_hash, root_hash
from sidecar.tlog.note import Note, Signature, parse_note
from sidecar.tlog.proof import HEADER, MAX_PROOF_SIZE, TlogProof, verify_proof
from sidecar.tlog.trust import MAX_TRUST_SIZE, Group, Trust


def private(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


LOG = Signer("log.example/a", private(1))
OTHER_LOG = Signer("log.example/b", private(2))
WITNESSES = {
    name: CosignatureSigner(f"{name.lower()}.example", private(10 + number))
    for number, name in enumerate(("X1", "X2", "X3", "Y1", "Y2", "Y3"))
}
LEAVES = [b"leaf %d" % number for number in range(7)]
CHECKPOINT = Checkpoint(origin=LOG.key.name, size=7, root=root_hash(map(leaf_hash, LEAVES)))

# The example of the specification, with keys.
POLICY = "\n".join(
    [
        f"log {LOG.key}",
        "",
        *(f"witness {name} {WITNESSES[name].key}" for name in ("X1", "X2", "X3")),
        "group X-witnesses 2 X1 X2 X3",
        "",
        *(f"witness {name} {WITNESSES[name].key}" for name in ("Y1", "Y2", "Y3")),
        "group Y-witnesses any Y1 Y2 Y3",
        "",
        "group X-and-Y all X-witnesses Y-witnesses",
        "quorum X-and-Y",
        "",
    ]
)


def cosigned(*names: str) -> bytes:
    text = CHECKPOINT.encode()
    return sign_checkpoint(CHECKPOINT, [LOG], [WITNESSES[name].cosign(text, 1000) for name in names])


def node(level: int, index: int) -> Digest:
    return root_hash(map(leaf_hash, LEAVES[index << level : (index + 1) << level]))


def proof_of(index: int, checkpoint: bytes, extra: bytes | None = None) -> TlogProof:
    hashes = tuple(inclusion_proof(index, len(LEAVES), node))
    return TlogProof(index=index, hashes=hashes, checkpoint=checkpoint, extra=extra)


def test_the_specification_s_example_is_read() -> None:
    trust = Trust.parse(POLICY.encode())
    assert [log.key for log in trust.logs] == [LOG.key]
    assert [witness.name for witness in trust.witnesses] == list(WITNESSES)
    assert trust.groups == (
        Group(name="X-witnesses", threshold=2, members=("X1", "X2", "X3")),
        Group(name="Y-witnesses", threshold=1, members=("Y1", "Y2", "Y3")),
        Group(name="X-and-Y", threshold=2, members=("X-witnesses", "Y-witnesses")),
    )
    assert trust.quorum == "X-and-Y"


@pytest.mark.parametrize("count", range(7))
def test_the_example_s_quorum_is_what_its_text_says(count: int) -> None:
    trust = Trust.parse(POLICY.encode())
    for names in itertools.combinations(WITNESSES, count):
        enough = sum(name[0] == "X" for name in names) >= 2 and any(name[0] == "Y" for name in names)
        assert trust.is_quorum(names) is enough
        if enough:
            signed = trust.open_checkpoint(cosigned(*names))
            assert {item.key for item in signed.cosignatures} == {WITNESSES[name].key for name in names}
        else:
            with pytest.raises(TrustError, match="quorum 'X-and-Y' is not met"):
                trust.open_checkpoint(cosigned(*names))


def test_one_witness_that_cosigns_often_counts_once() -> None:
    text = CHECKPOINT.encode()
    many = [WITNESSES["X1"].cosign(text, time) for time in range(5)]
    message = sign_checkpoint(CHECKPOINT, [LOG], [*many, WITNESSES["Y1"].cosign(text, 1)])
    with pytest.raises(TrustError, match="not met; witnesses that cosigned: 'X1', 'Y1'"):
        Trust.parse(POLICY.encode()).open_checkpoint(message)


def test_a_witness_on_its_own_as_quorum_and_none() -> None:
    witness = f"log {LOG.key}\nwitness X1 {WITNESSES['X1'].key}\n"
    alone = Trust.parse(f"{witness}quorum X1\n".encode())
    assert alone.open_checkpoint(cosigned("X1")).checkpoint == CHECKPOINT
    with pytest.raises(TrustError, match="cosigned: none"):
        alone.open_checkpoint(cosigned("X2"))
    nobody = Trust.parse(f"{witness}quorum none\n".encode())
    assert nobody.open_checkpoint(cosigned()).cosignatures == ()


def test_a_log_that_is_not_trusted_is_refused() -> None:
    message = sign_checkpoint(Checkpoint(origin=OTHER_LOG.key.name, size=7, root=CHECKPOINT.root), [OTHER_LOG])
    with pytest.raises(NoteError, match="not signed by a trusted key"):
        Trust.for_log(str(LOG.key)).open_checkpoint(message)
    both = Trust.parse(f"log {LOG.key}\nlog {OTHER_LOG.key}\nquorum none\n".encode())
    assert both.open_checkpoint(message).checkpoint.origin == OTHER_LOG.key.name
    with pytest.raises(CheckpointError):
        both.open_checkpoint(sign_checkpoint(CHECKPOINT, [OTHER_LOG]))


def test_a_wrong_cosignature_of_a_known_witness_is_refused() -> None:
    key = WITNESSES["X3"].key
    wrong = Signature(name=key.name, key_id=key.key_id, signature=bytes(72))
    note = parse_note(cosigned("X1", "X2", "Y1"))
    message = Note(text=note.text, signatures=(*note.signatures, wrong)).encode()
    with pytest.raises(NoteError, match="is wrong"):
        Trust.parse(POLICY.encode()).open_checkpoint(message)


def test_blanks_comments_urls_and_other_octets() -> None:
    data = (
        b"  # a comment \xff\n\t\n \tlog\t" + str(LOG.key).encode() + b" \t https://log.example/ \n"
        b"witness \xe9t\xe9 " + str(WITNESSES["X1"].key).encode() + b" https://w.example/\n#x\nquorum \xe9t\xe9\n"
    )
    trust = Trust.parse(data)
    assert trust.logs[0].url == "https://log.example/"
    assert trust.witnesses[0].url == "https://w.example/"
    assert trust.quorum.encode("utf-8", "surrogateescape") == b"\xe9t\xe9"
    assert trust.open_checkpoint(cosigned("X1")).checkpoint == CHECKPOINT


X1, X2 = (WITNESSES[name].key for name in ("X1", "X2"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not end in a newline"),
        ("\n", "no quorum line"),
        ("quorum none", "does not end in a newline"),
        ("quorum none\r\n", "control character"),
        ("quorum none\nquorum none\n", "line 2: a second quorum line"),
        ("quorum X1\n", "line 1: quorum 'X1' is not defined"),
        (f"quorum X1\nwitness X1 {X1}\n", "line 1: quorum 'X1' is not defined"),
        ("quorum\n", "line 1: not a log"),
        ("quorum none none\n", "line 1: not a log"),
        ("quorum\u00a0none\n", "line 1: not a log"),
        ("Quorum none\n", "line 1: not a log"),
        ("log\n", "line 1: not a log"),
        (f"log {LOG.key} a b\n", "line 1: not a log"),
        ("log nonsense\n", "line 1: not a verifier key"),
        (f"log {X1}\n", "line 1: key 'x1.example' has signature type 0x04, not 0x01"),
        (f"log {LOG.key}\nlog {LOG.key}\n", "line 2: a log with this public key"),
        (f"log {LOG.key}\nlog {Signer('other', private(1)).key}\n", "line 2: a log with this public key"),
        (f"witness X1 {LOG.key}\n", "line 1: key 'log.example/a' has signature type 0x01, not 0x04"),
        (f"witness {X1}\n", "line 1: not a log"),
        (f"witness X1 {X1} a b\n", "line 1: not a log"),
        (f"witness X1 {X1}\nwitness X2 {X1}\n", "line 2: a witness with this public key"),
        (f"witness X1 {X1}\nwitness X1 {X2}\n", "line 2: the name 'X1' is taken"),
        (f"witness none {X1}\n", "line 1: the name 'none' is taken"),
        (f"witness X1 {X1}\ngroup X1 any X1\n", "line 2: the name 'X1' is taken"),
        ("group g any\n", "line 1: not a log"),
        ("group g any X1\n", "line 1: 'X1' is not defined"),
        ("group g any g\n", "line 1: 'g' is not defined"),
        ("group g any none\n", "line 1: 'none' is not defined"),
        (f"witness X1 {X1}\ngroup g any X1 X1\n", "line 2: 'X1' is a member twice"),
        (f"witness X1 {X1}\ngroup g any X1\ngroup h any X1\n", "line 3: 'X1' is a member twice"),
        (f"witness X1 {X1}\ngroup g 0 X1\n", "group 'g': threshold 0 is not from 1 to 1"),
        (f"witness X1 {X1}\ngroup g 2 X1\n", "group 'g': threshold 2 is not from 1 to 1"),
        (f"witness X1 {X1}\ngroup g 01 X1\n", "line 2: threshold is not a decimal"),
        (f"witness X1 {X1}\ngroup g some X1\n", "line 2: threshold is not a decimal"),
        ("#" * MAX_TRUST_SIZE + "\n", "more than 262144"),
    ],
)
def test_malformed_policies_are_refused(text: str, reason: str) -> None:
    with pytest.raises(TrustError) as caught:
        Trust.parse(text.encode())
    assert reason in str(caught.value)


words = st.sampled_from(
    [
        "log",
        "witness",
        "group",
        "quorum",
        "any",
        "all",
        "none",
        "1",
        "2",
        "a",
        "b",
        str(LOG.key),
        str(X1),
        str(X2),
        "\udcff",
        "\n",
    ]
)


@given(st.binary() | st.lists(words).map(lambda items: " ".join([*items, "\n"]).encode("utf-8", "surrogateescape")))
def test_only_tlog_errors_escape_from_policies(data: bytes) -> None:
    try:
        Trust.parse(data).is_quorum([])
    except TlogError:
        pass


def test_a_policy_that_names_no_quorum_that_exists_accepts_nothing() -> None:
    assert not Trust(logs=(), quorum="missing").is_quorum(["missing"])


def test_bad_key_for_one_log() -> None:
    with pytest.raises(NoteError):
        Trust.for_log(str(X1))


@pytest.mark.parametrize("index", range(7))
def test_a_proof_file_proves_its_leaf(index: int) -> None:
    trust = Trust.parse(POLICY.encode())
    data = proof_of(index, cosigned("X1", "X2", "Y3"), extra=b"ticket").encode()
    proven = verify_proof(data, LEAVES[index], trust)
    assert (proven.index, proven.checkpoint.checkpoint) == (index, CHECKPOINT)
    for other in range(7):
        if other != index:
            with pytest.raises(MerkleError):
                verify_proof(data, LEAVES[other], trust)
    with pytest.raises(TrustError):
        verify_proof(proof_of(index, cosigned("X1", "Y3")).encode(), LEAVES[index], trust)


def test_the_layout_of_a_proof_file() -> None:
    checkpoint = cosigned()
    hashes = "".join(f"{encode_base64(item)}\n" for item in inclusion_proof(3, 7, node))
    plain = f"{HEADER}\nindex 3\n{hashes}\n".encode() + checkpoint
    assert proof_of(3, checkpoint).encode() == plain
    with_extra = f"{HEADER}\nextra dGlja2V0\nindex 3\n{hashes}\n".encode() + checkpoint
    assert proof_of(3, checkpoint, extra=b"ticket").encode() == with_extra
    assert TlogProof.parse(with_extra).extra == b"ticket"
    assert verify_proof(plain, LEAVES[3], Trust.for_log(str(LOG.key))).index == 3


def test_a_log_of_one_leaf() -> None:
    checkpoint = Checkpoint(origin=LOG.key.name, size=1, root=leaf_hash(b"only"))
    data = TlogProof(index=0, hashes=(), checkpoint=sign_checkpoint(checkpoint, [LOG])).encode()
    assert data.startswith(f"{HEADER}\nindex 0\n\nlog.example/a\n".encode())
    assert verify_proof(data, b"only", Trust.for_log(str(LOG.key))).index == 0


@given(st.integers(0, 6), st.data())
def test_any_flipped_bit_of_a_proof_file_is_refused(index: int, data: st.DataObject) -> None:
    good = proof_of(index, cosigned("X1")).encode()
    at, mask = divmod(data.draw(st.integers(0, len(good) * 8 - 1)), 8)
    trust = Trust.parse(f"log {LOG.key}\nwitness X1 {X1}\nquorum X1\n".encode())
    with pytest.raises(TlogError):
        verify_proof(good[:at] + bytes([good[at] ^ 1 << mask]) + good[at + 1 :], LEAVES[index], trust)


HASH = encode_base64(bytes(32))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no blank line"),
        (f"{HEADER}\nindex 0\n", "no blank line"),
        ("\n\n", "does not begin"),
        (f"{HEADER}x\nindex 0\n\n", "does not begin"),
        (f"{HEADER}\n\n", "no index line"),
        (f"{HEADER}\nextra AAAA\n\n", "no index line"),
        (f"{HEADER}\nextra AAAA\nextra AAAA\nindex 0\n\n", "no index line"),
        (f"{HEADER}\nindex 0\nextra AAAA\n\n", "hash 0 of the proof is not base64"),
        (f"{HEADER}\nextra AAA\nindex 0\n\n", "extra of the proof is not base64"),
        (f"{HEADER}\nextra AAB=\nindex 0\n\n", "extra of the proof is not canonical"),
        (f"{HEADER}\nindex 00\n\n", "index of the proof is not a decimal"),
        (f"{HEADER}\nindex -1\n\n", "index of the proof is not a decimal"),
        (f"{HEADER}\nindex 0 \n\n", "index of the proof is not a decimal"),
        (f"{HEADER}\nindex 0\r\n\n", "index of the proof is not a decimal"),
        (f"{HEADER}\nindex 0\nAAAA\n\n", "hash 0 of the proof has 3 bytes"),
        (f"{HEADER}\nindex 0\n{HASH}\n{HASH} \n\n", "hash 1 of the proof is not base64"),
        (f"{HEADER}\nindex 0\n" + f"{HASH}\n" * 64 + "\n", "64 hashes, more than 63"),
        (f"{HEADER}\nindex 0\né\n\n", "not ASCII at byte"),
        ("x" * (MAX_PROOF_SIZE + 1), "more than 2000000"),
    ],
)
def test_malformed_proof_files_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ProofError) as caught:
        TlogProof.parse(text.encode())
    assert reason in str(caught.value)


def test_what_cannot_be_a_proof_file_is_not_written() -> None:
    for wrong in (
        TlogProof(index=-1, hashes=(), checkpoint=b""),
        TlogProof(index=0, hashes=(Digest(b"short"),), checkpoint=b""),
        TlogProof(index=0, hashes=(), checkpoint=b"", extra=bytes(MAX_PROOF_SIZE)),
    ):
        with pytest.raises(ProofError):
            wrong.encode()


@given(st.binary() | st.binary().map(lambda rest: f"{HEADER}\nindex 0\n".encode() + rest))
def test_only_tlog_errors_escape_from_proof_files(data: bytes) -> None:
    try:
        assert TlogProof.parse(data).encode() == data
    except TlogError:
        pass
    with pytest.raises(TlogError):
        verify_proof(data, b"leaf", Trust.for_log(str(LOG.key)))
