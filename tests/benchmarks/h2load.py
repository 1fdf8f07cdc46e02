"""h2load (Debian: nghttp2-client) against any URL: HTTP/2 in the clear or over TLS, over TCP or a Unix socket.

h2load sees HTTP, where a refused call is a success too: whoever measures asks the server what became of the calls. It
has no client certificate and does not verify the server's: for listeners with mutual TLS use a Unix socket.
"""

import re
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

H2LOAD = shutil.which("h2load")
GRPC: Mapping[str, str] = {"content-type": "application/grpc", "te": "trailers"}
_DONE = re.compile(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed")
_STATUS = re.compile(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx")


class LoadError(Exception):
    """Load could not be put on a server. Says what the generator said."""


class MissingError(LoadError):
    """A program that only these figures need is not here. Says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the generator saw: calls a second, and milliseconds."""

    rate: float
    p50: float
    p99: float

    @classmethod
    def of(cls, times: Sequence[float], rate: float) -> Self:
        """From the milliseconds of each call."""
        parts = statistics.quantiles(times, n=100) if len(times) > 1 else [*times] * 99
        return cls(rate=rate, p50=parts[49], p99=parts[98])


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is asked. `url` with scheme http or https and a path; `socket`: a Unix socket to connect to instead.

    `body`: the request's bytes as they are sent; empty: a GET.
    """

    url: str
    socket: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


def grpc(url: str, message: bytes, metadata: Sequence[tuple[str, str]] = (), socket: Path | None = None) -> Target:
    """A unary gRPC call."""
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    return Target(url=url, socket=socket, headers={**GRPC, **dict(metadata)}, body=framed)


def put(target: Target, concurrency: int, seconds: float, warm_up: float, *, clients: int = 1) -> Seen:
    """Load for `seconds`, after `warm_up`; `concurrency` calls at a time on each of `clients` connections. LoadError."""
    return _run(
        target,
        concurrency,
        clients,
        ("-D", f"{seconds * 1000:.0f}ms", f"--warm-up-time={warm_up * 1000:.0f}ms"),
        seconds,
    )


def send(target: Target, concurrency: int, requests: int) -> Seen:
    """Send so many, as fast as they are taken; its rate is 0. LoadError."""
    return _run(target, concurrency, 1, ("-n", str(requests)), 0.0)


def _run(target: Target, concurrency: int, clients: int, amount: Sequence[str], seconds: float) -> Seen:
    if H2LOAD is None:
        raise MissingError("h2load is missing: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="h2load-") as name:
        log = Path(name) / "log"
        command = [H2LOAD, "-c", str(clients), "-m", str(concurrency), *amount, f"--log-file={log}"]
        command += [part for key, value in target.headers.items() for part in ("-H", f"{key}: {value}")]
        if target.body:
            (Path(name) / "body").write_bytes(target.body)
            command += ["-d", str(Path(name) / "body")]
        if target.socket is not None:
            command += ["-B", f"unix:{target.socket}"]
        done = subprocess.run([*command, target.url], capture_output=True, text=True, check=False)
        counted, status = _DONE.search(done.stdout), _STATUS.search(done.stdout)
        if done.returncode or counted is None or status is None or counted[2] == "0" or counted[3] != "0":
            raise LoadError(f"h2load on {target.url}: {(done.stderr or done.stdout)[-600:]}")
        if any(int(number) for number in status.groups()[1:]):
            raise LoadError(f"h2load on {target.url}: not every answer was HTTP 2xx: {status[0]}")
        times = [int(line.rsplit("\t", 1)[1]) / 1000 for line in log.read_text().splitlines()]
    return Seen.of(times, int(counted[2]) / seconds if seconds else 0.0)
