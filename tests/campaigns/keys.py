"""An issuer whose keys cannot be had, while callers name key ids by the thousand that nobody knows."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from deployment import Deployment

from campaigns.crowd import Compared, compared

HERE = Path(__file__).resolve().parents[1]
FETCHES_A_MINUTE = 2


@dataclass(slots=True)
class KeyServer:
    """Serves a key set, until it is `down`; `fetched`: when it was asked since, on the monotonic clock."""

    content: bytes
    down: bool = False
    fetched: list[float] = field(default_factory=list)
    port: int = 0

    def most_in_a_minute(self) -> int:
        """The most fetches within any 60 seconds."""
        return max((sum(0 <= later - first < 60 for later in self.fetched) for first in self.fetched), default=0)


@contextmanager
def key_server(content: bytes) -> Iterator[KeyServer]:
    """On a loopback port."""
    made = KeyServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if made.down:
                made.fetched.append(time.monotonic())
            self.send_response(500 if made.down else 200)
            self.send_header("content-length", "0" if made.down else str(len(made.content)))
            self.end_headers()
            self.wfile.write(b"" if made.down else made.content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


@dataclass(slots=True)
class Flooded:
    """`rate`: unknown key ids offered and answered, each second."""

    compared: Compared
    fetches: int
    most_in_a_minute: int
    offered: float
    rate: float

    def __str__(self) -> str:
        return (f"{self.offered:.0f} unknown kids/s offered, {self.rate:.0f}/s answered; {self.fetches} fetches, at most "
                f"{self.most_in_a_minute} in any minute; {self.compared}")  # fmt: skip


def campaign(deployment: Deployment, *, offered: float = 2000.0, seconds: float = 3.0, rounds: int = 1) -> Flooded:
    """Unknown key ids at this rate, at a sidecar whose issuer is down."""
    issuers = yaml.safe_load((deployment.folder / "sidecar.yaml").read_text())["identity"]["issuers"]
    content = (deployment.folder / issuers[0]["jwks"]["file"]).read_bytes()
    floods: list[dict[str, float]] = []

    @contextmanager
    def flood() -> Iterator[None]:
        pair, world = deployment.world.certificates["console"], deployment.world
        arguments = [world.ports["abroad"], world.ca, pair.cert, pair.key, offered, seconds, 4]
        command = [sys.executable, str(HERE / "campaigns/flood.py"), *map(str, arguments)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": f"{HERE}:{HERE.parent}"}
        ) as process:  # fmt: skip
            assert process.stdin and process.stdout
            process.stdin.write(deployment.token("amy"))
            process.stdin.close()
            time.sleep(0.7)  # it imports
            try:
                yield
            finally:
                floods.append(json.loads(process.stdout.read()))

    with key_server(content) as server:
        issuers[0]["jwks"] = {"url": f"http://127.0.0.1:{server.port}/jwks", "refresh": "1h"}
        with deployment.variant(identity__issuers=issuers):
            server.down = True
            found = compared(deployment, flood, seconds=seconds, rounds=rounds, port="abroad", process="variant")
    took = sum(one["seconds"] for one in floods)
    return Flooded(
        found, len(server.fetched), server.most_in_a_minute(), offered, sum(one["answered"] for one in floods) / took
    )
