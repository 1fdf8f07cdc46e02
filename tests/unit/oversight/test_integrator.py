"""Committed records become a tree that others' rules accept, whatever fails on the way."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from store_rig import CLOCK, ORIGIN, Producer

from sidecar.errors import IntegrityError
from sidecar.oversight.ingest import check_batch
from sidecar.oversight.integrator import Integrator
from sidecar.oversight.receipts import MOST_LEAVES, Span, issue, join
from sidecar.oversight.sequencer import place
from sidecar.oversight.sqlite import SqliteStorage, connect
from sidecar.oversight.storage import LeaseLostError, StorageFullError
from sidecar.oversight.tiles import CHECKPOINT, TileFolder
from sidecar.tlog.checkpoint import open_checkpoint
from sidecar.tlog.key import Signer, Verifier
from sidecar.tlog.merkle import leaf_hash, root_hash, verify_range
from sidecar.tlog.tile import ENTRIES, decode_bundle, tile_at

pytestmark = pytest.mark.unit


class CrashError(Exception):
    """The process ended here."""


class Fuse:
    """Burns through after some steps."""

    def __init__(self, steps=10**9):
        self.steps = steps

    def burn(self):
        if self.steps == 0:
            raise CrashError
        self.steps -= 1


class FailingTiles:
    """A tile folder that may stop before or after any file."""

    def __init__(self, folder, fuse):
        self.real, self.fuse = TileFolder(folder), fuse
        self.sizes = []

    def write(self, files):
        for path, data in files.items():
            self.fuse.burn()
            self.real.write({path: data})
            if path == CHECKPOINT:
                self.sizes.append(int(data.split(b"\n")[1]))
            self.fuse.burn()

    def __getattr__(self, name):
        return getattr(self.real, name)


class FailingStorage:
    """A storage that may stop before or after any writing call: failed, and failed but persisted."""

    def __init__(self, real, fuse):
        self.real, self.fuse = real, fuse

    def __getattr__(self, name):
        call = getattr(self.real, name)
        if name not in ("acquire", "sign", "publish"):
            return call

        def guarded(*values, **named):
            self.fuse.burn()
            result = call(*values, **named)
            self.fuse.burn()
            return result

        return guarded


class World:
    """A database, a tile folder, and integrators that come and go."""

    def __init__(self, folder, key):
        self.folder, self.signer = folder, Signer(ORIGIN, key)
        self.storage = SqliteStorage(folder / "log.sqlite")
        self.producer = Producer()
        self.time = 1000.0
        self.starts = 0

    def add(self, count):
        first = len(self.producer.items)
        self.producer.run(count)
        for at in range(first, first + count, 256):
            end = min(at + 256, first + count)
            batch = check_batch(*self.producer.batch(at, end), self.producer.key.public_key())
            with self.storage.transaction() as transaction:
                place(transaction, batch, now=CLOCK)

    def restart(self):
        self.storage.close()
        self.storage = SqliteStorage(self.folder / "log.sqlite")

    def integrator(self, fuse=None, **options):
        self.starts += 1
        fuse = fuse or Fuse()
        self.tiles = FailingTiles(self.folder / "tiles", fuse)
        return Integrator(FailingStorage(self.storage, fuse), self.tiles, self.signer, holder=str(self.starts),
                          timestamp=lambda: CLOCK, clock=lambda: self.time, **options)  # fmt: skip

    def checkpoint(self):
        return open_checkpoint(
            (self.folder / "tiles" / CHECKPOINT).read_bytes(), [Verifier(self.signer.key)]
        ).checkpoint

    def check(self):
        """The published folder alone gives every leaf, and every checkpoint of the history is its root."""
        leaves = [item.leaf for item in self.producer.items]
        checkpoint = self.checkpoint()
        assert checkpoint.size == len(leaves)
        published = []
        for index in range(-(-len(leaves) // 256)):
            tile = tile_at(ENTRIES, index, len(leaves))
            published += decode_bundle(tile, self.tiles.read_tile(tile))
        assert published == leaves
        for one in self.storage.history(-1, 10_000):
            stated = open_checkpoint(one.note, [Verifier(self.signer.key)]).checkpoint
            assert stated.root == root_hash([leaf_hash(leaf) for leaf in leaves[: stated.size]])


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, Ed25519PrivateKey.generate())
    yield world
    world.storage.close()


def drain(integrator):
    while integrator.step():
        pass


def test_an_empty_log_publishes_its_empty_tree(world):
    integrator = world.integrator()
    assert integrator.step()
    assert not integrator.step()
    assert world.checkpoint().size == 0
    assert integrator.published.size == 0


def test_it_grows_over_tile_boundaries_and_restarts(world):
    integrator = world.integrator()
    for count in (1, 254, 1, 1, 600):
        world.add(count)
        drain(integrator)
        world.check()
    world.restart()
    integrator = world.integrator()
    world.add(300)
    drain(integrator)
    world.check()
    assert not list((world.folder / "tiles" / "tile" / "0").glob("000.p"))


def test_a_backlog_is_integrated_in_steps(world):
    world.add(1000)
    integrator = world.integrator(most=300)
    sizes = []
    while integrator.step():
        sizes.append(integrator.published.size)
    assert sizes == [0, 512, 1000]
    world.check()


def test_a_crash_at_any_step_loses_nothing_and_never_goes_back(world):
    """Stops at every write there is, before and after it, then goes on from what is durable."""
    drain(world.integrator())
    steps, crashes, sizes = 0, 0, []
    while True:
        world.add(70)
        world.time += 60
        integrator = world.integrator(Fuse(steps))
        try:
            drain(integrator)
        except CrashError:
            crashes += 1
        else:
            break
        finally:
            sizes += world.tiles.sizes
        world.restart()
        drain(world.integrator())
        sizes += world.tiles.sizes
        world.check()
        steps += 1
    assert crashes > 10
    assert sizes == sorted(sizes)


def test_after_an_error_the_same_integrator_goes_on(world):
    fuse = Fuse()
    integrator = world.integrator(fuse)
    drain(integrator)
    for steps in range(12):
        world.add(300)
        fuse.steps = steps
        with pytest.raises(CrashError):
            drain(integrator)
        fuse.steps = 10**9
        drain(integrator)
        world.check()


def test_a_statement_that_was_kept_before_a_crash_is_finished_before_anything_else(world):
    drain(world.integrator())
    world.add(5)

    def crash(*_):
        raise CrashError

    world.storage.publish = crash
    world.time += 60
    with pytest.raises(CrashError):
        drain(world.integrator())
    del world.storage.publish
    assert world.storage.signed().size == 5
    assert world.checkpoint().size == 0
    world.add(5)
    world.time += 60
    integrator = world.integrator()
    assert integrator.step()
    assert integrator.published.size == 5
    drain(integrator)
    assert [one.size for one in world.storage.history(-1, 9)] == [0, 5, 10]


def test_a_second_integrator_waits_and_the_first_is_fenced_off(world):
    first, second = world.integrator(), world.integrator()
    world.add(3)
    drain(first)
    world.add(3)
    assert not second.step()
    world.time += 11
    drain(second)
    assert second.published.size == 6
    world.add(3)
    first._renew_at = world.time + 100
    first._token = 1
    with pytest.raises(LeaseLostError):
        first.step()
    assert world.storage.signed().size == 6
    drain(second)
    world.check()


def test_leaves_that_changed_since_they_were_accepted_are_not_signed(world):
    drain(world.integrator())
    world.add(10)
    world.storage.close()
    database = connect(world.folder / "log.sqlite")
    database.execute("DROP TRIGGER leaf_no_update")
    database.execute("UPDATE leaf SET leaf = CAST(leaf || ' ' AS BLOB) WHERE idx = 7")
    database.close()
    world.storage = SqliteStorage(world.folder / "log.sqlite")
    integrator = world.integrator()
    integrator.step()
    with pytest.raises(IntegrityError, match="leaves 0 to 9 are not those that were accepted"):
        integrator.step()
    assert world.checkpoint().size == 0


def test_it_does_not_go_on_from_a_database_older_than_what_was_published(world):
    world.add(10)
    drain(world.integrator())
    world.storage.close()
    for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-shm"):
        (world.folder / name).unlink(missing_ok=True)
    world.storage = SqliteStorage(world.folder / "log.sqlite")
    with pytest.raises(IntegrityError, match="the database has signed nothing"):
        world.integrator().step()
    assert world.storage.signed() is None


def test_it_does_not_go_on_from_damaged_tiles(world):
    world.add(300)
    drain(world.integrator())
    tile = world.folder / "tiles" / "tile" / "0" / "001.p" / "44"
    data = bytearray(tile.read_bytes())
    data[5] ^= 1
    tile.write_bytes(data)
    world.restart()
    with pytest.raises(IntegrityError, match="do not lead to the signed root"):
        world.integrator().step()
    tile.unlink()
    world.time += 60
    with pytest.raises(IntegrityError, match="is missing"):
        world.integrator().step()


def test_a_foreign_checkpoint_file_is_not_overwritten(world):
    drain(world.integrator())
    (world.folder / "tiles" / CHECKPOINT).write_text("somebody else's\n")
    world.restart()
    with pytest.raises(IntegrityError, match="not a checkpoint of this log"):
        world.integrator().step()


def test_a_full_disk_is_passed_on(world):
    integrator = world.integrator()
    drain(integrator)
    world.add(1)

    def full(*_, **__):
        raise StorageFullError("no space left")

    world.storage.sign = full
    with pytest.raises(StorageFullError):
        integrator.step()
    del world.storage.sign
    drain(integrator)
    world.check()


def test_receipts_verify_against_the_published_root(world):
    integrator = world.integrator()
    world.add(1000)
    drain(integrator)
    tree = integrator.published
    spans = [Span(epoch="e", slot=0, first_seq=at, count=100, first_index=at) for at in range(200, 800, 100)]
    spans += [Span(epoch="e", slot=0, first_seq=7, count=1, first_index=7),
              Span(epoch="e", slot=0, first_seq=1000, count=5, first_index=1000)]  # fmt: skip
    receipts, waiting = issue(spans, tree)
    assert [(one.span.first_index, one.span.count) for one in receipts] == [(200, 600), (7, 1)]
    assert waiting == spans[-1:]
    hashes = [leaf_hash(item.leaf) for item in world.producer.items]
    for one in receipts:
        stated = open_checkpoint(one.checkpoint, [Verifier(world.signer.key)]).checkpoint
        part = hashes[one.span.first_index : one.span.end]
        verify_range(part, one.span.first_index, stated.size, one.proof, stated.root)


def test_spans_join_only_where_nothing_lies_between():
    def span(seq, index, count=2, epoch="e", slot=0):
        return Span(epoch=epoch, slot=slot, first_seq=seq, count=count, first_index=index)

    assert join([span(0, 0), span(2, 2), span(4, 4)]) == [span(0, 0, 6)]
    for apart in (span(2, 3), span(3, 2), span(2, 2, epoch="f"), span(2, 2, slot=1), span(2, 2, MOST_LEAVES - 1)):
        assert join([span(0, 0), apart]) == [span(0, 0), apart]
