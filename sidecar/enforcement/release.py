"""What has really left: the figures of a call's outcome record."""

from collections.abc import Iterable, Mapping, Sequence

from sidecar.attributes.messages import Seen
from sidecar.attributes.presence import Ids, Unit
from sidecar.attributes.words import IMPERSONAL
from sidecar.record import Released, ReleasedByClass
from sidecar.vocabulary import SubjectClass

Classes = Mapping[tuple[str, str], SubjectClass]
_NON_US = {"non_us"}
_WEIGHT: Mapping[SubjectClass, int] = {"non_us": 0, "unknown": 1, "us": 2}
_BY_WEIGHT: tuple[SubjectClass, ...] = ("non_us", "unknown", "us")


def weightiest(found: Iterable[SubjectClass]) -> SubjectClass:
    """The most sensitive class: us, then unknown, then non_us. Nobody at all is unknown."""
    classes = set(found)
    return "us" if "us" in classes else "non_us" if classes == _NON_US else "unknown"


def weight(class_: SubjectClass) -> int:
    """0 non_us, 1 unknown, 2 us."""
    return _WEIGHT[class_]


def weights(seen: Iterable[Seen], classes: Classes) -> list[int]:
    """The weight of each one's class; of whom nobody classified, that of unknown."""
    found = []
    for one in seen:
        found.append(_WEIGHT[classes.get((one.kind, one.id), "unknown")])  # noqa: PERF401 - a frame less
    return found


def classes_of(ids: Ids, classes: Classes) -> set[SubjectClass]:
    """The classes of those whom a record names. One that nobody classified is unknown, and so is a nameless one."""
    return {classes.get(key, "unknown") for key in ids} or {"unknown"}


class Release:
    """Adds up what leaves in one call. Not shared between calls.

    `records` counts records released so far, of all classes, without those that were only named. `dropped`: records
    removed. `redacted`: fields cleared or masked, by category; unknown fields and Any values taken out count as
    `unclassified`, once for each message they stood in. `subjects`: distinct data subjects named or released.
    """

    __slots__ = ("_categories", "_records", "dropped", "records", "redacted", "subjects")

    def __init__(self) -> None:
        self.records: int = 0
        self.dropped: int = 0
        self.redacted: dict[str, int] = {}
        self.subjects: set[tuple[str, str]] = set()
        self._records: dict[SubjectClass, int] = {}
        self._categories: dict[SubjectClass, dict[str, int]] = {}

    def named(self, classes: Classes, categories: Sequence[str]) -> None:
        """Count what a write or delete concerns: one record of each subject named, with all these categories."""
        for key, class_ in classes.items():
            if key not in self.subjects:
                self.subjects.add(key)
                self._add(class_, categories)

    def units(self, units: Iterable[Unit], classes: Classes) -> None:
        """Count the records of a released message."""
        for ids, categories in units:
            self.records += 1
            self.subjects.update(ids)
            single = len(ids) == 1
            self._add(classes.get(ids[0], "unknown") if single else weightiest(classes_of(ids, classes)), categories)

    def loose(self, categories: set[str], class_: SubjectClass) -> None:
        """Count what stands outside any record, if it is about somebody at all: one record of this class."""
        if not categories <= IMPERSONAL:
            self.records += 1
            self._add(class_, categories)

    def redact(self, categories: Iterable[str]) -> None:
        """Count one field cleared or masked, under each category that it held."""
        for category in categories:
            self.redacted[category] = self.redacted.get(category, 0) + 1

    def figures(
        self, dropped: int, redacted: dict[str, int] | None, by_weight: Iterable[tuple[int, int, dict[str, int]]],
        subjects: Iterable[Seen],
    ) -> None:  # fmt: skip
        """Add figures that are counted already: of each weight, the records and how many of them hold each category.

        `redacted` and `by_weight` are the caller's no more.
        """
        self.dropped += dropped
        if redacted:
            self.redacted = redacted if not self.redacted else _sum(self.redacted, redacted)
        for place, records, categories in by_weight:
            class_ = _BY_WEIGHT[place]
            self.records += records
            self._records[class_] = self._records.get(class_, 0) + records
            before = self._categories.get(class_)
            self._categories[class_] = categories if before is None else _sum(before, categories)
        for one in subjects:
            self.subjects.add((one.kind, one.id))

    def by_class(self) -> ReleasedByClass:
        """The figures as the outcome record holds them."""
        found: dict[str, Released] = {}
        for class_, records in self._records.items():
            by_category = self._categories.get(class_)
            found[class_] = Released(
                records=records, by_category=dict(sorted(by_category.items())) if by_category else {}
            )
        return ReleasedByClass(**found)

    def _add(self, class_: SubjectClass, categories: Iterable[str]) -> None:
        self._records[class_] = self._records.get(class_, 0) + 1
        counted = self._categories.setdefault(class_, {})
        for category in categories:
            counted[category] = counted.get(category, 0) + 1


def _sum(counts: dict[str, int], more: Mapping[str, int]) -> dict[str, int]:
    for category, count in more.items():
        counts[category] = counts.get(category, 0) + count
    return counts
