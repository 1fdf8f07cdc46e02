"""A ledger in this process, and one in a process of its own that may be killed; both with their own certificates."""

import ipaddress
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import grpc
import yaml
from cryptography import x509
from ledger_simulator import NOON
from store_rig import Authority, free_ports

from sidecar.api.v1 import ledger_pb2_grpc
from sidecar.ledger import book
from sidecar.ledger.calendar import day_of
from sidecar.ledger.certificates import Files, Followed, server_credentials
from sidecar.ledger.client import LedgerClient
from sidecar.ledger.rolling import Rolling
from sidecar.ledger.secret import Secret
from sidecar.ledger.service import LedgerServicer
from sidecar.ledger.writer import Writer
from sidecar.observability.metrics import CallStats

SECRET = Secret(bytes(range(32)))
SIDECAR = "spiffe://test/sidecar"
PROGRAM = """
import sys
from pathlib import Path
from sidecar.ledger.main import run
from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.loader import load
sys.exit(run(load(Path(sys.argv[1]), LedgerSettings, {}), after_pause=False))
"""


class Local:
    """The rules over a real database behind the real writer, with a clock that a test sets. `client` speaks for us."""

    def __init__(self, path: Path, now: float = NOON) -> None:
        self.path, self._now = path, now
        if not path.exists():
            book.create(path, SECRET, day_of(now))
        self.broken: list[Exception] = []
        self._open()

    def _open(self) -> None:
        self.lock = book.lock(self.path)
        self.database, self._beside = (book.connect(self.path, write=True) for _ in range(2))
        kept = book.Book(self.path, self.database)
        self.writer = Writer(
            lambda: Rolling(kept, SECRET, self._now, longest_pause=None), kept.transaction,
            lambda: self._beside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall(), lambda: self._now,
            self.broken.append,
        )  # fmt: skip

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, at: float) -> None:
        """A leap is what a restart would see."""
        leaps, self._now = abs(at - self._now) > 86_400, at
        if leaps:
            self.reopen()

    def reopen(self) -> None:
        self.close()
        self._open()

    def close(self) -> None:
        self.writer.close()
        self.database.close()
        self._beside.close()
        self.lock.close()

    async def reserve(self, call, sequence, group, source, items):
        return await self.writer.run(
            lambda rules, now: rules.reserve(SIDECAR, call, sequence, group, source, items, now)
        )

    async def peek(self, group):
        return await self.writer.run(lambda rules, _now: rules.peek(group))

    async def settle(self, settlement):
        await self.writer.run(lambda rules, now: rules.settle(SIDECAR, settlement, now))

    async def lapse(self):
        return await self.writer.run(lambda rules, now: rules.lapse(now))


class Certificates:
    """A server's, and as many sidecars' as are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, Authority()
        key, certificate = self.authority.issue(x509.DNSName("localhost"),
                                                x509.IPAddress(ipaddress.ip_address("127.0.0.1")))  # fmt: skip
        for name, data in {"tls.key": key, "tls.pem": certificate, "ca.pem": self.authority.pem}.items():
            (folder / name).write_bytes(data)

    def server(self) -> Files:
        return Files(cert=self.folder / "tls.pem", key=self.folder / "tls.key", ca=self.folder / "ca.pem")

    def client(self, identity: str = SIDECAR) -> Files:
        name = identity.rpartition("/")[2]
        key, certificate = self.authority.issue(x509.UniformResourceIdentifier(identity))
        (self.folder / f"{name}.key").write_bytes(key)
        (self.folder / f"{name}.pem").write_bytes(certificate)
        return Files(cert=self.folder / f"{name}.pem", key=self.folder / f"{name}.key", ca=self.folder / "ca.pem")


class Served:
    """A `Local` behind its gRPC service, and a client of it: what a sidecar has."""

    def __init__(self, local: Local, certificates: Certificates) -> None:
        self.local, self.certificates, self.stats = local, certificates, CallStats()

    async def start(self) -> Self:
        self.followed = Followed(self.certificates.server())
        self.server = grpc.aio.server()
        servicer = LedgerServicer(self.local.writer, frozenset({SIDECAR}), self.stats)
        self.servicer = servicer
        ledger_pb2_grpc.add_LedgerServicer_to_server(servicer, self.server)
        self.port = self.server.add_secure_port("localhost:0", server_credentials(self.followed))
        await self.server.start()
        self.client = self.connect(SIDECAR)
        return self

    def connect(self, identity: str, deadline: float = 20.0) -> LedgerClient:
        return LedgerClient(f"localhost:{self.port}", self.certificates.client(identity), deadline=deadline)

    async def stop(self) -> None:
        await self.client.close()
        await self.server.stop(0)

    @property
    def now(self) -> float:
        return self.local.now

    @now.setter
    def now(self, at: float) -> None:
        self.local.now = at
        self.servicer._writer = self.local.writer

    async def reserve(self, *asked):
        return await self.client.reserve(*asked)

    async def peek(self, group):
        return await self.client.peek(group)

    async def settle(self, settlement):
        await self.client.settle(settlement)

    async def lapse(self):
        return await self.local.lapse()


class LedgerProcess:
    """`sidecar ledger run` with its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.certificates = folder, Certificates(folder)
        (self.port,) = free_ports(1)
        self.settings = folder / "ledger.yaml"
        self.settings.write_text(yaml.safe_dump({
            "listen": {"address": f"localhost:{self.port}",
                       "tls": {"cert": "tls.pem", "key": "tls.key", "client_ca": "ca.pem"}},
            "sidecars": [SIDECAR], "database": "ledger.sqlite", "secret": "ledger.secret",
        }))  # fmt: skip
        self.database = folder / "ledger.sqlite"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def start(self, *, wait: float = 40.0) -> None:
        began = time.monotonic()
        with (self.folder / "log.jsonl").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(self.settings)], stderr=log, cwd=Path(__file__).parent.parent,
                env=os.environ | {"GRPC_VERBOSITY": "NONE"},
            )  # fmt: skip
        while time.monotonic() < began + wait:
            if self.process.poll() is not None:
                raise AssertionError(f"the ledger ended: {self.log()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise AssertionError(f"the ledger did not start: {self.log()}")

    def client(self, identity: str = SIDECAR, deadline: float = 30.0) -> LedgerClient:
        return LedgerClient(f"localhost:{self.port}", self.certificates.client(identity), deadline=deadline)

    def log(self) -> str:
        return (self.folder / "log.jsonl").read_text()[-3000:]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def rows(self, query: str) -> list[tuple]:
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as database:
            return database.execute(query).fetchall()
