"""Data sets: how many people and devices a grant *reaches*, which is what access means in 28 CFR 202.201."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sidecar.attributes.words import nearest
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import CATEGORIES, NO_COUNTS, Dataset

FLAGS = ("in_listed_area", "marketed_as_government")
"""What the operator knows about a whole data set (28 CFR 202.222)."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of `datasets.jsonl`. `resource` None: the whole service. Population: persons (devices for locations)."""

    id: str
    service: str
    resource: str | None = None
    population: dict[str, int]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The data set of a service and resource as the input document has it."""

    dataset: Dataset
    flags: tuple[str, ...] = ()


NOTHING_KNOWN = Reached(dataset=Dataset())


class Datasets:
    """Data sets by service and resource."""

    def __init__(self, rows: Mapping[tuple[str, str | None], Reached]) -> None:
        self._rows = rows

    def of(self, service: str, resource: str) -> Reached:
        """The row for this resource of this service, else the one for the whole service, else nothing known."""
        return self._rows.get((service, resource)) or self._rows.get((service, None)) or NOTHING_KNOWN

    def services(self) -> frozenset[str]:
        """The services that have rows."""
        return frozenset(service for service, _ in self._rows)


def load(path: Path) -> Datasets:
    """The data sets in a JSON Lines file. ConfigurationError names file, line, value and fix."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the data sets cannot be read: {error}", where=str(path)) from None
    rows: dict[tuple[str, str | None], Reached] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            where = f"{path}:{number}"
            row = _row(line, where)
            if (row.service, row.resource) in rows:
                raise ConfigurationError(
                    "a second row for the same service and resource", where=where, value=row.id, fix="Keep one."
                )
            population = {**NO_COUNTS, **row.population}
            rows[row.service, row.resource] = Reached(
                dataset=Dataset(id=row.id, population=population), flags=tuple(f for f in FLAGS if f in row.flags)
            )
    return Datasets(rows)


def _row(line: str, where: str) -> Row:
    try:
        row = msgspec.json.decode(line, type=Row)
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            f"the row is not valid: {error}", where=where,
            fix='Write {"id", "service", "resource" (optional), "population": {category: persons}}.',
        ) from None  # fmt: skip
    if not row.id or not row.service:
        raise ConfigurationError("id and service are not empty", where=where, value=line.strip())
    for category, count in row.population.items():
        if category not in CATEGORIES:
            raise ConfigurationError("unknown category", where=where, value=category, fix=nearest(category, CATEGORIES))
        if count < 0:
            raise ConfigurationError(f"the population of {category} is negative", where=where, value=count)
    for flag in row.flags:
        if flag not in FLAGS:
            raise ConfigurationError("unknown flag", where=where, value=flag, fix=nearest(flag, FLAGS))
    return row
