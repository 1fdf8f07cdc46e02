"""What the process says on standard error, and the calls that no handler ever sees."""

import asyncio
import io
import json
import logging
import os
import signal
from collections.abc import Iterator

import grpc
import pytest
from proxy_parts import Remembering, until

from sidecar.enforcement.call import Call, Final, Reply, Upstream
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.transport import Limits
from sidecar.errors import Code
from sidecar.main.unhandled import SETTLED_LOOKS, Unhandled, ended_in_core
from sidecar.observability.logs import (
    REPEAT_SECONDS,
    _Passed,
    make_logger,
    quiet_libraries,
    settled_for_good,
    unhandled,
)

SECRET = "Bearer eyJ-what-a-caller-sent"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    found = logging.getLogger()
    handlers, level = found.handlers, found.level
    yield found
    found.handlers, _ = handlers, found.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    assert SECRET not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with(text: str) -> Exception:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_what_grpc_logs_is_a_line_without_its_words(root) -> None:
    stream = io.StringIO()
    quiet_libraries(make_logger("sidecar", stream))
    logging.getLogger("grpc._cython.cygrpc").error("bad header %s", SECRET, exc_info=fail_with(SECRET))
    logging.getLogger("asyncio").warning("slow %s", SECRET)
    logging.getLogger("asyncio").info("nobody asked")
    first, second = lines(stream)
    assert (first["event"], first["library"], first["failure"]) == ("library", "grpc._cython.cygrpc", "ValueError")
    assert str(first["at"]).startswith("['fail_with:")
    assert (second["library"], second["severity"], second["failure"]) == ("asyncio", "warning", None)


def test_what_telemetry_says_keeps_its_words(root) -> None:
    stream = io.StringIO()
    quiet_libraries(make_logger("sidecar", stream))
    logging.getLogger("opentelemetry.exporter").warning("cannot reach %s", "localhost:4317")
    assert lines(stream)[0]["detail"] == "cannot reach localhost:4317"


def test_one_place_is_heard_once_a_second() -> None:
    log, now = Remembering(), [5.0]
    handler = _Passed(log, lambda: now[0])
    said = logging.LogRecord("grpc", logging.ERROR, "x.py", 7, "again", None, None)
    other = logging.LogRecord("grpc", logging.ERROR, "x.py", 8, "again", None, None)
    for record in (said, said, other):
        handler.emit(record)
    now[0] += REPEAT_SECONDS
    handler.emit(said)
    assert [details["line"] for _, details in log.lines] == [7, 8, 7]


async def test_what_no_task_handles_is_one_line(root) -> None:
    del root
    stream, loop = io.StringIO(), asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(unhandled(make_logger("sidecar", stream)))
    try:
        loop.call_soon(lambda _secret: fail_now(), SECRET)
        await asyncio.sleep(0.01)
        loop.call_exception_handler({"message": f"Exception in callback f({SECRET!r})", "exception": KeyError(SECRET)})
        loop.call_exception_handler({"message": "no exception"})
    finally:
        loop.set_exception_handler(before)
    first, second, third = lines(stream)
    assert (first["event"], first["failure"]) == ("unhandled", "ZeroDivisionError")
    assert str(first["at"]).endswith("]")
    assert (second["failure"], second["detail"]) == ("KeyError", "Exception in callback f")
    assert third["detail"] == "no exception"


def fail_now() -> None:
    1 / 0  # noqa: B018


# -- calls that core answers by itself --------------------------------------------------------------------------------


class Point:
    """Answers every call."""

    def kind(self, method: str) -> str | None:
        return "unary"

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        return Reply(message=b"", headers=(), final=Final(code=Code.OK))

    async def stream(self, call, requests, answer, upstream=None) -> Final:
        return Final(code=Code.OK)


@pytest.mark.parametrize("what", ["message", "metadata"])
async def test_what_grpc_core_refuses_is_counted_and_logged(what) -> None:
    others = set(ended_in_core())
    log = Remembering()
    counted = Unhandled(
        Point(), log, lambda: {key: value for key, value in ended_in_core().items() if key not in others}
    )
    listen = Listen(address="127.0.0.1:0", plaintext=True)
    server = grpc.aio.server(
        handlers=(ProxyHandler(Point(), PROXY, listen.peers(lambda: 0.0), log, counted.handled),),
        options=Limits().server_options(share_port=False),
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=(("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20))
    )
    call = channel.unary_unary("/any.Service/Method")
    try:
        await call(b"small")
        large = (b"1" * (6 << 20), ()) if what == "message" else (b"", (("k", "v" * 20_000),))
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(large[0], metadata=large[1])
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with asyncio.timeout(60):
            while counted.calls < 2:
                counted.look()
                await asyncio.sleep(0.02)
        for _ in range(SETTLED_LOOKS + 1):
            assert counted.look() == 0
        assert counted.gauges()["calls_unhandled"][1]() == 2.0
    finally:
        await channel.close()
        await server.stop(0)


def test_a_call_that_core_ends_first_is_not_taken_for_one_that_never_came() -> None:
    ended = {"1": 0}
    counted = Unhandled(Point(), Remembering(), lambda: ended)
    for _ in range(SETTLED_LOOKS):
        counted.look()
    ended["1"] = 3
    for _ in range(SETTLED_LOOKS - 1):
        assert counted.look() == 0
    counted._handled = 3
    assert [counted.look() for _ in range(SETTLED_LOOKS + 1)] == [0] * (SETTLED_LOOKS + 1)
    ended.clear()
    ended["2"] = 1
    assert sum(counted.look() for _ in range(SETTLED_LOOKS + 1)) == 1, "a replaced server keeps its number"


async def test_a_hangup_does_not_end_a_process_that_reads_its_settings_once() -> None:
    out, loop = io.StringIO(), asyncio.get_running_loop()
    settled_for_good(loop, make_logger("ledger", out))
    try:
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: out.getvalue().endswith("\n"))
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
    line = json.loads(out.getvalue())
    assert line["event"] == "reload_refused"
    assert "Restart it" in line["detail"]
