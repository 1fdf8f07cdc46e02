"""Settings that were read and validated, for a process that only serves by them.

The models are pydantic's, which takes 19 MiB and a quarter of a second in every process that imports it. Whoever reads
the file has them; what it starts is given the same values under the same names (`loader.settled`), and imports none.
"""

from collections.abc import Iterator, Mapping
from typing import Self


class Settled:
    """A section of the settings: an attribute for each key, lists of sections as lists. Immutable; can be pickled.

    Going through one gives (key, value), and `model_copy` a changed one, as with the model. Nothing is validated here.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"settings are not changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"settings are not changed: {name}")

    def __iter__(self) -> Iterator[tuple[str, object]]:
        return iter(self.__dict__.items())

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if isinstance(other, Settled) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Settled({self.__dict__!r})"

    def model_copy(self, *, update: Mapping[str, object]) -> Self:
        """The same with other values for these keys."""
        return type(self)({**self.__dict__, **update})
