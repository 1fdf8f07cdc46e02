"""The list of designated covered persons (28 CFR 202.211(a)(5)), as an operator keeps it: `designated.jsonl`.

A line is `{"id": …, "reference": …}`: the id under which people.jsonl or entities.jsonl has them, and where the
designation was published. Whoever is on it is designated, whatever their row says. It may name more than the rows do.
"""

from collections.abc import Collection
from pathlib import Path

import msgspec
from rich.progress import Progress

from sidecar.administration.rows import BadRows, RowError, json_lines, text, unique_keys


class Designation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of the list. `reference`: the Federal Register citation or the list's own number."""

    id: str
    reference: str


_decode = msgspec.json.Decoder(Designation).decode


def read_designations(path: Path | None, progress: Progress, bad: BadRows) -> Collection[str]:
    """The ids on the list; none without one. Bad rows go to `bad`; ConfigurationError when it cannot be read."""
    found: set[str] = set()
    if path is None:
        return found
    for number, line in json_lines(path, progress, bad):
        try:
            row = _decode(line)
            unique_keys(line)
            text(row.id, "id")
            text(row.reference, "reference")
        except (RowError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            mended = error if isinstance(error, RowError) else RowError(str(error), "Keys: id, reference.")
            bad.add(path, number, None, mended)
        else:
            found.add(row.id)
    return found
