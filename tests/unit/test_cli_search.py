"""What a reviewer asks a store, and what is shown of records of any content on a terminal."""

import io
import json
from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from command_line import Shell
from published_log import SALT, PublishedLog, Writer, body_of, stored
from rich.console import Console

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.cli.review import row, table
from sidecar.demo.pki import Authority


@pytest.fixture
def log() -> PublishedLog:
    return PublishedLog().grow(Writer().leaves(300))


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
