"""Files that are no directory: damaged, of another kind, or not made by us at all."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.attributes.directory import Directory
from sidecar.attributes.snapshots import BLOCK, PAGE, Snapshot, SnapshotWriter
from sidecar.errors import IntegrityError

NOW = 1_795_000_000.0


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "people.snapshot"


def test_damage_is_located_to_its_block(tmp_path: Path) -> None:
    target = tmp_path / "big"
    with SnapshotWriter(target, "directory") as writer:
        writer.section("a")
        writer.write(os.urandom(5 * BLOCK // 2))
        writer.section("b")
        writer.write(os.urandom(BLOCK))
        writer.commit(built_at=NOW, counts={})
    read = Snapshot(target, "directory")
    assert len(read.section("a")) == 5 * BLOCK // 2
    assert len(read.section("b")) == BLOCK
    with target.open("r+b") as file:
        file.seek(PAGE + 2 * BLOCK + 17)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(IntegrityError, match=f"offset {PAGE + 2 * BLOCK}"):
        Snapshot(target, "directory")


@given(data=st.binary(max_size=6000))
@settings(max_examples=100, deadline=None)
def test_garbage_is_never_a_directory(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    target = tmp_path_factory.mktemp("g") / "garbage"
    target.write_bytes(data)
    with pytest.raises(IntegrityError):
        Directory(target, 3600)


@pytest.mark.parametrize(
    "sections", [{}, {"people.rows": b""}, {"people.hashes": b"1234567", "people.hashes.fan": b"12"}]
)
def test_a_whole_file_with_other_content_is_refused(target: Path, sections: dict[str, bytes]) -> None:
    with SnapshotWriter(target, "directory") as writer:
        for name, data in sections.items():
            writer.section(name)
            writer.write(data)
        writer.commit(built_at=NOW, counts={})
    with pytest.raises(IntegrityError, match="sections"):
        Directory(target, 3600)


def test_an_index_is_no_directory(target: Path) -> None:
    with SnapshotWriter(target, "index") as writer:
        writer.commit(built_at=NOW, counts={})
    with pytest.raises(IntegrityError, match="'index 1', not 'directory 1'"):
        Directory(target, 3600)


def test_a_pipe_does_not_hang_the_start(target: Path) -> None:
    os.mkfifo(target)
    with pytest.raises(IntegrityError, match="not a regular file"):
        Directory(target, 3600)
