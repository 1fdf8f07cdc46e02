"""The policy folder is followed: what passes is put in force, what does not is refused, and nothing half-copied is read."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from minimal_policy import write_policy

from sidecar.decision import bundle
from sidecar.decision.bundle import activate
from sidecar.errors import DecideError
from sidecar.main.build import clock
from sidecar.main.policy import REREAD_SECONDS, RETRY_SECONDS, PolicyFolder
from sidecar.main.standing import InForce
from sidecar.observability.metrics import CallStats
from sidecar.vocabulary import AccessRequest, Action, Environment, Person, Resource, Subject, canonical

AMY = AccessRequest(
    subject=Subject(kind="personnel", person=Person(id="amy")), action=Action(name="read"), resource=Resource(),
    context=Environment(time="2026-01-01T00:00:00Z", phase="request"),
)  # fmt: skip
MAX_AGE = 7 * 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Snapshot:
    """A directory or an index that never changes."""

    error = None

    def __init__(self, revision: str) -> None:
        self.revision = revision

    def age(self, now: float) -> float:
        return 0.0

    def fresh(self, now: float) -> bool:
        return True


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **details: object) -> None:
        self.lines.append((event, details))

    error = warning


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


@pytest.fixture
def monotonic() -> Clock:
    return Clock()


@pytest.fixture
def folder(source: Path, monotonic: Clock) -> PolicyFolder:
    found = PolicyFolder(source, activate(source), deadline_seconds=0.5, monotonic=monotonic)
    assert settled(found) is None
    assert found.holds
    return found


def settled(folder: PolicyFolder):
    """Two looks: the first sees a change, the second that it rests."""
    return folder.look() or folder.look()


def broken(source: Path) -> None:
    """The bundle's own test fails from now on."""
    file = source / "sidecar" / "decision_test.rego"
    file.write_text(file.read_text().replace('answer.effect == "deny"', 'answer.effect == "permit"'))


def test_a_folder_that_stays_as_it_is_holds_the_policy_and_is_read_again_each_minute(folder, source, monotonic):
    for _ in range(3):
        assert folder.look() is None
        assert folder.holds
    monotonic.now += REREAD_SECONDS
    assert folder.look() is None
    assert folder.holds


def test_another_bundle_that_passes_its_tests_is_activated_once(folder, source):
    before = bundle.revision(source)
    write_policy(source, ttl_seconds=7)
    assert folder.look() is None  # somebody may still be copying
    assert not folder.holds
    found = folder.look()
    assert found is not None
    assert found.revision == bundle.load_folder(source).revision != before
    assert found.tests_passed == 1
    assert folder.holds
    assert folder.look() is None


def test_what_is_still_being_copied_is_left_alone(folder, source):
    for number in range(4):
        write_policy(source, ttl_seconds=number + 1)
        assert folder.look() is None
    assert folder.look() is not None


def test_a_bundle_whose_tests_fail_is_refused_with_the_reason_until_it_is_mended(folder, source):
    good = (source / "sidecar" / "decision_test.rego").read_text()
    broken(source)
    assert settled(folder) is None
    assert "the bundle's own tests fail: " in folder.problem
    assert str(source) in folder.problem
    assert not folder.holds
    assert folder.look() is None
    assert not folder.holds, "a folder at rest that was refused does not confirm the policy in force"
    (source / "sidecar" / "decision_test.rego").write_text(good)
    assert settled(folder) is None
    assert folder.holds
    assert folder.problem is None


def test_a_refused_bundle_is_tried_again_later(folder, source, monotonic, tmp_path):
    broken(source)
    settled(folder)
    said = folder.problem
    folder.problem = "as before"
    folder.look()
    assert folder.problem == "as before"
    monotonic.now += RETRY_SECONDS
    folder.look()
    assert folder.problem == said


def test_a_folder_swapped_by_two_renames_is_missed_by_one_look_without_an_alarm(folder, source, tmp_path):
    write_policy(tmp_path / "next", ttl_seconds=9)
    source.rename(tmp_path / "old")
    assert folder.look() is None
    assert folder.problem is None
    (tmp_path / "next").rename(source)
    assert settled(folder) is not None
    assert folder.holds


def test_a_folder_that_has_gone_is_a_problem_and_confirms_nothing(folder, source):
    shutil.rmtree(source)
    folder.look()
    folder.look()
    assert "cannot be read" in folder.problem
    assert not folder.holds


def test_a_link_that_turns_in_a_circle_is_a_problem_not_a_crash(folder, source):
    os.symlink(source / "sidecar" / "loop.rego", source / "sidecar" / "loop.rego")
    folder.look()
    folder.look()
    assert folder.problem is not None
    assert not folder.holds


# -- what follows -----------------------------------------------------------------------------------------------------


class Deployment:
    """The standing of a sidecar whose policy folder is followed."""

    def __init__(self, source: Path) -> None:
        active = activate(source, deadline_seconds=0.5)
        self.standing = InForce(active, Snapshot("d"), Snapshot("i"), MAX_AGE)  # type: ignore[arg-type]
        self.folder = PolicyFolder(source, active, deadline_seconds=0.5)
        self.log, self.stats = Log(), CallStats()
        self.events: list[object] = []

    async def say(self, kind, details):
        self.events.append((kind, details))

    def changed(self) -> None:
        self.events.append("changed")

    async def until(self, reached) -> None:
        task = asyncio.create_task(
            self.standing.follow_policy(self.folder, self.say, self.changed, self.log, self.stats)
        )
        try:
            async with asyncio.timeout(20):
                while not reached():
                    assert not task.done(), task.exception()
                    await asyncio.sleep(0.02)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_new_bundle_decides_is_named_and_is_recorded(source):
    one = Deployment(source)
    first = one.standing.policy(clock()).revision
    assert (await one.standing.decisions.decide(AMY, canonical(AMY))).ttl_seconds == 0
    write_policy(source, ttl_seconds=7)
    await one.until(lambda: len(one.events) == 2)
    second = one.standing.policy(clock()).revision
    assert second == bundle.revision(source) != first
    assert one.standing.revisions() == (second, "d", "i")
    assert (await one.standing.decisions.decide(AMY, canonical(AMY))).ttl_seconds == 7
    assert one.events == ["changed", ("policy_activated", {"revision": second, "tests": 1, "by": "folder"})]
    assert one.standing.problems(clock()) == []


async def test_a_refused_bundle_leaves_the_old_one_in_force_and_is_told_once_everywhere(source):
    one = Deployment(source)
    first = one.standing.policy(clock()).revision
    broken(source)
    await one.until(lambda: one.standing.problems(clock()))
    await asyncio.sleep(0)
    assert one.standing.policy(clock()).revision == first
    assert one.events == []
    assert [event for event, _ in one.log.lines] == ["policy_refused"]
    assert "tests fail" in str(one.log.lines[0][1]["detail"])
    assert one.standing.problems(clock())[0].startswith("policy: the folder's bundle is refused")
    assert one.stats.events == {("policy_refused", ""): 1}
    assert one.standing.gauges()["policy_refused"][1]() == 1.0


async def test_the_policy_s_age_counts_from_when_its_folder_was_last_seen_to_hold_it(source):
    one = Deployment(source)
    started = clock()
    await one.until(lambda: one.standing._seen_at > started)
    one.standing.policy(started + MAX_AGE)  # seen since, so not too old
    with pytest.raises(DecideError, match="too old") as caught:
        one.standing.policy(clock() + MAX_AGE + 1)
    assert "policy.max_age" in caught.value.operator
    seen = one.standing._seen_at
    broken(source)
    await one.until(lambda: one.standing.problems(clock()))
    assert one.standing._seen_at < seen + 3, "a folder that holds something else confirms nothing"
