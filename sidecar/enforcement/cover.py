"""Which decision is in force for a phase of a call, and what a policy is asked about beyond a method's description."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import Classified, MethodDescription, SubjectIndex, SubjectKey
from sidecar.attributes.words import UNCLASSIFIED
from sidecar.enforcement.obligations import Duties
from sidecar.vocabulary import SubjectClass, SubjectCounts

SeenSubjects = Sequence[tuple[str, str, SubjectClass]]
"""(kind, id, class) of each data subject that a decision is about."""


class Cover(msgspec.Struct, frozen=True):
    """A decision in force: about what, made in which minute, until when (perf_counter), with which duties."""

    counts: SubjectCounts
    reached: Reach | None
    classes: Mapping[SubjectKey, SubjectClass]
    minute: str
    until: float
    duties: Duties


def settled(classified: Classified) -> Classified:
    """The same where no answer will be seen: those whom it would have named are one unknown at least."""
    counts = msgspec.structs.replace(classified.counts, pending=False, unknown=max(1, classified.counts.unknown))
    return msgspec.structs.replace(classified, counts=counts, nobody=True)


def decidable(classified: Classified, description: MethodDescription) -> Reach | None:
    """What a message holds beyond its method's description that a policy is asked about.

    Unknown fields are not: they are dropped, unless the description itself covers `unclassified`.
    """
    if classified.reached is None:
        return None
    found = replace(classified.reached, categories=classified.reached.categories - {UNCLASSIFIED})
    return None if (description.reach | found) == description.reach else found


def categories_of(reached: Reach | None) -> frozenset[str]:
    """The categories that a decision about such a message covers besides the description's."""
    return frozenset() if reached is None else reached.categories


def counted(classes: Mapping[SubjectKey, SubjectClass], own: SubjectKey | None) -> SubjectCounts:
    """How many subjects of each class these are."""
    found = list(classes.values())
    return SubjectCounts(
        us=found.count("us"), non_us=found.count("non_us"), unknown=found.count("unknown"), own=int(own in classes)
    )


def nameless(counts: SubjectCounts, classes: Mapping[SubjectKey, SubjectClass]) -> int:
    """How many of those counted are not named."""
    return max(0, counts.unknown - list(classes.values()).count("unknown"))


def reclassified(
    cover: Cover, index: SubjectIndex, now: float
) -> tuple[SubjectCounts, Mapping[SubjectKey, SubjectClass]]:
    """The cover's counts and subjects as the index has them now; somebody's class may only become more sensitive.

    What an answer's country said of them is not at hand any more, so a class is not taken back on the index alone.
    """
    fresh = index.fresh(now)
    classes = {
        (kind, name): _class_now(class_, index.classify(kind, name), fresh=fresh)
        for (kind, name), class_ in cover.classes.items()
    }
    if classes == cover.classes:
        return cover.counts, cover.classes
    old, new = list(cover.classes.values()), list(classes.values())
    shift = {class_: new.count(class_) - old.count(class_) for class_ in ("us", "non_us", "unknown")}
    counts = cover.counts
    return msgspec.structs.replace(
        counts, us=counts.us + shift["us"], non_us=counts.non_us + shift["non_us"],
        unknown=counts.unknown + shift["unknown"],
    ), classes  # fmt: skip


def _class_now(before: SubjectClass, listed: SubjectClass, *, fresh: bool) -> SubjectClass:
    if "us" in (before, listed):
        return "us"
    return before if fresh else "unknown"
