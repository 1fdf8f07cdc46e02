"""Waiting batches share a commit; a failed commit promises nothing; the store's own records survive both."""

import asyncio
import secrets
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from store_rig import CLOCK, START, Producer

from sidecar.oversight.committer import MOST_WAITING, Committer
from sidecar.oversight.ingest import RefusedError, check_batch
from sidecar.oversight.journal import Journal, Outside
from sidecar.oversight.openings import EpochKeys
from sidecar.oversight.sqlite import SqliteStorage
from sidecar.oversight.storage import StorageBrokenError, StorageFullError
from sidecar.oversight.wire import encode_header

pytestmark = pytest.mark.unit


class Faulty:
    """A storage whose transactions may fail before or after their commit."""

    def __init__(self, real):
        self.real, self.before, self.after, self.commits = real, None, None, 0

    @contextmanager
    def transaction(self):
        if self.before:
            raise self.before
        with self.real.transaction() as transaction:
            yield transaction
        self.commits += 1
        if self.after:
            raise self.after

    def __getattr__(self, name):
        return getattr(self.real, name)


@pytest.fixture
def storage(tmp_path):
    storage = SqliteStorage(tmp_path / "log.sqlite")
    yield Faulty(storage)
    storage.close()


@pytest.fixture
def broken():
    return []


@pytest.fixture
def committer(storage, broken):
    committer = Committer(storage, lambda: CLOCK, broken.append, lambda: None)
    yield committer
    committer.close()


def checked(producer, first, end):
    return check_batch(*producer.batch(first, end), producer.key.public_key())


async def test_batches_that_wait_together_share_a_commit_and_keep_their_order(storage, committer):
    producer = Producer().run(100)
    with storage.real.transaction():
        waiting = [committer.submit(checked(producer, at, at + 5)) for at in range(0, 100, 5)]
        assert committer.waiting == 100
    places = await asyncio.gather(*waiting)
    assert [run.first_index for one in places for run in one.runs] == list(range(0, 100, 5))
    assert storage.commits <= 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_after_a_full_disk_the_same_batch_is_taken(storage, committer, broken, when):
    producer = Producer().run(5)
    setattr(storage, when, StorageFullError("full"))
    with pytest.raises(RefusedError) as caught:
        await committer.submit(checked(producer, 0, 5))
    assert (caught.value.code, caught.value.retry) == ("unavailable", True)
    setattr(storage, when, None)
    (run,) = (await committer.submit(checked(producer, 0, 5))).runs
    assert (run.first_index, run.count) == (0, 5)
    assert storage.size() == 5
    assert broken == []


async def test_what_repeating_does_not_mend_is_reported(storage, committer, broken):
    storage.before = StorageBrokenError("I/O error")
    with pytest.raises(RefusedError):
        await committer.submit(checked(Producer().run(1), 0, 1))
    async with asyncio.timeout(60):
        while not broken:  # the refusal comes before the word
            await asyncio.sleep(0.01)
    assert broken == [storage.before]


async def test_too_much_is_pushed_back(storage, committer):
    producer = Producer().run(256)
    batch = checked(producer, 0, 256)
    waiting = []
    with storage.real.transaction():
        with pytest.raises(RefusedError) as caught:  # noqa: PT012 - the last of many is refused
            for _ in range(MOST_WAITING // 256 + 1):
                waiting.append(committer.submit(batch))
        assert (caught.value.code, caught.value.retry) == ("unavailable", True)
        assert len(waiting) == MOST_WAITING // 256
    places = await asyncio.gather(*waiting)
    assert {run.first_index for one in places for run in one.runs} == {0}
    assert storage.size() == 256


async def test_closing_commits_what_waits_and_takes_no_more(storage, broken):
    committer = Committer(storage, lambda: CLOCK, broken.append, lambda: None)
    future = committer.submit(checked(Producer().run(3), 0, 3))
    await asyncio.to_thread(committer.close)
    assert (await future).fresh == 3
    with pytest.raises(RefusedError):
        committer.submit(checked(Producer().run(1), 0, 1))


class Own:
    """A journal on a faulty storage."""

    def __init__(self, storage, committer):
        self.storage, self.committer = storage, committer
        self.key, self.sealing = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        self.keys = EpochKeys(storage, [self.sealing])
        self.seconds = 0

    def journal(self):
        self.seconds += 1
        outside = Outside(now=lambda: START.replace(second=self.seconds), random=secrets.token_bytes,
                          encode_header=encode_header)  # fmt: skip
        return Journal(self.append, self.key, self.sealing.public_key(), outside)

    async def append(self, header, signature, items, /):
        return await self.committer.submit(check_batch(header, signature, items, self.key.public_key()))


async def test_the_journal_links_its_epochs(storage, committer):
    own = Own(storage, committer)
    for _ in range(3):
        journal = own.journal()
        await journal.open(storage, own.keys)
        await journal.write("admin_action", {"what": "test"})
    heads = sorted(storage.heads().values(), key=lambda head: head.epoch)
    assert [head.opened_prev for head in heads] == [None, heads[0].last_digest, heads[1].last_digest]
    assert [head.link and head.link.last_seq for head in heads] == [None, 1, 1]
    assert storage.discoveries() == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_journal_record_in_doubt_is_sent_again_before_another(storage, committer, when):
    own = Own(storage, committer)
    journal = own.journal()
    await journal.open(storage, own.keys)
    setattr(storage, when, StorageFullError("full"))
    with pytest.raises(RefusedError):
        await journal.write("admin_action", {"what": "first"})
    setattr(storage, when, None)
    await journal.write("admin_action", {"what": "second"})
    assert storage.size() == 3
    assert storage.gaps() == storage.discoveries() == []


async def test_a_reviewer_who_hangs_up_leaves_the_journal_whole(storage, committer):
    own = Own(storage, committer)
    journal = own.journal()
    await journal.open(storage, own.keys)
    with storage.real.transaction():
        writing = asyncio.ensure_future(journal.write("reviewer_access", {"rpc": "Search"}, [b"s" * 32]))
        await asyncio.sleep(0.5)  # until it stands before the log
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    await journal.write("reviewer_access", {"rpc": "Search"})
    assert storage.size() == 3
    assert storage.gaps() == storage.discoveries() == []
    (sealed,) = storage.sealed_from(0, 9)
    assert sealed.index == 1
