"""Meeting obligations on plain records: what a caller with dictionaries and lists needs. Pure.

A record whose fields nobody has put into categories cannot be redacted: a field without a category goes, as the
sidecar's own filter would have it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

from sidecar.client.words import DropRecords, LimitRecords, MaskFields, Obligation, RedactFields

R = TypeVar("R")
_SHOWN = 4


def kept(
    records: Iterable[R], id_of: Callable[[R], str], obligations: Sequence[Obligation], asked: Collection[str],
    already: int = 0,
) -> tuple[list[R], int]:  # fmt: skip
    """The records that may be released, in order, and how many may not.

    `drop_records` goes by the ids that the permit names among those `asked` about; whoever was not asked about may be of
    the class that goes, and goes. `already`: records released before, for `limit_records`.
    """
    drops = [one for one in obligations if isinstance(one, DropRecords)]
    dropped = {one for each in drops for one in each.ids}
    most = min((one.most for one in obligations if isinstance(one, LimitRecords)), default=None)
    found, held = list[R](), 0
    for record in records:
        full = most is not None and already + len(found) >= most
        name = id_of(record)
        if full or name in dropped or (drops and name not in asked):
            held += 1
        else:
            found.append(record)
    return found, held


def cleaned(
    record: Mapping[str, object], categories: Mapping[str, str], obligations: Sequence[Obligation]
) -> tuple[dict[str, object], Counter[str]]:
    """A flat record with what may not be seen taken away, and how many fields of each category were changed.

    `categories`: the category of each key. Where anything is to be redacted or masked, a key without one is taken away
    too. A key is also meant by an obligation's `fields` when it is the whole path or its last part.
    """
    redact = [one for one in obligations if isinstance(one, RedactFields)]
    mask = [one for one in obligations if isinstance(one, MaskFields)]
    found, changed = dict[str, object](), Counter[str]()
    for key, value in record.items():
        category = categories.get(key)
        if (redact or mask) and category is None:
            changed["unclassified"] += 1
        elif any(_meant(key, category, one) for one in redact):
            changed[category or "unclassified"] += 1
        elif any(_meant(key, category, one) for one in mask):
            found[key] = masked(value)
            changed[category or "unclassified"] += 1
        else:
            found[key] = value
    return found, changed


def masked(value: object) -> str:
    """The last four characters of a text of eight at least; nothing of anything shorter, or that is no text."""
    text = value if isinstance(value, str) else ""
    shown = _SHOWN if len(text) >= 2 * _SHOWN else 0
    return "*" * (len(text) - shown) + text[len(text) - shown :]


def _meant(key: str, category: str | None, one: RedactFields | MaskFields) -> bool:
    return category in one.categories or any(key in (path, path.rpartition(".")[2]) for path in one.fields)
