"""Which decision is in force for a phase of a call, and what a policy is asked about beyond a method's description."""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import Classified, MethodDescription
from sidecar.attributes.words import UNCLASSIFIED
from sidecar.enforcement.obligations import Duties
from sidecar.vocabulary import SubjectClass, SubjectCounts

SeenSubjects = Sequence[tuple[str, str, SubjectClass]]
"""(kind, id, class) of each data subject that a decision is about."""


class Cover(msgspec.Struct, frozen=True):
    """A decision in force: about what, made in which minute, until when (perf_counter), with which duties."""

    counts: SubjectCounts
    reached: Reach | None
    seen: SeenSubjects
    minute: str
    until: float
    duties: Duties


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
