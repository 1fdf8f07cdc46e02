"""What the bodies of one kind of decision have in common, encoded once: a stencil leaves open what a call brings.

From call to call a body differs in call id, trace, input, data subjects and time taken; who decided, by which policy and
snapshots, at which door, and the decision itself stay the same objects. The bytes are those of `record.encode_body` for
the `DecisionBody` (test_record_bytes proves it for any entry).
"""

from typing import NamedTuple

import msgspec

from sidecar.enforcement.entries import DecisionEntry
from sidecar.spool.unfinished import permits

MAX_KEPT = 4096
_encode = msgspec.json.Encoder().encode


class Stencil(NamedTuple):
    """The bytes before, between and behind what a call brings. `opens`: the decision permits."""

    after_call_id: bytes
    after_trace: bytes
    after_input: bytes
    after_subjects: bytes
    opens: bool

    def body(self, entry: DecisionEntry, subjects: bytes, part: int, parts: int) -> bytes:
        """The body's bytes; `subjects` are the references, joined by commas."""
        return b'{"v":1,"call_id":%b%b%b%b%b%b%b%b%d,"part":%d,"parts":%d}' % (
            _encode(entry.call_id), self.after_call_id, _encode(entry.trace), self.after_trace, entry.input,
            self.after_input, subjects, self.after_subjects, entry.eval_us, part, parts,
        )  # fmt: skip


def stencil_of(entry: DecisionEntry) -> Stencil:
    """Work it out."""
    return Stencil(
        b',"type":"decision","phase":%b,"service":%b,"method":%b,"door":%b,"trace":'
        % (_encode(entry.phase), _encode(entry.service), _encode(entry.method), _encode(entry.door)),
        b',"policy":%b,"directory":%b,"index":%b,"input":'
        % (_encode(entry.policy), _encode(entry.directory), _encode(entry.index)),
        b',"decision":%b,"subjects":[' % entry.decision,
        b'],"obligations":%b,"level":%b,"engine":%b,"eval_us":'
        % (_encode(entry.obligations), _encode(entry.level), _encode(entry.engine)),
        permits(entry.decision),
    )


class Stencils:
    """Remembers the stencils it has made. One event loop.

    Decision, obligations and policy are told apart as objects, since comparing them would cost what is to be saved;
    each entry holds its own, so that no id is given to another meanwhile.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], tuple[Stencil, DecisionEntry]] = {}

    def of(self, entry: DecisionEntry) -> Stencil:
        """The stencil for this entry."""
        key = (
            id(entry.decision), id(entry.obligations), id(entry.policy), entry.phase, entry.service, entry.method,
            entry.door, entry.directory, entry.index, entry.level, entry.engine,
        )  # fmt: skip
        kept = self._kept.get(key)
        if kept is not None:
            return kept[0]
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        made = stencil_of(entry)
        # The call's own parts are not kept: `subjects` are ids in the clear.
        held = msgspec.structs.replace(entry, call_id="", input=msgspec.Raw(b""), subjects=())
        self._kept[key] = (made, held)
        return made
