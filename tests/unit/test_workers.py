"""What the supervisor and its workers say to each other, and how it is put together for whoever asks."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import pytest
from minimal_policy import write_policy
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry
from proxy_parts import Remembering

from sidecar.decision.activation import Activated, activate
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main import worker_channel as said
from sidecar.main.policy_start import Started
from sidecar.main.worker_channel import Channel, Fault, Given, GoneError
from sidecar.main.worker_metrics import Joined, packed
from sidecar.main.worker_policy_group import GroupPolicy
from sidecar.main.worker_status import shadows_together, together


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    channels = await Channel.on(one), await Channel.on(other)
    tasks = [asyncio.create_task(channel.run()) for channel in channels]
    try:
        yield channels
    finally:
        for channel in channels:
            channel.close()
        await asyncio.gather(*tasks)


async def test_a_question_has_its_answer_whatever_the_order() -> None:
    async def late(body: msgspec.Raw) -> object:
        number = said.read(body, int)
        await asyncio.sleep(0.02 / (number + 1))
        return number * 2

    async with pair() as (here, there):
        there.answering({"double": late})
        answers = await asyncio.gather(*(here.ask("double", number) for number in range(5)))
        assert [said.read(one, int) for one in answers] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("is wrong", where="a.b", value=7, fix="Mend it"),
        ConfigurationError("is wrong"),
        IntegrityError("is damaged", where="file, offset 3", fix="Keep it"),
    ],
)
async def test_an_error_comes_over_as_it_was_raised(error: Exception) -> None:
    async def fail(_body: msgspec.Raw) -> object:
        raise error

    async with pair() as (here, there):
        there.answering({"fail": fail})
        with pytest.raises(type(error)) as caught:
            await here.ask("fail")
        assert str(caught.value) == str(error)


async def test_an_unexpected_error_says_its_kind_and_nothing_else() -> None:
    async def fail(_body: msgspec.Raw) -> object:
        raise KeyError("Bearer secret")

    async with pair() as (here, there):
        there.answering({"fail": fail})
        with pytest.raises(ConfigurationError, match="KeyError") as caught:
            await here.ask("fail")
        assert "secret" not in str(caught.value)
        with pytest.raises(ConfigurationError, match="nothing that this process answers"):
            await here.ask("unknown")


async def test_whoever_waits_is_told_when_the_other_side_ends_or_is_mute() -> None:
    async def never(_body: msgspec.Raw) -> object:
        await asyncio.Event().wait()

    async with pair() as (here, there):
        there.answering({"never": never})
        with pytest.raises(GoneError, match="0.05 s"):
            await here.ask("never", within=0.05)
        waiting = asyncio.create_task(here.ask("never"))
        await asyncio.sleep(0.01)
        there.close()
        with pytest.raises(GoneError, match="has ended"):
            await waiting
        with pytest.raises(GoneError):
            await here.ask("never")


async def test_what_is_no_frame_ends_the_channel() -> None:
    one, other = socket.socketpair()
    channel = await Channel.on(one)
    other.sendall((1 << 31).to_bytes(4, "big"))
    await asyncio.wait_for(channel.run(), 60)
    assert channel.gone
    other.close()


# -- one policy for all ------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Fake:
    """A worker that does as it is told, until a test says otherwise."""

    number: int
    fails: dict[str, Exception] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    revision: str = ""
    killed: bool = False

    async def ask(self, name: str, body: object = None, within: float | None = None) -> object:
        await asyncio.sleep(0)
        self.heard.append(name)
        if name in self.fails:
            raise self.fails[name]
        if name == "put":
            assert isinstance(body, Given)
            self.revision = body.revision
        return None

    def tell(self, name: str, body: object = None) -> None:
        self.heard.append(f"{name} {body}")

    def kill(self) -> None:
        self.killed = True


def policy(folder: Path, **decision: object) -> Activated:
    bundle = load_folder(write_policy(folder, **decision))
    return activate(bundle, str(folder), EmbeddedMaker(1.0))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Activated:
    return policy(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Activated:
    return policy(tmp_path_factory.mktemp("second"), ttl_seconds=9)


def group_of(active: Activated) -> GroupPolicy:
    started = Started(active=active, source="s", seen=1.0)
    return GroupPolicy(started, 60.0, Remembering(), resumable=True, successor=0.05)


async def joined(group: GroupPolicy, *members: Fake) -> None:
    for member in members:
        await group.join(member, group.given)


async def test_a_policy_is_in_force_in_all_workers_or_in_none(first: Activated, second: Activated) -> None:
    group, good, bad = group_of(first), Fake(0), Fake(1, {"prepare": ConfigurationError("does not compile here")})
    await joined(group, good, bad)
    with pytest.raises(ConfigurationError, match="worker 1 cannot use it: does not compile here"):
        await group.prepare(second, "s")
    assert "abort" in good.heard and "abort" in bad.heard
    assert "put" not in good.heard + bad.heard
    bad.fails.clear()
    await group.prepare(second, "s")
    group.put(second, seen=2.0)
    await group.activated(None, "admin:me", "elsewhere")  # type: ignore[arg-type]
    assert good.revision == bad.revision == second.revision == group.decisions.active.revision
    assert [one.heard[-2:] for one in (good, bad)] == [["put", "activated"]] * 2, "in force before it is recorded"


async def test_a_policy_that_ends_workers_is_refused(first: Activated, second: Activated) -> None:
    group, good, dying = group_of(first), Fake(0), Fake(1, {"prepare": GoneError("the process has ended")})
    await joined(group, good, dying)
    with pytest.raises(ConfigurationError, match="worker 1 ended while it tried it"):
        await group.prepare(second, "s")
    group.leave(good)
    group.leave(dying)
    with pytest.raises(ConfigurationError, match="no worker is there to try it"):
        await group.prepare(second, "s")


async def test_one_death_at_the_wrong_moment_is_no_reason_to_refuse(first: Activated, second: Activated) -> None:
    group, good, killed = group_of(first), Fake(0), Fake(1, {"prepare": GoneError("the process has ended")})
    await joined(group, good, killed)

    preparing = asyncio.create_task(group.prepare(second, "s"))
    await asyncio.sleep(0.01)
    group.leave(killed)
    successor = Fake(1)
    await group.join(successor, group.given)
    await preparing
    assert "prepare" in successor.heard


async def test_a_worker_that_starts_while_the_policy_changes_has_it_before_it_opens(
    first: Activated, second: Activated
) -> None:
    group, old = group_of(first), Fake(0)
    await joined(group, old)
    begun_with, late = group.given, Fake(1)
    group.put(second, seen=2.0)
    await group.join(late, begun_with)
    assert late.revision == second.revision
    stuck = Fake(2, {"put": ConfigurationError("cannot")})
    with pytest.raises(GoneError):
        await group.join(stuck, begun_with)
    group.put(first, seen=3.0)
    await group.activated(None, "b", "s")  # type: ignore[arg-type]
    assert (old.revision, late.revision) == (first.revision,) * 2
    assert stuck.heard == ["put"], "one that could not be given it is told nothing more"


async def test_a_worker_that_does_not_put_it_in_force_is_ended(first: Activated, second: Activated) -> None:
    group, mute, behind = (
        group_of(first),
        Fake(0, {"put": GoneError("no answer")}),
        Fake(1, {"put": ConfigurationError("x")}),
    )
    await joined(group, mute, behind)
    group.put(second, seen=None)
    await group.activated(None, "b", "s")  # type: ignore[arg-type]
    assert mute.killed and behind.killed
    assert group.policy_age(11.0) == 10.0


async def test_other_signers_of_the_same_policy_reach_every_worker(first: Activated) -> None:
    group, member = group_of(first), Fake(0)
    await joined(group, member)
    group.put(replace(first, bundle=replace(first.bundle, signers=("alice",))), seen=None)
    await group.activated(None, "b", "s")  # type: ignore[arg-type]
    assert group.given.signers == ("alice",)
    assert member.heard[-2:] == ["put", "activated"]


async def test_an_event_is_recorded_by_one_worker_the_next_if_that_one_cannot(first: Activated) -> None:
    group, gone, well, spare = group_of(first), Fake(0, {"say": GoneError("x")}), Fake(1), Fake(2)
    await joined(group, gone, well, spare)
    await group.say("admin_action", {"action": "policy.activate"})
    assert [one.heard.count("say") for one in (gone, well, spare)] == [1, 1, 0]


# -- for whoever asks --------------------------------------------------------------------------------------------------


def test_totals_are_totals_and_what_differs_is_shown() -> None:
    one = {"worker": 0, "pid": 5, "slot": 0, "spool_records": 2, "receipt_lag_seconds": 0.5, "store_connected": True,
           "listeners": ["a:1", "unix:/x/0"], "policy": "p", "directory": "d1", "problems": ["store: down", "disk"]}  # fmt: skip
    other = {**one, "worker": 1, "spool_records": 3, "receipt_lag_seconds": 1.5, "store_connected": False,
             "listeners": ["a:1", "unix:/x/1"], "directory": "d2", "problems": ["store: down"]}  # fmt: skip
    assert together([one, other], ["worker 2 is starting"]) == {
        "spool_records": 5, "receipt_lag_seconds": 1.5, "store_connected": False,
        "listeners": ["a:1", "unix:/x/0", "unix:/x/1"], "policy": "p", "directory": "d1, d2",
        "problems": ["worker 2 is starting", "store: down", "worker 0: disk"],
    }  # fmt: skip
    assert together([], ["all down"]) == {"problems": ["all down"]}


def test_shadows_are_counted_together() -> None:
    one = {"candidate": "c", "asked": 4, "agreed": 4, "agreement": 1.0, "recent": [{"a": 1}], "problems": []}
    other = {**one, "asked": 4, "agreed": 2, "agreement": 0.5, "recent": [{"a": 2}], "problems": ["x"]}
    assert shadows_together([one, other]) == {
        "candidate": "c", "asked": 8, "agreed": 6, "agreement": 0.75, "recent": [{"a": 1}, {"a": 2}], "problems": ["x"],
    }  # fmt: skip


def test_a_page_has_each_family_once_with_the_series_of_every_worker() -> None:
    def families(calls: int) -> list[said.msgspec.Struct]:
        counted = CounterMetricFamily("customhouse_calls", "Calls", labels=["method"])
        counted.add_metric(["a/b"], calls)
        return packed([counted, GaugeMetricFamily("customhouse_problems", "Problems", value=calls)])

    restarts = CounterMetricFamily("customhouse_worker_restarts", "Restarts", labels=["worker"])
    restarts.add_metric(["1"], 3)
    registry = CollectorRegistry()
    registry.register(Joined(lambda: [restarts], lambda: {"0": families(1), "1": families(2)}))
    page = generate_latest(registry).decode()
    assert page.count("# TYPE customhouse_calls_total counter") == 1
    assert 'customhouse_calls_total{method="a/b",worker="0"} 1.0' in page
    assert 'customhouse_problems{worker="1"} 2.0' in page
    assert 'customhouse_worker_restarts_total{worker="1"} 3.0' in page, "its own label is kept"
    assert 'process_open_fds{worker="supervisor"}' in page


def test_a_fault_keeps_what_cannot_be_packed_as_text() -> None:
    error = ConfigurationError("x", value=Path("/a"))
    assert Fault.of(error).value == "/a"
