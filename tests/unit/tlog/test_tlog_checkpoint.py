"""Checkpoints and cosignatures: the specification's examples, a real log's, and what must be refused."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sidecar.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from sidecar.tlog.cosignature import CosignatureSigner, CosignatureVerifier, cosignature_time, cosigned_message
from sidecar.tlog.errors import CheckpointError, NoteError, TlogError
from sidecar.tlog.key import Signer, Verifier, VerifierKey
from sidecar.tlog.merkle import EMPTY_ROOT, Digest, leaf_hash, root_hash
from sidecar.tlog.note import parse_note, parse_signatures

# testdata/log of github.com/transparency-dev/tessera v1.0.4; its key is in client/client_test.go (Apache-2.0).
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
TESSERA_15 = (
    "example.com/log/testdata\n15\nrKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=\n\n"
    "— example.com/log/testdata "
    "M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=\n"
).encode()
TESSERA_0 = (
    "example.com/log/testdata\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n"
    "— example.com/log/testdata "
    "M9e0lhxJACzE1KoUdqKuPa+9p6R7dSW8BlEvrg/noo8FkGg6PbJoRNOcdjqjOq89wVvTA60eubCc4oufo5BvIVEgtQc=\n"
).encode()
WORDS = "one two three four five six seven eit nain ten ileven twelf threeten fourten fivten".split()

# The example of c2sp.org/tlog-cosignature; its keys are not published.
SOFA = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()

# A type 0x04 key of a public witness, from github.com/transparency-dev/formats, note/note_cosigv1_test.go.
REMORA = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"

ROOT = root_hash([leaf_hash(b"x")])


def private(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


LOG = Signer("log.example/a", private(1))
WITNESS = CosignatureSigner("witness.example", private(2))
CHECKPOINT = Checkpoint(origin="log.example/a", size=1, root=ROOT)


def test_checkpoints_of_a_tessera_log() -> None:
    verifier = Verifier(TESSERA_KEY)
    signed = open_checkpoint(TESSERA_15, [verifier])
    assert signed.checkpoint == Checkpoint(
        origin="example.com/log/testdata", size=15, root=root_hash(leaf_hash(word.encode()) for word in WORDS)
    )
    assert signed.checkpoint.encode() == signed.text
    assert open_checkpoint(TESSERA_0, [verifier]).checkpoint.root == EMPTY_ROOT


def test_the_specification_s_example() -> None:
    note = parse_note(SOFA)
    checkpoint = Checkpoint.parse(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.encode() == note.text
    assert cosignature_time(note.signatures[1].signature) == 1679315147
    assert cosigned_message(note.text, 1679315147).startswith(
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
    )


def test_a_published_witness_key() -> None:
    key = CosignatureVerifier(REMORA).key
    assert (str(key), key.key_id.hex()) == (REMORA, "da77ade7")
    with pytest.raises(NoteError, match="signature type 0x04, not 0x01"):
        Verifier(REMORA)
    with pytest.raises(NoteError, match="signature type 0x01, not 0x04"):
        CosignatureVerifier(TESSERA_KEY)


lines = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1)


@given(lines, st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3))
def test_checkpoint_texts_are_read_back(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin=origin, size=size, root=Digest(root), extensions=tuple(extensions))
    assert Checkpoint.parse(checkpoint.encode()) == checkpoint


@given(st.integers(0, 2**63 - 1), st.booleans())
def test_signed_and_cosigned(time: int, extended: bool) -> None:
    extensions = ("extension",) if extended else ()
    checkpoint = Checkpoint(origin="log.example/a", size=1, root=ROOT, extensions=extensions)
    plain = sign_checkpoint(checkpoint, [LOG])
    cosignature = WITNESS.cosign(parse_note(plain).text, time)
    assert parse_signatures(cosignature.line()) == (cosignature,)
    message = sign_checkpoint(checkpoint, [LOG], [cosignature])
    signed = open_checkpoint(message, [Verifier(LOG.key)], [CosignatureVerifier(WITNESS.key)])
    assert signed.checkpoint == checkpoint
    assert [(item.key, item.time) for item in signed.cosignatures] == [(WITNESS.key, time)]
    assert [item.name for item in signed.signatures] == ["log.example/a"]
    assert signed.unknown == ()
    assert open_checkpoint(message, [Verifier(LOG.key)]).unknown == (cosignature,)


@given(st.integers(0, 76 * 8 - 1))
def test_a_cosignature_binds_time_and_text(bit: int) -> None:
    text = CHECKPOINT.encode()
    verifier = CosignatureVerifier(WITNESS.key)
    good = WITNESS.cosign(text, 1_700_000_000).signature
    verifier.verify(text, good)
    at, mask = divmod(bit % (len(good) * 8), 8)
    with pytest.raises(NoteError):
        verifier.verify(text, good[:at] + bytes([good[at] ^ 1 << mask]) + good[at + 1 :])
    with pytest.raises(NoteError):
        verifier.verify(text + b"extension\n", good)


def test_a_plain_signature_of_a_witness_key_is_no_cosignature() -> None:
    forged = Signer(WITNESS.key.name, private(2)).sign(CHECKPOINT.encode())
    with pytest.raises(NoteError, match="64 bytes, not 72"):
        CosignatureVerifier(WITNESS.key).verify(CHECKPOINT.encode(), forged)


def test_another_log_s_key_says_nothing_about_this_log() -> None:
    other = Signer("log.example/b", private(3))
    verifiers = [Verifier(LOG.key), Verifier(other.key)]
    with pytest.raises(CheckpointError, match="not signed by a trusted key of that log"):
        open_checkpoint(sign_checkpoint(CHECKPOINT, [other]), verifiers)
    signed = open_checkpoint(sign_checkpoint(CHECKPOINT, [other, LOG]), verifiers)
    assert [item.name for item in signed.signatures] == ["log.example/a"]


def test_a_cosignature_alone_does_not_make_a_checkpoint() -> None:
    message = sign_checkpoint(CHECKPOINT, [], [WITNESS.cosign(CHECKPOINT.encode(), 5)])
    with pytest.raises(CheckpointError, match="not signed by a trusted key"):
        open_checkpoint(message, [Verifier(LOG.key)], [CosignatureVerifier(WITNESS.key)])


def test_two_keys_of_one_log_during_a_change_of_key() -> None:
    old, new = LOG, Signer("log.example/a", private(4))
    message = sign_checkpoint(CHECKPOINT, [old, new])
    assert len(open_checkpoint(message, [Verifier(new.key)]).signatures) == 1
    assert len(open_checkpoint(message, [Verifier(new.key), Verifier(old.key)]).signatures) == 2


B64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "origin\n",
        "origin\n1\n",
        f"origin\n1\n{B64}",
        f"\n1\n{B64}\n",
        f"origin\n01\n{B64}\n",
        f"origin\n+1\n{B64}\n",
        f"origin\n-1\n{B64}\n",
        f"origin\n{2**63}\n{B64}\n",
        f"origin\n1 \n{B64}\n",
        f"origin\n1\n{B64[:-1]}\n",
        f"origin\n1\n{B64} \n",
        f"origin\n1\n{B64[:-2]}V=\n",
        "origin\n1\nAAAA\n",
        f"origin\n1\n{B64}\n\n",
        f"origin\n1\n{B64}\n\nextension\n",
        f"origin\n1\r\n{B64}\n",
        "origin\n0\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
    ],
)
def test_other_texts_are_no_checkpoints(text: str) -> None:
    with pytest.raises(TlogError):
        Checkpoint.parse(text.encode())


@pytest.mark.parametrize(
    "call",
    [
        lambda: Checkpoint(origin="a\nb", size=1, root=ROOT),
        lambda: Checkpoint(origin="a\tb", size=1, root=ROOT),
        lambda: Checkpoint(origin="\ud800", size=1, root=ROOT),
        lambda: Checkpoint(origin="a", size=-1, root=ROOT),
        lambda: Checkpoint(origin="a", size=2**63, root=ROOT),
        lambda: Checkpoint(origin="a", size=1, root=Digest(b"short")),
        lambda: Checkpoint(origin="a", size=1, root=ROOT, extensions=("",)),
        lambda: WITNESS.cosign(b"no newline", 1),
        lambda: WITNESS.cosign(CHECKPOINT.encode(), -1),
        lambda: WITNESS.cosign(CHECKPOINT.encode(), 2**63),
        lambda: cosignature_time(b"\xff" * 72),
        lambda: CosignatureVerifier("nonsense"),
        lambda: CosignatureSigner("a b", private(1)),
    ],
)
def test_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TlogError):
        call()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"o\n1\n{text}\n".encode("utf-8", "replace")))
def test_only_tlog_errors_escape(text: bytes) -> None:
    calls: list[Callable[[], object]] = [
        lambda: Checkpoint.parse(text).encode(),
        lambda: open_checkpoint(text, [Verifier(LOG.key)]),
        lambda: cosignature_time(text),
        lambda: CosignatureVerifier(VerifierKey.parse(REMORA)).verify(CHECKPOINT.encode(), text),
    ]
    for call in calls:
        try:
            call()
        except TlogError:
            pass
