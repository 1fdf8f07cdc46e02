"""Keys and signed notes: Go's published vectors, the specification's rules, and properties."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.tlog.encoding import decode_base64, decode_decimal, encode_base64
from sidecar.tlog.errors import NoteError, TlogError
from sidecar.tlog.key import COSIGNATURE_V1, ED25519, KeyId, Signer, Verifier, VerifierKey
from sidecar.tlog.note import (
    MAX_NOTE_SIZE,
    MAX_SIGNATURES,
    Note,
    Signature,
    open_note,
    parse_note,
    parse_signatures,
    sign_note,
)

# golang.org/x/mod v0.33.0, sumdb/note/note_test.go (BSD-3-Clause).
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"  # noqa: S105
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
).encode()
MESSAGE = TEXT + b"\n" + PETER_LINE + ENOCH_LINE

# A note of two paragraphs: the example in c2sp.org/signed-note.
SALVATORE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()

seeds = st.binary(min_size=32, max_size=32)
names = st.text(st.characters(codec="utf-8", exclude_categories=("Zs", "Zl", "Zp", "Cc")), min_size=1).filter(
    lambda name: "+" not in name and not any(char.isspace() for char in name)
)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]) | st.just("\n")).map(
    lambda text: f"{text}\n".encode()
)


def signer(name: str, seed: bytes) -> Signer:
    return Signer(name, Ed25519PrivateKey.from_private_bytes(seed))


def test_go_s_key_and_note() -> None:
    secret = Signer.from_skey(PETER_SECRET)
    assert str(secret.key) == PETER
    assert secret.skey() == PETER_SECRET
    assert sign_note(TEXT, [secret]) == TEXT + b"\n" + PETER_LINE


def test_go_s_note_opened_with_one_key_with_both_and_with_none() -> None:
    peter, enoch = Verifier(PETER), Verifier(ENOCH)
    one = open_note(MESSAGE, [peter])
    assert one.text == TEXT
    assert [item.name for item in one.verified] == ["PeterNeumann"]
    assert [item.name for item in one.unknown] == ["EnochRoot"]
    both = open_note(MESSAGE, [enoch, peter])
    assert [item.line() for item in both.verified] == [PETER_LINE, ENOCH_LINE]
    assert both.unknown == ()
    with pytest.raises(NoteError, match="not signed by a trusted key"):
        open_note(MESSAGE, [])


def test_the_specification_s_example_has_a_blank_line_in_its_text() -> None:
    note = parse_note(SALVATORE)
    assert note.text.endswith("\n\ned è subito sera.\n".encode())
    assert (note.signatures[0].name, note.signatures[0].key_id.hex()) == ("quasimodo.example/salvatore", "367ba04b")
    assert note.encode() == SALVATORE


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        PETER.replace("c74f20a3", "C74F20A3"),
        PETER + "\n",
        PETER + "=",
        " " + PETER,
        "a" * 2000 + PETER,
        "x+00000000+",
        "\ud800+00000000+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "na\x00me+00000000+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_other_verifier_keys_are_refused(vkey: str) -> None:
    with pytest.raises(NoteError):
        Verifier(vkey)


def test_every_part_and_every_change_of_a_key_is_refused() -> None:
    """The manglings of Go's TestNewVerifier and TestNewSigner."""
    for text, read in ((PETER, Verifier), (PETER_SECRET, Signer.from_skey)):
        parts = [text[start:end] for start in range(len(text)) for end in range(start + 1, len(text) + 1)]
        changed = [text[:at] + chr(ord(char) + 1) + text[at + 1 :] for at, char in enumerate(text)]
        for wrong in [part for part in parts if part != text] + changed:
            with pytest.raises(NoteError):
                read(wrong)


def test_a_refused_secret_is_not_repeated() -> None:
    secret = PETER_SECRET.rpartition("+")[2]
    for wrong in (PETER_SECRET + "!", PETER_SECRET[:-2], PETER_SECRET.replace("c74f", "c74e")):
        with pytest.raises(NoteError) as caught:
            Signer.from_skey(wrong)
        assert secret[:20] not in str(caught.value)


def test_keys_of_another_type_are_refused() -> None:
    key = VerifierKey("w", COSIGNATURE_V1, Verifier(PETER).key.public_key)
    assert VerifierKey.parse(str(key)) == key
    with pytest.raises(NoteError, match="signature type 0x04, not 0x01"):
        Verifier(key)
    with pytest.raises(NoteError, match="known are"):
        VerifierKey("w", 2, bytes(32))


@given(names, seeds, texts)
def test_signed_notes_open(name: str, seed: bytes, text: bytes) -> None:
    by = signer(name, seed)
    message = sign_note(text, [by])
    opened = open_note(message, [Verifier(str(by.key))])
    assert (opened.text, opened.unknown) == (text, ())
    assert Note(text=text, signatures=opened.verified).encode() == message
    assert Signer.from_skey(by.skey()).key == by.key


@given(names, seeds, texts, st.data())
def test_any_flipped_bit_is_refused(name: str, seed: bytes, text: bytes, data: st.DataObject) -> None:
    by = signer(name, seed)
    message = sign_note(text, [by])
    at, mask = divmod(data.draw(st.integers(0, len(message) * 8 - 1)), 8)
    changed = message[:at] + bytes([message[at] ^ 1 << mask]) + message[at + 1 :]
    with pytest.raises(NoteError):
        open_note(changed, [Verifier(by.key)])


def test_signatures_are_found_by_name_and_id_not_by_place() -> None:
    opened = open_note(TEXT + b"\n" + ENOCH_LINE + PETER_LINE, [Verifier(PETER)])
    assert [item.line() for item in opened.verified] == [PETER_LINE]


def test_a_line_that_shares_only_the_name_or_only_the_id_is_unknown() -> None:
    namesake = signer("PeterNeumann", bytes(32))
    other_name = Signature(name="Other", key_id=Verifier(PETER).key.key_id, signature=bytes(64))
    message = sign_note(TEXT, [namesake], [other_name]) + PETER_LINE
    opened = open_note(message, [Verifier(PETER)])
    assert [item.line() for item in opened.verified] == [PETER_LINE]
    assert len(opened.unknown) == 2


def test_a_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    enoch = Verifier(ENOCH).key
    forged = Signature(name=enoch.name, key_id=enoch.key_id, signature=bytes(64)).line()
    short = Signature(name=enoch.name, key_id=enoch.key_id, signature=bytes(63)).line()
    good = TEXT + b"\n" + PETER_LINE
    for wrong in (forged, short, ENOCH_LINE + forged):
        assert open_note(good + wrong, [Verifier(PETER)]).text == TEXT
        with pytest.raises(NoteError, match="'EnochRoot' with id af0cfe78 is wrong"):
            open_note(good + wrong, [Verifier(PETER), Verifier(ENOCH)])


def test_a_repeated_signature_is_verified_each_time() -> None:
    assert len(open_note(TEXT + b"\n" + PETER_LINE * 2, [Verifier(PETER)]).verified) == 2


def test_two_verifiers_of_one_name_and_id_are_refused() -> None:
    with pytest.raises(NoteError, match="same name and key id"):
        open_note(MESSAGE, [Verifier(PETER), Verifier(PETER)])


def test_limits() -> None:
    assert len(parse_note(TEXT + b"\n" + PETER_LINE * MAX_SIGNATURES).signatures) == MAX_SIGNATURES
    with pytest.raises(NoteError, match="101 signature lines"):
        parse_note(TEXT + b"\n" + PETER_LINE * (MAX_SIGNATURES + 1))
    with pytest.raises(NoteError, match="more than 1000000"):
        parse_note(b"a" * MAX_NOTE_SIZE + b"\n\n" + PETER_LINE)
    with pytest.raises(NoteError, match="more than 1000000"):
        sign_note(b"a" * MAX_NOTE_SIZE + b"\n", [Signer.from_skey(PETER_SECRET)])
    with pytest.raises(NoteError, match="1 to 100 signatures, not 0"):
        sign_note(TEXT, [])
    with pytest.raises(NoteError, match="1 to 100 signatures, not 101"):
        sign_note(TEXT, [], parse_signatures(PETER_LINE) * 101)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n",
        b"\n\n",
        TEXT,
        TEXT + b"\n",
        TEXT + PETER_LINE,
        TEXT + b"\n" + PETER_LINE[:-1],
        TEXT + b"\n" + PETER_LINE + b"\n",
        TEXT + b"\n" + PETER_LINE + b"trailer\n",
        TEXT + b"\n" + PETER_LINE.replace("—".encode(), b"-"),
        TEXT + b"\n" + PETER_LINE.replace(b" x08", b"  x08"),
        TEXT + b"\n" + PETER_LINE.replace(b"PeterNeumann", b"Peter+Neumann"),
        TEXT + b"\n" + PETER_LINE.replace(b"PeterNeumann", b""),
        TEXT + b"\n" + PETER_LINE.replace(b"PeterNeumann", "Peter\u00a0Neumann".encode()),
        TEXT + b"\n" + PETER_LINE.replace(b"AM=\n", b"AM\n"),
        TEXT + b"\n" + PETER_LINE.replace(b"AM=\n", b"AN=\n"),
        TEXT + b"\n" + PETER_LINE.replace(b"AM=\n", b"AM= \n"),
        TEXT + b"\n" + PETER_LINE.replace(b"\n", b"\r\n"),
        TEXT + b"\n" + "— PeterNeumann\n".encode(),
        TEXT + b"\n" + "— PeterNeumann \n".encode(),
        TEXT + b"\n" + "— PeterNeumann x08goA==\n".encode(),
        TEXT + b"\n" + "— PeterNeumann x08g\n".encode(),
        b"tab\t\n\n" + PETER_LINE,
        b"nul\x00\n\n" + PETER_LINE,
        b"latin \xe9\n\n" + PETER_LINE,
    ],
)
def test_malformed_notes_are_refused(message: bytes) -> None:
    with pytest.raises(NoteError):
        parse_note(message)


def test_a_signature_of_exactly_five_bytes_is_enough() -> None:
    assert parse_signatures("— x AAAAAAA=\n".encode())[0].signature == b"\0"


@pytest.mark.parametrize(
    "call",
    [
        lambda: sign_note(b"no newline", [Signer.from_skey(PETER_SECRET)]),
        lambda: sign_note(b"control \x07\n", [Signer.from_skey(PETER_SECRET)]),
        lambda: sign_note(b"\xff\n", [Signer.from_skey(PETER_SECRET)]),
        lambda: Signature(name="a b", key_id=KeyId(bytes(4)), signature=b"x"),
        lambda: Signature(name="a", key_id=KeyId(bytes(3)), signature=b"x"),
        lambda: Signature(name="a", key_id=KeyId(bytes(4)), signature=b""),
        lambda: VerifierKey("a", ED25519, bytes(31)),
        lambda: parse_signatures(b"\xff\n"),
        lambda: parse_signatures(b""),
        lambda: parse_signatures(bytes(MAX_NOTE_SIZE + 1)),
        lambda: Signer.from_skey("PRIVATE+KEY+a"),
        lambda: Signer.from_skey("PRIVATE+KEY+a+00000000+AgAA"),
    ],
)
def test_refused(call: Callable[[], object]) -> None:
    with pytest.raises(NoteError):
        call()


@given(st.binary() | st.binary(max_size=60).map(lambda rest: TEXT + b"\n" + PETER_LINE + rest))
def test_only_tlog_errors_escape_from_notes(message: bytes) -> None:
    try:
        note = parse_note(message)
    except TlogError:
        return
    assert note.encode() == message


SMALL_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ec" + "ff" * 30 + "7f",
    "ed" + "ff" * 30 + "7f",
    "ee" + "ff" * 30 + "7f",
]


@pytest.mark.parametrize("public", SMALL_ORDER)
@pytest.mark.parametrize("sign", [0, 0x80])
def test_keys_that_anybody_can_sign_for_are_refused(public: str, sign: int) -> None:
    data = bytes.fromhex(public)
    with pytest.raises(NoteError, match="small order"):
        VerifierKey("weak", ED25519, data[:31] + bytes([data[31] | sign]))


@given(st.text() | st.text().map(lambda text: f"PRIVATE+KEY+{text}"), seeds)
def test_only_tlog_errors_escape_from_keys(text: str, public: bytes) -> None:
    for read in (VerifierKey.parse, Verifier, Signer.from_skey):
        try:
            read(text)
        except TlogError:
            pass
    with pytest.raises(TlogError):
        Verifier(VerifierKey("any", ED25519, public)).verify(TEXT, bytes(64))


@given(st.binary())
def test_base64_round_trip(data: bytes) -> None:
    assert decode_base64(encode_base64(data), error=NoteError, what="it") == data


@given(st.text(st.sampled_from("AQgw+/=\n -_é"), max_size=12))
def test_base64_has_one_text_for_each_value(text: str) -> None:
    try:
        data = decode_base64(text, error=NoteError, what="it")
    except NoteError:
        return
    assert encode_base64(data) == text


@given(st.integers(0, 2**63 - 1))
@example(2**63 - 1)
def test_decimal_round_trip(value: int) -> None:
    assert decode_decimal(str(value), error=NoteError, what="it") == value


@pytest.mark.parametrize(
    "text", ["", "00", "01", "+1", "-1", "1_0", " 1", "1\n", "1.0", "\u0661", str(2**63), "9" * 5000]
)
def test_other_decimals_are_refused(text: str) -> None:
    with pytest.raises(NoteError, match="it is not a decimal number"):
        decode_decimal(text, error=NoteError, what="it")
