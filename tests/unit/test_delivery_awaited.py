"""What is awaited, held against a dictionary that says the same seq by seq."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.enforcement.awaited import Awaited

pytestmark = pytest.mark.unit

EPOCHS = st.sampled_from(["a", "b"])
SEQS = st.integers(0, 24)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "drop"]), EPOCHS, SEQS, st.integers(0, 9)), max_size=30)


@given(STEPS, st.lists(st.tuples(EPOCHS, SEQS, st.integers(0, 12)), max_size=10))
def test_it_knows_of_each_record_what_was_said_last(
    steps: list[tuple[str, str, int, int]], asked: list[tuple[str, int, int]]
) -> None:
    awaited, model = Awaited(), dict[tuple[str, int], bytes]()
    for number, (step, epoch, first, count) in enumerate(steps):
        if step == "add":
            hashes = [bytes([number]) * 31 + bytes([place]) for place in range(count)]
            awaited.add(epoch, first, b"".join(hashes))
            model |= {(epoch, first + place): one for place, one in enumerate(hashes)}
        else:
            awaited.drop(epoch, first, count)
            for seq in range(first, first + count):
                model.pop((epoch, seq), None)
        assert len(awaited) == len(model)
    for epoch, first, count in asked:
        wanted = [model.get((epoch, seq)) for seq in range(first, first + count)]
        whole = count > 0 and None not in wanted
        assert awaited.of(epoch, first, count) == (b"".join(filter(None, wanted)) if whole else None)


def test_it_forgets_all_at_once() -> None:
    awaited = Awaited()
    awaited.add("a", 3, bytes(64))
    awaited.clear()
    assert len(awaited) == 0
    assert awaited.of("a", 3, 1) is None
