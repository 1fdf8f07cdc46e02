"""What the pipeline hands to the recorder."""

from collections.abc import Sequence

import msgspec

from sidecar.record import ObligationMet, PolicyRef, Trace
from sidecar.vocabulary import Level, Phase, SubjectClass


class DecisionEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision, before it is a record.

    `input` and `decision` are the documents' exact bytes. `subjects` holds (kind, id, class) of each data subject of
    the message, in the clear: the recorder turns them into pseudonyms and nothing else keeps them. `level` is what must
    be reached before the message goes on. `deadline` is the call's, on the monotonic clock, None when it has none.

    The compiled module reads the fields in this order (`native/src/record/body.rs`).
    """

    call_id: str
    phase: Phase
    service: str
    method: str
    door: str
    trace: Trace
    policy: PolicyRef
    directory: str | None
    index: str | None
    input: msgspec.Raw
    decision: msgspec.Raw
    obligations: tuple[ObligationMet, ...]
    level: Level
    engine: str
    eval_us: int
    subjects: Sequence[tuple[str, str, SubjectClass]] = ()
    deadline: float | None = None
