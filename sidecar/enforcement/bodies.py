"""The bodies of one decision: subjects become references, and too many of them become parts."""

import msgspec

from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.periods import PeriodKey
from sidecar.enforcement.stencils import Stencil, stencil_of
from sidecar.record import (
    MAX_BODY,
    MAX_SUBJECTS,
    SALT_SIZE,
    RecordFormatError,
    digest_bytes,
    pseudonym,
    subject_digest,
)
from sidecar.spool.epoch import RandomPool

_REF_SIZE = len('{"class":"unknown","ref":"","period":""},') + 44
_PART_SIZE = len("999999") * 2
"""Room for the digits of `part` and `parts` beyond one each."""

Opened = tuple[bytes, bytes]
"""A `SubjectRef` and its `Opening`, encoded: the bytes that `msgspec` writes for them (test_record_bytes)."""
_encode = msgspec.json.Encoder().encode


def decision_bodies(
    entry: DecisionEntry, key: PeriodKey | None, random: RandomPool, stencil: Stencil | None = None
) -> list[tuple[bytes, bytes]]:
    """(body, plain openings) of each part, in order; one part nearly always.

    A part has at most 500 subjects and 64 kB. `key` may be None only for a decision without subjects. RecordFormatError
    when the documents alone are too large. `stencil` is that of such entries, where it is at hand.
    """
    stencil = stencil or stencil_of(entry)
    if not entry.subjects or key is None:
        return [(_fitting(stencil.body(entry, b"", 1, 1)), b"")]
    opened = _opened(entry, key, random)
    if len(opened) <= MAX_SUBJECTS:
        try:
            return [_part(stencil, entry, opened, 1, 1)]
        except RecordFormatError:
            if len(opened) == 1:
                raise
    size = _part_size(stencil, entry, len(key.period.encode()))
    parts = [opened[at : at + size] for at in range(0, len(opened), size)]
    return [_part(stencil, entry, part, number, len(parts)) for number, part in enumerate(parts, start=1)]


def _opened(entry: DecisionEntry, key: PeriodKey, random: RandomPool) -> list[Opened]:
    found, period = [], _encode(key.period)
    for kind, subject_id, class_ in entry.subjects:
        salt = random.take(SALT_SIZE)
        value = pseudonym(key.key, kind, subject_id)
        ref = digest_bytes(subject_digest(salt, value))
        found.append((
            b'{"class":"%b","ref":"%b","period":%b}' % (class_.encode(), ref, period),
            b'{"salt":"%b","pseudonym":"%b"}' % (digest_bytes(salt), digest_bytes(value)),
        ))  # fmt: skip
    return found


def _part_size(stencil: Stencil, entry: DecisionEntry, period_size: int) -> int:
    room = MAX_BODY - len(_fitting(stencil.body(entry, b"", 1, 1))) - _PART_SIZE
    size = min(MAX_SUBJECTS, room // (_REF_SIZE + period_size))
    if size < 1:
        raise RecordFormatError(f"its documents leave no room for data subjects in a body of {MAX_BODY} bytes")
    return size


def _part(stencil: Stencil, entry: DecisionEntry, opened: list[Opened], part: int, parts: int) -> tuple[bytes, bytes]:
    if len(opened) == 1:
        ((refs, openings),) = opened
    else:
        refs, openings = (b",".join(some) for some in zip(*opened, strict=True))
    return _fitting(stencil.body(entry, refs, part, parts)), b"[%b]" % openings


def _fitting(body: bytes) -> bytes:
    if len(body) > MAX_BODY:
        raise RecordFormatError(f"body of {len(body)} bytes; at most {MAX_BODY}")
    return body
