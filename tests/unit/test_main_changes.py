"""What changes under open calls reaches them: grants, revocations, keys, the upstream's certificates."""

import asyncio
import json
import threading
import time
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from worlds import changed, make_world

from sidecar.demo.tokens import STAFF, IdentityProvider
from sidecar.demo.world import World
from sidecar.enforcement.upstream import ClientTls
from sidecar.main import build, grants, renewal
from sidecar.main.composition import compose
from sidecar.main.standing import Changes
from sidecar.observability.metrics import CallStats
from sidecar.observability.telemetry import Telemetry
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings

WITHIN = 60.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world")


def settings(world: World, **changes: object) -> SidecarSettings:
    tree = yaml.safe_load((world.folder / "sidecar.yaml").read_text())
    file = world.folder / "changed.yaml"
    file.write_text(yaml.safe_dump(changed(tree, {key.replace("__", "."): value for key, value in changes.items()})))
    return load(file, SidecarSettings, {})


class Count:
    """How often something was told, and on which threads."""

    def __init__(self) -> None:
        self.times = 0
        self.threads: set[int] = set()

    def __call__(self) -> None:
        self.times += 1
        self.threads.add(threading.get_ident())


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def warning(self, event: str, **details: object) -> None:
        self.events.append(event)

    error = warning


async def until(reached) -> None:
    async with asyncio.timeout(WITHIN):
        while not reached():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def at_work(*work):
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_a_thread_says_is_passed_on_by_the_loop_and_not_before_somebody_listens() -> None:
    changes, told = Changes(), Count()
    await asyncio.to_thread(changes.tell)
    await asyncio.sleep(0)
    changes.connect(told)
    await asyncio.gather(*(asyncio.to_thread(changes.tell) for _ in range(3)))
    await until(lambda: told.times == 3)
    assert told.threads == {threading.get_ident()}


async def test_a_revocation_and_a_list_that_cannot_be_read_reach_open_calls(world: World) -> None:
    told = Count()
    tokens = build.tokens(settings(world), None, told)
    told.times = 0
    async with at_work(tokens.run()):
        (world.folder / "revoked.jsonl").write_text('{"sub": "amy"}\n')
        await until(lambda: told.times == 1)
        (world.folder / "revoked.jsonl").write_text("not JSON\n")
        await until(lambda: told.times == 2)
        assert [one for one in tokens.problems() if "revoked" in one], "the list is in error before anybody is told"


async def test_keys_that_have_changed_reach_open_calls_and_the_same_ones_again_do_not(world: World) -> None:
    told = Count()
    tokens = build.tokens(settings(world), None, told)
    told.times = 0
    file = world.folder / "staff-jwks.json"
    async with at_work(tokens.run()):
        file.write_bytes(file.read_bytes())
        await asyncio.sleep(2.5)
        assert told.times == 0
        IdentityProvider(STAFF, "staff-2").write_jwks(file)
        await until(lambda: told.times == 1)


async def test_a_grant_that_opens_and_one_that_ends_reach_open_calls_and_are_recorded(world: World) -> None:
    told, said = Count(), []

    async def say(kind, details) -> None:
        said.append((kind, details["id"], details["why"]))

    store = grants.recorded(settings(world), Log(), say, told)
    assert store is not None
    async with at_work(store.run()):
        world.grant_expires = world.desk.grant("EX-7", "ed", time.time())
        await until(lambda: told.times == 1)
        (world.folder / "grants" / "EX-7.json").unlink()
        await until(lambda: told.times == 2)
        await until(lambda: len(said) == 2)
    assert said == [("exception_opened", "EX-7", ""), ("exception_closed", "EX-7", "withdrawn")]


async def test_new_certificates_of_the_upstream_are_taken_up_and_bad_ones_reported_once(world: World) -> None:
    used, log = settings(world), Log()
    tls = used.upstream.tls
    assert tls is not None
    link = build.upstream(used)
    first = link.channel
    async with at_work(renewal.follow(link, log, every=0.02)):
        tls.ca.write_bytes(tls.ca.read_bytes() + b"\n")
        await until(lambda: log.events)
        assert link.channel is not first
        tls.ca.unlink()
        await until(lambda: len(log.events) == 2)
        await asyncio.sleep(0.1)
    assert log.events == ["upstream_certificates_taken_up", "upstream_certificates_refused"]
    await link.close()


async def test_the_whole_of_it_put_together(world: World) -> None:
    """Policy, revocation and grant each reach the enforcement point of a composed sidecar; names of methods are known."""
    log = Log()
    async with AsyncExitStack() as stack:
        telemetry = Telemetry("test", {})
        parts = await compose(settings(world), log, telemetry, CallStats(), stack)
        stack.push_async_callback(parts.records.drain, 0.0)
        reconsidered = Count()
        streams = parts.point._streams
        before = streams.reconsider
        streams.reconsider = lambda: (reconsidered(), before())  # type: ignore[method-assign]
        async with at_work(*parts.work()):
            (world.folder / "revoked.jsonl").write_text('{"jti": "x"}\n')
            await until(lambda: reconsidered.times)
            reconsidered.times = 0
            world.grant_expires = world.desk.grant("EX-7", "ed", time.time())
            await until(lambda: reconsidered.times)
            await asyncio.sleep(1.5)
            reconsidered.times = 0
            file = world.folder / "policies" / "sidecar" / "decision.rego"
            file.write_text(file.read_text() + "\n# said otherwise\n")
            revision = parts.standing.policy(build.clock()).revision
            await until(lambda: parts.standing.policy(build.clock()).revision != revision)
            assert reconsidered.times
            assert len(parts.cache) == 0
            (world.folder / "grants" / "bad.json").write_text(json.dumps({}))
            await until(lambda: any("exceptions: bad.json" in one for one in parts.problems()))
        assert "policy_activated" in log.events
        known = parts.point._parts.observer._known
        assert known("sidecar.demo.profiles.v1.Profiles/GetProfile")
        assert known("grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        assert not known("no.Such/Method")
        assert not known("grpc.reflection.v1.ServerReflection/Anything")


def test_a_connection_without_certificate_of_its_own_still_names_its_authorities(world: World) -> None:
    tls = build.client_tls(settings(world, upstream__tls={"ca": "ca.pem"}).upstream.tls, "upstream.tls")
    assert tls == ClientTls(ca=world.folder / "ca.pem")
