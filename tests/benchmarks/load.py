"""Load over gRPC on a Unix socket: h2load (Debian: nghttp2-client), or `generator` where that is missing.

h2load sees HTTP, where a refused call is a success too: whoever measures asks the server what became of the calls.
"""

import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

H2LOAD = shutil.which("h2load")
_DONE = re.compile(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed")


class LoadError(Exception):
    """Load could not be put on a server. Says what the generator said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One unary call. `metadata` in the order sent; `body` is the message, unframed."""

    method: str
    metadata: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the generator saw: calls a second, and milliseconds."""

    rate: float
    p50: float
    p99: float


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
    timing = ("-D", f"{int(seconds * 1000)}ms", f"--warm-up-time={int(warm_up * 1000)}ms")
    return _h2load(socket, request, concurrency, timing, seconds, warm_up)


def send(socket: Path, request: Request, concurrency: int, calls: int) -> None:
    """Send so many calls, as fast as they are taken. LoadError."""
    if H2LOAD is None:
        _generated(socket, request, concurrency, ("--calls", str(calls)))
    else:
        _h2load(socket, request, concurrency, ("-n", str(calls)), 0, 0)


def _h2load(
    socket: Path, request: Request, concurrency: int, amount: Sequence[str], seconds: float, warm_up: float
) -> Seen:
    body, log = socket.with_name("load.body"), socket.with_name("load.log")
    body.write_bytes(b"\0" + len(request.body).to_bytes(4, "big") + request.body)
    log.unlink(missing_ok=True)
    headers = [("content-type", "application/grpc"), ("te", "trailers"), *request.metadata]
    command = [
        str(H2LOAD), "-c", "1", "-m", str(concurrency), *amount, "-d", str(body), f"--log-file={log}", "-B",
        f"unix:{socket}", *(part for name, value in headers for part in ("-H", f"{name}: {value}")),
        f"http://localhost{request.method}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = _DONE.search(done.stdout)
    if done.returncode or found is None or found[2] == "0" or found[3] != "0":
        raise LoadError(f"h2load on {socket}: {(done.stderr or done.stdout)[-600:]}")
    times = [int(line.rsplit("\t", 1)[1]) / 1000 for line in log.read_text().splitlines()]
    return _seen(times, int(found[2]) / seconds if seconds else 0.0)


def _generated(socket: Path, request: Request, concurrency: int, amount: Sequence[str]) -> Seen:
    asked = json.dumps({"method": request.method, "metadata": list(request.metadata), "body": request.body.hex()})
    command = [sys.executable, "-m", "tests.benchmarks.generator", str(socket), str(concurrency), *amount]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"generator on {socket}: {done.stderr[-600:]}")
    answer = json.loads(done.stdout)
    return _seen(answer["times"], answer["rate"])


def _seen(times: Sequence[float], rate: float) -> Seen:
    parts = statistics.quantiles(times, n=100) if len(times) > 1 else [*times] * 99
    return Seen(rate=rate, p50=parts[49], p99=parts[98])
