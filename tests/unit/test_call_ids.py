"""Ids of calls: UUIDs version 7, each its own."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.enforcement.call import call_ids
from sidecar.observability.calls import pooled_digits

pytestmark = pytest.mark.unit
HEX = "0123456789abcdef"


@given(st.integers(0, (1 << 41) - 1), st.text(HEX, min_size=19, max_size=19))
def test_every_id_is_a_version_7_of_its_time_and_of_all_that_was_drawn_but_two_bits(time: int, drawn: str) -> None:
    made = call_ids(lambda: (time + 0.5) / 1000, lambda _count: drawn)()
    read = uuid.UUID(made)
    assert str(read) == made
    assert (read.version, read.variant, read.int >> 80) == (7, uuid.RFC_4122, time)
    low = read.int & (1 << 62) - 1
    assert f"{read.int >> 64 & 0xFFF:03x}" == drawn[:3]
    assert low == int(drawn[3:], 16) & (1 << 62) - 1


def test_no_two_are_alike() -> None:
    new_id = call_ids(lambda: 1_795_000_000.0, pooled_digits())
    assert len({new_id() for _ in range(5000)}) == 5000
