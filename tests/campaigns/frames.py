"""Bytes that are no calls, at the port of every door of a running sidecar, and connections that say nothing in time."""

import http.client
import json
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from authzen_parts import client_context
from deployment import Deployment
from proxy_parts import frame, headers, message

from campaigns.crowd import Compared, rss
from campaigns.flood import PREFACE
from campaigns.mutations import Mutator
from sidecar.demo.processes import free_port
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE
from sidecar.demo.world import CONSOLE, WEB
from sidecar.doors.check import SERVICE as API
from sidecar.doors.envoy_authz import CHECK
from sidecar.doors.envoy_process import PROCESS

RESOURCES = f"types:\n  profile: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.Profile, subject: person}}\n"
OTHERS = ("check", "ext_authz", "ext_proc", "authzen")
_PATHS = {
    "proxy": f"/{SERVICE}/GetProfile", "check": f"/{API}/Check", "ext_authz": CHECK, "ext_proc": PROCESS,
    "authzen": "/access/v1/evaluation",
}  # fmt: skip
DENIED = "niall"
"""Works outside the US: whatever of theirs is permitted is a wrong permit."""


@contextmanager
def all_doors(deployment: Deployment) -> Iterator[dict[str, int]]:
    """A second sidecar with every door that listens; their ports."""
    (deployment.folder / "resources.yaml").write_text(RESOURCES)
    tls = {"cert": "tls/abroad.pem", "key": "tls/abroad.key", "client_ca": "ca.pem"}
    ports = {"proxy": deployment.world.ports["abroad"]} | {door: free_port() for door in OTHERS}
    listen = [{"door": door, "address": f"127.0.0.1:{port}", "tls": tls} for door, port in ports.items()]
    workloads = [{"id": one, "operated_from": "US", "may": ["read"]} for one in (CONSOLE, WEB)]
    with deployment.variant(
        listen=listen, describe__resources="resources.yaml", identity__workloads=workloads, checks__report_within="30s"
    ):
        yield ports


def connected(deployment: Deployment, port: int, certificate: str | None = "console") -> ssl.SSLSocket:
    """A TLS connection on which nothing has been said."""
    pair = deployment.world.certificates[certificate] if certificate else None
    context = client_context(deployment.world.ca, pair)
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection(("127.0.0.1", port), timeout=60)
    return context.wrap_socket(plain, server_hostname="localhost")


class Garbage:
    """What is sent, from a seed."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self.mutate = Mutator(seed)
        self.dice: random.Random = self.mutate.dice
        self._metadata = [(key.encode(), value.encode()) for key, value in deployment.metadata(DENIED)]
        self._body = pb.GetProfileRequest(user_id=deployment.world.cast.us).SerializeToString()

    def right(self, door: str) -> bytes:
        """A call that is in order, by somebody who is refused."""
        if door == "authzen":
            said = b"".join(key + b": " + value + b"\r\n" for key, value in self._metadata)
            body = json.dumps({"subject": {"type": "user", "id": DENIED}, "action": {"name": "read"},
                               "resource": {"type": "profile", "id": "1"}}).encode()  # fmt: skip
            head = f"POST {_PATHS[door]} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            return head.encode() + said + b"\r\n" + body
        return PREFACE + frame(4, 0, 0) + headers(1, _PATHS[door].encode(), self._metadata) + message(1, self._body)

    def one(self, door: str) -> tuple[str, bytes]:
        """A kind, and its bytes."""
        begun, dice = PREFACE + frame(4, 0, 0), self.dice
        first = headers(1, _PATHS[door].encode(), self._metadata)
        size = dice.choice((0, 1, 5, 1 << 14, (1 << 24) - 1))
        frames = b"".join(
            frame(
                dice.randrange(12),
                dice.randrange(256),
                dice.choice((0, 1, 3, 2**31 - 1)),
                dice.randbytes(dice.randrange(40)),
            )
            for _ in range(30)
        )
        prefix = bytes([dice.randrange(256)]) + dice.choice((0, 7, 2**31, 2**32 - 1)).to_bytes(4, "big")
        found = {
            "noise": dice.randbytes(dice.randrange(1, 4000)),
            "a preface and noise": begun + dice.randbytes(2000),
            "random frames": begun + frames,
            "random frames in a call": begun + first + frames,
            "a nearly right call": self.mutate(self.right(door)),
            "a call in order, frames behind it": self.right(door) + frames,
            "a wrong frame length": begun + size.to_bytes(3, "big") + first[3:],
            "a wrong message length": begun + first + frame(0, 1, 1, prefix + self._body),
            "HPACK noise": begun + frame(1, 5, 1, dice.randbytes(dice.randrange(300))),
            "CONTINUATION without end": begun + frame(1, 0, 1, first[9:]) + frame(9, 0, 1, b"\0\x01x\x01y") * 2000,
            "pings": begun + frame(6, 0, 0, bytes(8)) * 500,
            "settings": begun + frame(4, 0, 0, dice.randbytes(6)) * 200,
            "resets": begun + b"".join(headers(2 * n + 1, _PATHS[door].encode(), self._metadata) + frame(3, 0, 2 * n + 1, bytes(4)) for n in range(50)),
            "two lengths": b"POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "a chunk of any length": b"POST /access/v1/evaluation HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * dice.randrange(1, 30) + b"\r\nx",
        }  # fmt: skip
        kind = dice.choice(list(found))
        return kind, found[kind]


@dataclass(slots=True)
class Thrown:
    """`wrong`: what must never be."""

    seed: int
    sent: Counter[str] = field(default_factory=Counter)
    honest: int = 0
    wrong: list[str] = field(default_factory=list)
    rss: float = 0.0

    def __str__(self) -> str:
        each = ", ".join(f"{count} {door}" for door, count in self.sent.items())
        return (f"seed {self.seed}: {self.sent.total()} connections of garbage ({each}), {len(self.wrong)} crashes or wrong "
                f"permits; {self.honest} honest calls between, all answered; RSS {self.rss:.0f} MiB")  # fmt: skip


def campaign(
    deployment: Deployment, ports: dict[str, int], *, seed: int, number: int = 10**9, seconds: float = 1e9
) -> Thrown:
    """Garbage at every door in turn, with and without TLS; an honest call after every few."""
    found, garbage, until = Thrown(seed), Garbage(deployment, seed), time.monotonic() + seconds
    pid, before = deployment.processes.pid("variant"), len(deployment.upstream.seen)
    for at in range(number):
        if time.monotonic() > until:
            break
        door = garbage.dice.choice(list(ports))
        kind, data = garbage.one(door)
        _throw(deployment, ports[door], data, plain=garbage.dice.random() < 0.1)
        found.sent[door] += 1
        if at % 10 == 9:
            _honest(deployment, found, f"{at}, {kind} at {door}")
            found.rss = max(found.rss, rss(pid))
    _honest(deployment, found, "the end")
    for door, port in ports.items():
        with suppress(OSError), connected(deployment, port):
            continue
        if socket.socket().connect_ex(("127.0.0.1", port)):
            found.wrong.append(f"{door} does not listen any more")
    if deployment.processes.pid("variant") != pid:
        found.wrong.append("another process")
    if len(deployment.upstream.seen) - before != found.honest:
        found.wrong.append("the service was reached by garbage")
    if "Traceback" in deployment.log("variant"):
        found.wrong.append("a traceback in the log")
    return found


def _throw(deployment: Deployment, port: int, data: bytes, *, plain: bool) -> None:
    with suppress(OSError):
        if plain:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as one:
                one.sendall(data)
                _drained(one)
            return
        with connected(deployment, port) as secure:
            secure.sendall(data)
            _drained(secure)


def _drained(one: socket.socket) -> None:
    one.settimeout(0.02)
    while one.recv(1 << 16):
        continue


def _honest(deployment: Deployment, found: Thrown, after: str) -> None:
    request = [pb.GetProfileRequest(user_id=deployment.world.cast.us).SerializeToString()]
    caller = deployment.caller("console", "abroad")
    answer = None
    for _ in range(300):  # a listener that a bad path has stopped is put back at once
        answer = caller.call("GetProfile", request, deployment.metadata("amy"), 20.0)
        if answer.status != "UNAVAILABLE":
            break
        time.sleep(0.1)
    if answer is None or answer.said != "OK":
        found.wrong.append(f"after {after}: {answer}")
    else:
        found.honest += 1


# -- AuthZEN: who says nothing in time --------------------------------------------------------------------------------


@dataclass(slots=True)
class Slow:
    """`held`: connections that send a byte now and then; `closed`: those that were closed on them."""

    held: int = 0
    closed: int = 0
    compared: Compared = field(default_factory=Compared)

    def __str__(self) -> str:
        return f"{self.held} slow heads at AuthZEN, half without a certificate, {self.closed} cut off; {self.compared}"


def slowloris(
    deployment: Deployment, ports: dict[str, int], *, connections: int = 200, seconds: float = 2.5, wait: float = 0.0
) -> Slow:
    """Heads a byte at a time, with and without a certificate, beside honest questions. `wait`: how long they are held."""
    found = Slow()
    pid = deployment.processes.pid("variant")
    _ask(deployment, ports["authzen"], seconds, found.compared.quiet)
    made = []
    for at in range(connections):
        with suppress(OSError):
            one = connected(deployment, ports["authzen"], None if at % 2 else "console")
            one.sendall(b"POST /access/v1/evaluation HTTP/1.1\r\nHost: ")
            made.append(one)
    found.held, over = len(made), threading.Event()
    dripping = threading.Thread(target=_drip, args=(made, over))
    dripping.start()
    try:
        _ask(deployment, ports["authzen"], seconds, found.compared.disturbed)
        found.compared.rss = rss(pid)
        time.sleep(wait)
    finally:
        over.set()
        dripping.join()
    found.closed = sum(_closed(one) for one in made)
    for one in made:
        one.close()
    return found


def _drip(made: list[ssl.SSLSocket], over: threading.Event) -> None:
    while not over.wait(1.0):
        for one in made:
            with suppress(OSError):
                one.sendall(b"x")


def _closed(one: ssl.SSLSocket) -> bool:
    one.settimeout(0.01)
    try:
        while one.recv(1 << 12):
            continue
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def _ask(deployment: Deployment, port: int, seconds: float, honest: object) -> None:
    context = client_context(deployment.world.ca, deployment.world.certificates["console"])
    body = json.dumps({"subject": {"type": "user", "id": "amy"}, "action": {"name": "read"},
                       "resource": {"type": "profile", "id": str(deployment.world.cast.us)}})  # fmt: skip
    given = {"Content-Type": "application/json", **dict(deployment.metadata("amy"))}
    link = http.client.HTTPSConnection("localhost", port, context=context, timeout=60)
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            begun = time.monotonic()
            link.request("POST", "/access/v1/evaluation", body, given)
            answer = link.getresponse()
            answer.read()
            honest.said["OK" if answer.status == 200 else str(answer.status)] += 1
            honest.seconds.append(time.monotonic() - begun)
            time.sleep(0.02)
    finally:
        link.close()
