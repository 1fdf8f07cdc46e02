"""A worker's policy: what the supervisor gives it, in two steps.

`prepare` makes it ready to answer and may fail; `put` puts it in force and may not. So that what one worker cannot use
is in force in none. A `put` without its `prepare` (to a worker that was starting meanwhile) does both; a worker that
cannot ends, and its successor is given the policy at its start.
"""

import asyncio
import signal
from dataclasses import dataclass, replace

import msgspec

from sidecar.decision.activation import Activated, activate, resume
from sidecar.decision.archive import load_archive
from sidecar.decision.bundle import Bundle
from sidecar.decision.engines import EngineMaker
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main import worker_channel as said
from sidecar.main.policy_follow import Told
from sidecar.main.policy_start import Started
from sidecar.main.proven import proving_code
from sidecar.main.standing import InForce
from sidecar.main.worker_channel import Channel, Given


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    given: Given
    active: Activated


class GivenPolicy:
    """The policy of one worker. One event loop; bundles are loaded in threads."""

    def __init__(self, channel: Channel, begin: Given, log: OperatorLog) -> None:
        self._log, self._given = log, begin
        self._maker: EngineMaker | None = None
        self._standing: InForce | None = None
        self._told: Told | None = None
        self._ready: _Ready | None = None
        self._turn = asyncio.Lock()
        channel.answering({
            "prepare": self._prepare, "abort": self._abort, "put": self._put, "activated": self._activated,
            "seen": self._seen, "tell": self._tell,
        })  # fmt: skip

    @property
    def revision(self) -> str:
        """Of the policy in force, or of the one that this worker begins with."""
        return self._given.revision

    async def begin(self, maker: EngineMaker) -> Started:
        """What this worker begins with. ConfigurationError."""
        self._maker = maker
        active = await self._made(self._given)
        return Started(active=active, source=self._given.source, seen=self._given.seen)

    def connect(self, standing: InForce, told: Told) -> None:
        """Where the policy stands, and whom to tell when there is another."""
        self._standing, self._told = standing, told

    async def _prepare(self, body: msgspec.Raw) -> None:
        given = said.read(body, Given)
        async with self._turn:
            await self._drop()
            self._ready = _Ready(given=given, active=await self._made(given))

    async def _abort(self, _body: msgspec.Raw) -> None:
        async with self._turn:
            await self._drop()

    async def _put(self, body: msgspec.Raw) -> None:
        given = said.read(body, Given)
        async with self._turn:
            try:
                await self._change(given)
            except BaseException as error:
                # The others decide by another policy now: this worker may not go on.
                self._log.error("worker_behind", revision=given.revision, detail=str(error))
                signal.raise_signal(signal.SIGTERM)
                raise

    async def _change(self, given: Given) -> None:
        standing, told = self._connected()
        held = standing.decisions.active
        if given.revision == held.revision:
            bundle = _bundle(given) if given.archive != self._given.archive else held.bundle
            active = replace(held, bundle=replace(bundle, signers=given.signers))
        elif self._ready is not None and self._ready.given.revision == given.revision:
            active, self._ready = self._ready.active, None
            active = replace(active, bundle=replace(active.bundle, signers=given.signers))
        else:
            active = await self._made(given)
        # No await between these: a decision, its revision in the record and the cache change together.
        self._given = given
        standing.put(active, seen=given.seen)
        told.changed()

    async def _activated(self, body: msgspec.Raw) -> None:
        event = said.read(body, said.Activated)
        standing, told = self._connected()
        await standing.activated(told.say, event.by, event.source)

    async def _seen(self, body: msgspec.Raw) -> None:
        if self._standing is not None:
            self._standing.seen(said.read(body, float))

    async def _tell(self, body: msgspec.Raw) -> None:
        if self._standing is not None:
            self._standing.tell(said.read(body, str | None))  # type: ignore[arg-type]

    async def _made(self, given: Given) -> Activated:
        if self._maker is None:
            raise ConfigurationError("the worker has not begun")
        return await asyncio.to_thread(_activated, given, self._maker)

    async def _drop(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            await ready.active.engine.close()

    def _connected(self) -> tuple[InForce, Told]:
        if self._standing is None or self._told is None:
            raise ConfigurationError("the worker has not begun")
        return self._standing, self._told


def _bundle(given: Given) -> Bundle:
    bundle = load_archive(given.archive, given.source)
    if bundle.revision != given.revision:
        raise ConfigurationError("not the bundle that was admitted", where=given.source, value=bundle.revision)
    return replace(bundle, signers=given.signers)


def _activated(given: Given, maker: EngineMaker) -> Activated:
    """Resumed where the very same code has proved it; otherwise tested in full."""
    bundle = _bundle(given)
    if given.code and given.code == proving_code(maker.name):
        return resume(bundle, given.source, maker, tests_passed=given.tests, documents_tried=given.tried)
    return activate(bundle, given.source, maker)
