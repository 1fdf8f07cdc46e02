"""Continuity of a producer slot's records: what breaks a chain is named, what does not is no alarm."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_log import Writer, epoch

from sidecar.oversight.chains import Chains, Problem
from sidecar.record import encode_digest, leaf_digest, parse_leaf

OTHER = encode_digest(b"\x09" * 32)


def problems(leaves: list[bytes]) -> list[Problem]:
    chains = Chains()
    for index, data in enumerate(leaves):
        chains.add(index, parse_leaf(data), data)
    return list(chains.problems())


def brief(leaves: list[bytes]) -> list[tuple[str, str]]:
    return [(one.kind, one.where) for one in problems(leaves)]


def test_nothing_at_all() -> None:
    assert problems([]) == []


def test_a_whole_chain_of_epochs() -> None:
    first = Writer()
    leaves = first.leaves(10)
    second = first.restart()
    leaves += second.leaves(1)
    third = second.restart()
    leaves += third.leaves(5)
    assert problems(leaves) == []


def test_slots_and_producers_do_not_meddle() -> None:
    writers = [Writer("a", 0), Writer("a", 1), Writer("b", 0)]
    leaves = [writers[at % 3].leaf() for at in range(30)]
    assert problems(leaves) == []
    chains = Chains()
    for index, data in enumerate(leaves):
        chains.add(index, parse_leaf(data), data)
    assert chains.counts() == {"a": 20, "b": 10}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.randoms(use_true_random=False))
def test_any_order_of_a_whole_chain_is_whole(first: int, second: int, chance: random.Random) -> None:
    writer = Writer()
    leaves = writer.leaves(first)
    leaves += writer.restart().leaves(second)
    chance.shuffle(leaves)
    assert problems(leaves) == []


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_record_taken_out_leaves_a_trace_unless_it_is_the_last(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))
    writer, leaves = Writer(), []
    for count in counts:
        leaves += writer.leaves(count)
        writer = writer.restart()
    gone = data.draw(st.integers(0, len(leaves) - 1))
    left = leaves[:gone] + leaves[gone + 1 :]
    found = problems(left)
    if gone == len(leaves) - 1:
        assert found == []
    else:
        assert found
        assert {one.kind for one in found} <= {"gap", "tail_unknown"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_record_replaced_by_another_breaks_the_chain(data: st.DataObject) -> None:
    leaves = Writer().leaves(data.draw(st.integers(2, 12)))
    at = data.draw(st.integers(0, len(leaves) - 2))
    changed = leaves[at].replace(b"10:00:00", b"10:00:01")
    assert brief([*leaves[:at], changed, *leaves[at + 1 :]]) == [
        ("fork", f"profiles-1/0 epoch {epoch(1)} seq {at + 1}")
    ]


class TestGaps:
    def test_each_is_named_with_its_records(self) -> None:
        leaves = Writer().leaves(20)
        left = [leaf for seq, leaf in enumerate(leaves) if seq not in (3, 7, 8, 9)]
        where = f"profiles-1/0 epoch {epoch(1)}"
        assert problems(left) == [
            Problem("gap", where, "records 3 to 3 are missing"),
            Problem("gap", where, "records 7 to 9 are missing"),
        ]

    def test_one_at_the_start(self) -> None:
        leaves = Writer().leaves(5)
        assert [(one.kind, one.detail) for one in problems(leaves[2:])] == [("gap", "records 0 to 1 are missing")]

    def test_one_that_was_filled_late_is_none(self) -> None:
        leaves = Writer().leaves(20)
        assert problems([*leaves[:5], *leaves[10:], *leaves[5:10]]) == []

    def test_one_filled_in_part(self) -> None:
        leaves = Writer().leaves(20)
        found = problems([*leaves[:5], *leaves[10:], *leaves[5:7], leaves[9]])
        assert [one.detail for one in found] == ["records 7 to 8 are missing"]

    def test_one_filled_with_other_records(self) -> None:
        leaves = Writer().leaves(20)
        forger = Writer(seq=5, prev=encode_digest(leaf_digest(leaves[4])))
        false = [forger.leaf("outcome") for _ in range(5)]
        assert brief([*leaves[:5], *leaves[10:], *false]) == [("fork", f"profiles-1/0 epoch {epoch(1)} seq 10")]

    def test_a_break_behind_a_gap_shows_as_well(self) -> None:
        leaves = Writer().leaves(20)
        changed = leaves[15].replace(b"10:00:00", b"10:00:01")
        left = [*leaves[:5], *leaves[10:15], changed, *leaves[16:]]
        assert [one.kind for one in problems(left)] == ["gap", "fork"]

    def test_the_next_epoch_still_joins(self) -> None:
        writer = Writer()
        leaves = writer.leaves(10)
        more = writer.restart().leaves(3)
        assert [one.kind for one in problems([*leaves[:4], *leaves[5:], *more])] == ["gap"]


class TestForks:
    def test_two_records_of_one_seq(self) -> None:
        leaves = Writer().leaves(10)
        twin = Writer(seq=4, prev=encode_digest(leaf_digest(leaves[3]))).leaf("outcome")
        where = f"profiles-1/0 epoch {epoch(1)} seq 4"
        assert problems([*leaves, twin]) == [Problem("fork", where, "leaf 10 is a second record of this seq")]
        assert brief([*leaves[:5], twin, *leaves[5:]]) == [("fork", where)]

    def test_the_same_record_twice(self) -> None:
        leaves = Writer().leaves(4)
        assert brief([*leaves, leaves[2]]) == [("fork", f"profiles-1/0 epoch {epoch(1)} seq 2")]

    def test_two_that_run_ahead(self) -> None:
        leaves = Writer().leaves(10)
        twin = leaves[7].replace(b"10:00:00", b"10:00:01")
        assert brief([*leaves[:5], leaves[7], twin, *leaves[5:7], *leaves[8:]]) == [
            ("fork", f"profiles-1/0 epoch {epoch(1)} seq 7")
        ]

    @pytest.mark.parametrize("prev", [OTHER, None])
    def test_a_record_that_follows_nothing(self, prev: str | None) -> None:
        leaves = Writer().leaves(5)
        odd = Writer(seq=5, prev=prev).leaf()
        assert brief([*leaves, odd]) == [("fork", f"profiles-1/0 epoch {epoch(1)} seq 5")]

    def test_two_epochs_after_one_record(self) -> None:
        """A copied key, or a slot that ran twice."""
        writer = Writer()
        leaves = writer.leaves(5)
        leaves += writer.restart(2).leaves(3)
        leaves += writer.restart(3).leaves(3)
        found = problems(leaves)
        assert [(one.kind, one.where) for one in found] == [("fork", f"profiles-1/0 epoch {epoch(3)}")]
        assert epoch(2) in found[0].detail


class TestEpochs:
    def test_a_lost_tail(self) -> None:
        writer = Writer()
        leaves = writer.leaves(10)
        more = writer.restart().leaves(3)
        (one,) = problems([*leaves[:8], *more])
        assert (one.kind, one.where) == ("tail_unknown", f"profiles-1/0 epoch {epoch(1)}")
        assert epoch(2) in one.detail

    def test_a_start_without_the_epoch_before(self) -> None:
        leaves = Writer().leaves(10) + Writer(number=2).leaves(3)
        assert brief(leaves) == [("tail_unknown", f"profiles-1/0 epoch {epoch(1)}")]

    def test_a_whole_epoch_missing(self) -> None:
        first = Writer()
        leaves = first.leaves(4)
        second = first.restart()
        second.leaves(4)
        third = second.restart()
        assert brief([*leaves, *third.leaves(4)]) == [("tail_unknown", f"profiles-1/0 epoch {epoch(1)}")]

    def test_a_first_epoch_that_continues_something_unknown(self) -> None:
        (one,) = problems(Writer(prev=OTHER).leaves(3))
        assert one == Problem("tail_unknown", f"profiles-1/0 epoch {epoch(1)}",
                              "begins after a record that is not in the log")  # fmt: skip

    def test_a_clock_that_was_set_back_is_no_alarm(self) -> None:
        first = Writer(number=50)
        leaves = first.leaves(4)
        second = first.restart(20)
        leaves += second.leaves(4)
        third = second.restart(60)
        leaves += third.leaves(4)
        assert problems(leaves) == []

    def test_an_epoch_of_which_nothing_but_the_open_came(self) -> None:
        writer = Writer()
        leaves = writer.leaves(4)
        for _ in range(5):
            writer = writer.restart()
            leaves += writer.leaves(1)
        assert problems(leaves) == []

    def test_one_whose_first_record_is_missing_is_a_gap_only(self) -> None:
        writer = Writer()
        leaves = writer.leaves(4)
        more = writer.restart().leaves(4)
        assert [one.kind for one in problems([*leaves, *more[1:]])] == ["gap"]

    def test_an_epoch_begins_with_open(self) -> None:
        writer = Writer()
        leaves = [writer.leaf("decision"), writer.leaf()]
        assert brief(leaves) == [("order", f"profiles-1/0 epoch {epoch(1)} seq 0")]

    def test_and_has_but_one(self) -> None:
        writer = Writer()
        leaves = [writer.leaf(), writer.leaf("open"), writer.leaf()]
        assert brief(leaves) == [("order", f"profiles-1/0 epoch {epoch(1)} seq 1")]
