"""Bodies, openings, leaves and frames made natively are, to the byte, what the encoders of `record` and `frame` write."""

import hmac
import uuid
import weakref
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from spooling import entry as plain_entry
from spooling import outcome as plain_outcome
from spooling import period_key

from sidecar._native import Framer, Pseudonyms, RandomPool, decision_part, stamp
from sidecar.enforcement.bodies import decision_drafts
from sidecar.enforcement.entries import DecisionEntry, DecisionForm
from sidecar.enforcement.periods import PeriodKey
from sidecar.record import (
    MAX_BODY,
    MAX_LEAF,
    DecisionBody,
    Leaf,
    MessageCounts,
    ObligationMet,
    OutcomeBody,
    PolicyRef,
    RecordFormatError,
    Released,
    ReleasedByClass,
    SubjectRef,
    Trace,
    body_digest,
    encode_body,
    encode_digest,
    encode_leaf,
    encode_openings,
    leaf_digest,
    openings_aad,
    pseudonym,
    subject_ref,
)
from sidecar.spool.epoch import uuid7
from sidecar.spool.frame import FRAME_OVERHEAD, MAX_PAYLOAD, Item, frame_item, parse_item, read_frame
from sidecar.spool.slot import Draft
from sidecar.vocabulary import Effect

pytestmark = pytest.mark.unit

KEY = bytes(range(32))
NOW = 1795348800.123456
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
maybe = st.none() | texts
digests = st.binary(min_size=32, max_size=32)
kinds = st.sampled_from(("decision", "outcome", "open", "shadow"))
drafts = st.builds(
    Draft, kinds, texts, maybe, st.binary(max_size=300), st.just(b"") | st.binary(max_size=300), st.booleans()
)
raws = st.dictionaries(texts, st.integers() | texts, max_size=3).map(lambda one: msgspec.Raw(msgspec.json.encode(one)))
effects = st.sampled_from(tuple(Effect)).map(lambda one: msgspec.Raw(msgspec.json.encode({"effect": one})))
figures = {
    "phase": st.sampled_from(("request", "response")), "service": texts, "method": texts, "door": texts,
    "policy": st.builds(PolicyRef, revision=maybe, signers=st.lists(texts, max_size=2).map(tuple)),
    "directory": maybe, "index": maybe, "input": raws, "decision": effects,
    "obligations": st.lists(st.builds(ObligationMet, id=texts, met=st.booleans()), max_size=2).map(tuple),
    "level": st.sampled_from(("written", "committed", "acknowledged")), "engine": texts,
}  # fmt: skip
entries = st.builds(
    DecisionEntry,
    form=st.builds(DecisionForm, **figures), call_id=texts,
    trace=st.builds(Trace, trace_id=maybe, span_id=maybe, from_=st.sampled_from(("caller", "sidecar"))),
    eval_us=st.integers(0, 1 << 40),
    subjects=st.lists(st.tuples(texts, texts, st.sampled_from(("us", "non_us", "unknown"))), max_size=4),
)  # fmt: skip


counts = st.dictionaries(texts, st.integers(0, 1 << 40), max_size=3)
left = st.builds(Released, records=st.integers(0, 1 << 40), by_category=counts)
outcomes = st.builds(
    OutcomeBody,
    call_id=texts, status=texts, messages=st.builds(MessageCounts, in_=st.integers(0, 99), out=st.integers(0, 1 << 40)),
    released=st.builds(ReleasedByClass, us=left, non_us=left, unknown=left), dropped=st.integers(0, 99), redacted=counts,
    bytes_out=st.integers(0, 1 << 50), duration_ms=st.floats(0, 1e9) | st.integers(0, 10**9).map(lambda one: one / 1000),
    complete=st.booleans(), seen=st.sampled_from(("reported", "unobserved", msgspec.UNSET)),
    obligations=st.just(msgspec.UNSET) | figures["obligations"],
)  # fmt: skip


def counting() -> RandomPool:
    """A pool whose bytes are known beforehand: 0, 1, 2, ... 255, 0, ..."""
    return RandomPool(lambda size: bytes(number & 0xFF for number in range(size)))


def known(at: int, size: int) -> bytes:
    """What `counting` gives after `at` bytes, within its first piece."""
    return bytes(number & 0xFF for number in range(at, at + size))


def made_of(entry: DecisionEntry) -> dict[str, Any]:
    """What its form was made of."""
    found = {name: getattr(entry.form, name) for name in figures}
    return found | {name: msgspec.Raw(found[name]) for name in ("input", "decision")}


def plainly(entry: DecisionEntry, key: PeriodKey, part: int = 1, parts: int = 1) -> tuple[bytes, bytes]:
    """One part by the encoders of `record`, with the salts that `counting` gives."""
    pairs = [
        (known(32 * number, 32), pseudonym(key.key, kind, name))
        for number, (kind, name, _) in enumerate(entry.subjects)
    ]
    refs = tuple(
        SubjectRef(class_=class_, ref=subject_ref(*pair), period=key.period)
        for pair, (_, _, class_) in zip(pairs, entry.subjects, strict=True)
    )
    form = made_of(entry)
    body = DecisionBody(
        call_id=entry.call_id, trace=entry.trace, subjects=refs, eval_us=entry.eval_us, part=part, parts=parts, **form
    )
    return encode_body(body), encode_openings(pairs) if pairs else b""


@given(entries, texts, st.binary(max_size=100))
def test_a_body_and_its_openings_are_what_the_encoders_write(entry: DecisionEntry, period: str, key: bytes) -> None:
    named = period_key()._replace(period=period, key=key)
    made = decision_drafts(entry, Pseudonyms(period, key), period, NOW, counting())
    ((kind, time, call_id, body, openings, _),) = made
    assert (kind, time, call_id) == ("decision", stamp(NOW), entry.call_id)
    assert (body, openings) == plainly(entry, named)


def parsed(frames: bytes) -> list[Item]:
    items, at = [], 0
    while at < len(frames):
        payload = read_frame(frames, at)
        items.append(parse_item(payload))
        at += FRAME_OVERHEAD + len(payload)
    return items


@given(st.lists(entries, max_size=3), texts, st.binary(max_size=100), st.integers(0, 1 << 60), st.just(b"") | digests)
def test_decisions_in_one_step_are_those_that_drafts_become(
    some: list[DecisionEntry], period: str, key: bytes, seq: int, before: bytes
) -> None:
    """The same draws in the same order, since the subjects' salts come before the record's."""
    names, random = Pseudonyms(period, key), counting()
    at_once = Framer("p", 7, "e", KEY, counting()).decisions(seq, before, names, some, NOW)
    plain, parts, last = Framer("p", 7, "e", KEY, random), [], before
    for number, one in enumerate(some, start=seq):
        data, last = plain.frames(number, last, decision_drafts(one, names, period, NOW, random))
        parts.append(data)
    assert at_once == (b"".join(parts), last)
    if some:
        named = period_key()._replace(period=period, key=key)
        assert parsed(at_once[0])[0].body == plainly(some[0], named)[0]


@given(st.lists(outcomes, max_size=4), st.integers(0, 1 << 60), st.just(b"") | digests)
def test_outcomes_in_one_step_are_those_that_drafts_become(some: list[OutcomeBody], seq: int, before: bytes) -> None:
    at_once = Framer("p", 7, "e", KEY, counting()).outcomes(seq, before, some, NOW)
    plain = [Draft("outcome", stamp(NOW), one.call_id, encode_body(one)) for one in some]
    assert at_once == Framer("p", 7, "e", KEY, counting()).frames(seq, before, plain)
    assert [one.body for one in parsed(at_once[0])] == [encode_body(one) for one in some]


@given(entries, st.fixed_dictionaries({}, optional=figures))
def test_a_form_says_again_what_it_was_given_and_equals_what_writes_the_same(
    entry: DecisionEntry, changes: dict[str, object]
) -> None:
    before = made_of(entry)
    assert DecisionForm(**before) == entry.form
    assert (DecisionForm(**before | changes) == entry.form) is all(
        msgspec.json.encode(before[name]) == msgspec.json.encode(value) for name, value in changes.items()
    )


def test_a_form_keeps_no_document_alive_so_one_may_keep_the_form() -> None:
    class Document(bytes):
        held: tuple[DecisionForm, set[str]]

    document, beside = Document(b"{}"), set("a")
    document.held = (plain_entry(input=msgspec.Raw(document), decision=document).form, beside)
    left = weakref.ref(beside)
    del document, beside
    assert left() is None


def test_a_form_never_changes() -> None:
    form = plain_entry().form
    for name in (*figures, "permits"):
        with pytest.raises(AttributeError):
            setattr(form, name, "other")


def test_subjects_without_a_key_are_not_named() -> None:
    with pytest.raises(ValueError, match="key"):
        framer().decisions(0, b"", None, [plain_entry(subjects=[("r", "1", "us")])], NOW)


def test_more_than_500_subjects_are_too_many_for_one_record() -> None:
    many = [("r", str(number), "us") for number in range(501)]
    with pytest.raises(RecordFormatError, match="501 data subjects; at most 500"):
        framer().decisions(0, b"", Pseudonyms("p", KEY), [plain_entry(subjects=many)], NOW)
    assert framer().decisions(0, b"", Pseudonyms("p", KEY), [plain_entry(subjects=many[1:])], NOW)


def test_an_outcome_may_have_64_kb_and_no_byte_more() -> None:
    def padded(size: int) -> OutcomeBody:
        return msgspec.structs.replace(plain_outcome(), status="x" * size)

    room = MAX_BODY - len(encode_body(padded(0)))
    assert framer().outcomes(0, b"", [padded(room)], NOW)
    with pytest.raises(RecordFormatError, match="body of 65537 bytes; at most 65536"):
        framer().outcomes(0, b"", [padded(room + 1)], NOW)


@given(entries, st.integers(1, 1 << 31), st.integers(1, 1 << 31))
def test_a_part_says_which_it_is(entry: DecisionEntry, part: int, parts: int) -> None:
    key = period_key()
    names = Pseudonyms(key.period, key.key)
    made = decision_part(entry, entry.subjects, names, NOW, counting(), part, parts)
    assert made[3:5] == plainly(entry, key, part, parts)


def drafted(entry: DecisionEntry) -> list[Draft]:
    key = period_key()
    names = Pseudonyms(key.period, key.key)
    return [Draft(*one) for one in decision_drafts(entry, names, key.period, NOW, counting())]


@pytest.mark.parametrize("count", [500, 501, 1203])
def test_parts_hold_every_subject_once_in_order(count: int) -> None:
    key, entry = period_key(), plain_entry(subjects=[("r", str(number), "us") for number in range(count)])
    made = drafted(entry)
    for number, one in enumerate(made, start=1):
        some = entry.subjects[500 * (number - 1) : 500 * number]
        assert len(one.body) <= MAX_BODY
        assert len(msgspec.json.decode(one.body)["subjects"]) == len(some)
        assert msgspec.json.decode(one.body)["part"] == number
        assert one.opens
        opened = [opening["pseudonym"] for opening in msgspec.json.decode(one.openings)]
        assert opened == [encode_digest(pseudonym(key.key, kind, name)) for kind, name, _ in some]
    assert len(made) == -(-count // 500)


@pytest.mark.parametrize("subjects", [(), (("r", "1", "us"),)])
def test_a_body_may_have_64_kb_and_no_byte_more(subjects: tuple[tuple[str, str, str], ...]) -> None:
    def padded(size: int) -> DecisionEntry:
        return plain_entry(input=msgspec.Raw(b'"%b"' % (b"x" * size)), subjects=subjects)

    room = MAX_BODY - len(drafted(padded(0))[0].body)
    (full,) = drafted(padded(room))
    assert len(full.body) == MAX_BODY
    assert (full.body, full.openings) == plainly(padded(room), period_key())
    with pytest.raises(RecordFormatError, match="at most 65536"):
        drafted(padded(room + 1))


@pytest.mark.parametrize("field", ["call_id", "service", "method", "door", "directory", "index", "engine"])
def test_text_that_is_no_text_is_refused(field: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        drafted(plain_entry(**{field: "a\ud800"}))


@pytest.mark.parametrize("subject", [("\udfff", "1", "us"), ("r", "\ud800", "us")])
def test_a_subject_that_is_no_text_is_refused(subject: tuple[str, str, str]) -> None:
    with pytest.raises(UnicodeEncodeError):
        drafted(plain_entry(subjects=[subject]))


@pytest.mark.parametrize(
    "changes",
    [{"call_id": None}, {"eval_us": "1"}, {"subjects": [["r", "1", "us"]]}, {"trace": None}, {"phase": None},
     {"obligations": []}, {"input": "text"}, {"decision": None}, {"index": 1}, {"form": None}],
)  # fmt: skip
def test_what_is_no_entry_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises((TypeError, AttributeError, BufferError)):
        drafted(plain_entry(**changes))


def test_a_form_and_an_entry_hold_all_that_a_body_says() -> None:
    apart = {"v", "type", "part", "parts", "form", "deadline"}
    assert {*figures, *DecisionEntry.__struct_fields__} - apart == {*DecisionBody.__struct_fields__} - apart


odd = st.sampled_from((
    b"", b"[]", b"1", b'"permit"', b"{", b"{}", b'{"effect":null}', b'{"effect":1,"effect":"deny"}',
    b'{"effect":"deny","effect":"permit"}', b'{"effect":"permit","effect":"deny"}', b'{"effect":"deny"} x',
    b' {"a":{"effect":"permit"},"effect" : "deny"} ', b'{"eff\\u0065ct":"deny"}', b'{"effect":"d\\u0065ny"}', b'{"Effect":"deny"}',
    b'{"effect":"deny","x":01}', b'{"effect":["deny"]}', b'{"effect":"PERMIT"}', b'{"effect":""}',
))  # fmt: skip
loose = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.just("effect"), inner, max_size=3),
    max_leaves=6,
).map(msgspec.json.encode)


@given(odd | loose | effects.map(bytes))
def test_a_decision_opens_its_call_unless_it_can_be_read_and_does_not_permit(document: bytes) -> None:
    """What the successor of a crash would ask: whether to write an outcome."""

    class Effected(msgspec.Struct):
        effect: str

    (draft,) = drafted(plain_entry(decision=msgspec.Raw(document)))
    try:
        expected = msgspec.json.decode(document, type=Effected).effect == "permit"
    except msgspec.DecodeError:
        expected = True
    assert draft.opens is expected


@given(st.lists(drafts, max_size=5), texts, st.integers(0, 99), texts, st.integers(0, 1 << 60), st.just(b"") | digests)
def test_frames_hold_the_leaves_and_openings_that_the_encoders_write(
    some: list[Draft], producer: str, slot: int, epoch: str, seq: int, before: bytes
) -> None:
    data, last = Framer(producer, slot, epoch, KEY, counting()).frames(seq, before, some)
    expected, at, prev = [], 0, before
    for number, draft in enumerate(some, start=seq):
        salt, at = known(at, 32), at + 32
        nonce = sealed = b""
        if draft.openings:
            nonce, at = known(at, 12), at + 12
            sealed = AESGCM(KEY).encrypt(nonce, draft.openings, openings_aad(producer, slot, epoch, number))
        leaf = encode_leaf(
            Leaf(
                type=draft.type, producer=producer, slot=slot, epoch=epoch, seq=number,
                prev=encode_digest(prev) if prev else None, time=draft.time, call_id=draft.call_id,
                body=encode_digest(body_digest(salt, draft.body)),
            )
        )  # fmt: skip
        prev = leaf_digest(leaf)
        expected.append(frame_item(Item(leaf, salt, draft.body, nonce, sealed)))
    assert data == b"".join(expected)
    assert last == prev


def framer() -> Framer:
    return Framer("profiles-1", 0, "e", KEY, RandomPool())


def test_a_leaf_may_have_1_kb_and_no_byte_more() -> None:
    def timed(size: int) -> Draft:
        return Draft("decision", "t" * size, None, b"{}")

    least = len(framer().frames(0, b"", [timed(0)])[0]) - 8 - 6 - 32 - 2
    framer().frames(0, b"", [timed(MAX_LEAF - least)])
    with pytest.raises(RecordFormatError, match="leaf of 1025 bytes; at most 1024"):
        framer().frames(0, b"", [timed(MAX_LEAF - least + 1)])


def test_a_frame_that_the_reader_would_take_for_damage_is_not_made() -> None:
    with pytest.raises(RecordFormatError, match=f"at most {MAX_PAYLOAD}"):
        framer().frames(0, b"", [Draft("decision", "t", "c", b"x" * MAX_PAYLOAD)])


@pytest.mark.parametrize("field", ["type", "time", "call_id"])
def test_a_leaf_of_no_text_is_refused(field: str) -> None:
    draft = Draft("decision", "t", "c", b"{}")._replace(**{field: "\ud800"})
    with pytest.raises(UnicodeEncodeError):
        framer().frames(0, b"", [draft])


def test_a_framer_wants_a_key_and_a_hash_of_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Framer("p", 0, "e", b"short", RandomPool())
    with pytest.raises(ValueError, match="32 bytes"):
        framer().frames(0, b"short", [])


@given(
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1)), st.binary(min_size=10, max_size=10)
)
def test_ids_are_uuids_of_version_7_in_their_own_order(moment: datetime, random: bytes) -> None:
    text = uuid7(moment.replace(tzinfo=UTC), random)
    parsed = uuid.UUID(text)
    assert str(parsed) == text
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == int(moment.replace(tzinfo=UTC).timestamp() * 1000)


@given(st.binary(max_size=100), texts, texts)
def test_a_pseudonym_is_the_hmac_of_kind_and_id(key: bytes, kind: str, name: str) -> None:
    assert pseudonym(key, kind, name) == hmac.digest(key, kind.encode() + b"\0" + name.encode(), "sha256")
