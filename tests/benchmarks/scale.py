"""How much is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """`seconds` of load in each of `rounds`; `calls` before memory is read again; the rest are sizes."""

    name: str
    seconds: float
    warm_up: float
    rounds: int
    pipeline_calls: int
    ids: int
    people: int
    data: int
    records: int
    calls: int
    starts: int


SHORT = Scale(
    name="short", seconds=1, warm_up=0.3, rounds=2, pipeline_calls=1000, ids=10**6, people=100_000, data=100_000,
    records=10**5, calls=20_000, starts=2,
)  # fmt: skip
FULL = Scale(
    name="full", seconds=3, warm_up=0.7, rounds=3, pipeline_calls=4000, ids=10**7, people=100_000, data=100_000,
    records=10**6, calls=150_000, starts=5,
)  # fmt: skip
LONG = Scale(
    name="long", seconds=5, warm_up=1, rounds=5, pipeline_calls=8000, ids=10**7, people=100_000, data=100_000,
    records=10**7, calls=10**6, starts=5,
)  # fmt: skip
FEW = 1000
"""People, ids and entries of data that the many are compared with."""
