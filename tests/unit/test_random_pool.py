"""Random bytes from a pool: each is handed out once, whoever asks, also after a fork."""

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar._native import RandomPool

pytestmark = pytest.mark.unit


class Numbered:
    """A source whose bytes are a running number of four bytes each, so that a repetition shows."""

    def __init__(self) -> None:
        self.next = 0
        self.asked: list[int] = []

    def __call__(self, size: int) -> bytes:
        self.asked.append(size)
        first, count = self.next, -(-size // 4)
        self.next += count
        return b"".join(number.to_bytes(4, "big") for number in range(first, first + count))[:size]


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_bytes_come_in_order_and_none_comes_twice(sizes: list[int]) -> None:
    source = Numbered()
    pool = RandomPool(source)
    seen: set[bytes] = set()
    for size in sizes:
        piece = pool.take(size * 4)
        assert len(piece) == size * 4
        numbers = [piece[at : at + 4] for at in range(0, len(piece), 4)]
        assert seen.isdisjoint(numbers)
        assert numbers == sorted(set(numbers))
        seen.update(numbers)


def test_many_small_pieces_cost_the_source_one_call() -> None:
    source = Numbered()
    pool = RandomPool(source)
    for _ in range(16 * 1024 // 32):
        pool.take(32)
    assert source.asked == [16 * 1024]
    pool.take(1)
    assert source.asked == [16 * 1024] * 2


@pytest.mark.parametrize("give", [b"", b"x", b"x" * 16_383, b"x" * 16_385])
def test_a_source_that_gives_another_amount_is_refused(give: bytes) -> None:
    with pytest.raises(ValueError, match="the source gave"):
        RandomPool(lambda _: give).take(32)


def test_an_error_of_the_source_is_the_callers_and_passes() -> None:
    fail = True

    def source(size: int) -> bytes:
        if fail:
            raise OSError("no randomness")
        return bytes(size)

    pool = RandomPool(source)
    with pytest.raises(OSError, match="no randomness"):
        pool.take(32)
    fail = False
    assert pool.take(32) == bytes(32)


def test_a_source_that_asks_the_pool_itself_does_not_hang() -> None:
    def source(size: int) -> bytes:
        nonlocal depth
        depth += 1
        if depth == 1:
            inner.append(pool.take(32))
        return os.urandom(size)

    depth, inner = 0, list[bytes]()
    pool = RandomPool(source)
    assert pool.take(32) != inner[0]


def test_threads_never_get_the_same_bytes() -> None:
    pool = RandomPool()
    pieces: list[list[bytes]] = [[] for _ in range(4)]

    def draw(into: list[bytes]) -> None:
        for _ in range(3000):
            into.append(pool.take(16))

    threads = [threading.Thread(target=draw, args=(into,)) for into in pieces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = [piece for some in pieces for piece in some]
    assert len(set(drawn)) == len(drawn) == 12_000


def test_a_forked_child_gets_other_bytes_than_its_parent() -> None:
    pool = RandomPool()
    pool.take(32)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, pool.take(4096))
        finally:
            os._exit(0)
    os.close(writing)
    theirs = os.read(reading, 4096)
    os.close(reading)
    os.waitpid(child, 0)
    ours = pool.take(4096)
    assert len(theirs) == 4096
    pieces = {ours[at : at + 8] for at in range(0, 4096, 8)}
    assert pieces.isdisjoint(theirs[at : at + 8] for at in range(0, 4096, 8))
