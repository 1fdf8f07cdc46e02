"""Ids of calls: UUIDs version 7, each its own."""

import os
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar._native import CallIds, RandomPool

pytestmark = pytest.mark.unit
_RANDOM = 10


@given(st.integers(0, (1 << 41) - 1), st.binary(min_size=_RANDOM, max_size=_RANDOM))
def test_every_id_is_a_version_7_of_its_time_and_of_all_that_was_drawn_but_six_bits(time: int, drawn: bytes) -> None:
    made = CallIds(lambda: (time + 0.5) / 1000, RandomPool(lambda size: drawn + bytes(size - _RANDOM)))()
    read = uuid.UUID(made)
    assert str(read) == made
    assert (read.version, read.variant, read.int >> 80) == (7, uuid.RFC_4122, time)
    whole = int.from_bytes(drawn, "big")
    assert read.int >> 64 & 0xFFF == whole >> 64 & 0xFFF
    assert read.int & (1 << 62) - 1 == whole & (1 << 62) - 1


def test_no_two_are_alike() -> None:
    new_id = CallIds(lambda: 1_795_000_000.0, RandomPool())
    assert len({new_id() for _ in range(5000)}) == 5000


def test_ids_of_a_forked_child_are_not_its_parent_s() -> None:
    new_id = CallIds(lambda: 1_795_000_000.0, RandomPool())
    new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, new_id().encode())
        finally:
            os._exit(0)
    os.close(writing)
    theirs = os.read(reading, 36).decode()
    os.close(reading)
    os.waitpid(child, 0)
    assert len(theirs) == 36
    assert theirs != new_id()
