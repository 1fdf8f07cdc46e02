"""What the sidecar sends to OPA, and what it takes from it."""

import asyncio
import json
from pathlib import Path

import pytest
from opa_parts import PERMIT, REVISION, Asked, FakeOpa, answer, decide, question, replying

from sidecar.decision.opa_http import Address, Answer, BlockingClient, Late, read_answer
from sidecar.errors import DecideError, Superseded
from sidecar.vocabulary import canonical


@pytest.fixture
async def opa(tmp_path: Path):
    async with FakeOpa(tmp_path / "s") as fake:
        yield fake


async def until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)


async def test_the_canonical_bytes_are_sent_as_they_are(opa):
    engine = opa.engine()
    data = b'{"version":1,  "z": "\\u00e9",\n"a":[1]}'  # no encoder would write it like this
    await engine.decide(question(), data)
    assert opa.asked[0].body == b'{"input":' + data + b"}"
    await engine.close()


async def test_what_is_asked_is_strict_and_says_where_it_comes_from(opa):
    engine = opa.engine()
    await decide(engine)
    asked = opa.asked[0]
    path = asked.line.removeprefix("POST ").removesuffix(" HTTP/1.1")
    assert path.partition("?")[0] == "/v1/data/sidecar/decision"
    assert set(path.partition("?")[2].split("&")) == {"provenance=true", "strict-builtin-errors=true"}
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["accept-encoding"] == "identity"
    assert "authorization" not in asked.headers
    assert "cookie" not in asked.headers
    await engine.close()


async def test_one_connection_serves_many_questions(opa):
    engine = opa.engine()
    for _ in range(20):
        assert (await decide(engine)).permits
    assert opa.connections == 1
    assert len(opa.asked) == 20
    await engine.close()


async def test_connections_are_bounded(opa):
    gate = asyncio.Event()

    async def wait(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await replying(answer())(asked, writer)

    opa.behave = wait
    engine = opa.engine(deadline=60)
    asking = [asyncio.create_task(decide(engine)) for _ in range(200)]
    await until(lambda: len(opa.asked) >= 64)
    await asyncio.sleep(0.1)
    assert opa.connections == 64
    gate.set()
    assert all(one.permits for one in await asyncio.gather(*asking))
    assert opa.connections == 64
    await engine.close()


async def test_the_token_of_the_moment_is_sent(opa):
    tokens = iter(["one", "two"])
    engine = opa.engine(token=lambda: next(tokens))
    await decide(engine)
    await decide(engine)
    assert [asked.headers["authorization"] for asked in opa.asked] == ["Bearer one", "Bearer two"]
    await engine.close()


async def test_no_cookie_is_kept(opa):
    opa.behave = replying(answer(), headers="Set-Cookie: a=b\r\n")
    engine = opa.engine()
    await decide(engine)
    await decide(engine)
    assert "cookie" not in opa.asked[1].headers
    await engine.close()


async def test_an_answer_of_another_bundle_names_it(opa):
    opa.behave = replying(answer(revision="sha256:other"))
    engine = opa.engine()
    with pytest.raises(Superseded) as caught:
        await decide(engine)
    assert caught.value.revision == "sha256:other"
    assert caught.value.reason == "policy_error"
    assert REVISION in caught.value.operator
    await engine.close()


async def test_closing_waits_for_what_is_under_way_and_takes_no_more(opa):
    async def slowly(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        await replying(answer())(asked, writer)

    opa.behave = slowly
    engine = opa.engine()
    asking = asyncio.create_task(decide(engine))
    await until(lambda: opa.asked)
    closing = asyncio.create_task(engine.close())
    await asyncio.sleep(0)
    with pytest.raises(DecideError, match="no decision") as caught:
        await decide(engine)
    assert "no longer in force" in caught.value.operator
    assert not closing.done()
    assert (await asking).permits
    await closing


# -- answers --------------------------------------------------------------------------------------------------------


def test_a_result_counts_for_its_own_bundle_only():
    assert json.loads(read_answer(answer()).decision(REVISION)) == PERMIT
    for body in (answer(revision="other"), b'{"result": 1}', b'{"result": 1, "provenance": {"bundles": {}}}'):
        with pytest.raises(Superseded):
            read_answer(body).decision(REVISION)


def test_two_bundles_are_no_answer_even_if_one_is_ours():
    body = {"result": PERMIT, "provenance": {"bundles": {"a": {"revision": REVISION}, "b": {"revision": "x"}}}}
    with pytest.raises(Superseded):
        read_answer(json.dumps(body).encode()).decision(REVISION)


def test_an_undefined_rule_is_no_decision():
    body = json.dumps({"provenance": {"bundles": {"b": {"revision": REVISION}}}}).encode()
    with pytest.raises(DecideError) as caught:
        read_answer(body).decision(REVISION)
    assert "undefined" in caught.value.operator
    assert read_answer(b"{}") == Answer()


# -- from a thread --------------------------------------------------------------------------------------------------


async def blocking(opa: FakeOpa, what, timeout: float = 2.0):
    client = BlockingClient(Address(socket=opa.path), timeout)
    try:
        return await asyncio.to_thread(what, client)
    finally:
        client.close()


async def test_the_blocking_client_reads_the_same(opa):
    assert (await blocking(opa, lambda client: client.revision())) == REVISION
    found = await blocking(opa, lambda client: client.decide(canonical(question())))
    assert json.loads(found.decision(REVISION)) == PERMIT
    assert opa.asked[1].body == b'{"input":' + canonical(question()) + b"}"


async def test_the_blocking_client_waits_no_longer_than_told(opa):
    async def hang(_asked: Asked, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    opa.behave = hang
    with pytest.raises(Late):
        await blocking(opa, lambda client: client.decide(b"{}"), 0.1)


@pytest.mark.parametrize(
    "behave",
    [replying(b"{}", "500 Internal Server Error"), replying(b"x" * (2 << 20)), replying(b"["), replying(b"[]")],
)
async def test_the_blocking_client_takes_nothing_else_for_an_answer(opa, behave):
    opa.behave = behave
    with pytest.raises(ValueError):
        await blocking(opa, lambda client: client.decide(b"{}"))


async def test_the_blocking_client_says_when_nobody_is_there(opa, tmp_path):
    client = BlockingClient(Address(socket=tmp_path / "nobody"), 1.0)
    with pytest.raises(OSError):
        await asyncio.to_thread(client.revision)


@pytest.mark.parametrize(
    ("address", "root"),
    [
        (Address(socket=Path("/s")), "http://localhost:80"),
        (Address(host="127.0.0.1", port=8181), "http://127.0.0.1:8181"),
        (Address(host="::1", port=8181, prefix="/opa"), "http://[::1]:8181/opa"),
    ],
)
def test_an_address_as_a_url(address, root):
    assert address.root == root
