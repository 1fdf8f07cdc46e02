"""Openings move from the log to the key database once, checked, and leave no copy."""

import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from store_rig import CLOCK, Producer

from sidecar.oversight.ingest import RefusedError, check_batch
from sidecar.oversight.keys import KeyVault
from sidecar.oversight.openings import MOST_EPOCH_KEYS, SUITE, EpochKeys, Opener, subject_refs
from sidecar.oversight.sequencer import place
from sidecar.oversight.sqlite import SqliteStorage
from sidecar.record import EPOCH_KEY_INFO, RecordFormatError, encode_digest, leaf_digest

pytestmark = pytest.mark.unit
ALICE, BOB = b"a" * 32, b"b" * 32


class CrashError(Exception):
    """The process ended here."""


class World:
    def __init__(self, folder):
        self.folder = folder
        self.sealing = X25519PrivateKey.generate()
        self.storage = SqliteStorage(folder / "log.sqlite")
        self.vault = KeyVault(folder / "keys.sqlite", bytes(32), secrets.token_bytes)
        self.keys = EpochKeys(self.storage, [self.sealing])
        self.producer = Producer()
        self.keys.add(self.producer.name, 0, self.producer.epoch, self.seal(self.producer.epoch_key))

    def seal(self, key, to=None):
        return SUITE.encrypt(key, (to or self.sealing).public_key(), EPOCH_KEY_INFO)

    def commit(self, first=0):
        producer = self.producer
        batch = check_batch(*producer.batch(first, len(producer.items)), producer.key.public_key())
        with self.storage.transaction() as transaction:
            place(transaction, batch, now=CLOCK)

    def opener(self, storage=None, vault=None):
        return Opener(storage or self.storage, vault or self.vault, self.keys, lambda: CLOCK)

    def found(self, *names):
        return self.vault.records_of(names, after=-1, limit=99)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.storage.close()
    world.vault.close()


def fill(world):
    world.producer.record("open")
    world.producer.record(subjects=[ALICE])
    world.producer.record(subjects=[BOB, ALICE])
    world.commit()


def test_they_are_taken_over_in_steps(world):
    fill(world)
    opener = world.opener()
    assert [opener.step(1), opener.step(1), opener.step(1)] == [1, 1, 0]
    assert world.found(ALICE) == [1, 2]
    assert world.found(BOB) == [2]
    assert world.storage.sealed_from(0, 9) == []
    assert world.storage.discoveries() == []


class _Failing:
    """Stops before or after a call."""

    def __init__(self, real, name, *, after):
        self._real, self._name, self._after = real, name, after

    def __getattr__(self, name):
        call = getattr(self._real, name)
        if name != self._name:
            return call

        def guarded(*values):
            if self._after:
                call(*values)
            raise CrashError

        return guarded


@pytest.mark.parametrize("call", ["take_over", "drop_sealed"])
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_anywhere_takes_over_once_and_brings_nobody_back(world, call, after):
    fill(world)
    if call == "take_over":
        opener = world.opener(vault=_Failing(world.vault, call, after=after))
    else:
        opener = world.opener(storage=_Failing(world.storage, call, after=after))
        # The first step only clears what an earlier crash left; the crash is to come after the openings were taken.
        opener._cleared = True
    with pytest.raises(CrashError):
        opener.step()
    world.vault.erase([ALICE])
    taken = world.vault.cursor() == 3
    opener = world.opener()
    while opener.step():
        pass
    assert world.found(BOB) == [2]
    assert world.found(ALICE) == ([] if taken else [1, 2])
    assert world.storage.sealed_from(0, 9) == []


def test_what_does_not_open_or_fit_is_a_finding_and_stops_nothing(world):
    producer = world.producer
    producer.record("open")
    elsewhere = producer.make(1, producer.prev, "decision", None, [ALICE], aad_seq=2)
    producer.items.append(elsewhere)
    producer.prev = encode_digest(leaf_digest(elsewhere.leaf))
    producer.record(body=b'{"subjects":[]}', subjects=[ALICE])
    producer.record(body=b"not json", subjects=[ALICE])
    producer.record(body=b'{"subjects":[{"ref":"AAAA"}]}', subjects=[ALICE])
    producer.record(subjects=[BOB])
    world.commit()
    opener = world.opener()
    while opener.step():
        pass
    assert [(one.kind, one.index) for one in world.storage.discoveries()] == [("bad_openings", n) for n in (1, 2, 3, 4)]
    assert world.found(ALICE, BOB) == [5]
    assert world.storage.sealed_from(0, 9) == []


def test_an_epoch_key_must_open_and_is_kept_once(world):
    name = (world.producer.name, 0, world.producer.epoch)
    for sealed in (b"", bytes(80), world.seal(b"short"), world.seal(bytes(32), X25519PrivateKey.generate())):
        with pytest.raises(RefusedError, match="does not open"):
            world.keys.add(*name, sealed)
    world.keys.add(*name, world.seal(world.producer.epoch_key))
    assert len(world.storage.epoch_keys(*name)) == 1
    for _ in range(MOST_EPOCH_KEYS - 1):
        world.keys.add(*name, world.seal(secrets.token_bytes(32)))
    with pytest.raises(RefusedError, match="at most"):
        world.keys.add(*name, world.seal(secrets.token_bytes(32)))
    assert len(world.keys.of(*name)) == MOST_EPOCH_KEYS


def test_epochs_sealed_to_a_retired_key_still_open(world):
    successor = X25519PrivateKey.generate()
    fill(world)
    world.keys = EpochKeys(world.storage, [successor, world.sealing])
    assert world.opener().step() == 2
    assert world.found(ALICE) == [1, 2]


def test_subject_refs_of_bodies():
    assert subject_refs(b'{"subjects":[{"ref":"a","class":"us","period":"p"},{"ref":"b"}]}') == ["a", "b"]
    assert subject_refs(b'{"details":{"subject_refs":["c"],"n":1}}') == ["c"]
    assert subject_refs(b"{}") == []
    for wrong in (b"", b"[]", b'{"subjects":1}', b"\xff"):
        with pytest.raises(RecordFormatError):
            subject_refs(wrong)
