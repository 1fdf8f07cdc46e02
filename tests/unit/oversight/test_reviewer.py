"""A search that is told to be whole is whole, or says that it is not."""

import pytest

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.errors import ConfigurationError
from sidecar.oversight.reviewer import searched


class Store:
    """A store with a record at each of these indexes, whose index has come so far at each look in turn."""

    def __init__(self, matching, reaches, published, most=1000):
        self.matching, self.reaches, self.published, self.most = matching, list(reaches), published, most
        self.asked = []

    def ask(self, cursor, limit):
        self.asked.append(cursor)
        reach = self.reaches.pop(0) if len(self.reaches) > 1 else self.reaches[0]
        after = int(cursor) if cursor else -1
        found = [one for one in self.matching if after < one < reach][: min(limit, self.most)]
        full = len(found) == min(limit, self.most)
        return pb.SearchResponse(
            records=[pb.StoredRecord(index=one) for one in found],
            next_cursor=str(found[-1]) if full else "", searched_to=reach,
            published=self.published + len(self.asked) - 1,  # the log grows by each question
        )  # fmt: skip


def found(store, limit=0):
    waited = []
    return [one.index for one in searched(store.ask, limit, "store:1", waited.append)], waited


def test_an_index_that_has_come_far_enough_is_asked_once():
    store = Store([1, 5], [10], 10)
    assert found(store) == ([1, 5], [])
    assert store.asked == [""]


def test_what_the_index_had_not_reached_is_found_by_asking_on():
    store = Store([1, 5, 8], [3, 3, 6, 10], 10)
    records, waited = found(store)
    assert records == [1, 5, 8], "each once, in the order of the log"
    assert len(waited) == 3


def test_nothing_found_before_the_index_came_far_enough_is_no_answer():
    store = Store([8], [3, 10], 10)
    assert found(store)[0] == [8]


def test_pages_go_on_without_waiting():
    store = Store(list(range(7)), [7], 7, most=3)
    assert found(store) == (list(range(7)), [])


def test_a_limit_that_is_reached_needs_no_more_of_the_log():
    store = Store([0, 1, 2], [3], 1000)
    assert found(store, limit=2) == ([0, 1], [])


def test_an_index_that_stays_behind_is_said_after_what_was_found():
    records = searched(Store([1], [3], 10).ask, 0, "store:1", lambda _: None)
    assert next(records).index == 1
    with pytest.raises(ConfigurationError, match="searched 3 of 10 published records"):
        next(records)


def test_a_store_of_an_earlier_release_says_nothing_of_it():
    def ask(cursor, limit):
        return pb.SearchResponse(records=[pb.StoredRecord(index=1)], searched_to=3)

    assert [one.index for one in searched(ask, 0, "store:1", lambda _: None)] == [1]
