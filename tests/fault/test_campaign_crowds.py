"""A running sidecar under load that is not meant well: its other callers are answered, and memory stays bounded."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from campaigns import frames, keys, runaway, streams
from campaigns.crowd import RSS_MIB, compared
from deployment import Deployment


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("crowds")) as deployment:
        yield deployment
        assert "Traceback" not in deployment.log("sidecar")


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    def tell(figure: object) -> None:
        with capsys.disabled():
            print(f"\n{figure}")

    return tell


def test_unknown_key_ids_do_not_become_fetches(deployed: Deployment, told: Callable[[object], None]) -> None:
    found = keys.campaign(deployed)
    told(found)
    assert 1 <= found.most_in_a_minute <= keys.FETCHES_A_MINUTE
    assert found.rate > 20, "there was a flood"
    assert found.compared.held


def test_idle_streams_take_nothing_from_others(deployed: Deployment, told: Callable[[object], None]) -> None:
    met = streams.Met()
    found = compared(deployed, lambda: streams.idle(deployed, met, streams=1000), seconds=2.5, rounds=1)
    told(f"{met.begun} idle streams, {met.ended} ended; {found}")
    assert (met.begun, met.ended) == (1000, 0)
    assert found.held


def test_metadata_bombs_harm_nobody_else(deployed: Deployment, told: Callable[[object], None]) -> None:
    met = streams.Met()
    before = len(deployed.upstream.seen)
    found = compared(deployed, lambda: streams.bombs(deployed, met), seconds=2.5, rounds=1)
    told(f"{met.begun} metadata bombs, {met.ended} ends told; {found}")
    assert met.begun > 5
    assert found.held
    assert len(deployed.upstream.seen) - before <= sum((found.quiet.said + found.disturbed.said).values()) + 2


def test_slow_readers_do_not_fill_memory(deployed: Deployment, told: Callable[[object], None]) -> None:
    met = streams.Met()
    found = compared(deployed, lambda: streams.slow_readers(deployed, met), seconds=2.5, rounds=1)
    told(f"30 slow readers, to whom {met.begun} messages of 60 kB were sent; {found}")
    assert found.held


def test_rapid_resets_leave_no_call_without_its_record(deployed: Deployment, told: Callable[[object], None]) -> None:
    met = streams.Met()

    @contextmanager
    def resetting() -> Iterator[None]:
        thread = threading.Thread(target=streams.rapid_resets, args=(deployed, met), kwargs={"calls": 2000})
        thread.start()
        yield
        thread.join()

    found = compared(deployed, resetting, seconds=2.5, rounds=1)
    told(f"{met.begun} calls reset at once; {found}")
    assert found.held
    deployed.delivered(60)
    open_calls = [call for call, one in deployed.calls().items() if one.decisions and len(one.outcomes) != 1]
    assert open_calls == []


def test_a_runaway_policy_is_refused_at_its_deadline(deployed: Deployment, told: Callable[[object], None]) -> None:
    ran = runaway.campaign(deployed)
    told(ran)
    assert ran.said.total() >= 2
    assert set(ran.said) <= {"UNAVAILABLE policy_error"}
    assert min(ran.seconds) < 10 * runaway.DEADLINE
    assert ran.compared.held


@pytest.fixture(scope="class")
def ports(deployed: Deployment) -> Iterator[dict[str, int]]:
    with frames.all_doors(deployed) as ports:
        yield ports


class TestEveryDoor:
    """A second sidecar with all doors that listen."""

    def test_slow_heads_do_not_keep_honest_questions_waiting(self, deployed: Deployment, ports, told) -> None:
        found = frames.slowloris(deployed, ports)
        told(found)
        assert found.held == 200
        assert found.closed >= 36, "those without a certificate have 64 connections"
        assert found.compared.held

    def test_garbage_harms_nobody(self, deployed: Deployment, ports, told) -> None:
        found = frames.campaign(deployed, ports, seed=523, number=120)
        told(found)
        assert found.wrong == []
        assert len(found.sent) == 5
        assert found.rss <= RSS_MIB
