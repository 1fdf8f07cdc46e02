"""Ids of calls: UUIDs version 7, each its own."""

import os
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


def test_a_process_that_was_forked_draws_its_own() -> None:
    """Both have the pool of the one they come from, and at the same place: what is left in it is the parent's."""
    drawn = iter(range(1, 100))
    here = [1]
    digits = pooled_digits(lambda count: bytes([next(drawn)]) * count, lambda: here[0])
    assert digits(4) == "0101"
    here[0] = 2
    assert digits(4) == "0202"
    assert digits(4) == "0202"
    here[0] = 1
    assert digits(4) == "0303"


def test_ids_of_a_forked_child_are_not_its_parent_s() -> None:
    digits = pooled_digits()
    digits(32)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, digits(32).encode())
        finally:
            os._exit(0)
    os.close(writing)
    theirs = os.read(reading, 32).decode()
    os.close(reading)
    os.waitpid(child, 0)
    assert len(theirs) == 32
    assert theirs != digits(32)
