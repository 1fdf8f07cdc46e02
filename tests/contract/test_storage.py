"""What every implementation of `storage.Storage` promises."""

import threading
from contextlib import suppress

import pytest
from store_rig import CLOCK, Producer

from sidecar.oversight.ingest import check_batch
from sidecar.oversight.sequencer import place, runs_digest
from sidecar.oversight.sqlite import SqliteStorage
from sidecar.oversight.storage import (
    BatchEvidence,
    Discovery,
    Gap,
    LeaseLostError,
    PublishedCheckpoint,
    Run,
    Statement,
    StorageError,
    Token,
    TwoRootsError,
)
from sidecar.tlog.merkle import leaf_hash

pytestmark = pytest.mark.contract


@pytest.fixture(params=["sqlite"])
def reopen(request, tmp_path):
    """Opens the same database again: what a new process would find."""
    held = []

    def again():
        for one in held:
            one.close()
        held[:] = [SqliteStorage(tmp_path / "log.sqlite")]
        return held[0]

    yield again
    for one in held:
        one.close()


@pytest.fixture
def storage(reopen):
    return reopen()


def append(storage, producer, first, end):
    batch = check_batch(*producer.batch(first, end), producer.key.public_key())
    with storage.transaction() as transaction:
        return place(transaction, batch, now=CLOCK)


def test_a_new_one_is_empty(storage):
    assert storage.size() == 0
    assert (storage.signed(), storage.published(), storage.heads(), storage.gaps()) == (None, None, {}, [])
    assert (storage.leaves(0, 9), storage.records([0]), storage.runs_by_index(0, 9)) == ([], [], [])


def test_what_is_committed_is_there_after_reopening(storage, reopen):
    producer = Producer().run(10)
    append(storage, producer, 0, 4)
    append(storage, producer, 4, 10)
    again = reopen()
    assert again.size() == 10
    assert again.leaves(0, 99) == [item.leaf for item in producer.items]
    assert again.leaves(3, 2) == [item.leaf for item in producer.items[3:5]]
    kept = again.record_range(0, 99)
    assert [(one.index, one.salt, one.body) for one in kept] == [
        (place, item.salt, item.body) for place, item in enumerate(producer.items)
    ]
    assert again.records([7, 2, 99]) == [kept[2], kept[7]]
    (head,) = again.heads().values()
    assert (head.producer, head.epoch, head.last_seq, head.opened, head.closed) == (
        producer.name, producer.epoch, 9, True, False)  # fmt: skip
    assert again.head_of(producer.name, 0, producer.epoch) == head
    assert again.head_of(producer.name, 1, producer.epoch) is None


def test_a_transaction_that_raises_leaves_nothing(storage):
    producer = Producer().run(6)
    append(storage, producer, 0, 2)
    before = storage.heads()
    batch = check_batch(*producer.batch(2, 6), producer.key.public_key())
    with pytest.raises(RuntimeError), storage.transaction() as transaction:  # noqa: PT012 - raised after it has written
        place(transaction, batch, now=CLOCK)
        raise RuntimeError
    assert storage.size() == 2
    assert storage.heads() == before
    assert append(storage, producer, 2, 6).runs[0].first_index == 2


def test_an_index_that_is_taken_or_leaves_a_hole_is_refused(storage):
    producer = Producer().run(3)
    append(storage, producer, 0, 2)
    stream = next(iter(storage.heads()))
    for index in (0, 1, 3):
        run = Run(stream=stream, branch=1, first_seq=2, count=1, first_index=index, digest=bytes(32))
        with pytest.raises(StorageError), storage.transaction() as transaction:
            transaction.insert(run, producer.items[2:3])
    assert storage.leaves(0, 9) == [item.leaf for item in producer.items[:2]]
    append(storage, producer, 2, 3)


def test_runs_are_found_by_index_and_by_seq(storage):
    one, two = Producer(name="one").run(9), Producer(name="two").run(4)
    append(storage, one, 0, 3)
    append(storage, two, 0, 4)
    append(storage, one, 3, 9)
    places = [(run.first_index, run.count) for run in storage.runs_by_index(0, 99)]
    assert places == [(0, 3), (3, 4), (7, 6)]
    assert [run.first_index for run in storage.runs_by_index(4, 7)] == [3]
    assert [run.first_index for run in storage.runs_by_index(7, 8)] == [7]
    assert [run.first_index for run in storage.runs_by_index(13, 99)] == []
    stream = storage.head_of("one", 0, one.epoch).stream
    assert [run.first_seq for run in storage.runs_from(stream, 0, 9)] == [0, 3]
    assert [run.first_seq for run in storage.runs_from(stream, 2, 9)] == [0, 3]
    assert [run.first_seq for run in storage.runs_from(stream, 3, 9)] == [3]
    assert [run.first_seq for run in storage.runs_from(stream, 0, 1)] == [0]
    assert storage.runs_from(stream, 9, 9) == []
    (run,) = storage.runs_from(stream, 3, 9)
    assert run.digest == runs_digest([leaf_hash(item.leaf) for item in one.items[3:]])


def test_the_signed_headers_are_kept(storage):
    producer = Producer().run(5)
    header, signature, _ = producer.batch(0, 5)
    append(storage, producer, 0, 5)
    (evidence,) = storage.batches(0, 9)
    assert evidence == BatchEvidence(first_index=0, header=header.raw, signature=evidence.signature)
    assert len(signature) == len(evidence.signature) == 64
    assert storage.batches(1, 9) == []


def test_gaps_open_and_close(storage):
    producer = Producer().run(9)
    append(storage, producer, 0, 1)
    stream = next(iter(storage.heads()))
    gap = Gap(stream=stream, first_seq=4, last_seq=7, after=b"a", before=None, since=CLOCK)
    with storage.transaction() as transaction:
        transaction.open_gap(gap)
        assert transaction.gaps(stream, 7, 9) == transaction.gaps(stream, 0, 4) == [gap]
        assert transaction.gaps(stream, 8, 9) == transaction.gaps(stream, 0, 3) == []
    assert storage.gaps() == [gap]
    with storage.transaction() as transaction:
        transaction.close_gap(gap)
    assert storage.gaps() == []


def test_a_discovery_is_kept_once(storage):
    append(storage, Producer().run(1), 0, 1)
    stream = next(iter(storage.heads()))
    found = Discovery(kind="bad_body", stream=stream, seq=0, index=0, detail="d", since=CLOCK)
    storage.discover([found, found])
    storage.discover([found])
    assert storage.discoveries() == [found]


def test_epoch_keys_are_kept_once_each_in_order(storage):
    for sealed in (b"b", b"a", b"b"):
        storage.add_epoch_key("p", 0, "e", sealed)
    assert storage.epoch_keys("p", 0, "e") == [b"b", b"a"]
    assert storage.epoch_keys("p", 1, "e") == []


def test_openings_in_transit_are_handed_on_and_dropped(storage):
    producer = Producer()
    producer.record("open")
    producer.record(subjects=[b"s" * 32])
    producer.record()
    producer.record(subjects=[b"t" * 32])
    append(storage, producer, 0, 4)
    first, second = storage.sealed_from(0, 9)
    assert (first.index, second.index) == (1, 3)
    assert (first.sealed, first.nonce) == (producer.items[1].sealed, producer.items[1].nonce)
    assert (first.leaf, first.body) == (producer.items[1].leaf, producer.items[1].body)
    assert storage.sealed_from(2, 9) == [second]
    assert storage.sealed_from(0, 1) == [first]
    storage.drop_sealed(3)
    storage.drop_sealed(3)
    assert storage.sealed_from(0, 9) == [second]


def test_a_lease_is_held_by_one_and_its_token_grows(storage):
    assert storage.acquire("integrate", "a", now=100.0, ttl=10) == 1
    assert storage.acquire("integrate", "b", now=109.0, ttl=10) is None
    assert storage.acquire("integrate", "a", now=109.0, ttl=10) == 1
    assert storage.acquire("integrate", "b", now=118.0, ttl=10) is None
    assert storage.acquire("integrate", "b", now=120.0, ttl=10) == 2
    assert storage.acquire("integrate", "a", now=121.0, ttl=10) is None
    with pytest.raises(LeaseLostError):
        storage.sign(Statement(size=1, root=bytes(32)), Token(1))
    with pytest.raises(LeaseLostError):
        storage.publish(PublishedCheckpoint(size=1, note=b"n", at=CLOCK), Token(1))
    assert (storage.signed(), storage.published()) == (None, None)


def test_never_two_roots_for_one_size_and_never_a_smaller_tree(storage, reopen):
    token = storage.acquire("integrate", "a", now=0.0, ttl=10)
    five = Statement(size=5, root=b"5" * 32)
    storage.sign(five, token)
    storage.sign(five, token)
    again = reopen()
    for wrong in (Statement(size=5, root=b"x" * 32), Statement(size=4, root=b"4" * 32)):
        with pytest.raises(TwoRootsError):
            again.sign(wrong, token)
    assert again.signed() == five
    again.sign(Statement(size=6, root=b"6" * 32), token)
    assert again.signed().size == 6


def test_the_history_of_checkpoints(storage):
    token = storage.acquire("integrate", "a", now=0.0, ttl=10)
    notes = [PublishedCheckpoint(size=size, note=b"%d" % size, at=CLOCK) for size in (0, 3, 7)]
    for note in notes:
        storage.publish(note, token)
    storage.publish(PublishedCheckpoint(size=3, note=b"other", at=CLOCK), token)
    assert storage.published() == notes[2]
    assert storage.history(-1, 9) == notes
    assert storage.history(0, 1) == [notes[1]]


def test_writers_exclude_one_another_and_readers_see_only_what_is_committed(storage):
    producers = [Producer(name=f"p{number}").run(40) for number in range(4)]
    seen = []
    done = threading.Event()

    def read():
        while not done.is_set():
            size = storage.size()
            seen.append((size, len(storage.leaves(0, size))))

    reader = threading.Thread(target=read)
    reader.start()
    writers = [
        threading.Thread(target=lambda p=p: [append(storage, p, at, at + 4) for at in range(0, 40, 4)])
        for p in producers
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert storage.size() == 160
    assert all(size == count and size % 4 == 0 for size, count in seen)
    for producer in producers:
        head = storage.head_of(producer.name, 0, producer.epoch)
        runs = storage.runs_from(head.stream, 0, 99)
        leaves = [leaf for run in runs for leaf in storage.leaves(run.first_index, run.count)]
        assert leaves == [item.leaf for item in producer.items]


def test_after_closing_it_refuses(storage):
    storage.close()
    with pytest.raises(StorageError), storage.transaction():
        pass
    with suppress(StorageError):
        storage.close()
