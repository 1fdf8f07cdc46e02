"""What tests of the OPA engine share: small bundles, a question, and an OPA that misbehaves on demand."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sidecar.decision.bundle import Bundle
from sidecar.decision.opa import OpaClient, OpaEngine
from sidecar.decision.opa_http import Address
from sidecar.vocabulary import AccessRequest, Action, Environment, Person, Resource, Subject, canonical

REVISION = "sha256:" + "a" * 64
PERMIT = {
    "effect": "permit",
    "reasons": [{"code": "trial", "message": "Amy may", "rule": "sidecar.trial"}],
    "obligations": [],
    "advice": [],
    "ttl_seconds": 0,
}
DENY = PERMIT | {
    "effect": "deny",
    "reasons": [{"code": "not_us_personnel", "message": "only Amy", "rule": "sidecar.trial"}],
}
ONLY_AMY = (
    f'default decision := {json.dumps(DENY)}\n\ndecision := {json.dumps(PERMIT)} if input.subject.person.id == "amy"\n'
)
TEST = 'test_nobody if data.sidecar.decision.effect == "deny" with input as {"subject": {"person": {"id": "b"}}}\n'


def bundle(rules: str = ONLY_AMY, tests: str | None = TEST, data: object = None, revision: str = REVISION) -> Bundle:
    """A bundle of one module in package sidecar, and one of tests in package sidecar.trial_test."""
    return Bundle(
        revision=revision, label="", modules=(("sidecar/decision.rego", f"package sidecar\n\n{rules}\n"),),
        tests=() if tests is None else (("sidecar/trial_test.rego", f"package sidecar.trial_test\n\n{tests}\n"),),
        data=json.dumps(data or {}).encode(), corpus=(), files=(),
    )  # fmt: skip


def question(person: str = "amy", action: str = "read") -> AccessRequest:
    """Somebody asks."""
    return AccessRequest(
        subject=Subject(kind="personnel", person=Person(id=person)), action=Action(name=action), resource=Resource(),
        context=Environment(time="2026-01-31T10:00:00Z", phase="request"),
    )  # fmt: skip


async def decide(engine, person: str = "amy", action: str = "read"):
    """What the engine decides about somebody."""
    asked = question(person, action)
    return await engine.decide(asked, canonical(asked))


@dataclass
class Asked:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def answer(result: object = PERMIT, revision: str = REVISION) -> bytes:
    """The body of a good answer."""
    return json.dumps({"result": result, "provenance": {"bundles": {"b": {"revision": revision}}}}).encode()


def replying(body: bytes, status: str = "200 OK", headers: str = "") -> Behaviour:
    """Answers with this, whatever is asked."""

    async def reply(_asked: Asked, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return reply


@dataclass
class FakeOpa:
    """An HTTP server on a Unix socket that behaves as told, and remembers what it was asked."""

    path: Path
    behave: Behaviour = field(default_factory=lambda: replying(answer()))
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def engine(self, deadline: float = 10.0, token: Callable[[], str | None] = lambda: None) -> OpaEngine:
        """The sidecar's engine, asking this."""
        client = OpaClient(Address(socket=self.path), deadline, token)
        return OpaEngine(client, REVISION, deadline, lambda: None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            # Cancelled is how it ends; what asyncio's streams make of a cancelled task goes to the log.
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
                    body = await reader.readexactly(int(headers.get("content-length", "0")))
                    self.asked.append(Asked(head[0], headers, body))
                    await self.behave(self.asked[-1], writer)
        finally:
            writer.close()
            self._tasks.discard(task)
