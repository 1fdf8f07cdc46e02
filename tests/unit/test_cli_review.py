"""What a reviewer runs on real files: verify, audit and mirror; and the questions to a store that is not there."""

import functools
import http.server
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Shell
from published_log import SALT, PublishedLog, Writer, body_of, stored

from sidecar.oversight.evidence import make
from sidecar.oversight.schema import statements
from sidecar.record import Leaf, body_digest, encode_digest, encode_leaf


def database(log: PublishedLog, file: Path) -> sqlite3.Connection:
    """The store's rows: bodies of a single `Writer` of epoch 1."""
    connection = sqlite3.connect(file)
    connection.executescript(statements())
    connection.executemany("INSERT INTO leaf VALUES (?, 1, ?)", enumerate(log.leaves))
    bodies = ((index, SALT, body_of("profiles-1", 1, index)) for index in range(len(log.leaves)))
    connection.executemany("INSERT INTO body VALUES (?, ?, ?)", bodies)
    connection.commit()
    return connection


@pytest.fixture
def log() -> PublishedLog:
    return PublishedLog().grow(Writer().leaves(300))


class TestVerify:
    @pytest.fixture
    def file(self, log: PublishedLog, tmp_path: Path) -> Path:
        stored(log, tmp_path)
        path = tmp_path / "7.tlog-proof"
        path.write_bytes(make(log.proof(7), log.leaves[7], SALT, body_of("profiles-1", 1, 7)))
        return path

    def test_proven(self, shell: Shell, file: Path) -> None:
        ran = shell("oversight", "verify", file, "--trust", file.parent / "trust.txt")
        assert (ran.code, ran.err) == (0, "")
        assert "proven: record 7 (decision, profiles-1, " in ran.out
        assert "oversight.test/log of size 300" in ran.out
        assert "Not proven: " in ran.out

    def test_as_json(self, shell: Shell, file: Path) -> None:
        found = json.loads(shell("oversight", "verify", file, "--json", "--trust", file.parent / "trust.txt").out)
        assert (found["index"], found["tree_size"], found["body"]["details"]["seq"]) == (7, 300, 7)

    @pytest.mark.parametrize("at", [0, 30, 200, 500, -1])
    def test_altered(self, shell: Shell, file: Path, at: int) -> None:
        data = bytearray(file.read_bytes())
        data[at] ^= 1
        file.write_bytes(data)
        ran = shell("oversight", "verify", file, "--trust", file.parent / "trust.txt")
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"{file}: ")
        assert len(ran.err.splitlines()) == 1

    @pytest.mark.parametrize("content", [b"", b"\xff", b"hello\n", b"c2sp.org/tlog-proof@v1\n"])
    def test_no_proof_at_all(self, shell: Shell, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        assert shell("oversight", "verify", file, "--trust", file.parent / "trust.txt").code == 1

    def test_missing_files_and_folders(self, shell: Shell, file: Path) -> None:
        trust = file.parent / "trust.txt"
        assert "none: No such file" in shell.refused("oversight", "verify", file.parent / "none", "--trust", trust)
        assert "Is a directory" in shell.refused("oversight", "verify", file.parent, "--trust", trust)
        assert "none: cannot be read: " in shell.refused("oversight", "verify", file, "--trust", file.parent / "none")
        assert "Is a directory" in shell.refused("oversight", "verify", file, "--trust", file.parent)

    @pytest.mark.parametrize("trust", ["", "log x\nquorum none\n", "quorum none", "log a\n", "\x00"])
    def test_no_trust_file(self, shell: Shell, file: Path, trust: str) -> None:
        (file.parent / "trust.txt").write_text(trust)
        line_or_finding = shell("oversight", "verify", file, "--trust", file.parent / "trust.txt")
        assert line_or_finding.code == 2
        assert "is no trust file" in line_or_finding.err

    def test_a_body_that_is_no_json_and_a_leaf_that_writes_on_the_terminal(self, shell: Shell, tmp_path: Path) -> None:
        body = b"\xff\x1b[2J"
        leaf = encode_leaf(Leaf(type="open", producer="[red]p\x1b[31m:smile:", slot=0, epoch="e", seq=0, prev=None, time="t",
                                call_id=None, body=encode_digest(body_digest(SALT, body))))  # fmt: skip
        log = PublishedLog().grow([leaf])
        stored(log, tmp_path)
        file = tmp_path / "0.tlog-proof"
        file.write_bytes(make(log.proof(0), leaf, SALT, body))
        ran = shell("oversight", "verify", file, "--trust", tmp_path / "trust.txt")
        assert ran.code == 0
        assert "[red]p\N{REPLACEMENT CHARACTER}[31m:smile:" in ran.out
        found = json.loads(shell("oversight", "verify", file, "--json", "--trust", tmp_path / "trust.txt").out)
        assert found["body"] == {"base64": "/xtbMko="}


class TestAudit:
    def test_sound(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        tiles = stored(log, tmp_path)
        ran = shell("oversight", "audit", tiles, "--trust", tmp_path / "trust.txt")
        assert (ran.code, ran.out, ran.err) == (0, "300 records of 1 producers read: sound\n", "")

    def test_with_bodies(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        tiles = stored(log, tmp_path)
        odd = tmp_path / "re?cords#1 %41.sqlite"
        database(log, odd).close()
        ran = shell("oversight", "audit", tiles, "--trust", tmp_path / "trust.txt", "--database", odd)
        assert (ran.code, ran.out) == (0, "300 records of 1 producers read, 300 bodies: sound\n")

    def test_the_database_is_not_written(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        tiles = stored(log, tmp_path)
        file = tmp_path / "records.sqlite"
        database(log, file).close()
        before = file.read_bytes()
        shell("oversight", "audit", tiles, "--trust", tmp_path / "trust.txt", "--database", file)
        assert file.read_bytes() == before

    def test_a_damaged_file(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        tiles = stored(log, tmp_path)
        file = tiles / "tile/entries/000"
        file.write_bytes(file.read_bytes().replace(b"decision", b"outcomes", 1))
        ran = shell("oversight", "audit", tiles, "--trust", tmp_path / "trust.txt")
        assert ran.code == 1
        assert ran.out.splitlines() == [
            "leaf: tile/entries/000, leaf 1: is not what was hashed into the log",
            "299 records of 1 producers read: 1 findings",
        ]

    def test_as_json(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        tiles = stored(log, tmp_path)
        (tiles / "tile/0/000").unlink()
        ran = shell("oversight", "audit", tiles, "--json", "--trust", tmp_path / "trust.txt")
        assert ran.code == 1
        assert json.loads(ran.out) == {
            "sound": False, "size": 300, "leaves": 300, "producers": {"profiles-1": 300}, "bodies": None, "omitted": 0,
            "findings": [{"kind": "tile", "where": "tile/0/000", "detail": "is missing"}],
        }  # fmt: skip

    def test_an_altered_body(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        tiles = stored(log, tmp_path)
        connection = database(log, tmp_path / "records.sqlite")
        connection.execute("DROP TRIGGER body_no_update")
        connection.execute("UPDATE body SET body = CAST('{}' AS BLOB) WHERE idx = 4")
        connection.commit()
        connection.close()
        ran = shell(
            "oversight", "audit", tiles, "--trust", tmp_path / "trust.txt", "--database", tmp_path / "records.sqlite"
        )
        assert ran.code == 1
        assert ran.out.startswith("body: record 4: the body is not what its leaf commits to\n")

    def test_an_empty_folder(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        stored(log, tmp_path)
        (tmp_path / "empty").mkdir()
        ran = shell("oversight", "audit", tmp_path / "empty", "--trust", tmp_path / "trust.txt")
        assert (ran.code, ran.err) == (1, "")
        assert "checkpoint: checkpoint: there is none" in ran.out

    def test_a_folder_where_a_file_should_be_and_the_reverse(
        self, shell: Shell, log: PublishedLog, tmp_path: Path
    ) -> None:
        tiles = stored(log, tmp_path)
        (tiles / "tile/0/000").unlink()
        (tiles / "tile/0/000").mkdir()
        ran = shell("oversight", "audit", tiles, "--trust", tmp_path / "trust.txt")
        assert (ran.code, "tile: tile/0/000: is missing" in ran.out) == (1, True)
        for file in (tiles / "tile").rglob("*"):
            if file.is_file():
                file.unlink()
        for folder in sorted((tiles / "tile").rglob("*"), reverse=True):
            folder.rmdir()
        (tiles / "tile").rmdir()
        (tiles / "tile").write_text("a file")
        assert shell("oversight", "audit", tiles, "--trust", tmp_path / "trust.txt").code == 1

    def test_what_cannot_be_audited(self, shell: Shell, log: PublishedLog, tmp_path: Path) -> None:
        tiles, trust = stored(log, tmp_path), tmp_path / "trust.txt"
        assert "is no folder" in shell.refused("oversight", "audit", tmp_path / "none", "--trust", trust)
        assert "is no folder" in shell.refused("oversight", "audit", trust, "--trust", trust)
        assert "cannot be read" in shell.refused("oversight", "audit", tiles, "--trust", tmp_path / "none")
        for name in ("none.sqlite", "tiles"):
            line = shell.refused("oversight", "audit", tiles, "--trust", trust, "--database", tmp_path / name)
            assert f"{tmp_path / name}: is no file" in line
        (tmp_path / "text.sqlite").write_text("no database " * 100)
        line = shell.refused("oversight", "audit", tiles, "--trust", trust, "--database", tmp_path / "text.sqlite")
        assert "is no database of the store" in line
        sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE x (y)").connection.close()
        line = shell.refused("oversight", "audit", tiles, "--trust", trust, "--database", tmp_path / "other.sqlite")
        assert "is no database of the store" in line


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A mirror; below /broken it fails, below /cut it promises more than it sends."""

    def do_GET(self) -> None:
        if self.path.startswith("/broken"):
            self.send_error(500)
        elif self.path.startswith("/cut"):
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"short")
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


class TestMirror:
    @pytest.fixture
    def url(self, log: PublishedLog, tmp_path: Path) -> Iterator[str]:
        tiles = stored(log, tmp_path)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tiles)))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
        server.server_close()

    def test_a_sound_one(self, shell: Shell, url: str, tmp_path: Path) -> None:
        for slash in ("", "/"):
            ran = shell("oversight", "audit", f"{url}{slash}", "--trust", tmp_path / "trust.txt")
            assert (ran.code, ran.out) == (0, "300 records of 1 producers read: sound\n")

    def test_one_without_a_file(self, shell: Shell, url: str, tmp_path: Path) -> None:
        (tmp_path / "tiles/tile/0/000").unlink()
        ran = shell("oversight", "audit", url, "--trust", tmp_path / "trust.txt")
        assert (ran.code, "tile: tile/0/000: is missing" in ran.out) == (1, True)

    @pytest.mark.parametrize(("path", "said"), [("/broken", "500"), ("/cut", "cannot be fetched")])
    def test_one_that_fails_is_no_finding(self, shell: Shell, url: str, tmp_path: Path, path: str, said: str) -> None:
        assert said in shell.refused("oversight", "audit", f"{url}{path}", "--trust", tmp_path / "trust.txt")

    @pytest.mark.parametrize("bad", ["http://127.0.0.1:1", "http://", "https://[::", "http://127.0.0.1:1/a b\x01"])
    def test_nobody_there(self, shell: Shell, log: PublishedLog, tmp_path: Path, bad: str) -> None:
        stored(log, tmp_path)
        assert shell.refused("oversight", "audit", bad, "--trust", tmp_path / "trust.txt")


class TestStore:
    """The commands that ask a store, without one."""

    @pytest.fixture
    def identity(self, tmp_path: Path) -> list[str]:
        arguments = ["--store", "127.0.0.1:1"]
        for name in ("ca", "cert", "key"):
            (tmp_path / name).write_text("no PEM")
            arguments += [f"--{name}", str(tmp_path / name)]
        return arguments

    def test_missing_files(self, shell: Shell, tmp_path: Path, identity: list[str]) -> None:
        (tmp_path / "key").unlink()
        line = shell.refused("oversight", "search", *identity)
        assert f"{tmp_path}/key: cannot be read" in line

    def test_nobody_answers(self, shell: Shell, identity: list[str], tmp_path: Path) -> None:
        for command in (["search"], ["prove", "3", "-o", str(tmp_path / "3.tlog-proof")]):
            line = shell.refused("oversight", *command, *identity)
            assert "127.0.0.1:1: the store does not answer: UNAVAILABLE" in line
        assert not (tmp_path / "3.tlog-proof").exists()

    def test_a_bad_limit(self, shell: Shell, identity: list[str]) -> None:
        assert shell("oversight", "search", "--limit", "-1", *identity).code == 2
