"""The ledger as a process, its client, and what its operator asks: init, run, status, exposure, verify, backup."""

import asyncio
import json

import grpc
import pytest
from ledger_rig import SIDECAR, Certificates, LedgerProcess, Local, Served
from ledger_simulator import Simulator

from sidecar.api.v1 import ledger_pb2 as pb
from sidecar.api.v1 import ledger_pb2_grpc
from sidecar.errors import ConfigurationError
from sidecar.ledger.client import LedgerClient
from sidecar.ledger.items import Item, LedgerError, Seen, Settlement

pytestmark = pytest.mark.integration
HEALTH = Seen(frozenset({"personal_health"}))


def person(number):
    return [Item("person", str(number), HEALTH)]


@pytest.fixture
async def served(tmp_path):
    local = Local(tmp_path / "ledger.sqlite")
    found = await Served(local, Certificates(tmp_path)).start()
    yield found
    await found.stop()
    local.close()


def test_an_operator_makes_a_ledger_runs_it_asks_and_backs_it_up(tmp_path, shell):
    with LedgerProcess(tmp_path) as ledger:
        config = ("--config", str(ledger.settings))
        made = shell("ledger", "init", *config)
        assert made.code == 0, made.err
        assert "ledger.secret" in made.out
        assert shell("ledger", "status", *config).code == 1  # it does not run
        again = shell("ledger", "init", *config)
        assert (again.code, "never begun again" in again.err) == (2, True)
        ledger.start()

        async def use():
            client = ledger.client()
            assert await client.reserve("c1", 1, "acme", "s", person(1)) == {"personal_health": 1}
            await client.settle(Settlement("c1", groups=["acme"], source="s", items=person(1)))
            await client.reserve("c2", 1, "acme", "s", person(2))
            await client.close()

        asyncio.run(use())
        status = json.loads(shell("ledger", "status", *config, "--json").out)
        assert (status["running"], status["reservations"], status["subjects"], status["groups"]) == (True, 1, 1, 1)
        assert "yes" in shell("ledger", "status", *config).out
        shown = json.loads(shell("ledger", "exposure", "acme", *config, "--json").out)
        assert (shown["exposure"]["personal_health"], shown["exposure"]["personal_financial"]) == (2, 0)
        assert "personal_health" in shell("ledger", "exposure", "acme", *config).out
        unknown = shell("ledger", "exposure", "acne", *config)
        assert (unknown.code, "Known: acme" in unknown.err) == (1, True)
        assert shell("ledger", "verify", *config).code == 0
        copied = shell("ledger", "backup", str(tmp_path / "copy.sqlite"), *config)
        assert copied.code == 0, copied.err
        second = shell("ledger", "run", *config)
        assert (second.code, "another ledger process" in second.err) == (2, True)
        assert ledger.stop() == 0
        assert "personal_health" not in ledger.log()


@pytest.mark.parametrize("lost", ["ledger.sqlite", "ledger.secret"])
def test_a_ledger_that_has_lost_its_database_or_secret_does_not_begin_again(tmp_path, shell, lost):
    ledger = LedgerProcess(tmp_path)
    config = ("--config", str(ledger.settings))
    assert shell("ledger", "init", *config).code == 0
    (tmp_path / lost).unlink()
    for command in ("run", "init"):
        refused = shell("ledger", command, *config)
        assert refused.code == 2, command
        assert "ledger" in refused.err


def test_another_secret_is_noticed_at_the_start(tmp_path, shell):
    ledger = LedgerProcess(tmp_path)
    config = ("--config", str(ledger.settings))
    assert shell("ledger", "init", *config).code == 0
    (tmp_path / "ledger.secret").write_text("ab" * 32)
    refused = shell("ledger", "run", *config)
    assert (refused.code, "counted anew" in refused.err) == (1, True)


def test_a_secret_that_was_put_there_is_used_when_it_is_said_so(tmp_path, shell):
    ledger = LedgerProcess(tmp_path)
    config = ("--config", str(ledger.settings))
    (tmp_path / "ledger.secret").write_text("ab" * 32)
    (tmp_path / "ledger.secret").chmod(0o600)
    assert shell("ledger", "init", *config).code == 2
    assert shell("ledger", "init", *config, "--keep-secret").code == 0
    assert (tmp_path / "ledger.secret").read_text() == "ab" * 32


async def test_only_registered_sidecars_are_served(served):
    stranger = served.connect("spiffe://test/stranger")
    with pytest.raises(LedgerError, match="UNAUTHENTICATED"):
        await stranger.peek("acme")
    await stranger.close()
    async with grpc.aio.insecure_channel(f"localhost:{served.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await ledger_pb2_grpc.LedgerStub(channel).Peek(pb.PeekRequest(group="acme"), timeout=5)
    other = Certificates(served.certificates.folder)  # signed by another authority
    files = other.client(SIDECAR)
    served.certificates.folder.joinpath("ca.pem").write_bytes(served.certificates.authority.pem)
    forger = LedgerClient(f"localhost:{served.port}", files, deadline=5.0)
    with pytest.raises(LedgerError):
        await forger.peek("acme")
    await forger.close()


SEEN = [pb.SeenData(categories=["personal_health"])]


@pytest.mark.parametrize("bad", [
    pb.ReserveRequest(call_id="", sequence=1, group="g", source="s"),
    pb.ReserveRequest(call_id="c", sequence=1, group="", source="s"),
    pb.ReserveRequest(call_id="c", sequence=1, group="g", source=""),
    pb.ReserveRequest(call_id="c", sequence=1, group="g" * 600, source="s"),
    pb.ReserveRequest(call_id="c", sequence=1 << 31, group="g", source="s"),
    pb.ReserveRequest(call_id="c", sequence=1, group="g", source="s", items=[pb.SeenSubject(kind="p", id="1")]),
    pb.ReserveRequest(call_id="c", sequence=1, group="g", source="s", seen=SEEN, items=[pb.SeenSubject(kind="p")]),
    pb.ReserveRequest(call_id="c", sequence=1, group="g", source="s", seen=SEEN, items=[pb.SeenSubject(kind="p\0", id="1")]),
    pb.ReserveRequest(call_id="c", sequence=1, group="g", source="s", seen=SEEN,
                      items=[pb.SeenSubject(kind="p", id=str(number)) for number in range(10_001)]),
    pb.SettleRequest(call_id="c", seen=SEEN, items=[pb.SeenSubject(kind="p", id="1")]),
    pb.SettleRequest(call_id="c", released_at=float("nan")),
    pb.SettleRequest(call_id=""),
    pb.PeekRequest(group=""),
])  # fmt: skip
async def test_malformed_requests_are_refused_whole(served, bad):
    method = getattr(served.client._stub, type(bad).__name__.removesuffix("Request"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await method(bad, timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await served.peek("g") == {}


async def test_nobody_there_is_an_error_within_the_deadline(tmp_path):
    client = LedgerClient("localhost:9", Certificates(tmp_path).client(), deadline=1.0)
    began = asyncio.get_running_loop().time()
    with pytest.raises(LedgerError):
        await client.peek("acme")
    assert asyncio.get_running_loop().time() - began < 5.0
    await client.close()


async def test_a_ledger_that_does_not_answer_is_an_error_at_the_deadline(served):
    waiting = asyncio.Event()

    async def never(_work):
        await waiting.wait()

    served.servicer._writer = type("Writer", (), {"run": staticmethod(never)})
    client = served.connect(SIDECAR, deadline=0.3)
    with pytest.raises(LedgerError, match="DEADLINE"):
        await client.peek("acme")
    waiting.set()
    await client.close()


async def test_a_request_whose_connection_broke_is_sent_once_more_and_counts_once(served):
    run, calls = served.local.writer.run, []

    async def broken(work):
        found = await run(work)
        calls.append(found)
        if len(calls) == 1:
            raise LedgerError("the connection broke after it was done")  # UNAVAILABLE to the client
        return found

    served.servicer._writer = type("Writer", (), {"run": staticmethod(broken)})
    assert await served.reserve("c1", 1, "acme", "s", person(1)) == {"personal_health": 1}
    assert len(calls) == 2


async def test_new_certificates_are_taken_up_on_both_sides_without_a_restart(served):
    folder = served.certificates.folder
    following = asyncio.create_task(served.client.follow(every=0.05))
    assert await served.peek("acme") == {}
    fresh = Certificates(folder)  # another authority altogether
    fresh.client(SIDECAR)
    assert served.followed.look()
    channel = served.client._channel
    while served.client._channel is channel:
        await asyncio.sleep(0.02)
    assert await served.peek("acme") == {}
    (folder / "sidecar.pem").write_text("nonsense")
    while not served.client._followed.problem:
        await asyncio.sleep(0.02)
    assert await served.peek("acme") == {}
    following.cancel()


def test_a_certificate_without_its_key_is_said_so(tmp_path):
    files = Certificates(tmp_path).client()
    files.key.write_bytes((tmp_path / "tls.key").read_bytes())
    with pytest.raises(ConfigurationError, match="not the key of the certificate"):
        files.read()


def test_the_simulator_has_the_ports_methods():
    for name in ("reserve", "peek", "settle"):
        assert callable(getattr(Simulator, name))
        assert callable(getattr(LedgerClient, name))
