"""The records of one decision: subjects become references, and too many of them become parts.

The bytes are made in `sidecar._native`; they are those of `record.encode_body` for the `DecisionBody` and of
`record.encode_openings` (test_record_bytes proves it for any entry).
"""

from sidecar._native import RandomPool, decision_draft
from sidecar.enforcement.entries import DecisionEntry
from sidecar.record import MAX_BODY, MAX_SUBJECTS, RecordFormatError
from sidecar.spool.slot import Drafted

_REF_SIZE = len('{"class":"unknown","ref":"","period":""},') + 44
_PART_SIZE = len("999999") * 2
"""Room for the digits of `part` and `parts` beyond one each."""


def decision_drafts(entry: DecisionEntry, period: str, key: bytes, time: str, random: RandomPool) -> list[Drafted]:
    """A draft of each part, in order; one part nearly always.

    A part has at most 500 subjects and 64 kB. `period`, `key`: the pseudonym key's name and bytes, of no meaning for a
    decision without subjects. RecordFormatError when the documents alone are too large; UnicodeEncodeError for text
    that is none (a lone surrogate).
    """
    subjects = entry.subjects
    if len(subjects) <= MAX_SUBJECTS:
        try:
            return [decision_draft(entry, subjects, period, key, time, random)]
        except RecordFormatError:
            if len(subjects) < 2:
                raise
    _, _, _, alone, _, _ = decision_draft(entry, (), period, key, time, random)
    size = min(MAX_SUBJECTS, (MAX_BODY - len(alone) - _PART_SIZE) // (_REF_SIZE + len(period.encode())))
    if size < 1:
        raise RecordFormatError(f"its documents leave no room for data subjects in a body of {MAX_BODY} bytes")
    parts = [subjects[at : at + size] for at in range(0, len(subjects), size)]
    return [
        decision_draft(entry, part, period, key, time, random, number, len(parts))
        for number, part in enumerate(parts, start=1)
    ]
