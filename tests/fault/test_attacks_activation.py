"""Whoever interrupts, overlaps or provokes activations: one policy is in force, nothing is half so, each attempt is said."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bundle_signing import write_bundle
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minimal_policy import write_policy
from policy_rig import Clock, PolicyRig, until

from sidecar.decision.embedded import EmbeddedMaker
from sidecar.errors import ConfigurationError
from sidecar.main.policy_follow import RETRY_SECONDS
from sidecar.main.sources import folder_source

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
TESTS = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


@pytest.fixture
def make(source: Path, tmp_path: Path):
    """Start; once more, it is a restart."""

    def made(**more: object) -> PolicyRig:
        monotonic = Clock()
        return PolicyRig(
            folder_source(source, monotonic),
            tmp_path / "kept",
            KEY,
            monotonic=monotonic,
            **more,  # type: ignore[arg-type]
        )

    return made


def broken(source: Path) -> None:
    """The bundle's own test fails from now on."""
    file = source / "sidecar" / "decision_test.rego"
    file.write_text(file.read_text().replace('answer.effect == "deny"', 'answer.effect == "permit"'))


async def history(one: PolicyRig, source: Path, *ttls: int) -> None:
    for ttl in ttls:
        write_policy(source, ttl_seconds=ttl)
        await one.looks()
        assert await one.ttl() == ttl


# -- going back -------------------------------------------------------------------------------------------------------


async def test_going_back_from_a_bundle_of_ones_choice_leads_to_the_sources(make, source, tmp_path) -> None:
    one = make()
    await history(one, source, 3)
    await one.do("policy.activate", str(write_policy(tmp_path / "mine", ttl_seconds=5)))
    assert await one.ttl() == 5
    answer = await one.do("policy.rollback")
    assert (await one.ttl(), answer["pinned"], one.kept.state.pin) == (3, False, None)
    assert (await one.do("policy.status"))["source"]["holds"] == "in force"
    await one.do("policy.rollback")
    assert await one.ttl() == 0, "further back, not to what was just gone back from"


async def test_going_back_again_and_again_never_leads_forward(make, source) -> None:
    one = make()
    await history(one, source, 1, 2, 3)
    for expected in (2, 1, 0):
        await one.do("policy.rollback")
        assert await one.ttl() == expected
    with pytest.raises(ConfigurationError, match="no earlier policy is kept"):
        await one.do("policy.rollback")
    two = make()
    with pytest.raises(ConfigurationError, match="no earlier policy is kept"):
        await two.do("policy.rollback")
    await two.do("policy.activate")
    assert await two.ttl() == 3
    await two.do("policy.rollback", two.kept.state.bundles[1].revision)
    assert await two.ttl() == 0, "by name, one goes where one likes"


async def test_going_back_from_a_bundle_of_ones_choice_after_going_back(make, source, tmp_path) -> None:
    """What was gone back from before stays left, whatever was put in force in between."""
    one = make()
    await history(one, source, 1, 2)
    await one.do("policy.rollback")
    await one.do("policy.activate", str(write_policy(tmp_path / "mine", ttl_seconds=5)))
    await one.do("policy.rollback")
    assert await one.ttl() == 1


# -- attempts that fail change nothing --------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["tests", "unreadable"])
async def test_an_activation_that_fails_does_not_end_a_pin(make, source, spoil) -> None:
    """Otherwise the bundle that somebody went back from would be in force again as soon as the source holds it again."""
    one = make()
    await history(one, source, 7)
    await one.do("policy.rollback")
    pin = one.kept.state.pin
    good = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    if spoil == "tests":
        broken(source)
    else:
        (source / ".manifest").unlink()
    with pytest.raises(ConfigurationError):
        await one.do("policy.activate")
    assert one.kept.state.pin == pin
    for path, content in good.items():
        path.write_bytes(content)
    await one.looks(4)
    assert (await one.ttl(), one.standing.problem) == (0, None)
    assert await make().ttl() == 0
    await one.do("policy.activate")
    assert (await one.ttl(), one.kept.state.pin) == (7, None)


async def test_a_pin_ends_when_the_source_holds_what_is_pinned(make, source) -> None:
    """As a restart would see it: the source agrees, and its next bundle counts, also the one gone back from."""
    one = make()
    await history(one, source, 7)
    await one.do("policy.rollback")
    write_policy(source)
    await one.looks()
    assert (await one.ttl(), one.kept.state.pin) == (0, None)
    assert (await one.do("policy.status"))["pinned"] is None
    write_policy(source, ttl_seconds=7)
    await one.looks()
    assert await one.ttl() == 7


async def test_a_word_given_while_the_source_is_away_stands_when_it_is_back(make, source, tmp_path) -> None:
    one = make()
    await history(one, source, 7)
    await one.do("policy.rollback")
    away = source.rename(tmp_path / "away")
    await one.looks(3)
    assert one.follower.found is None
    await one.do("policy.activate", str(write_policy(tmp_path / "mine", ttl_seconds=5)))
    away.rename(source)
    await one.looks(4)
    assert (await one.ttl(), one.standing.problem) == (5, None)


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("policy.rollback", ["sha256:0123456789abcdef"], "not one of the policies that are kept"),
        ("policy.rollback", ["sha256:"], "not one of the policies that are kept"),
        ("policy.rollback", ["", ""], "takes one revision"),
        ("policy.activate", ["relative"], "absolute path"),
        ("policy.activate", ["/a", "/b"], "absolute path"),
        ("policy.activate", ["/dev/zero"], "not a regular file"),
        ("policy.activate", ["/no/where"], "cannot be read"),
        ("policy.activate", ["/a\0b"], "null byte"),
        ("policy.activate", ["/\ud800"], "surrogates"),
    ],
)
async def test_each_attempt_is_recorded_and_answered(make, command, arguments, words) -> None:
    one = make()
    before = one.kept.state
    with pytest.raises(ConfigurationError, match=words):
        await one.do(command, *arguments, who="eve")
    (said,) = one.said("admin_action")
    assert (said["action"], said["done"], str(said["by"]).endswith(":eve")) == (command, False, True)
    assert one.kept.state == before
    assert one.said("policy_activated") == []


# -- at the same time -------------------------------------------------------------------------------------------------


async def test_activations_at_the_same_time_take_turns(make, source, tmp_path) -> None:
    one = make()
    first = one.revision
    paths = [write_policy(tmp_path / f"mine-{ttl}", ttl_seconds=ttl) for ttl in (1, 2, 3)]
    write_bundle(tmp_path / "signed.tar.gz", paths[2])
    paths[2] = tmp_path / "signed.tar.gz"
    broken(write_policy(tmp_path / "bad", ttl_seconds=4))
    asked = [one.do("policy.activate", str(path)) for path in (*paths, tmp_path / "bad")]
    answers = await asyncio.gather(*asked, one.looks(3), return_exceptions=True)
    assert [isinstance(answer, BaseException) for answer in answers] == [False, False, False, True, False]
    order = [one.revision for one in one.kept.state.bundles]
    assert (order[0], order[-1]) == (one.revision, first)
    said = [str(details["revision"]) for details in one.said("policy_activated")]
    assert said == list(reversed(order[:-1])), "each was in force once, one after the other, as recorded"
    assert sorted(str(details["done"]) for details in one.said("admin_action")) == ["False", "True", "True", "True"]


class Held(EmbeddedMaker):
    """A maker whose tests wait for a word."""

    def __init__(self) -> None:
        super().__init__(5.0)
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()

    def run_tests(self, bundle):
        self.begun.set()
        assert self.go.wait(60)
        return super().run_tests(bundle)


async def test_the_old_policy_answers_while_another_is_being_tried(make, source, tmp_path) -> None:
    held = Held()
    one = make(maker=held)
    before = one.revision
    held.begun.clear()
    held.go.clear()
    asked = asyncio.create_task(one.do("policy.activate", str(write_policy(tmp_path / "mine", ttl_seconds=5))))
    await until(held.begun.is_set)
    assert (one.revision, await one.ttl(), one.events) == (before, 0, [])
    held.go.set()
    await asked
    assert await one.ttl() == 5


# -- the process ends -------------------------------------------------------------------------------------------------

DIES = """
import asyncio, os, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from policy_rig import Clock, PolicyRig
from sidecar.decision import activation
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.main.proven import KeptPolicies
from sidecar.main.sources import folder_source

class Dies(EmbeddedMaker):
    def trial(self, bundle):
        if {when!r} == "trial":
            os._exit(9)
        return super().trial(bundle)

    def make(self, bundle):
        if {when!r} == "make":
            os._exit(9)
        return super().make(bundle)

class Kept(KeptPolicies):
    def _write(self):
        if {when!r} == "write" and self.state.bundles[0].by == "folder":
            os._exit(9)
        super()._write()
        if {when!r} == "written" and self.state.bundles[0].by == "folder":
            os._exit(9)

folder = Path({folder!r})
KeptPolicies.__new__ = lambda cls, *a: object.__new__(Kept)
rig = PolicyRig(folder_source(folder / "policies", Clock()), folder / "kept", Ed25519PrivateKey.from_private_bytes(bytes(32)),
                maker=EmbeddedMaker(5.0))
object.__setattr__(rig.entry, "maker", Dies(5.0))
from minimal_policy import write_policy
write_policy(folder / "policies", ttl_seconds=7)
asyncio.run(rig.looks(3))
"""


def killed(tmp_path: Path, when: str) -> None:
    """A sidecar that dies at this point of putting another policy in force."""
    ran = subprocess.run(
        [sys.executable, "-c", DIES.format(folder=str(tmp_path), when=when)], capture_output=True, text=True,
        timeout=180, env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}, check=False,
    )  # fmt: skip
    assert ran.returncode == 9, ran.stderr


@pytest.mark.parametrize(("when", "ttl"), [("trial", 0), ("make", 0), ("write", 7), ("written", 7)])
async def test_a_kill_during_an_activation_leaves_the_old_or_the_new_policy(make, source, tmp_path, when, ttl) -> None:
    killed(tmp_path, when)
    one = make()
    assert await one.ttl() == ttl
    assert (one.standing.problem is None) == (ttl == 7)


async def test_a_bundle_that_kills_its_trial_does_not_keep_the_sidecar_down(make, source, tmp_path) -> None:
    """Memory that runs out, a fault in the engine: the next start goes on with the last good one, and says why."""
    killed(tmp_path, "trial")
    one = make()
    assert await one.ttl() == 0
    assert "the process ended while this bundle was being tested" in str(one.standing.problem)
    assert one.log.events() == ["policy_last_good"]
    await one.looks(4)
    assert await one.ttl() == 0, "not at once again"
    one.monotonic.now += RETRY_SECONDS
    await one.looks()
    assert (await one.ttl(), one.standing.problem) == (7, None), "it was somebody else's kill"
    assert make().log.events() == []


async def test_a_person_may_have_it_tested_again_at_once(make, tmp_path) -> None:
    killed(tmp_path, "trial")
    one = make()
    await one.do("policy.activate")
    assert (await one.ttl(), one.kept.state.trying) == (7, None)


async def test_a_refused_bundle_is_no_longer_being_tried(make, source) -> None:
    one = make()
    write_policy(source, ttl_seconds=7)
    broken(source)
    await one.looks()
    assert one.kept.state.trying is None
    assert "tests fail" in str(make().standing.problem)
