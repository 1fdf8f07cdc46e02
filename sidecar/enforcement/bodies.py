"""The records of a decision that does not fit in one: its subjects are shared out among parts.

The bytes are made in `sidecar._native`; they are those of `record.encode_body` for the `DecisionBody` and of
`record.encode_openings` (test_record_bytes proves it for any entry).
"""

from sidecar._native import Pseudonyms, RandomPool, decision_part
from sidecar.enforcement.entries import DecisionEntry
from sidecar.record import MAX_BODY, MAX_SUBJECTS, RecordFormatError
from sidecar.spool.slot import Drafted

_REF_SIZE = len('{"class":"unknown","ref":"","period":""},') + 44
_PART_SIZE = len("999999") * 2
"""Room for the digits of `part` and `parts` beyond one each."""


def decision_drafts(
    entry: DecisionEntry, key: Pseudonyms | None, period: str, now: float, random: RandomPool
) -> list[Drafted]:
    """A draft of each part, in order; one part where that is enough.

    A part has at most 500 subjects and 64 kB. `key` and its `period` name the subjects; None where there are none. `now`:
    unix seconds. RecordFormatError when the documents alone are too large; UnicodeEncodeError for text that is none (a
    lone surrogate).
    """
    subjects = entry.subjects
    if len(subjects) <= MAX_SUBJECTS:
        try:
            return [decision_part(entry, subjects, key, now, random, 1, 1)]
        except RecordFormatError:
            if len(subjects) < 2:
                raise
    _, _, _, alone, _, _ = decision_part(entry, (), key, now, random, 1, 1)
    size = min(MAX_SUBJECTS, (MAX_BODY - len(alone) - _PART_SIZE) // (_REF_SIZE + len(period.encode())))
    if size < 1:
        raise RecordFormatError(f"its documents leave no room for data subjects in a body of {MAX_BODY} bytes")
    parts = [subjects[at : at + size] for at in range(0, len(subjects), size)]
    return [
        decision_part(entry, part, key, now, random, number, len(parts)) for number, part in enumerate(parts, start=1)
    ]
