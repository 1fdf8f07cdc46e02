"""Which thread of gRPC core reads the sockets."""

import os
import subprocess
import sys

import pytest

from sidecar.enforcement.transport import ENGINE, SWITCHES, choose_polling

pytestmark = pytest.mark.unit

CALLS = 200
CHILD = """
import asyncio, os, sys
from pathlib import Path
from sidecar.enforcement.transport import choose_polling
if sys.argv[1] == "choose":
    choose_polling(os.environ)
import grpc

async def echo(request, context):
    return request

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(echo)

async def main():
    server = grpc.aio.server(handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(int(sys.argv[2])):
            assert await channel.unary_unary("/a.B/C")(b"x", timeout=60) == b"x"
        woken = 0
        for task in Path("/proc/self/task").iterdir():
            if (task / "comm").read_text().startswith("event_engine"):
                lines = (task / "status").read_text().splitlines()
                woken += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))
        print(woken)
    await server.stop(0)

asyncio.run(main())
"""


def woken(choice: str) -> tuple[int, str]:
    """How often the engine's threads were woken by so many calls, and what gRPC complained of."""
    environment = {name: value for name, value in os.environ.items() if name != SWITCHES}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, choice, str(CALLS)], capture_output=True, text=True, check=True, timeout=240,
        env=environment,
    )  # fmt: skip
    return int(done.stdout), done.stderr


def test_grpc_knows_the_switches_and_its_engine_reads_nothing_then() -> None:
    threads, complaints = woken("choose")
    assert "xperiment" not in complaints
    assert threads < CALLS
    assert woken("leave")[0] > CALLS, "or this shows nothing"


def test_the_command_line_has_not_imported_grpc_when_it_chooses() -> None:
    """gRPC core reads its switches when it is imported."""
    code = "import sys, sidecar.cli.app, sidecar.enforcement.transport, sidecar.settings.sidecar; print('grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        (None, "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"),
        ("", "-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints"),
        (
            "tcp_rcv_lowat,event_engine_client",
            "tcp_rcv_lowat,event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints",
        ),
        (",".join(ENGINE), ",".join(ENGINE)),
    ],
)
def test_what_the_operator_named_stays(named: str | None, wanted: str) -> None:
    environment = {} if named is None else {SWITCHES: named}
    choose_polling(environment)
    choose_polling(environment)
    assert environment == {SWITCHES: wanted}
