"""What `sidecar describe` shows: every method of an API, what it reaches, and what nobody has said yet."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method, "package.Service/Method". Every call of an `undescribed` one is refused.

    `subject_fields`: full paths of the fields (or maps, by their keys) in request and answer that name data subjects;
    `unannotated`: of those whose data is `unclassified` because nothing is said about them. `opaque`: an Any may hold
    further types, which are described when they show. What does not apply is empty.
    """

    method: str
    status: Literal["guarded", "unguarded", "undescribed"]
    action: str = ""
    resource: str = ""
    subject: str = ""
    categories: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    listed_identifiers: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    subject_fields: tuple[str, ...] = ()
    unannotated: tuple[str, ...] = ()
    opaque: bool = False
    dataset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A row for each method, by name, and a line for each thing that still has to be said."""

    methods: tuple[Row, ...]
    unannotated: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The same for machines: {"methods": [...], "unannotated": [...]}."""
        return {"methods": [asdict(row) for row in self.methods], "unannotated": list(self.unannotated)}


def summary(rows: Iterable[Row]) -> Report:
    """The report over these rows."""
    ordered = tuple(sorted(rows, key=lambda row: row.method))
    lines = [
        f"{row.method}: nothing says what it reaches, so every call of it is refused"
        for row in ordered if row.status == "undescribed"
    ]  # fmt: skip
    reached: dict[str, list[str]] = {}
    for row in ordered:
        for field in row.unannotated:
            reached.setdefault(field, []).append(row.method)
    lines += _fields(reached)
    return Report(methods=ordered, unannotated=tuple(lines))


def _fields(reached: Mapping[str, list[str]]) -> list[str]:
    return [
        f"{field}: no category, so it is `unclassified` (reached by {', '.join(methods)})"
        for field, methods in sorted(reached.items())
    ]
