"""What several workers say of themselves, as one answer: the keys of a single process, and each worker below them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SUMS = ("spool_records", "spool_bytes", "open_calls", "acknowledged")
GREATEST = ("receipt_lag_seconds", "policy_age_seconds", "directory_age_seconds", "index_age_seconds")
ALL_OF = ("store_connected",)
ONE_LIST = ("listeners",)
_OWN = ("worker", "pid", "slot")

Status = Mapping[str, Any]


def together(workers: Sequence[Status], problems: Iterable[str]) -> dict[str, object]:
    """Totals and greatest values; what workers do not agree on is shown as all that they say.

    `problems` are the supervisor's. One that every worker has stands there once, and any other names its worker.
    """
    found: dict[str, object] = {}
    for key in _keys(workers):
        if key not in _OWN and key != "problems":
            found[key] = _joined(key, [one[key] for one in workers if key in one])
    found["problems"] = [*problems, *_problems(workers)]
    return found


def _keys(workers: Sequence[Status]) -> list[str]:
    return list(dict.fromkeys(key for one in workers for key in one))


def _joined(key: str, values: list[Any]) -> object:
    if key in SUMS:
        return sum(values)
    if key in GREATEST:
        return max(values)
    if key in ALL_OF:
        return all(values)
    if key in ONE_LIST:
        return list(dict.fromkeys(address for value in values for address in value))
    distinct = _distinct(values)
    if len(distinct) == 1:
        return distinct[0]
    return ", ".join(sorted(map(str, distinct)))


def _distinct(values: list[Any]) -> list[Any]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _problems(workers: Sequence[Status]) -> list[str]:
    said = [list(one.get("problems", ())) for one in workers]
    everyone = [
        text for text in dict.fromkeys(text for texts in said for text in texts) if all(text in one for one in said)
    ]
    return everyone + [
        f"worker {one['worker']}: {text}" for one, texts in zip(workers, said, strict=True) for text in texts
        if text not in everyone
    ]  # fmt: skip


def shadows_together(workers: Sequence[Status]) -> dict[str, object]:
    """What `shadow.status` answers, over all workers: counts added up, the agreement from them."""
    found: dict[str, object] = {}
    for key in _keys(workers):
        values = [one[key] for one in workers if key in one]
        if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            found[key] = sum(values)
        elif all(isinstance(value, list) for value in values):
            found[key] = _distinct([one for value in values for one in value])
        else:
            found[key] = _joined(key, values)
    asked, agreed = found.get("asked"), found.get("agreed")
    if isinstance(asked, int) and isinstance(agreed, int):
        found["agreement"] = round(agreed / asked, 6) if asked else None
    return found
