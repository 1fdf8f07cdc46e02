"""What a reviewer runs: verify and audit on real files, and records of any content on a terminal."""

import functools
import http.server
import io
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from command_line import Shell
from published_log import SALT, PublishedLog, Writer, body_of
from rich.console import Console

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.cli.review import row, table
from sidecar.demo.pki import Authority
from sidecar.oversight.evidence import make
from sidecar.oversight.schema import statements
from sidecar.record import Leaf, body_digest, encode_digest, encode_leaf


def stored(log: PublishedLog, folder: Path) -> Path:
    """The log as tlog-tiles files, and a trust file beside."""
    for path, data in log.files.items():
        file = folder / "tiles" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "trust.txt").write_text(f"log {log.signer.key}\nquorum none\n")
    return folder / "tiles"


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


class Answering(oversight_pb2_grpc.QueryServicer):
    """A store that has one log, and pages of 4."""

    def __init__(self, log: PublishedLog) -> None:
        self.log = log
        self.asked: list[pb.SearchRequest] = []
        self.broken = False

    def record(self, index: int) -> pb.StoredRecord:
        body = body_of("profiles-1", 1, index)
        return pb.StoredRecord(
            index=index, leaf=self.log.leaves[index], salt=SALT, body=body, attested=True, standing="chain"
        )

    def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:  # noqa: N802
        self.asked.append(request)
        if request.person == "nobody":
            return pb.SearchResponse()
        if request.since == "yesterday":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "since is no RFC 3339 time")
        first = int(request.cursor or 0)
        last = min(first + min(request.limit, 4), 10)
        cursor = str(last) if last < 10 else ""
        return pb.SearchResponse(records=map(self.record, range(first, last)), next_cursor=cursor)

    def Prove(self, request: pb.ProveRequest, context: Any) -> pb.ProveResponse:  # noqa: N802
        if request.index >= len(self.log.leaves):
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such record")
        proof = "no proof" if self.broken else self.log.proof(request.index).decode()
        return pb.ProveResponse(record=self.record(request.index), proof=proof)


class TestAnsweringStore:
    @pytest.fixture
    def store(self, log: PublishedLog) -> Answering:
        return Answering(log)

    @pytest.fixture
    def asks(self, store: Answering, tmp_path: Path) -> Iterator[list[object]]:
        """The options that lead to it."""
        authority = Authority(tmp_path, "store", datetime.now(UTC))
        here, reviewer = (
            authority.issue("here", hosts=["localhost"]),
            authority.issue("ana", spiffe="spiffe://corp/ana"),
        )
        server = grpc.server(futures.ThreadPoolExecutor(2))
        oversight_pb2_grpc.add_QueryServicer_to_server(store, server)  # type: ignore[no-untyped-call]
        credentials = grpc.ssl_server_credentials(
            [(here.key.read_bytes(), here.cert.read_bytes())], authority.cert.read_bytes(), require_client_auth=True
        )
        port = server.add_secure_port("localhost:0", credentials)
        server.start()
        yield ["--store", f"localhost:{port}", "--ca", authority.cert, "--cert", reviewer.cert, "--key", reviewer.key]
        server.stop(None).wait()

    def test_search_goes_through_all_pages(self, shell: Shell, store: Answering, asks: list[object]) -> None:
        ran = shell("oversight", "search", "--reason", "no_rule", "--type", "decision", "--limit", 0, "--json", *asks)
        assert ran.code == 0
        assert [json.loads(line)["index"] for line in ran.out.splitlines()] == list(range(10))
        assert json.loads(ran.out.splitlines()[3])["body"]["details"]["seq"] == 3
        assert [one.cursor for one in store.asked] == ["", "4", "8"]
        assert {(one.reason, one.type, one.person) for one in store.asked} == {("no_rule", "decision", "")}

    def test_and_stops_at_the_limit(self, shell: Shell, store: Answering, asks: list[object]) -> None:
        ran = shell("oversight", "search", "--limit", 6, "--json", *asks)
        assert len(ran.out.splitlines()) == 6
        assert [one.limit for one in store.asked] == [6, 2]

    def test_for_people(self, shell: Shell, asks: list[object]) -> None:
        ran = shell("oversight", "search", *asks)
        assert ran.code == 0
        assert ran.out.count("2026-11-22T10:00:00") == 10

    def test_nothing_is_cut_on_a_narrow_terminal(self, store: Answering) -> None:
        console = Console(width=60, record=True, emoji=False, file=io.StringIO())
        console.print(table([store.record(3)]))
        rows = [line.split("│")[1:-1] for line in console.export_text().splitlines() if "│" in line]
        assert "".join(cells[1].strip() for cells in rows) == "2026-11-22T10:00:00"
        assert "".join(cells[2].strip() for cells in rows) == "decision"

    def test_nothing_found_is_a_finding(self, shell: Shell, asks: list[object]) -> None:
        ran = shell("oversight", "search", "--person", "nobody", "--json", *asks)
        assert (ran.code, ran.out, ran.err) == (1, "", "no record matches\n")

    def test_a_bad_question(self, shell: Shell, asks: list[object]) -> None:
        line = shell.refused("oversight", "search", "--since", "yesterday", *asks)
        assert "the store refuses the question: INVALID_ARGUMENT: since is no RFC 3339 time" in line

    def test_prove_and_verify(self, shell: Shell, log: PublishedLog, asks: list[object], tmp_path: Path) -> None:
        stored(log, tmp_path)
        file = tmp_path / "7.tlog-proof"
        assert shell("oversight", "prove", 7, "-o", file, *asks).code == 0
        ran = shell("oversight", "verify", file, "--trust", tmp_path / "trust.txt")
        assert (ran.code, "proven: record 7 " in ran.out) == (0, True)

    def test_no_such_record(self, shell: Shell, asks: list[object], tmp_path: Path) -> None:
        line = shell.refused("oversight", "prove", 7000, "-o", tmp_path / "x", *asks)
        assert "the store refuses the question: NOT_FOUND: there is no such record" in line

    def test_a_store_that_sends_no_proof(
        self, shell: Shell, store: Answering, asks: list[object], tmp_path: Path
    ) -> None:
        store.broken = True
        ran = shell("oversight", "prove", 7, "-o", tmp_path / "x", *asks)
        assert ran.code == 1
        assert "the store sent no proof" in ran.err
        assert not (tmp_path / "x").exists()

    def test_by_the_environment(self, shell: Shell, asks: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in zip(("STORE", "CA", "CERT", "KEY"), asks[1::2], strict=True):
            monkeypatch.setenv(f"CUSTOMHOUSE_REVIEW_{name}", str(value))
        assert len(shell("oversight", "search", "--json").out.splitlines()) == 10


class TestRecords:
    """A store, or a producer, may send anything."""

    LEAF = Writer().leaf("open")
    BODIES = (
        b"", b"null", b"7", b"[]", b"{}", b"\xff\x00", b'"\\ud800"', b"[" * 2000, b'{"type":"decision"}',
        b'{"type":"decision","input":7,"decision":[]}', b'{"type":"decision","input":{"subject":{"person":null}}}',
        b'{"type":"decision","decision":{"effect":null,"reasons":[7,null,{"code":[1]}]}}', b'{"type":"outcome"}',
        b'{"type":"outcome","status":{"a":1}}', b'{"type":"open","details":{"x":"\\u001b[31m"}}', b'{"details":7}',
        b'{"type":"decision","method":"[/red] :smile: \\u001b]0;x\\u0007","input":{"subject":{"kind":"[bold]k"}}}',
    )  # fmt: skip

    @pytest.mark.parametrize("body", BODIES)
    @pytest.mark.parametrize("leaf", [LEAF, b"", b"{}", b"\xff", b"[]"])
    def test_whatever_it_is_it_is_shown_and_nothing_else_happens(self, leaf: bytes, body: bytes) -> None:
        record = pb.StoredRecord(index=3, leaf=leaf, body=body, attested=True, standing="chain")
        assert "\x1b" not in json.dumps(row(record))
        console = Console(width=300, record=True, emoji=False, file=io.StringIO())
        console.print(table([record]))
        text = console.export_text()
        assert "\x1b" not in text
        assert "\x07" not in text
        if b"smile" in body:
            assert "[/red] :smile:" in text
            assert "[bold]k" in text

    def test_a_decision(self) -> None:
        body = {
            "type": "decision", "method": "a.B/C", "phase": "request",
            "input": {"subject": {"kind": "personnel", "person": {"id": "amy"}, "workload": {"id": "spiffe://x/y"}}},
            "decision": {"effect": "deny", "reasons": [{"code": "no_rule"}, {"code": "late"}]},
        }  # fmt: skip
        console = Console(width=300, record=True, emoji=False, file=io.StringIO())
        console.print(table([pb.StoredRecord(index=3, leaf=self.LEAF, body=json.dumps(body).encode())]))
        text = console.export_text()
        for word in ("amy", "a.B/C (request)", "deny", "no_rule, late", "2026-11-22T10:00:00", "open"):
            assert word in text
