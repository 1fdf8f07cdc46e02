"""The bodies of one decision: subjects become references, and too many of them become parts."""

from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.periods import PeriodKey
from sidecar.record import (
    MAX_BODY,
    MAX_SUBJECTS,
    SALT_SIZE,
    DecisionBody,
    RecordFormatError,
    SubjectRef,
    encode_body,
    encode_openings,
    pseudonym,
    subject_ref,
)
from sidecar.spool.epoch import RandomPool
from sidecar.vocabulary import SubjectClass

_REF_SIZE = len('{"class":"unknown","ref":"","period":""},') + 44
_PART_SIZE = len("999999") * 2
"""Room for the digits of `part` and `parts` beyond one each."""

Opened = tuple[SubjectRef, tuple[bytes, bytes]]


def decision_bodies(entry: DecisionEntry, key: PeriodKey | None, random: RandomPool) -> list[tuple[bytes, bytes]]:
    """(body, plain openings) of each part, in order; one part nearly always.

    A part has at most 500 subjects and 64 kB. `key` may be None only for a decision without subjects. RecordFormatError
    when the documents alone are too large.
    """
    if not entry.subjects or key is None:
        return [(encode_body(_body(entry, ())), b"")]
    opened = [_opened(key, kind, subject_id, class_, random) for kind, subject_id, class_ in entry.subjects]
    if len(opened) <= MAX_SUBJECTS:
        try:
            return [_part(entry, opened, 1, 1)]
        except RecordFormatError:
            if len(opened) == 1:
                raise
    size = _part_size(entry, len(key.period.encode()))
    parts = [opened[at : at + size] for at in range(0, len(opened), size)]
    return [_part(entry, part, number, len(parts)) for number, part in enumerate(parts, start=1)]


def _opened(key: PeriodKey, kind: str, subject_id: str, class_: SubjectClass, random: RandomPool) -> Opened:
    salt = random.take(SALT_SIZE)
    value = pseudonym(key.key, kind, subject_id)
    return SubjectRef(class_=class_, ref=subject_ref(salt, value), period=key.period), (salt, value)


def _part_size(entry: DecisionEntry, period_size: int) -> int:
    room = MAX_BODY - len(encode_body(_body(entry, ()))) - _PART_SIZE
    size = min(MAX_SUBJECTS, room // (_REF_SIZE + period_size))
    if size < 1:
        raise RecordFormatError(f"its documents leave no room for data subjects in a body of {MAX_BODY} bytes")
    return size


def _part(entry: DecisionEntry, opened: list[Opened], part: int, parts: int) -> tuple[bytes, bytes]:
    body = _body(entry, tuple([ref for ref, _ in opened]), part, parts)
    return encode_body(body), encode_openings([opening for _, opening in opened])


def _body(entry: DecisionEntry, subjects: tuple[SubjectRef, ...], part: int = 1, parts: int = 1) -> DecisionBody:
    return DecisionBody(
        call_id=entry.call_id, phase=entry.phase, service=entry.service, method=entry.method, door=entry.door,
        trace=entry.trace, policy=entry.policy, directory=entry.directory, index=entry.index, input=entry.input,
        decision=entry.decision, subjects=subjects, obligations=entry.obligations, level=entry.level,
        engine=entry.engine, eval_us=entry.eval_us, part=part, parts=parts,
    )  # fmt: skip
