"""What the client interceptors attach, seen by a real server; what a call brings itself stays."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from sidecar.client.attaching import Asking

ASKS = {"purpose": "user_support", "justification": "case_work", "ticket": "SUP-1", "exception": "EX-1"}
SENT = {f"x-customhouse-{key}": value for key, value in ASKS.items()}
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Echo(grpc.GenericRpcHandler):
    """Answers every kind of method with one message, and keeps the metadata."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    def service(self, handler_call_details):
        self.seen.append(dict(handler_call_details.invocation_metadata))
        kind = handler_call_details.method.rpartition("/")[2]
        streams = kind.endswith("_stream")
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(lambda _request, _context: iter([b"x"]) if streams else b"x")


@pytest.fixture
def server() -> Iterator[tuple[Echo, str]]:
    echo, served = Echo(), grpc.server(ThreadPoolExecutor(4))
    served.add_generic_rpc_handlers((echo,))
    port = served.add_insecure_port("127.0.0.1:0")
    served.start()
    yield echo, f"127.0.0.1:{port}"
    served.stop(None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_call_carries_it(server: tuple[Echo, str], kind: str) -> None:
    echo, target = server
    tokens = iter(["first", "second"])
    asks = Asking(token=lambda: next(tokens), **ASKS)
    with grpc.insecure_channel(target) as plain:
        channel = grpc.intercept_channel(plain, asks.interceptor())
        invoke = getattr(channel, kind)(f"/a.B/{kind}")
        for _ in range(2):
            answer = invoke(iter([b"x"]) if kind.startswith("stream") else b"x", timeout=60)
            assert (list(answer) if kind.endswith("_stream") else [answer]) == [b"x"]
    assert [one["authorization"] for one in echo.seen] == ["Bearer first", "Bearer second"]
    assert SENT.items() <= echo.seen[0].items()


@pytest.mark.parametrize("kind", KINDS)
async def test_and_so_it_does_from_an_event_loop(server: tuple[Echo, str], kind: str) -> None:
    echo, target = server

    async def token() -> str:
        return "fresh"

    async def requests() -> AsyncIterator[bytes]:
        yield b"x"

    asks = Asking(token=token, **ASKS)
    async with grpc.aio.insecure_channel(target, interceptors=asks.aio_interceptors()) as channel:
        call = getattr(channel, kind)(f"/a.B/{kind}")(requests() if kind.startswith("stream") else b"x", timeout=60)
        answer = [one async for one in call] if kind.endswith("_stream") else [await call]
    assert answer == [b"x"] and echo.seen[0]["authorization"] == "Bearer fresh"
    assert SENT.items() <= echo.seen[0].items()


def test_what_a_call_brings_itself_stays(server: tuple[Echo, str]) -> None:
    echo, target = server
    own = (("authorization", "Bearer mine"), ("x-customhouse-ticket", "SUP-2"))
    with grpc.insecure_channel(target) as plain:
        channel = grpc.intercept_channel(plain, Asking(token=lambda: "other", **ASKS).interceptor())
        channel.unary_unary("/a.B/unary_unary")(b"x", metadata=own, timeout=60)
    assert (echo.seen[0]["authorization"], echo.seen[0]["x-customhouse-ticket"]) == ("Bearer mine", "SUP-2")


def test_a_token_to_be_awaited_is_no_token_for_threads(server: tuple[Echo, str]) -> None:
    async def token() -> str:
        return "x"

    waiting = token()
    with grpc.insecure_channel(server[1]) as plain:
        channel = grpc.intercept_channel(plain, Asking(token=lambda: waiting).interceptor())
        with pytest.raises(TypeError, match="aio"):
            channel.unary_unary("/a.B/unary_unary")(b"x", timeout=60)
    waiting.close()
    assert server[0].seen == []
