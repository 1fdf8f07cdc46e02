"""The verified reader: sound logs are sound; whatever is altered, missing or added is found and named."""

import random
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from published_log import SALT, PublishedLog, Writer, body_of, mixed

from sidecar.oversight.audit import MAX_FINDINGS, Audit, Finding, audit, locate
from sidecar.oversight.bodies import check_bodies
from sidecar.oversight.schema import statements
from sidecar.record import parse_leaf
from sidecar.tlog.tile import decode_bundle, parse_path


def judged(log: PublishedLog) -> Audit:
    return audit(log.read, log.trust)


def kinds(found: Audit) -> list[str]:
    return [one.kind for one in found.findings]


@pytest.fixture(scope="module")
def stored() -> PublishedLog:
    """600 records: two full bundles, a partial one, a partial tile above them. Not to be changed: `changed` copies."""
    return PublishedLog().grow(mixed(600))


def changed(log: PublishedLog, files: dict[str, bytes | None]) -> PublishedLog:
    """The log with these files changed, or taken away."""
    left = {path: data for path, data in (log.files | files).items() if data is not None}
    return PublishedLog(files=left, leaves=log.leaves, key=log.key, builder=log.builder)


def flipped(data: bytes, at: int, with_: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ with_]) + data[at + 1 :]


class TestSound:
    @pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 1000])
    def test_logs_of_many_sizes(self, size: int) -> None:
        log = PublishedLog().grow(mixed(size))
        found = judged(log)
        assert found.findings == []
        assert found.sound
        assert found.leaves == size
        assert sum(found.producers.values()) == size

    def test_a_log_with_three_levels_of_tiles(self) -> None:
        log = PublishedLog().grow(mixed(66_000))
        assert "tile/2/000.p/1" in log.files
        found = judged(log)
        assert found.findings == []
        assert found.leaves == 66_000

    @pytest.mark.parametrize("steps", [[1] * 40, [100, 200, 300, 400], [255, 1, 1, 255, 512], [256] * 5])
    def test_a_log_that_grew_in_steps(self, steps: list[int]) -> None:
        leaves = mixed(sum(steps))
        log = PublishedLog()
        for step in steps:
            log.grow(leaves[len(log.leaves) : len(log.leaves) + step])
            assert judged(log).findings == []
            log.forget_partials()
            assert judged(log).findings == []

    def test_a_log_that_grows_while_it_is_read(self) -> None:
        """The checkpoint is of 300, but the partial tiles of that size have been replaced by full ones since."""
        leaves = mixed(1000)
        log = PublishedLog().grow(leaves[:300])
        note = log.files["checkpoint"]
        log.grow(leaves[300:], publish=False)
        log.forget_partials()
        log.files["checkpoint"] = note
        assert not any(path.startswith("tile/0/001.p/") for path in log.files)
        found = judged(log)
        assert found.findings == []
        assert found.leaves == 300

    def test_a_thousand_clean_logs(self, long_campaign: bool) -> None:
        chance = random.Random(7)
        clean = 1000 if long_campaign else 60
        for _ in range(clean):
            leaves, log = mixed(chance.randrange(700)), PublishedLog()
            while len(log.leaves) < len(leaves):
                log.grow(leaves[len(log.leaves) : len(log.leaves) + chance.randrange(1, 300)])
                if chance.random() < 0.5:
                    log.forget_partials()
            if leaves:
                assert judged(log).findings == []
        print(f"{clean} clean logs: 0 false alarms")

    def test_progress_is_told(self, stored: PublishedLog) -> None:
        told: list[tuple[int, int]] = []
        audit(stored.read, stored.trust, lambda done, size: told.append((done, size)))
        assert told == [(256, 600), (512, 600), (600, 600)]


class TestMutations:
    """Single bytes of the files that the checkpoint's tree consists of."""

    def test_every_one_is_found_and_located(self, stored: PublishedLog, long_campaign: bool) -> None:
        tree = ["checkpoint", "tile/entries/000", "tile/entries/001", "tile/entries/002.p/88", "tile/0/000", "tile/0/001",
                "tile/0/002.p/88", "tile/1/000.p/2"]  # fmt: skip
        assert set(tree) <= set(stored.files)
        chance = random.Random(1)
        trials = 10_000 if long_campaign else 600
        counts = {"found": 0, "located": 0}
        for trial in range(trials):
            path = (
                tree[trial % len(tree)]
                if trial % 2
                else chance.choices(tree, [len(stored.files[one]) for one in tree])[0]
            )
            data = stored.files[path]
            at, with_ = chance.randrange(len(data)), chance.randrange(1, 256)
            found = judged(changed(stored, {path: flipped(data, at, with_)}))
            assert not found.sound, f"{path} byte {at} ^ {with_:#x} was not found"
            counts["found"] += 1
            wrong = [one for one in found.findings if not one.where.startswith(path)]
            assert not wrong, f"{path} byte {at} ^ {with_:#x}: {found.findings}"
            counts["located"] += 1
            if path.startswith("tile/entries"):
                self._names_the_leaf(found, path, data, at)
        print(f"{trials} single-byte mutations: {counts}")
        assert counts == {"found": trials, "located": trials}

    @staticmethod
    def _names_the_leaf(found: Audit, path: str, data: bytes, at: int) -> None:
        if found.findings[0].kind == "bundle":
            return  # the length of a leaf was hit: nothing behind it can be read
        tile, start = parse_path(path), 0
        for place, leaf in enumerate(decode_bundle(tile, data)):
            if start <= at < start + 2 + len(leaf):
                expected = f"{path}, leaf {tile.first_leaf + place}"
                assert expected in {one.where for one in found.findings}
                return
            start += 2 + len(leaf)

    @pytest.mark.parametrize(
        "path", ["tile/1/000", "tile/1/001.p/1", "tile/2/000.p/1", "tile/0/128", "tile/entries/257.p/208"]
    )
    def test_in_a_log_with_three_levels(self, path: str) -> None:
        log = PublishedLog().grow(mixed(66_000))
        found = judged(changed(log, {path: flipped(log.files[path], 5)}))
        assert found.findings
        assert all(one.where.startswith(path) for one in found.findings), found.findings

    @pytest.mark.parametrize("first", ["tile/entries/000", "tile/0/000", "tile/1/000.p/2"])
    @pytest.mark.parametrize("second", ["tile/entries/001", "tile/0/001", "tile/entries/002.p/88", "tile/0/002.p/88"])
    def test_two_damaged_files_are_both_named(self, stored: PublishedLog, first: str, second: str) -> None:
        found = judged(changed(stored, {one: flipped(stored.files[one], 40) for one in (first, second)}))
        for path in (first, second):
            assert any(path in f"{one.where} {one.detail}" for one in found.findings), found.findings

    def test_a_leaf_and_its_hash_together(self, stored: PublishedLog) -> None:
        """Who alters a leaf can alter its tiles as well, all the way up; the signed root cannot be altered."""
        leaves = [*stored.leaves]
        leaves[3] = leaves[3].replace(b"decision", b"outcomes")
        forged = PublishedLog().grow(leaves)
        forged.files["checkpoint"] = stored.files["checkpoint"]
        assert "root" in kinds(judged(forged))


class TestFiles:
    @pytest.mark.parametrize(
        "path", ["tile/entries/000", "tile/entries/002.p/88", "tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"]
    )
    def test_a_missing_one(self, stored: PublishedLog, path: str) -> None:
        found = judged(changed(stored, {path: None}))
        assert [one.where for one in found.findings] == [path]
        assert "is missing" in found.findings[0].detail

    def test_bundle_and_tile_missing_together(self, stored: PublishedLog) -> None:
        found = judged(changed(stored, {"tile/entries/001": None, "tile/0/001": None}))
        assert [one.where for one in found.findings] == ["tile/0/001", "tile/entries/001", "checkpoint"]
        assert "256 and following can be read nowhere" in found.findings[-1].detail
        assert found.leaves == 256

    def test_no_checkpoint(self, stored: PublishedLog) -> None:
        found = judged(changed(stored, {"checkpoint": None}))
        assert (kinds(found), found.checkpoint, found.sound) == (["checkpoint"], None, False)

    @pytest.mark.parametrize(
        "path", ["tile/entries/000", "tile/entries/002.p/88", "tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2"]
    )
    @pytest.mark.parametrize("by", [1, 32, 300])
    def test_one_cut_short_or_extended(self, stored: PublishedLog, path: str, by: int) -> None:
        data = stored.files[path]
        for other in (data[:-by], data + data[:by], data + b"\0" * by, b""):
            if other == data:
                continue
            found = judged(changed(stored, {path: other}))
            assert found.findings
            assert all(one.where.startswith(path) for one in found.findings)

    def test_a_partial_file_filled_up_to_256(self, stored: PublishedLog) -> None:
        full = PublishedLog().grow([*stored.leaves, *mixed(168)])
        for path, filled in (("tile/entries/002.p/88", "tile/entries/002"), ("tile/0/002.p/88", "tile/0/002")):
            found = judged(changed(stored, {path: full.files[filled]}))
            assert [one.where for one in found.findings] == [path]

    def test_swapped_files(self, stored: PublishedLog) -> None:
        one, other = "tile/entries/000", "tile/entries/001"
        found = judged(changed(stored, {one: stored.files[other], other: stored.files[one]}))
        assert not found.sound
        assert any(one in finding.where for finding in found.findings)
        assert any(other in finding.where for finding in found.findings)

    def test_an_unreadable_bundle_does_not_hide_another(self, stored: PublishedLog) -> None:
        broken = {
            "tile/entries/000": b"\xff",
            "tile/entries/002.p/88": flipped(stored.files["tile/entries/002.p/88"], 9),
        }
        wheres = [one.where for one in judged(changed(stored, broken)).findings]
        assert wheres[0] == "tile/entries/000"
        assert wheres[1].startswith("tile/entries/002.p/88, leaf 512")

    def test_the_findings_are_bounded_and_counted(self, stored: PublishedLog) -> None:
        found = Audit()
        for number in range(MAX_FINDINGS + 5):
            found.add("leaf", str(number), "x")
        assert (len(found.findings), found.omitted) == (MAX_FINDINGS, 5)

    def test_an_error_of_reading_passes(self, stored: PublishedLog) -> None:
        def read(path: str) -> bytes | None:
            if path == "tile/0/001":
                raise OSError(5, "Input/output error", path)
            return stored.read(path)

        with pytest.raises(OSError, match="Input/output"):
            audit(read, stored.trust)

    def test_lines_for_people(self) -> None:
        assert list(locate([Finding("tile", "tile/0/000", "is missing")])) == ["tile: tile/0/000: is missing"]


class TestCheckpoint:
    def test_of_a_log_nobody_trusts(self, stored: PublishedLog) -> None:
        other = PublishedLog(key=Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
        found = audit(stored.read, other.trust)
        assert (kinds(found), found.checkpoint) == (["checkpoint"], None)

    def test_of_another_tree(self, stored: PublishedLog) -> None:
        other = PublishedLog().grow(reversed(stored.leaves))
        found = judged(changed(stored, {"checkpoint": other.files["checkpoint"]}))
        assert "root" in kinds(found)

    def test_of_more_leaves_than_there_are(self, stored: PublishedLog) -> None:
        more = PublishedLog().grow([*stored.leaves, *mixed(50)])
        found = judged(changed(stored, {"checkpoint": more.files["checkpoint"]}))
        assert not found.sound
        assert any(one.where == "tile/entries/002.p/138" for one in found.findings)

    def test_of_fewer_leaves_hides_nothing_in_those(self) -> None:
        """An old checkpoint of the same log is sound: its tree is a prefix. Its age is for the reader to judge."""
        leaves = mixed(600)
        log = PublishedLog().grow(leaves[:100])
        old = log.files["checkpoint"]
        log.grow(leaves[100:])
        found = judged(changed(log, {"checkpoint": old}))
        assert found.sound
        assert found.leaves == 100


class TestRecords:
    def test_a_leaf_that_is_no_record(self) -> None:
        log = PublishedLog().grow([*mixed(5), b"{}", b"", b"\xff" * 2000])
        found = judged(log)
        assert kinds(found) == ["leaf"] * 3
        assert [one.where for one in found.findings] == [f"tile/entries/000.p/8, leaf {index}" for index in (5, 6, 7)]

    def test_reordered_leaves_of_one_producer_are_no_problem(self) -> None:
        leaves = Writer().leaves(50)
        late = [*leaves[:10], *leaves[20:], *leaves[10:20]]
        assert judged(PublishedLog().grow(late)).findings == []

    def test_a_gap_is_named(self) -> None:
        leaves = Writer().leaves(50)
        found = judged(PublishedLog().grow([*leaves[:10], *leaves[12:]]))
        (one,) = found.findings
        assert (one.kind, one.detail) == ("gap", "records 10 to 11 are missing")
        assert "profiles-1/0" in one.where


class TestBodies:
    @staticmethod
    def database(log: PublishedLog, folder: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(folder / "records.sqlite")
        connection.executescript(statements())
        for index, data in enumerate(log.leaves):
            leaf = parse_leaf(data)
            connection.execute("INSERT INTO leaf VALUES (?, 1, ?)", (index, data))
            body = body_of(leaf.producer, int(leaf.epoch[:8], 16), leaf.seq)
            connection.execute("INSERT INTO body VALUES (?, ?, ?)", (index, SALT, body))
        connection.commit()
        return connection

    @staticmethod
    def without_triggers(connection: sqlite3.Connection) -> None:
        """As somebody who can write the file."""
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")

    def test_sound(self, tmp_path: Path) -> None:
        log = PublishedLog().grow(mixed(300))
        assert check_bodies(self.database(log, tmp_path), log.read, 300) == ([], 300)

    def test_not_yet_published_rows_are_left_alone(self, tmp_path: Path) -> None:
        leaves = mixed(300)
        log = PublishedLog().grow(leaves[:200])
        connection = self.database(PublishedLog().grow(leaves), tmp_path)
        assert check_bodies(connection, log.read, 200) == ([], 200)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                "UPDATE body SET body = CAST(body || ' ' AS BLOB) WHERE idx = 270",
                "the body is not what its leaf commits to",
            ),
            ("UPDATE body SET salt = zeroblob(32) WHERE idx = 270", "the body is not what its leaf commits to"),
            (
                "UPDATE body SET body = (SELECT body FROM body WHERE idx = 3) WHERE idx = 270",
                "not what its leaf commits to",
            ),
            (
                "UPDATE body SET salt = CAST(salt || substr(body, 1, 8) AS BLOB), body = substr(body, 9) WHERE idx = 270",
                "salt of 40 bytes",
            ),
            ("DELETE FROM body WHERE idx = 270", "has no body"),
            ("DELETE FROM leaf WHERE idx = 270", "is published and not in the database"),
            (
                "UPDATE leaf SET leaf = (SELECT leaf FROM leaf WHERE idx = 3) WHERE idx = 270",
                "not the one that was published",
            ),
        ],
    )
    def test_an_altered_row_is_named(self, tmp_path: Path, change: str, said: str) -> None:
        log = PublishedLog().grow(mixed(300))
        connection = self.database(log, tmp_path)
        with pytest.raises(sqlite3.Error):
            connection.execute(change)
        self.without_triggers(connection)
        connection.execute(change)
        found, checked = check_bodies(connection, log.read, 300)
        assert checked == 300
        assert [(one.kind, one.where) for one in found] == [("body", "record 270")]
        assert said in found[0].detail

    def test_a_table_that_was_replaced_by_one_of_text(self, tmp_path: Path) -> None:
        log = PublishedLog().grow(mixed(3))
        connection = self.database(log, tmp_path)
        connection.executescript(
            "DROP TABLE body; CREATE TABLE body (idx, salt, body); INSERT INTO body VALUES (1, 'a', 'b')"
        )
        found, _ = check_bodies(connection, log.read, 3)
        assert [one.detail for one in found] == [
            "has no body in the database", "has a body in the database that is no bytes", "has no body in the database",
        ]  # fmt: skip

    def test_every_flipped_byte_of_a_body_is_found(self, tmp_path: Path) -> None:
        log = PublishedLog().grow(mixed(2))
        connection = self.database(log, tmp_path)
        self.without_triggers(connection)
        (body,) = connection.execute("SELECT body FROM body WHERE idx = 1").fetchone()
        for at in range(len(body)):
            connection.execute("UPDATE body SET body = ? WHERE idx = 1", (flipped(body, at),))
            assert [one.where for one in check_bodies(connection, log.read, 2)[0]] == ["record 1"]

    def test_a_bundle_that_the_audit_has_named_is_passed_over(self, tmp_path: Path) -> None:
        log = PublishedLog().grow(mixed(300))
        connection = self.database(log, tmp_path)
        for files in ({"tile/entries/000": None}, {"tile/entries/000": b"\xff"}):
            assert check_bodies(connection, changed(log, files).read, 300) == ([], 44)

    def test_a_partial_bundle_that_was_replaced_by_a_full_one(self, tmp_path: Path) -> None:
        leaves = mixed(256)
        log = PublishedLog().grow(leaves)
        assert "tile/entries/000.p/200" not in log.files
        connection = self.database(log, tmp_path)
        assert check_bodies(connection, log.read, 200) == ([], 200)
