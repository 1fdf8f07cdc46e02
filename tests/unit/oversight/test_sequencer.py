"""Whatever the order, the split and the repeats in which batches come, the books are right."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rig import CLOCK, Producer

from sidecar.oversight.ingest import check_batch
from sidecar.oversight.sequencer import place, runs_digest
from sidecar.oversight.sqlite import SqliteStorage
from sidecar.record import encode_digest, leaf_digest
from sidecar.tlog.merkle import leaf_hash

pytestmark = pytest.mark.unit
LENGTH = 14


class Books:
    """A storage, and a model of what must stand in it."""

    def __init__(self, storage, producer):
        self.storage, self.producer = storage, producer
        self.index = {}  # (seq, leaf) -> index
        self.chain = {}  # seq -> leaf that came first

    def send(self, first, items):
        """Append a batch, and compare the answer and the books with the model."""
        batch = check_batch(*self.producer.sign(first, items), self.producer.key.public_key())
        before = self.storage.size()
        with self.storage.transaction() as transaction:
            places = place(transaction, batch, now=CLOCK)
        answered = [
            (run.first_seq + offset, run.first_index + offset) for run in places.runs for offset in range(run.count)
        ]
        assert [seq for seq, _ in answered] == list(range(first, first + len(items)))
        fresh = 0
        for (seq, index), item in zip(answered, items, strict=True):
            if (seq, item.leaf) not in self.index:
                assert index == before + fresh
                fresh += 1
                self.index[seq, item.leaf] = index
                self.chain.setdefault(seq, item.leaf)
            assert index == self.index[seq, item.leaf]
        assert places.fresh == fresh
        assert self.storage.size() == before + fresh
        return places

    def check(self):
        leaves = self.storage.leaves(0, self.storage.size())
        assert {index: leaf for (_, leaf), index in self.index.items()} == dict(enumerate(leaves))
        (head,) = self.storage.heads().values()
        last = max(self.chain)
        assert head.last_seq == last
        missing = {seq for gap in self.storage.gaps() for seq in range(gap.first_seq, gap.last_seq + 1)}
        assert missing == set(range(last)) - set(self.chain)
        assert sum(gap.last_seq - gap.first_seq + 1 for gap in self.storage.gaps()) == len(missing)
        runs = self.storage.runs_by_index(0, len(leaves))
        assert [run.first_index for run in runs] == [sum(one.count for one in runs[:at]) for at in range(len(runs))]
        in_chain = {}
        for run in runs:
            stored = leaves[run.first_index : run.first_index + run.count]
            assert run.digest == runs_digest([leaf_hash(leaf) for leaf in stored])
            if run.branch == 0:
                for offset, leaf in enumerate(stored):
                    assert run.first_seq + offset not in in_chain
                    in_chain[run.first_seq + offset] = leaf
        assert in_chain == self.chain
        doubled = {one.seq for one in self.storage.discoveries() if one.detail.startswith("other bytes")}
        versions = [seq for seq, _ in self.index]
        assert doubled == {seq for seq in versions if versions.count(seq) > 1}


@pytest.fixture
def books(tmp_path):
    storage = SqliteStorage(tmp_path / "log.sqlite")
    yield Books(storage, Producer())
    storage.close()


def spans(length):
    return st.tuples(st.integers(0, length - 1), st.integers(1, length)).map(
        lambda pair: (pair[0], min(pair[0] + pair[1], length))
    )


@settings(max_examples=80, deadline=None)
@given(batches=st.lists(spans(LENGTH), min_size=1, max_size=12))
def test_any_split_order_and_repeat_gives_each_leaf_once(batches):
    with tempfile.TemporaryDirectory() as folder:
        storage = SqliteStorage(Path(folder) / "log.sqlite")
        try:
            books = Books(storage, Producer().run(LENGTH))
            for first, end in [*batches, (0, LENGTH)]:
                books.send(first, books.producer.items[first:end])
                books.check()
            assert storage.gaps() == []
            assert storage.discoveries() == []
            assert storage.size() == LENGTH
        finally:
            storage.close()


@settings(max_examples=60, deadline=None)
@given(
    forks=st.lists(st.integers(1, LENGTH - 1), min_size=1, max_size=2, unique=True),
    batches=st.lists(st.tuples(st.integers(0, 2), spans(LENGTH)), min_size=2, max_size=12),
)
def test_every_version_of_a_seq_is_kept_and_reported(forks, batches):
    with tempfile.TemporaryDirectory() as folder:
        storage = SqliteStorage(Path(folder) / "log.sqlite")
        try:
            producer = Producer().run(LENGTH)
            histories = [list(producer.items)]
            for fork in forks:
                # A producer that went back and wrote another story from `fork` on.
                other = Producer(name=producer.name, key=producer.key, epoch=producer.epoch)
                other.items = histories[0][:fork]
                other.prev = _prev(other.items)
                other.run(LENGTH - fork)
                histories.append(other.items)
            books = Books(storage, producer)
            for which, (first, end) in batches:
                books.send(first, histories[which % len(histories)][first:end])
                books.check()
        finally:
            storage.close()


def _prev(items):
    return encode_digest(leaf_digest(items[-1].leaf))


def test_a_gap_opens_splits_and_closes(books):
    items = books.producer.run(10).items
    books.send(0, items[0:2])
    books.send(8, items[8:10])
    assert [(gap.first_seq, gap.last_seq) for gap in books.storage.gaps()] == [(2, 7)]
    books.send(4, items[4:6])
    assert [(gap.first_seq, gap.last_seq) for gap in books.storage.gaps()] == [(2, 3), (6, 7)]
    books.send(6, items[6:8])
    books.send(2, items[2:4])
    assert books.storage.gaps() == []
    assert books.storage.discoveries() == []
    books.check()


@pytest.mark.parametrize("forged", [2, 7, 4])
def test_a_late_fill_that_does_not_fit_its_neighbours_is_kept_and_reported(books, forged):
    items = books.producer.run(10).items
    books.send(0, items[0:2])
    books.send(8, items[8:10])
    if forged == 4:
        books.send(3, items[3:4])
    liar = books.producer.make(forged, _prev(items[:1]), "decision", None)
    books.send(forged, [liar])
    (found,) = books.storage.discoveries()
    assert (found.kind, found.seq) == ("equivocation", forged)


def test_a_leaf_that_names_another_predecessor_is_kept_and_reported(books):
    items = books.producer.run(3).items
    books.send(0, items)
    books.send(3, [books.producer.make(3, _prev(items[:1]), "decision", None)])
    (found,) = books.storage.discoveries()
    assert (found.kind, found.seq, found.index) == ("equivocation", 3, 3)


def test_the_head_knows_open_close_and_link(books):
    first = books.producer.run(2)
    books.send(0, first.items)
    first.record("close")
    books.send(2, first.items[2:])
    head = books.storage.head_of(first.name, 0, first.epoch)
    assert (head.closed, head.opened, head.opened_prev) == (True, True, None)
    second = Books(books.storage, first.next_epoch(60))
    second.send(0, second.producer.run(2).items)
    head = books.storage.head_of(first.name, 0, second.producer.epoch)
    assert head.opened_prev == books.storage.head_of(first.name, 0, first.epoch).last_digest


def test_producers_slots_and_epochs_are_kept_apart(books):
    for other in (Producer(name="b"), Producer(slot=1), Producer()):
        part = Books(books.storage, other.run(3))
        batch = check_batch(*other.batch(0, 3), other.key.public_key())
        with books.storage.transaction() as transaction:
            assert place(transaction, batch, now=CLOCK).fresh == 3
        assert part.storage.gaps() == []
    assert len(books.storage.heads()) == 3
    assert books.storage.discoveries() == []
