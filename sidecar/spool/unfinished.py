"""Calls that were permitted and never ended: their process died. The successor writes their outcome.

Nobody knows how much of what was permitted had been released. The outcome therefore counts all of it (`complete` false,
`status` "unknown"): for each class the sum over the permits' input counts, and each category of a permit in every one of
its records. That is an upper bound; a person named by the request and by the answer counts twice.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from sidecar.record import MessageCounts, OutcomeBody, Released, ReleasedByClass


class _Subjects(msgspec.Struct):
    us: int = 0
    non_us: int = 0
    unknown: int = 0


class _Resource(msgspec.Struct):
    categories: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    subjects: _Subjects = msgspec.field(default_factory=_Subjects)


class _Input(msgspec.Struct):
    resource: _Resource = msgspec.field(default_factory=_Resource)


class _Effect(msgspec.Struct):
    effect: str


class _Decision(msgspec.Struct):
    decision: _Effect
    phase: str
    input: _Input
    part: int = 1


_decision_decoder = msgspec.json.Decoder(_Decision)


def unknown_outcome(call_id: str, bodies: Iterable[bytes]) -> OutcomeBody | None:
    """The outcome of a call that never ended, from its decision bodies; None when none of them permits."""
    records: Counter[str] = Counter()
    categories: dict[str, Counter[str]] = {"us": Counter(), "non_us": Counter(), "unknown": Counter()}
    messages: Counter[str] = Counter()
    for data in bodies:
        body = _decision_decoder.decode(data)
        if body.decision.effect != "permit":
            continue
        if body.part > 1:
            continue  # every part carries the whole message's input
        messages[body.phase] += 1
        resource = body.input.resource
        for name, counter in categories.items():
            count: int = getattr(resource.subjects, name)
            records[name] += count
            if count:
                counter.update(dict.fromkeys((*resource.categories, *resource.computed), count))
    if not messages:
        return None
    released = {
        name: Released(records=records[name], by_category=dict(sorted(counter.items())))
        for name, counter in categories.items()
    }
    return OutcomeBody(
        call_id=call_id,
        status="unknown",
        messages=MessageCounts(in_=messages["request"], out=messages["response"]),
        released=ReleasedByClass(**released),
        dropped=0,
        redacted={},
        bytes_out=0,
        duration_ms=0.0,
        complete=False,
    )
