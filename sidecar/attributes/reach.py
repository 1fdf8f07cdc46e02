"""What a method can reach, whatever a particular message holds: the static union over everything its types contain."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar import identifiers
from sidecar.attributes.plans import FieldPlan, Plan
from sidecar.attributes.words import LETTERS, PROTECTED, UNCLASSIFIED
from sidecar.vocabulary import CATEGORIES, CLASSES

_RUNTIME = "google.protobuf."
_SEVERAL = 2
"""More identifiers of one subject than one: how many exactly makes no difference (28 CFR 202.212(a)(1))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Categories, classes, listed identifiers, and which fields they come from.

    `listed`: (letter, field path, how many of one subject's it may hold: 1, or 2 for several; 0 for a message whose
    own fields are counted). `unannotated`: fields whose data nobody
    has classified. `subjects`: fields (or map keys) that name data subjects. `opaque`: it holds an Any.
    """

    categories: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    listed: frozenset[tuple[str, str, int]] = frozenset()
    unannotated: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    opaque: bool = False

    def __or__(self, other: "Reach") -> "Reach":
        return Reach(
            categories=self.categories | other.categories,
            classes=self.classes | other.classes,
            listed=self.listed | other.listed,
            unannotated=tuple(sorted({*self.unannotated, *other.unannotated})),
            subjects=tuple(sorted({*self.subjects, *other.subjects})),
            opaque=self.opaque or other.opaque,
        )

    @property
    def letters(self) -> tuple[str, ...]:
        """The listed identifiers' letters, in order."""
        return tuple(sorted({letter for letter, _, _ in self.listed}))

    @property
    def computed(self) -> tuple[str, ...]:
        """Computed categories, in the order of the vocabulary: what may be known of one subject, at the most.

        All that a message holds is taken for one subject's; but of two records of one kind, each for its own.
        """
        counts: Counter[str] = Counter()
        for letter, _, count in self.listed:
            counts[letter] += count
        return identifiers.computed(self.categories, [(letter, max(count, 1)) for letter, count in counts.items()])


def reach_of(root: Plan) -> Reach:
    """Everything reachable from a message type. Worked out once for each."""
    if not isinstance(root.reach, Reach):
        root.reach = _reach_of(root)
        return root.reach
    return root.reach


def _reach_of(root: Plan) -> Reach:
    found = _Found()
    found.record(root, "")
    while found.waiting:
        found.record(*found.waiting.pop())
    return Reach(
        categories=frozenset(found.categories), classes=frozenset(found.classes),
        listed=frozenset((letter, path, count) for (letter, path), count in found.listed.items()),
        unannotated=tuple(sorted(found.unannotated)), subjects=tuple(sorted(found.subjects)), opaque=found.opaque,
    )  # fmt: skip


class _Found:
    """What the types below one root hold, record by record: a message that names a subject is a record of its own."""

    def __init__(self) -> None:
        self.categories: set[str] = set()
        self.classes: set[str] = set()
        self.listed: dict[tuple[str, str], int] = {}
        self.unannotated: set[str] = set()
        self.subjects: set[str] = set()
        self.opaque = False
        self.waiting: list[tuple[Plan, str]] = []
        self._seen: set[tuple[int, str]] = set()

    def record(self, root: Plan, via: str) -> None:
        """Everything in one record; those inside it wait. A type that can stand in it twice is looked at twice."""
        if (id(root), via) in self._seen:
            return
        self._seen.add((id(root), via))
        counts: Counter[tuple[str, str]] = Counter()
        times: Counter[tuple[int, str]] = Counter()
        stack = [(root, via, 1)]
        while stack:
            plan, way, more = stack.pop()
            more = min(more, _SEVERAL - times[id(plan), way])
            if plan.is_any:
                self.opaque = True
            elif more > 0:
                times[id(plan), way] += more
                for field in plan.fields:
                    self._field(field, way, more, counts)
                    if field.child is not None:
                        self._below(field, field.child, _via(field, field.child, way), more, stack)
        for key, count in counts.items():
            self.listed[key] = max(self.listed.get(key, 0), min(count, _SEVERAL))

    def _field(self, field: FieldPlan, via: str, more: int, counts: Counter[tuple[str, str]]) -> None:
        if field.kind is not None:
            self.subjects.add(field.path)
        if field.category is None:
            return
        self.categories.add(field.category)
        self.classes.add(PROTECTED if field.data is None else field.data.class_)
        if field.data is None:
            self.unannotated.add(via or field.path)
        elif field.data.letter and not via:
            counts[field.data.letter, field.path] += more * _weight(field)

    def _below(self, field: FieldPlan, child: Plan, via: str, more: int, stack: list[tuple[Plan, str, int]]) -> None:
        if field.kind is not None or child.names or child.is_record:
            self.waiting.append((child, via))
        else:
            stack.append((child, via, _SEVERAL if field.repeated else more))


def _weight(field: FieldPlan) -> int:
    """How many identifiers one annotated field holds, in one message.

    A message is what its fields are, unless it is one of the protobuf runtime's: a `StringValue` is one identifier, a
    `Struct` may hold any number.
    """
    child = field.child
    if child is None:
        return _SEVERAL if field.repeated else 1
    if not child.name.startswith(_RUNTIME):
        return 0
    simple = not field.repeated and all(one.form == "leaf" for one in child.fields)
    return 1 if simple else _SEVERAL


def method_reach(categories: Iterable[str]) -> Reach:
    """What a method's own annotation adds. Nobody gives these a class, so they are protected, nor a number: several."""
    named = frozenset(categories)
    listed = frozenset((LETTERS[one], "", _SEVERAL) for one in named if one in LETTERS)
    return Reach(categories=named, classes=frozenset({PROTECTED} if named else ()), listed=listed)


def in_order(found: frozenset[str], order: tuple[str, ...]) -> tuple[str, ...]:
    """The words found, in the order of the vocabulary, so that equal documents are equal bytes."""
    return tuple(one for one in order if one in found)


def ordered_categories(found: frozenset[str]) -> tuple[str, ...]:
    """Categories in the order of the vocabulary."""
    return in_order(found, CATEGORIES)


def ordered_classes(found: frozenset[str]) -> tuple[str, ...]:
    """Classes in the order of the vocabulary."""
    return in_order(found, CLASSES)


ESCAPED = Reach(categories=frozenset({UNCLASSIFIED}), classes=frozenset({PROTECTED}))
"""What unknown fields and unresolvable Any values add."""


def _via(field: FieldPlan, child: Plan, via: str) -> str:
    return (via or field.path) if child.name.startswith(_RUNTIME) else ""
