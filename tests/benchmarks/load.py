"""Load over gRPC on a Unix socket: `h2load`, or `generator` where that program is missing."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import h2load
from tests.benchmarks.h2load import H2LOAD, LoadError, Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One unary call. `metadata` in the order sent; `body` is the message, unframed."""

    method: str
    metadata: Sequence[tuple[str, str]]
    body: bytes


def describe() -> str:
    """Which generator this run has."""
    if H2LOAD is None:
        return (
            "grpc.aio generator: h2load is missing (apt-get install nghttp2-client), so fast peers are held back by it"
        )
    said = subprocess.run((H2LOAD, "--version"), capture_output=True, text=True, check=False)
    return said.stdout.strip()


def put(socket: Path, request: Request, concurrency: int, seconds: float, warm_up: float) -> Seen:
    """Load for `seconds`, after `warm_up`, over one connection, on the core this process is on. LoadError."""
    if H2LOAD is None:
        return _generated(socket, request, concurrency, ("--seconds", str(seconds), "--warm-up", str(warm_up)))
    return h2load.put(_target(socket, request), concurrency, seconds, warm_up)


def send(socket: Path, request: Request, concurrency: int, calls: int) -> None:
    """Send so many calls, as fast as they are taken. LoadError."""
    if H2LOAD is None:
        _generated(socket, request, concurrency, ("--calls", str(calls)))
    else:
        h2load.send(_target(socket, request), concurrency, calls)


def _target(socket: Path, request: Request) -> h2load.Target:
    return h2load.grpc(f"http://localhost{request.method}", request.body, request.metadata, socket)


def _generated(socket: Path, request: Request, concurrency: int, amount: Sequence[str]) -> Seen:
    asked = json.dumps({"method": request.method, "metadata": list(request.metadata), "body": request.body.hex()})
    command = [sys.executable, "-m", "tests.benchmarks.generator", str(socket), str(concurrency), *amount]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"generator on {socket}: {done.stderr[-600:]}")
    answer = json.loads(done.stdout)
    return Seen.of(answer["times"], answer["rate"])
