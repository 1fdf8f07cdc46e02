"""What tests of the oversight store need: a producer that signs, keys and certificates, a store in a process."""

import asyncio
import datetime as dt
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.oversight.ingest import Header
from sidecar.oversight.journal import uuid7
from sidecar.oversight.openings import SUITE
from sidecar.oversight.producers import add_producer
from sidecar.oversight.storage import Item
from sidecar.oversight.wire import encode_header
from sidecar.record import (
    EPOCH_KEY_INFO,
    EventBody,
    Leaf,
    batch_message,
    body_digest,
    encode_body,
    encode_digest,
    encode_leaf,
    encode_openings,
    leaf_digest,
    openings_aad,
    subject_ref,
)
from sidecar.tlog.key import Signer
from sidecar.tlog.merkle import leaf_hash, root_hash

START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
REVIEWER = "spiffe://test/reviewer"
ORIGIN = "oversight.test/log"
CLOCK = "2026-11-22T10:00:00.000000Z"


def epoch_at(second: int) -> str:
    return uuid7(START + dt.timedelta(seconds=second), secrets.token_bytes(10))


@dataclass
class Producer:
    """Writes records as a sidecar would. `items[seq]` are the records of the running epoch."""

    name: str = "profiles-1"
    slot: int = 0
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    epoch: str = field(default_factory=lambda: epoch_at(0))
    epoch_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    items: list[Item] = field(default_factory=list)
    prev: str | None = None

    def next_epoch(self, second: int, *, linked: bool = True) -> "Producer":
        """The same producer after a restart."""
        return Producer(name=self.name, slot=self.slot, key=self.key, epoch=epoch_at(second),
                        prev=self.prev if linked else None)  # fmt: skip

    def record(self, type_: str = "decision", body: bytes | None = None, subjects: list[bytes] = (), *,
               call_id: str | None = None, time: str = CLOCK, prev: str | None = None) -> Item:  # fmt: skip
        """Add the next record of the chain."""
        item = self.make(len(self.items), prev or self.prev, type_, body, subjects, call_id=call_id, time=time)
        self.items.append(item)
        self.prev = encode_digest(leaf_digest(item.leaf))
        return item

    def make(self, seq: int, prev: str | None, type_: str, body: bytes | None, subjects: list[bytes] = (), *,
             call_id: str | None = None, time: str = CLOCK, aad_seq: int | None = None) -> Item:  # fmt: skip
        """A record at this place, not added to the chain."""
        openings = [(secrets.token_bytes(32), name) for name in subjects]
        if body is None:
            details: dict[str, object] = {"n": seq}
            if openings:
                details["subject_refs"] = [subject_ref(*pair) for pair in openings]
            body = encode_body(EventBody(type=type_, details=details))
        salt = secrets.token_bytes(32)
        leaf = encode_leaf(Leaf(type=type_, producer=self.name, slot=self.slot, epoch=self.epoch, seq=seq, prev=prev,
                                time=time, call_id=call_id, body=encode_digest(body_digest(salt, body))))  # fmt: skip
        nonce = sealed = b""
        if openings:
            nonce = secrets.token_bytes(12)
            aad = openings_aad(self.name, self.slot, self.epoch, seq if aad_seq is None else aad_seq)
            sealed = AESGCM(self.epoch_key).encrypt(nonce, encode_openings(openings), aad)
        return Item(leaf=leaf, salt=salt, body=body, nonce=nonce, sealed=sealed)

    def run(self, count: int) -> "Producer":
        """Add records: an `open` first, then decisions."""
        for _ in range(count):
            self.record("decision" if self.items else "open")
        return self

    def header(self, first: int, items: list[Item]) -> Header:
        root = root_hash([leaf_hash(item.leaf) for item in items])
        fields = {"producer": self.name, "slot": self.slot, "epoch": self.epoch, "first_seq": first,
                  "count": len(items), "root": root, "clock": CLOCK}  # fmt: skip
        return Header(raw=encode_header(Header(raw=b"", **fields)), **fields)

    def batch(self, first: int, end: int) -> tuple[Header, bytes, list[Item]]:
        return self.sign(first, self.items[first:end])

    def sign(self, first: int, items: list[Item]) -> tuple[Header, bytes, list[Item]]:
        header = self.header(first, items)
        return header, self.key.sign(batch_message(header.raw)), items

    def message(self, first: int, end: int) -> pb.AppendRequest:
        header, signature, items = self.batch(first, end)
        return pb.AppendRequest(batch=pb.Batch(header=header.raw, signature=signature, items=[
            pb.Item(leaf=one.leaf, salt=one.salt, body=one.body, nonce=one.nonce, sealed_openings=one.sealed)
            for one in items
        ]))  # fmt: skip

    def open(self, store_key: object, receipts_from: int = 0) -> pb.AppendRequest:
        sealed = SUITE.encrypt(self.epoch_key, store_key, EPOCH_KEY_INFO)
        return pb.AppendRequest(open=pb.Open(producer=self.name, slot=self.slot, epoch=self.epoch,
                                             sealed_epoch_key=sealed, receipts_from=receipts_from))  # fmt: skip


class Authority:
    """A certificate authority of its own."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        self.certificate = self._sign(self.name, self.key.public_key(), [], ca=True)

    def issue(self, *names: x509.GeneralName) -> tuple[bytes, bytes]:
        """(key, certificate) in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "leaf")])
        return _private_pem(key), _pem(self._sign(subject, key.public_key(), list(names), ca=False))

    @property
    def pem(self) -> bytes:
        return _pem(self.certificate)

    def _sign(self, subject: x509.Name, public: object, names: list[x509.GeneralName], *, ca: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public)
            .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )  # fmt: skip
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: object) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())  # fmt: skip


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


PROGRAM = """
import sys
from pathlib import Path
from typing import Self
from sidecar.oversight.main import run
from sidecar.settings.loader import load
from sidecar.settings.oversight import OversightSettings
sys.exit(run(load(Path(sys.argv[1]), OversightSettings, {})))
"""


class StoreProcess:
    """A store with its own folder, keys and certificates, in a process that may be killed and started again."""

    def __init__(self, folder: Path, *, interval: str = "100ms") -> None:
        self.folder = folder
        self.authority = Authority()
        self.log_key, self.sealing_key = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
        self.signer = Signer(ORIGIN, self.log_key)
        self.ports = dict(zip(("append", "keys", "query"), free_ports(3), strict=True))
        key, certificate = self.authority.issue(x509.DNSName("localhost"),
                                                x509.IPAddress(ipaddress.ip_address("127.0.0.1")))  # fmt: skip
        for name, data in {
            "tls.key": key, "tls.pem": certificate, "ca.pem": self.authority.pem, "log.pem": _private_pem(self.log_key),
            "seal.pem": _private_pem(self.sealing_key), "kek": secrets.token_bytes(32),
        }.items():  # fmt: skip
            (folder / name).write_bytes(data)
        settings = {
            "log": {"origin": ORIGIN, "key": "log.pem", "interval": interval},
            "storage": {"sqlite": "log.sqlite"},
            "tiles": {"folder": "tiles"},
            "listen": {name: f"localhost:{port}" for name, port in self.ports.items()}
            | {"tls": {"cert": "tls.pem", "key": "tls.key", "client_ca": "ca.pem"}},
            "producers": {"file": "producers.jsonl"},
            "secrets": {"sealing_key": "seal.pem", "key_encryption_key": "kek", "database": "keys.sqlite"},
            "reviewers": {"identities": [REVIEWER]},
        }
        self.settings = folder / "oversight.yaml"
        self.settings.write_text(yaml.safe_dump(settings))
        self.process: subprocess.Popen[bytes] | None = None
        self.client_names: dict[str, tuple[bytes, bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def register(self, producer: Producer) -> str:
        identity = f"spiffe://test/{producer.name}"
        add_producer(self.folder / "producers.jsonl", name=producer.name, public_key=producer.key.public_key(),
                     identity=identity, now=CLOCK)  # fmt: skip
        return identity

    def start(self, *, wait: float = 40.0) -> float:
        """Start and wait until it accepts; return how long that took."""
        began = time.monotonic()
        with (self.folder / "log.jsonl").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(self.settings)], stderr=log,
                                            cwd=Path(__file__).parent.parent, env=os.environ | {"GRPC_VERBOSITY": "NONE"})  # fmt: skip
        while time.monotonic() < began + wait:
            if self.process.poll() is not None:
                raise AssertionError(f"the store ended: {self.log()}")
            try:
                socket.create_connection(("127.0.0.1", self.ports["query"]), 0.2).close()
            except OSError:
                time.sleep(0.01)
            else:
                return time.monotonic() - began
        raise AssertionError(f"the store did not start: {self.log()}")

    def log(self) -> str:
        return (self.folder / "log.jsonl").read_text()[-3000:]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def channel(self, which: str, identity: str) -> grpc.aio.Channel:
        key, certificate = self.client_names.setdefault(
            identity, self.authority.issue(x509.UniformResourceIdentifier(identity))
        )
        credentials = grpc.ssl_channel_credentials(self.authority.pem, key, certificate)
        return grpc.aio.secure_channel(f"localhost:{self.ports[which]}", credentials,
                                       options=[("grpc.max_receive_message_length", 64 << 20),
                                                ("grpc.max_send_message_length", 64 << 20)])  # fmt: skip

    def query(self, channel: grpc.aio.Channel) -> oversight_pb2_grpc.QueryStub:
        return oversight_pb2_grpc.QueryStub(channel)


# -- talking to it ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def appending(store, identity):
    async with store.channel("append", identity) as channel:
        yield oversight_pb2_grpc.OversightStub(channel).Append()


@asynccontextmanager
async def asking(store, identity=REVIEWER):
    async with store.channel("query", identity) as channel:
        yield oversight_pb2_grpc.QueryStub(channel)


async def answers(call, count):
    """The next responses."""
    return [await asyncio.wait_for(call.read(), 60) for _ in range(count)]


async def send(store, producer, identity, *spans, receipts_from=0):
    """Send batches, then take every answer and receipt until the store has no more to say."""
    async with appending(store, identity) as call:
        await call.write(producer.open(store.sealing_key.public_key(), receipts_from))
        for span in spans:
            await call.write(producer.message(*span))
        await call.done_writing()
        responses = [response async for response in call]
    return responses


async def period_keys(store, producer, identity):
    async with store.channel("keys", identity) as channel:
        stub = oversight_pb2_grpc.KeyServiceStub(channel)
        sealing = await stub.GetSealingKey(pb.GetSealingKeyRequest())
        return await stub.GetPeriodKeys(pb.GetPeriodKeysRequest(producer=producer.name)), sealing
