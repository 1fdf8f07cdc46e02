"""The input document's bytes, put together from parts that are encoded once.

From call to call only the counts of data subjects, the minute and the phase change; subject, description and context are
the same objects while nothing about them has changed (`attributes.subject`, `circumstances`). What comes out is what
`vocabulary.canonical` writes for the `AccessRequest`, to the byte (test_questions proves it for any document), so a
decision that is cached needs no document object at all.
"""

from hashlib import sha256
from typing import Generic, Self, TypeVar

import msgspec

from sidecar.attributes.described import Described
from sidecar.attributes.reach import Reach
from sidecar.enforcement.entries import DecisionForm
from sidecar.vocabulary import AccessRequest, Environment, Subject, SubjectCounts, canonical

MAX_KEPT = 1024
_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class Question(bytes):
    """A document's bytes. Whoever keeps answers finds them by its `digest`, SHA-256, worked out once."""

    digest: bytes
    form: tuple[tuple[object, ...], DecisionForm] | None = None
    """How the last decision on it is recorded, and what that depends on besides (`Case`)."""

    def __new__(cls, data: bytes) -> Self:
        """The bytes, and their digest."""
        made = super().__new__(cls, data)
        made.digest = sha256(data).digest()
        return made


class _Kept(Generic[T]):
    """What was made of objects, told apart as objects; each entry holds its own, so that no id is given away."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made: dict[tuple[object, ...], tuple[T, tuple[object, ...]]] = {}

    def get(self, key: tuple[object, ...]) -> T | None:
        found = self.made.get(key)
        return None if found is None else found[0]

    def put(self, key: tuple[object, ...], made: T, *held: object) -> T:
        if len(self.made) >= MAX_KEPT:
            self.made.clear()
        self.made[key] = (made, held)
        return made


class Questions:
    """Encodes documents. One event loop."""

    def __init__(self) -> None:
        self._subjects, self._contexts = _Kept[bytes](), _Kept[bytes]()
        self._described, self._whole = _Kept[tuple[bytes, bytes]](), _Kept[Question]()
        self._known = self._whole.made

    def of(
        self, subject: Subject, described: Described, counts: SubjectCounts, context: Environment,
        reached: Reach | None = None,
    ) -> Question:  # fmt: skip
        """What `canonical` gives for (subject, described.action, described.resource(counts, reached), context)."""
        if reached is not None:
            resource = described.resource(counts, reached)
            return Question(canonical(AccessRequest(
                subject=subject, action=described.action, resource=resource, context=context
            )))  # fmt: skip
        key = (id(subject), id(described), id(context), counts)
        found = self._known.get(key)
        if found is not None:
            return found[0]
        before, behind = self._around(described)
        made = Question(b'{"version":1,"subject":%b%b%b%b%b}' % (
            self._encoded(self._subjects, subject), before, _encode(counts), behind,
            self._encoded(self._contexts, context),
        ))  # fmt: skip
        return self._whole.put(key, made, subject, described, context)

    @staticmethod
    def _encoded(kept: _Kept[bytes], part: Subject | Environment) -> bytes:
        key = (id(part),)
        return kept.get(key) or kept.put(key, _encode(part), part)

    def _around(self, described: Described) -> tuple[bytes, bytes]:
        """The document between the subject and the counts, and between the counts and the context."""
        key = (id(described),)
        found = self._described.get(key)
        if found is not None:
            return found
        counts = SubjectCounts()
        # Before the counts stand strings and lists of strings only, in which every quotation mark is escaped.
        before, _, behind = _encode(described.resource(counts)).partition(b'"subjects":' + _encode(counts))
        made = (
            b',"action":%b,"resource":%b"subjects":' % (_encode(described.action), before),
            b'%b,"context":' % behind,
        )
        return self._described.put(key, made, described)
