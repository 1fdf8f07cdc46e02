"""What the pipeline hands to the recorder."""

from collections.abc import Sequence

import msgspec

from sidecar._native import DecisionForm
from sidecar.record import Trace
from sidecar.vocabulary import SubjectClass

__all__ = ["DecisionEntry", "DecisionForm"]


class DecisionEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decision of one call, before it is a record.

    `form` is what its record says whichever call it is: the same question, the same answer, the same revisions. Whoever
    decides the same again may use the same form again.

    `subjects` holds (kind, id, class) of each data subject of the message, in the clear: the recorder turns them into
    pseudonyms and nothing else keeps them. `eval_us`: microseconds that the answer took. `deadline` is the call's, on the
    monotonic clock, None when it has none.

    The compiled module reads all but the deadline, by name (`native/src/record/body.rs`).
    """

    form: DecisionForm
    call_id: str
    trace: Trace
    eval_us: int
    subjects: Sequence[tuple[str, str, SubjectClass]] = ()
    deadline: float | None = None
