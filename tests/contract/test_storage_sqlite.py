"""What only the SQLite implementation promises: INSERT-only tables, one process, durability settings."""

import sqlite3
import subprocess
import sys

import pytest
from store_rig import CLOCK, Producer

from sidecar.errors import ConfigurationError
from sidecar.oversight.ingest import check_batch
from sidecar.oversight.sequencer import place
from sidecar.oversight.sqlite import SqliteStorage, connect
from sidecar.oversight.storage import Discovery, PublishedCheckpoint, Statement

pytestmark = pytest.mark.contract


@pytest.fixture
def path(tmp_path):
    """A database with a row in every table that takes INSERT only."""
    storage = SqliteStorage(tmp_path / "log.sqlite")
    producer = Producer().run(3)
    batch = check_batch(*producer.batch(0, 3), producer.key.public_key())
    with storage.transaction() as transaction:
        place(transaction, batch, now=CLOCK)
    stream = next(iter(storage.heads()))
    storage.discover([Discovery(kind="bad_body", stream=stream, seq=0, index=0, detail="d", since=CLOCK)])
    storage.add_epoch_key("p", 0, "e", b"k")
    token = storage.acquire("integrate", "a", now=0, ttl=1)
    storage.sign(Statement(size=3, root=bytes(32)), token)
    storage.publish(PublishedCheckpoint(size=3, note=b"n", at=CLOCK), token)
    storage.close()
    return tmp_path / "log.sqlite"


@pytest.mark.parametrize(
    "table", ["leaf", "body", "run", "batch", "stream", "discovery", "epoch_key", "signed", "checkpoint"]
)
def test_rows_are_never_changed_removed_or_replaced(path, table):
    database = sqlite3.connect(path)
    before = database.execute(f"SELECT * FROM {table}").fetchall()
    assert before
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    attempts = [f"UPDATE {table} SET {columns[-1]} = {columns[-1]}", f"DELETE FROM {table}",
                f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
                f"REPLACE INTO {table} SELECT * FROM {table} LIMIT 1"]  # fmt: skip
    for attempt in attempts:
        with pytest.raises(sqlite3.IntegrityError, match=r"INSERT only|no second row"):
            database.execute(attempt)
    database.rollback()
    assert database.execute(f"SELECT * FROM {table}").fetchall() == before
    database.close()


@pytest.mark.parametrize(
    ("table", "columns"),
    [("stream", "NULL, producer, slot, epoch, attested"), ("discovery", "NULL, kind, stream, seq, idx, detail, since"),
     ("epoch_key", "NULL, producer, slot, epoch, sealed")],
)  # fmt: skip
def test_replace_by_another_unique_key_is_refused(path, table, columns):
    database = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError, match="INSERT only"):
        database.execute(f"REPLACE INTO {table} SELECT {columns} FROM {table}")
    database.close()


def test_the_order_trigger_costs_one_seek_not_a_scan(path):
    database = sqlite3.connect(path)
    (plan,) = database.execute("EXPLAIN QUERY PLAN SELECT coalesce(max(idx) + 1, 0) FROM leaf").fetchall()
    assert plan[3] == "SEARCH leaf"
    database.close()


def test_commits_are_synchronous(path):
    database = connect(path)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA secure_delete").fetchone() == (1,)
    database.close()


def test_one_process_only(path):
    storage = SqliteStorage(path)
    program = (
        "import sys, pathlib; from sidecar.oversight.sqlite import SqliteStorage as S; S(pathlib.Path(sys.argv[1]))"
    )
    other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "another process is using this database" in other.stderr
    storage.close()


def test_a_lease_of_a_process_that_is_gone_is_free_at_once(path):
    first = SqliteStorage(path)
    before = first.acquire("integrate", "killed", now=100.0, ttl=1000)
    first.close()
    storage = SqliteStorage(path)
    token = storage.acquire("integrate", "successor", now=100.1, ttl=1000)
    assert token is not None
    assert token > before
    storage.close()


def test_another_version_or_another_file_is_refused(path, tmp_path):
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 7")
    database.close()
    with pytest.raises(ConfigurationError, match="another version"):
        SqliteStorage(path)
    (tmp_path / "text").write_text("not a database at all, but long enough to look at" * 20)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqliteStorage(tmp_path / "text")
    with pytest.raises(ConfigurationError, match="cannot be created"):
        SqliteStorage(tmp_path / "no" / "folder")
