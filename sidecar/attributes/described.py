"""What a description of anything comes to: the part of the input document that says what is reached."""

from dataclasses import dataclass

import msgspec

from sidecar.attributes.datasets import Reached
from sidecar.attributes.reach import Reach, ordered_categories, ordered_classes
from sidecar.vocabulary import Action, Place, Resource, SubjectCounts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Described:
    """What is done to what, worked out once. `reach` is everything that can show; the tuples are in document order."""

    action: Action
    resource_type: str
    reach: Reach
    dataset: Reached
    location: Place
    categories: tuple[str, ...]
    classes: tuple[str, ...]
    listed_identifiers: tuple[str, ...]
    computed: tuple[str, ...]

    def resource(self, counts: SubjectCounts, reached: Reach | None = None) -> Resource:
        """The input document's `resource`. `reached`: what a message holds beyond this description."""
        if reached is not None:
            return self._wider(counts, self.reach | reached)
        return Resource(
            type=self.resource_type,
            categories=self.categories,
            classes=self.classes,
            listed_identifiers=self.listed_identifiers,
            computed=self.computed,
            subjects=counts,
            flags=self.dataset.flags,
            dataset=self.dataset.dataset,
            location=self.location,
        )

    def _wider(self, counts: SubjectCounts, reach: Reach) -> Resource:
        narrow = self.resource(counts)
        return msgspec.structs.replace(
            narrow,
            categories=ordered_categories(reach.categories),
            classes=ordered_classes(reach.classes),
            listed_identifiers=reach.letters,
            computed=computed(reach, self.dataset),
        )


def computed(reach: Reach, dataset: Reached) -> tuple[str, ...]:
    """What the categories come to together, and that the data set is of persons of the government."""
    return (*reach.computed, "government_related") if dataset.flags else reach.computed
