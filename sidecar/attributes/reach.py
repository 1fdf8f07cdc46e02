"""What a method can reach, whatever a particular message holds: the static union over everything its types contain."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sidecar.attributes.plans import FieldPlan, Plan
from sidecar.attributes.words import PROTECTED, SENSITIVE, UNCLASSIFIED
from sidecar.vocabulary import CATEGORIES, CLASSES, COMPUTED_CATEGORIES

CONTACT = "d"
"""The letter of contact data (28 CFR 202.234(d)), which linked only to other contact data is not covered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Categories, classes, listed identifiers, and which fields they come from.

    `listed`: (letter, field path, may occur more than once in one message). `unannotated`: fields whose data nobody
    has classified. `subjects`: fields (or map keys) that name data subjects. `opaque`: it holds an Any.
    """

    categories: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    listed: frozenset[tuple[str, str, bool]] = frozenset()
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
        """Computed categories, in the order of the vocabulary."""
        found = set()
        linked = _linked(self.listed)
        sensitive = self.categories & SENSITIVE
        if linked or (self.listed and sensitive):
            found.add("covered_personal_identifiers")
        if len(_types(sensitive)) + linked > 1 or (self.listed and sensitive):
            found.add("combined")
        return tuple(one for one in COMPUTED_CATEGORIES if one in found)


def reach_of(root: Plan) -> Reach:
    """Everything reachable from a message type. Worked out once for each."""
    if not isinstance(root.reach, Reach):
        root.reach = _reach_of(root)
        return root.reach
    return root.reach


def _reach_of(root: Plan) -> Reach:
    categories: set[str] = set()
    classes: set[str] = set()
    listed: set[tuple[str, str, bool]] = set()
    unannotated: set[str] = set()
    subjects: set[str] = set()
    opaque = False
    for plan, via in _plans(root):
        if plan.is_any:
            opaque = True
            continue
        for field in plan.fields:
            if field.kind is not None:
                subjects.add(field.path)
            if field.category is None:
                continue
            categories.add(field.category)
            classes.add(PROTECTED if field.data is None else field.data.class_)
            if field.data is None:
                unannotated.add(via or field.path)
            elif field.data.letter:
                listed.add((field.data.letter, field.path, field.repeated))
    return Reach(
        categories=frozenset(categories), classes=frozenset(classes), listed=frozenset(listed),
        unannotated=tuple(sorted(unannotated)), subjects=tuple(sorted(subjects)), opaque=opaque,
    )  # fmt: skip


def method_reach(categories: Iterable[str]) -> Reach:
    """What a method's own annotation adds. Nobody gives these a class, so they are protected."""
    named = frozenset(categories)
    return Reach(categories=named, classes=frozenset({PROTECTED} if named else ()))


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


def _plans(root: Plan) -> Iterator[tuple[Plan, str]]:
    """Each plan once, with the path of the API's own field that leads into a type of the protobuf runtime."""
    entered: set[tuple[int, str]] = set()
    waiting = [(root, "")]
    while waiting:
        plan, via = waiting.pop()
        if (id(plan), via) in entered:
            continue
        entered.add((id(plan), via))
        yield plan, via
        if not plan.is_any:
            waiting.extend((field.child, _via(field, field.child, via)) for field in plan.fields if field.child)


def _via(field: FieldPlan, child: Plan, via: str) -> str:
    return (via or field.path) if child.name.startswith("google.protobuf.") else ""


def _linked(listed: frozenset[tuple[str, str, bool]]) -> bool:
    """28 CFR 202.212(a)(1), (b)(1): two listed identifiers of one subject, unless all are contact data.

    The exception of (b)(2) depends on what a telecommunications service needs them for, which no field says.
    """
    return sum(2 if many else 1 for _, _, many in listed) > 1 and any(letter != CONTACT for letter, _, _ in listed)


def _types(sensitive: frozenset[str]) -> set[str]:
    """28 CFR 202.205(a)-(e): the 'omic categories are one type of data."""
    return {"omic" if one.startswith("human_") else one for one in sensitive}
