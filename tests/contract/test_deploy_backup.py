"""Backups of the store, made while records come in, and a store that goes on from one of them."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from store_rig import Producer, StoreProcess

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.oversight import sqlite
from sidecar.oversight.backup import Sources, copy, forget
from sidecar.record import pseudonym

REVIEWER = "spiffe://test/reviewer"
CHUNK = 50


def sidecar(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    with StoreProcess(tmp_path / "store", interval="50ms") as store:
        yield store


async def send(store, producer, identity, *spans):
    """The batches' promises: what the store has said it holds."""
    async with store.channel("append", identity) as channel:
        call = oversight_pb2_grpc.OversightStub(channel).Append()
        await call.write(producer.open(store.sealing_key.public_key()))
        for span in spans:
            await call.write(producer.message(*span))
        await call.done_writing()
        return [one async for one in call]


async def searched(store, **asked):
    async with store.channel("query", REVIEWER) as channel:
        return (await oversight_pb2_grpc.QueryStub(channel).Search(pb.SearchRequest(limit=1000, **asked))).records


async def settled(store, count: int, **asked) -> int:
    """How many are found, once the derived databases have followed the log; what is still missing then is missing."""
    for _ in range(600):
        found = len(await searched(store, **asked))
        if found == count:
            break
        await asyncio.sleep(0.1)
    return found


def restored(store: StoreProcess, backup: Path, folder: Path) -> StoreProcess:
    """As docs/deploying.md says: the backup's files where oversight.yaml names them, the keys from where they are kept."""
    other = StoreProcess(folder)
    for name in ("tls.key", "tls.pem", "ca.pem", "log.pem", "seal.pem", "kek"):
        shutil.copyfile(store.folder / name, folder / name)
    other.authority, other.signer, other.log_key, other.sealing_key = (
        store.authority, store.signer, store.log_key, store.sealing_key,
    )  # fmt: skip
    for name, there in (("records.sqlite", "log.sqlite"), ("records.sqlite.store-key.pem", "log.sqlite.store-key.pem"),
                        ("keys.sqlite", "keys.sqlite"), ("producers.json", "producers.jsonl")):  # fmt: skip
        shutil.copyfile(backup / name, folder / there)
    shutil.copytree(backup / "log", folder / "tiles")
    return other


async def test_a_store_goes_on_from_a_backup_made_under_load(store, tmp_path):
    producer = Producer()
    identity = store.register(producer)
    store.start()
    async with store.channel("keys", identity) as channel:
        issued = await oversight_pb2_grpc.KeyServiceStub(channel).GetPeriodKeys(
            pb.GetPeriodKeysRequest(producer=producer.name)
        )
    alice = pseudonym(issued.keys[0].key, "user", "alice")
    producer.record("open")
    for _ in range(20 * CHUNK - 1):
        producer.record(subjects=[alice])

    async def append():
        for first in range(0, 20 * CHUNK, CHUNK):
            await send(store, producer, identity, (first, first + CHUNK))

    appending = asyncio.ensure_future(append())
    backups = []
    while len(backups) < 3:
        await asyncio.sleep(0.2)
        ran = await asyncio.to_thread(
            sidecar, "oversight", "backup", tmp_path / f"b{len(backups)}", "--config", store.settings, "--json"
        )
        assert ran.returncode == 0, ran.stderr
        backups.append(json.loads(ran.stdout))
    await appending
    store.stop()

    for number, one in enumerate(backups):
        folder = tmp_path / f"restored-{number}"
        folder.mkdir()
        with restored(store, Path(one["folder"]), folder) as again:
            assert 0 <= one["signed"] <= one["records"]
            again.start()
            found = await searched(again, producer=producer.name)
            held = [record.leaf for record in found]
            assert held == [item.leaf for item in producer.items[: len(held)]], "a whole beginning of what was sent"
            assert len(held) <= one["records"]
            # Everybody's openings are there: nothing was lost between the two databases, and new ones are taken over.
            alices = {"subject": "alice", "subject_kind": "user", "producer": producer.name}
            assert await settled(again, max(0, len(held) - 1), **alices) == max(0, len(held) - 1)
            await send(again, producer, identity, *((first, first + CHUNK) for first in range(0, 20 * CHUNK, CHUNK)))
            assert await settled(again, 20 * CHUNK - 1, **alices) == 20 * CHUNK - 1
            assert again.stop() == 0
            trust = folder / "trust.txt"
            trust.write_text(f"log {again.signer.key}\nquorum none\n")
            audit = sidecar(
                "oversight", "audit", folder / "tiles", "--trust", trust, "--database", folder / "log.sqlite"
            )
            assert audit.returncode == 0, audit.stdout + audit.stderr


async def test_no_key_is_in_a_backup(store, tmp_path):
    producer = Producer().run(5)
    identity = store.register(producer)
    store.start()
    await send(store, producer, identity, (0, 5))
    ran = sidecar("oversight", "backup", tmp_path / "backups", "--config", store.settings)
    assert ran.returncode == 0, ran.stderr
    (made,) = (tmp_path / "backups").iterdir()
    assert made.stat().st_mode & 0o077 == 0
    held = {
        str(one.relative_to(made))
        for one in made.rglob("*")
        if one.is_file() and not str(one.relative_to(made)).startswith("log/tile")
    }
    assert held == {"records.sqlite", "records.sqlite.store-key.pem", "keys.sqlite", "producers.json", "log/checkpoint"}
    content = b"".join(one.read_bytes() for one in made.rglob("*") if one.is_file())
    for key in ("log.pem", "seal.pem", "kek", "tls.key"):
        assert (store.folder / key).read_bytes() not in content


async def test_old_ones_go_when_the_new_one_is_there(store, tmp_path):
    store.start()
    backups = tmp_path / "backups"
    for name in ("20200101T000000Z", "20200102T000000Z", "20200103T000000Z", "kept-by-hand"):
        (backups / name).mkdir(parents=True)
    ran = sidecar("oversight", "backup", backups, "--config", store.settings, "--keep", "2")
    assert ran.returncode == 0, ran.stderr
    left = sorted(one.name for one in backups.iterdir())
    assert left[0] == "20200103T000000Z"
    assert left[-1] == "kept-by-hand"
    assert len(left) == 3


def sources(folder: Path) -> Sources:
    return Sources(records=folder / "log.sqlite", keys=folder / "keys.sqlite", producers=folder / "producers.jsonl",
                   tiles=folder / "tiles")  # fmt: skip


def nothing(_part: str, _done: int, _of: int) -> None:
    pass


async def test_what_cannot_be_copied_leaves_nothing(store, tmp_path):
    with pytest.raises(ConfigurationError, match="not there"):
        copy(sources(store.folder), tmp_path / "x", nothing)
    producer = Producer().run(5)
    identity = store.register(producer)
    store.start()
    await send(store, producer, identity, (0, 5))
    store.stop()
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        copy(sources(store.folder), tmp_path / "there", nothing)
    moved = store.folder / "tiles" / "tile"
    moved.rename(store.folder / "gone")
    with pytest.raises(IntegrityError, match="do not lead to the signed root"):
        copy(sources(store.folder), tmp_path / "x", nothing)
    (store.folder / "gone").rename(moved)
    with sqlite.connect(store.folder / "keys.sqlite") as keys:
        keys.execute("UPDATE cursor SET idx = 1000000")
    keys.close()
    with pytest.raises(IntegrityError, match="openings of records that the log does not hold"):
        copy(sources(store.folder), tmp_path / "x", nothing)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.unfinished").exists()


def test_the_names_that_are_forgotten_are_those_of_backups(tmp_path):
    for name in ("20260101T000000Z", "20260102T000000Z", "20260102T000000Z.unfinished", "2026", "notes"):
        (tmp_path / name).mkdir()
    assert [one.name for one in forget(tmp_path, 1)] == ["20260101T000000Z"]
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        "2026",
        "20260102T000000Z",
        "20260102T000000Z.unfinished",
        "notes",
    ]


def test_the_command_s_arguments_are_those_of_the_chart(tmp_path):
    template = (Path(__file__).parents[2] / "helm" / "oversight" / "templates" / "backup.yaml").read_text()
    assert "args: [oversight, backup, /backup, --config, /etc/customhouse/oversight.yaml, --keep, " in template
    settings = tmp_path / "oversight.yaml"
    settings.write_text(yaml.safe_dump({}))
    ran = sidecar("oversight", "backup", tmp_path / "b", "--config", settings, "--keep", "28")
    assert ran.returncode == 2
    assert "missing" in ran.stderr
