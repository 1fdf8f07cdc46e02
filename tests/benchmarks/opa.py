"""A decision by every path there is to OPA, and by the embedded engine, in turns: `python -m tests.benchmarks.opa`.

The paths: the client library as it comes (synchronous, over TCP), its asynchronous client, the standard library over a
Unix socket as the least there can be, the sidecar's engine over loopback TCP with a random bearer token, and the sidecar's
engine over a Unix socket, which is what it does.
"""

import dataclasses
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from opa_client import OpaClient as SynchronousClient
from opa_client.opa_async import AsyncOpaClient

from sidecar.decision import bundle
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.decision.opa import OpaClient, OpaEngine, OpaMaker
from sidecar.decision.opa_http import Address, BlockingClient
from sidecar.decision.opa_program import packed
from sidecar.demo.processes import free_port
from sidecar.vocabulary import canonical
from tests.benchmarks.machine import LOAD, on_core, rss
from tests.benchmarks.rows import Row, middle
from tests.benchmarks.scale import Scale

POLICIES = Path(__file__).resolve().parents[2] / "policies"
OPA = Path(__file__).resolve().parents[2] / ".tools" / "bin" / "opa"
AUTHZ = """package system.authz

default allow := false

allow if input.identity == "{token}"
"""
PASS = {"effect": "permit", "reasons": [{"code": "c", "message": "m", "rule": "r"}], "obligations": [],
        "advice": [], "ttl_seconds": 0}  # fmt: skip
SLICE = 50

Path_ = Callable[[bytes], Awaitable[object]]


def small() -> bundle.Bundle:
    """One rule without a condition: what remains is the way there and back."""
    return bundle.Bundle(
        revision="sha256:small", label="", tests=(), data=b"{}", corpus=(), files=(),
        modules=(("d.rego", f"package sidecar\n\ndecision := {json.dumps(PASS)} if input.version == 1\n"),),
    )  # fmt: skip


def server(found: bundle.Bundle, folder: Path, token: str) -> tuple[subprocess.Popen[bytes], int]:
    """OPA on loopback TCP; with a token, only for who has it."""
    port, files = free_port(), ["--bundle", "b.tar.gz"]
    command = [
        str(OPA),
        "run",
        "--server",
        "--addr",
        f"127.0.0.1:{port}",
        "--log-level",
        "error",
        "--skip-version-check",
    ]
    held = found
    if token:
        # The whole of `data` belongs to the bundle, so the rule about who may ask is a part of it.
        rule = ("authz.rego", AUTHZ.format(token=token))
        held = dataclasses.replace(found, modules=(*found.modules, rule))
        command += ["--authentication", "token", "--authorization", "basic"]
    (folder / "b.tar.gz").write_bytes(packed(held))
    process = subprocess.Popen([*command, *files], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    client = BlockingClient(Address(host="127.0.0.1", port=port), 2.0, token or None)
    for _ in range(400):
        try:
            if client.revision() == found.revision:
                break
        except (OSError, ValueError):
            time.sleep(0.02)
    client.close()
    return process, port


async def paths(
    found: bundle.Bundle, folder: Path
) -> tuple[dict[str, Path_], list[Callable[[], object]], dict[str, float]]:
    """Each way to ask, what ends it, and what making the engine cost."""
    token = secrets.token_hex(16)
    with on_core(LOAD):
        plain, port = server(found, folder, "")
        (folder / "guarded").mkdir()
        guarded, guarded_port = server(found, folder / "guarded", token)
        began = time.perf_counter()
        socket = OpaMaker(str(OPA), 1.0, print).make(found)
        cost = {"make": time.perf_counter() - began}
    cost["mib"] = rss(plain.pid)
    embedded = EmbeddedMaker(1.0).make(found)
    floor = BlockingClient(socket._client._address, 2.0)
    synchronous = SynchronousClient(host="127.0.0.1", port=port)
    library = AsyncOpaClient(host="127.0.0.1", port=port)
    await library._init_session()
    tcp = OpaEngine(
        OpaClient(Address(host="127.0.0.1", port=guarded_port), 1.0, lambda: token), found.revision, 1.0, lambda: None
    )
    strict = {"strict-builtin-errors": "true"}

    async def by_default(data: bytes) -> object:
        return synchronous.query_rule(json.loads(data), "sidecar", "decision", strict)

    async def by_library(data: bytes) -> object:
        return await library.query_rule(json.loads(data), "sidecar", "decision", strict)

    async def at_least(data: bytes) -> object:
        return floor.decide(data)

    asked = found.corpus[0] if found.corpus else load_folder(POLICIES).corpus[0]
    ways: dict[str, Path_] = {
        "embedded": lambda data: embedded.decide(asked, data),
        "opa-python-client as it comes, TCP": by_default,
        "its asynchronous client, TCP": by_library,
        "no client library, blocking, Unix socket": at_least,
        "the sidecar's engine, TCP and token": lambda data: tcp.decide(asked, data),
        "the sidecar's engine, Unix socket": lambda data: socket.decide(asked, data),
    }
    return ways, [plain.kill, guarded.kill, library.close_connection, tcp.close, floor.close, socket.close], cost


async def timed(found: bundle.Bundle, documents: list[bytes], rounds: int) -> dict[str, object]:
    """Microseconds of each question by each way, which take turns."""
    with tempfile.TemporaryDirectory() as name:
        ways, ends, cost = await paths(found, Path(name))
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(rounds + 1):
            for way, ask in ways.items():
                for at in range(SLICE):
                    began = time.perf_counter()
                    await ask(documents[at % len(documents)])
                    if turn:
                        times[way].append((time.perf_counter() - began) * 1e6)
        for end in ends:
            ended = end()
            if ended is not None:
                await ended  # type: ignore[misc]
    return {"times": times, "cost": cost}


def main(task: dict[str, object]) -> dict[str, object]:
    """Both policies: one rule, and the shipped one on its own corpus."""
    shipped = load_folder(POLICIES)
    documents = [canonical(one) for one in shipped.corpus]
    rounds = int(task["rounds"])  # type: ignore[call-overload]
    return {
        "one rule": uvloop.run(timed(small(), documents, rounds)),
        "the shipped policies": uvloop.run(timed(shipped, documents, rounds)),
    }


def measure(scale: Scale) -> list[Row]:
    """Rows for the table."""
    from tests.benchmarks.pipeline import child  # it imports grpc, which the child has no use for

    rows = []
    for policy, found in child("opa", {"rounds": max(4, scale.pipeline_calls // SLICE)}).items():
        group = f"a decision by each engine and path, {policy}"
        for way, times in found["times"].items():
            ordered = sorted(times)
            rows.append(
                Row(group=group, what=way, figure=middle(times), unit="µs", p50=middle(times) / 1000,
                    p99=ordered[int(len(ordered) * 0.99)] / 1000, samples=tuple(times))
            )  # fmt: skip
        cost = found["cost"]
        rows.append(Row(group=group, what="a server made ready", figure=cost["make"], unit="s", rss=cost["mib"]))
    return rows


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
