"""JSON objects in which each name stands once.

Where one stands twice, which value counts depends on the reader (RFC 8259, section 4): two programs, or two engines,
would see two different documents in the same bytes.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class DoubledNameError(ValueError):
    """A name stands twice in one object; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__("a name stands twice")
        self.name = name


def once(pairs: Sequence[tuple[str, T]]) -> dict[str, T]:
    """For `json.loads(…, object_pairs_hook=once)`: the object. DoubledNameError."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise DoubledNameError(name)
            seen.add(name)
    return found
