"""Leaves, bodies and openings put together from ready bytes are, to the byte, what the encoders of `record` write."""

import hmac
import uuid
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spooling import period_key

from sidecar.enforcement.bodies import decision_bodies
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.periods import PeriodKey
from sidecar.enforcement.recorder import Stamps
from sidecar.enforcement.stencils import MAX_KEPT, Stencils
from sidecar.record import (
    DecisionBody,
    Leaf,
    ObligationMet,
    PolicyRef,
    RecordFormatError,
    SubjectRef,
    Trace,
    digest_bytes,
    encode_body,
    encode_digest,
    encode_leaf,
    encode_openings,
    leaf_bytes,
    leaf_start,
    parse_openings,
    pseudonym,
    subject_ref,
)
from sidecar.spool.epoch import RandomPool, uuid7
from sidecar.vocabulary import Effect

pytestmark = pytest.mark.unit

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
maybe = st.none() | texts
digests = st.binary(min_size=32, max_size=32)
kinds = st.sampled_from(("decision", "outcome", "open", "shadow"))
raws = st.dictionaries(texts, st.integers() | texts, max_size=3).map(lambda one: msgspec.Raw(msgspec.json.encode(one)))
effects = st.sampled_from(tuple(Effect)).map(lambda one: msgspec.Raw(msgspec.json.encode({"effect": one})))
entries = st.builds(
    DecisionEntry,
    call_id=texts, phase=st.sampled_from(("request", "response")), service=texts, method=texts, door=texts,
    trace=st.builds(Trace, trace_id=maybe, span_id=maybe, from_=st.sampled_from(("caller", "sidecar"))),
    policy=st.builds(PolicyRef, revision=maybe, signers=st.lists(texts, max_size=2).map(tuple)),
    directory=maybe, index=maybe, input=raws, decision=effects,
    obligations=st.lists(st.builds(ObligationMet, id=texts, met=st.booleans()), max_size=2).map(tuple),
    level=st.sampled_from(("written", "committed", "acknowledged")), engine=texts,
    eval_us=st.integers(0, 1 << 40),
    subjects=st.lists(st.tuples(texts, texts, st.sampled_from(("us", "non_us", "unknown"))), max_size=4),
)  # fmt: skip


def plainly(entry: DecisionEntry, key: PeriodKey, salts: list[bytes]) -> tuple[bytes, bytes]:
    """One part, the long way."""
    named = [(pseudonym(key.key, kind, name), class_) for kind, name, class_ in entry.subjects]
    refs = tuple(
        SubjectRef(class_=class_, ref=subject_ref(salt, value), period=key.period)
        for salt, (value, class_) in zip(salts, named, strict=True)
    )
    body = DecisionBody(
        call_id=entry.call_id, phase=entry.phase, service=entry.service, method=entry.method, door=entry.door,
        trace=entry.trace, policy=entry.policy, directory=entry.directory, index=entry.index, input=entry.input,
        decision=entry.decision, subjects=refs, obligations=entry.obligations, level=entry.level,
        engine=entry.engine, eval_us=entry.eval_us, part=1, parts=1,
    )  # fmt: skip
    pairs = [(salt, value) for salt, (value, _) in zip(salts, named, strict=True)]
    return encode_body(body), encode_openings(pairs) if pairs else b""


@given(entries, texts)
def test_a_body_and_its_openings_are_what_the_encoders_write(entry: DecisionEntry, period: str) -> None:
    key = period_key()._replace(period=period)
    ((body, openings),) = decision_bodies(entry, key, RandomPool())
    salts = [salt for salt, _ in parse_openings(openings)] if openings else []
    assert (body, openings) == plainly(entry, key, salts)


@given(st.lists(entries, min_size=2, max_size=6))
def test_stencils_that_were_made_before_give_the_same_bytes(some: list[DecisionEntry]) -> None:
    kept = Stencils()
    for entry in [*some, *some, *(msgspec.structs.replace(one, call_id="another", eval_us=7) for one in some)]:
        bare = msgspec.structs.replace(entry, subjects=())
        ((body, _),) = decision_bodies(bare, None, RandomPool(), kept.of(bare))
        assert body == plainly(bare, period_key(), [])[0]


@given(st.lists(effects, min_size=2, max_size=20), entries)
def test_whether_a_decision_permits_belongs_to_that_very_decision(
    some: list[msgspec.Raw], entry: DecisionEntry
) -> None:
    kept = Stencils()
    for decision in some:
        one = msgspec.structs.replace(entry, decision=decision)
        assert kept.of(one).opens == (b"permit" in bytes(decision))


def test_no_more_stencils_are_kept_than_the_bound_and_no_ids_in_them() -> None:
    kept = Stencils()
    plain = DecisionEntry(
        call_id="c", phase="request", service="s", method="m", door="proxy",
        trace=Trace(trace_id=None, span_id=None, from_="sidecar"), policy=PolicyRef(revision=None), directory=None,
        index=None, input=msgspec.Raw(b'{"secret":1}'), decision=msgspec.Raw(b'{"effect":"deny"}'), obligations=(),
        level="written", engine="e", eval_us=0, subjects=[("person", "secret", "us")],
    )  # fmt: skip
    for number in range(MAX_KEPT + 1):
        kept.of(msgspec.structs.replace(plain, method=str(number)))
    assert len(kept._kept) <= MAX_KEPT
    assert "secret" not in repr(kept._kept)


@given(kinds, texts, st.integers(0, 99), texts, st.integers(0, 1 << 60), st.none() | digests, texts, maybe, digests)
def test_a_leaf_is_what_the_encoder_writes(
    kind: str, producer: str, slot: int, epoch: str, seq: int, prev: bytes | None, time: str, call_id: str | None,
    body: bytes,
) -> None:  # fmt: skip
    leaf = Leaf(
        type=kind, producer=producer, slot=slot, epoch=epoch, seq=seq,  # type: ignore[arg-type]
        prev=None if prev is None else encode_digest(prev), time=time, call_id=call_id, body=encode_digest(body),
    )  # fmt: skip
    start = leaf_start(kind, producer, slot, epoch)  # type: ignore[arg-type]
    before = None if prev is None else digest_bytes(prev)
    written = leaf_bytes(start, seq, before, time, call_id, digest_bytes(body))
    assert written == encode_leaf(leaf)


def test_a_leaf_that_is_too_long_is_refused_either_way() -> None:
    start = leaf_start("decision", "p", 0, "e")
    with pytest.raises(RecordFormatError, match="at most 1024"):
        leaf_bytes(start, 0, None, "t" * 1024, None, b"")


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


@given(st.lists(st.datetimes(min_value=datetime(1000, 1, 1)), max_size=5), st.integers(0, 999_999))
def test_a_time_is_written_with_microseconds_in_whatever_order_times_come(some: list[datetime], micros: int) -> None:
    stamps = Stamps()
    for moment in [two for one in some for two in (one, one.replace(microsecond=micros))]:
        assert stamps.of(moment.replace(tzinfo=UTC)) == moment.isoformat("T", "microseconds") + "Z"
