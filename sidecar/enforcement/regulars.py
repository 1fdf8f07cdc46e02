"""Regulars: what an ordinary call leaves remembered, so that the next one like it asks only whether it still holds.

A call is like another when the same header from the same peer says the same words at the same door about the same method,
and its request names one data subject. Under that stands what follows from it (`Regular`), and under that again, for each
class of that subject, the question that was put, its answer and what follows from both (`Settled`).

Nothing here lapses by a timer. A `Regular` holds while `Identifier.holds` says that identifying again would find the same,
and while nothing besides plain words plays a part in the claims; a `Settled` while minute, policy and index are those of its
question and the decision cache gives the very same decision. Everything else in them is a function of that, and of what
never changes while the process lives (descriptions, doors, levels). ADR 0037.

Only what was permitted, answered from memory and ended well is kept, and no token: of its header the SHA-256 alone.
"""

from collections.abc import Callable
from hashlib import sha256

import msgspec

from sidecar._native import Reading
from sidecar.attributes.resource import MethodDescription, SubjectKey
from sidecar.attributes.subject import Basis
from sidecar.attributes.words import UNCLASSIFIED
from sidecar.enforcement.call import Call, Door, Metadata
from sidecar.enforcement.case import Decided
from sidecar.enforcement.circumstances import EXCEPTION, JUSTIFICATION, MAX_WORD, PURPOSE, TICKET, Claims
from sidecar.enforcement.entries import DecisionForm
from sidecar.enforcement.forwarded import who_called
from sidecar.enforcement.guarded import Guarded
from sidecar.enforcement.obligations import OnBytes
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.prepared import Prepared
from sidecar.enforcement.questions import Question
from sidecar.enforcement.release import weight
from sidecar.record import PolicyRef
from sidecar.vocabulary import SubjectClass, SubjectCounts

MAX_KEPT = 2048
"""Questions that are remembered, under as many callers with a method at most; whoever came first goes first."""
_Word = str | bytes | None
_Key = tuple[bytes | None, _Word, _Word, _Word, tuple[str, ...], bytes | None, str, int]
_Read = Callable[[int, bytes, bool], tuple[Reading, tuple[tuple[str, str, str | None, bool], ...], int, int] | None]


class Settled(msgspec.Struct, frozen=True, eq=False):
    """A question about one data subject of one class, its answer, and what follows from both at a door."""

    question: Question
    minute: str
    policy: PolicyRef
    index: str | None
    prepared: Prepared
    form: DecisionForm
    counts: SubjectCounts
    class_: SubjectClass
    weights: tuple[int]
    loose: int
    """The weights of the subject's class, and of whom data outside any record concerns (`release.weight`)."""
    duties: OnBytes
    room: int | None
    free: bool
    """Whether everything the upstream says may pass."""


class Regular(msgspec.Struct, frozen=True, eq=False):
    """A caller with what they say, a method and a door. `settled` by class, and whether the subject is the caller."""

    basis: Basis
    claims: Claims
    method: MethodDescription
    door: Door
    who: Metadata
    service: str
    own: SubjectKey | None
    only: SubjectKey | None
    """Whom alone the request may name for its question to be this one: the caller, where the method is about them."""
    read: _Read
    asks: int
    answers: int
    """The types of request and answer, as `read` knows them."""
    settled: dict[tuple[SubjectClass, bool], Settled]


class Regulars:
    """The regulars of one enforcement point, so many at most. One event loop."""

    def __init__(self, parts: Parts, most: int = MAX_KEPT) -> None:
        self._parts, self._most = parts, most
        self._kept: dict[_Key, Regular] = {}
        self._questions = 0

    def __len__(self) -> int:
        """How many questions are remembered."""
        return self._questions

    def find(self, call: Call, now: float) -> Regular | None:
        """Who calls, if identifying and describing them anew would find the same. StageError where nobody can tell."""
        key = _key(call)
        found = None if key is None else self._kept.get(key)
        if key is None or found is None:
            return None
        parts = self._parts
        if parts.identifier.holds(found.basis, now) and not parts.circumstances.lifts(
            found.basis.identity.subjects, found.service, now
        ):
            return found
        self._forget(key)
        return None

    def remember(self, guarded: Guarded) -> None:
        """Keep what a call that ended well rested on, if it was an ordinary one."""
        case, decided = guarded.case, guarded.case.sole
        if decided is None or not _ordinary(guarded, decided):
            return
        key = _key(case.call)
        if key is None or any(word is not None and len(word) > MAX_WORD for word in key[1:4]):
            return
        regular = self._kept.get(key)
        if regular is None or regular.basis.identity is not case.identity or regular.claims is not case.claims:
            regular = self._made(guarded)
            if regular is None:
                return
            self._forget(key)
            self._kept[key] = regular
        ((subject, class_),) = decided.put.classes.items()
        settled, minute = regular.settled, decided.put.context.time
        for about in [about for about, one in settled.items() if one.minute != minute]:
            del settled[about]  # of a minute that does not come again
            self._questions -= 1
        self._questions += (class_, subject == regular.own) not in settled
        settled[class_, subject == regular.own] = _settled(regular, decided, class_)
        while self._questions > self._most:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: _Key) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._questions -= len(gone.settled)

    def _made(self, guarded: Guarded) -> Regular | None:
        case, method = guarded.case, guarded.description
        said, peer, identity = dict(case.call.metadata).get("authorization"), case.call.peer, case.identity
        asks, answers = method.request.number, method.answer.number
        if isinstance(said, bytes) or asks is None or answers is None:
            return None
        basis = self._parts.identifier.basis(said, peer.identities, peer.certificate_sha256, self._parts.clock())
        if basis is None or basis.identity is not identity:
            return None
        return Regular(
            basis, case.claims, method, case.call.door, who_called(identity), method.action.service or "", identity.own,
            identity.own if method.subject_mode == "caller" else None, method.request.wire.shapes.read, asks, answers, {},
        )  # fmt: skip


def _ordinary(guarded: Guarded, decided: Decided) -> bool:
    """Whether a call of this kind asks one question, about one subject whom its request names, in one name."""
    call, put, prepared = guarded.call, decided.put, decided.prepared
    return (
        decided.remembered
        and put.phase == "request"
        and put.policy is decided.policy
        and put.subject is guarded.case.identity.subjects[0]
        and put.context == guarded.case.claims.environment("request", put.context.time)
        and len(put.classes) == 1
        and put.reached is None
        and not put.counts.pending
        and put.counts.us + put.counts.non_us + put.counts.unknown == 1
        and prepared.permits
        and not prepared.by_exception
        and guarded.case.exposure is None
        and guarded.case.claims.plain
        and guarded.description.unary
        and guarded.description.subject_mode != "answer"
        and call.asserted is None
        and call.claimed is None
    )


def _settled(regular: Regular, decided: Decided, class_: SubjectClass) -> Settled:
    put, prepared, method = decided.put, decided.prepared, regular.method
    loose: SubjectClass = class_ if method.answer.about == "named" else "unknown"
    duties = prepared.duties.on_bytes(method.answer, UNCLASSIFIED in method.reach.categories)
    return Settled(
        put.data, put.context.time, put.policy, put.index, prepared, decided.entry.form, put.counts, class_,
        (weight(class_),), weight(loose), duties, duties.room(0), not prepared.duties.content,
    )  # fmt: skip


def _key(call: Call) -> _Key | None:
    """What calls that are alike have in common; None for one that says something twice, or more than plain words."""
    metadata, peer = call.metadata, call.peer
    said = dict(metadata)
    if len(said) != len(metadata) or EXCEPTION in said or call.asserted is not None or call.claimed is not None:
        return None
    token = said.get("authorization")
    if token is not None:
        if not isinstance(token, str) or not token.isascii():
            return None
        token = sha256(token.encode()).digest()
    # A door by its place in memory: whatever is remembered for it holds it, so that no other gets that place.
    return (
        token, said.get(PURPOSE), said.get(JUSTIFICATION), said.get(TICKET), peer.identities, peer.certificate_sha256,
        call.method, id(call.door),
    )  # fmt: skip
