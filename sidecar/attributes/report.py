"""What `sidecar describe` shows: every method of an API, what it reaches, and what nobody has said yet."""

from dataclasses import dataclass

from sidecar.attributes.resource import Describer, MethodDescription
from sidecar.attributes.words import SubjectMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method. `status`: `guarded`, `unguarded`, or `undescribed` (every call of it is refused).

    `subject_fields`: full paths of the fields (or maps, by their keys) that name data subjects; `unannotated`: of
    those whose data is `unclassified` because nothing is said about them. `opaque`: an Any may hold further types.
    """

    path: str
    status: str
    action: str = ""
    resource: str = ""
    subject: SubjectMode | None = None
    categories: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    listed_identifiers: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    subject_fields: tuple[str, ...] = ()
    unannotated: tuple[str, ...] = ()
    opaque: bool = False
    dataset: str | None = None


def report(describer: Describer) -> tuple[Row, ...]:
    """A row for each method of the API, by path."""
    rows = [_row(one) for one in describer]
    for key in describer.descriptors.methods:
        path = f"/{key}"
        if key not in describer.words.methods:
            rows.append(Row(path=path, status="unguarded" if describer.unguarded(path) else "undescribed"))
    return tuple(sorted(rows, key=lambda row: row.path))


def _row(one: MethodDescription) -> Row:
    return Row(
        path=one.path,
        status="guarded",
        action=one.action.name or "",
        resource=one.resource_type,
        subject=one.subject_mode,
        categories=one.categories,
        classes=one.classes,
        listed_identifiers=one.listed_identifiers,
        computed=one.computed,
        subject_fields=one.subject_fields,
        unannotated=one.reach.unannotated,
        opaque=one.reach.opaque,
        dataset=one.dataset.dataset.id,
    )
