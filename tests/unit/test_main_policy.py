"""The policy's source is followed: what passes is put in force, what does not is refused, and a person's word stands."""

import asyncio
from pathlib import Path

import pytest
from bundle_signing import ed25519_key, write_bundle, write_signers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minimal_policy import write_policy
from policy_rig import AMY, MAX_AGE, Clock, PolicyRig, until

from sidecar.decision.folder import load_folder
from sidecar.errors import ConfigurationError, DecideError
from sidecar.main.given import clock
from sidecar.main.policy import Current
from sidecar.main.policy_follow import CONFIRM_SECONDS, RETRY_SECONDS
from sidecar.main.sources import file_source, folder_source
from sidecar.vocabulary import canonical

ALICE, BOB = ed25519_key(), ed25519_key()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def make(source, tmp_path, key):
    """Start, on the folder of the source; once more, it is a restart."""

    def made(**more) -> PolicyRig:
        monotonic = more.pop("monotonic", None) or Clock()
        return PolicyRig(folder_source(source, monotonic), tmp_path / "kept", key, monotonic=monotonic, **more)

    return made


def broken(source: Path) -> None:
    """The bundle's own test fails from now on."""
    file = source / "sidecar" / "decision_test.rego"
    file.write_text(file.read_text().replace('answer.effect == "deny"', 'answer.effect == "permit"'))


# -- what the source holds --------------------------------------------------------------------------------------------


async def test_a_new_bundle_decides_is_named_and_is_recorded(make, source):
    one = make()
    first = one.revision
    assert await one.ttl() == 0
    write_policy(source, ttl_seconds=7)
    await one.looks()
    second = one.revision
    assert second == load_folder(source).revision != first
    assert one.standing.revisions() == (second, "d", "i")
    assert await one.ttl() == 7
    assert one.events == ["changed", ("policy_activated", {
        "revision": second, "label": "trial", "signers": [], "tests": 1, "by": "folder", "source": str(source),
    })]  # fmt: skip
    assert one.standing.problems(clock()) == []
    await one.looks()
    assert len(one.events) == 2


async def test_a_refused_bundle_leaves_the_old_one_in_force_and_is_told_once_everywhere(make, source):
    one = make()
    first = one.revision
    broken(source)
    await one.looks(5)
    assert one.revision == first
    assert one.events == []
    assert one.log.events() == ["policy_refused"]
    assert "tests fail" in str(one.log.lines[0][1]["detail"])
    assert str(source) in str(one.log.lines[0][1]["detail"])
    assert one.standing.problems(clock())[0].startswith("policy: the folder holds a bundle that is refused")
    assert one.stats.events == {("policy_refused", ""): 1}
    assert one.standing.gauges()["policy_refused"][1]() == 1.0


async def test_a_bundle_that_was_mended_by_going_back_is_no_problem_any_more(make, source):
    one = make()
    good = (source / "sidecar" / "decision_test.rego").read_text()
    broken(source)
    await one.looks()
    assert one.standing.problem is not None
    (source / "sidecar" / "decision_test.rego").write_text(good)
    await one.looks()
    assert one.standing.problem is None
    assert one.events == []


async def test_a_refused_bundle_is_tried_again_later(make, source):
    one = make()
    broken(source)
    await one.looks()
    tried = []
    admit = one.entry.admit
    object.__setattr__(
        one.follower, "_entry", type("Counted", (), {"admit": lambda _s, *a: tried.append(1) or admit(*a)})()
    )
    await one.looks()
    assert tried == []
    one.monotonic.now += RETRY_SECONDS
    await one.looks(1)
    await one.looks()
    assert tried == [1]


async def test_the_policy_s_age_counts_from_when_its_source_was_last_seen_to_hold_it(make, source):
    one = make()
    started = clock()
    await one.looks()
    one.standing.policy(started + MAX_AGE)  # seen since, so not too old
    with pytest.raises(DecideError, match="too old") as caught:
        one.standing.policy(clock() + MAX_AGE + 1)
    assert "policy.max_age" in caught.value.operator
    seen = one.standing._seen_at
    broken(source)
    await one.looks(4)
    assert one.standing._seen_at == seen, "a source that holds something else confirms nothing"


async def test_what_fails_without_a_word_of_its_own_is_a_problem_not_a_crash(make):
    one = make()
    one.follower.source = type("Odd", (), {"kind": "folder", "where": "x", "look": lambda _self: 1 / 0})()
    await one.looks()
    assert "ZeroDivisionError" in (one.standing.problem or "")


async def test_it_follows_by_itself(make, source):
    one = make()
    one.follower._monotonic = clock
    async with one.running():
        write_policy(source, ttl_seconds=8)
        await until(lambda: len(one.events) == 2)
    assert await one.ttl() == 8


# -- a person's word --------------------------------------------------------------------------------------------------


async def test_going_back_stands_until_the_source_holds_another_bundle(make, source):
    one = make()
    first = one.revision
    write_policy(source, ttl_seconds=7)
    await one.looks()
    second = one.revision
    answer = await one.do("policy.rollback", who="ann")
    assert (answer["revision"], answer["before"], answer["changed"], answer["pinned"]) == (first, second, True, True)
    assert one.said("policy_activated")[-1]["by"] == "rollback:ann"
    assert one.said("admin_action") == [
        {"action": "policy.rollback", "by": "rollback:ann", "done": True, "revision": first}
    ]
    seen = one.standing._seen_at
    await one.looks(4)
    assert (one.revision, one.standing.problem) == (first, None)
    assert one.standing._seen_at > seen, "a source that still holds what was gone back from confirms the pin"
    write_policy(source, ttl_seconds=9)
    await one.looks()
    assert await one.ttl() == 9
    assert one.kept.state.pin is None


async def test_going_back_survives_a_restart(make, source):
    one = make()
    first = one.revision
    write_policy(source, ttl_seconds=7)
    await one.looks()
    await one.do("policy.rollback")
    two = make()
    await two.looks()
    assert two.revision == first
    assert two.log.events() == ["policy_pinned"]
    write_policy(source, ttl_seconds=9)
    assert await make().ttl() == 9


async def test_a_broken_successor_does_not_end_the_pin(make, source):
    one = make()
    first = one.revision
    write_policy(source, ttl_seconds=7)
    await one.looks()
    await one.do("policy.rollback")
    broken(source)
    await one.looks()
    assert (one.revision, one.standing.problem is None) == (first, False)
    write_policy(source, ttl_seconds=7)
    await one.looks()
    assert (one.revision, one.standing.problem) == (first, None)


async def test_taking_up_the_source_again_ends_the_pin(make, source):
    one = make()
    write_policy(source, ttl_seconds=7)
    await one.looks()
    await one.do("policy.rollback")
    answer = await one.do("policy.activate", who="ann")
    assert (answer["changed"], answer["pinned"]) == (True, False)
    assert await one.ttl() == 7
    assert one.said("policy_activated")[-1]["by"] == "admin:ann"
    again = await one.do("policy.activate")
    assert again["changed"] is False


async def test_going_back_twice_goes_further_back(make, source):
    one = make()
    for ttl in (1, 2):
        write_policy(source, ttl_seconds=ttl)
        await one.looks()
    await one.do("policy.rollback")
    assert await one.ttl() == 1
    await one.do("policy.rollback")
    assert await one.ttl() == 0
    with pytest.raises(ConfigurationError, match="not one of the policies"):
        await one.do("policy.rollback", "sha256:00000000")
    newest = next(kept.revision for kept in one.kept.state.bundles if kept.revision == one.follower.found.revision)
    answer = await one.do("policy.rollback", newest[: len("sha256:") + 12])
    assert (await one.ttl(), answer["pinned"]) == (2, False)


async def test_there_may_be_nothing_to_go_back_to(make):
    one = make()
    with pytest.raises(ConfigurationError, match="no earlier policy is kept"):
        await one.do("policy.rollback")


async def test_a_bundle_of_a_person_s_choice(make, source, tmp_path):
    one = make()
    write_policy(tmp_path / "mine", ttl_seconds=5)
    write_bundle(tmp_path / "mine.tar.gz", tmp_path / "mine")
    await one.do("policy.activate", str(tmp_path / "mine.tar.gz"), who="ann")
    await one.looks()
    assert await one.ttl() == 5
    status = await one.do("policy.status")
    assert status["in_force"]["source"] == str(tmp_path / "mine.tar.gz")
    assert status["in_force"]["by"] == "admin:ann"
    assert status["source"]["holds"] == "pinned over"
    assert [kept["in_force"] for kept in status["history"]] == [True, False]
    with pytest.raises(ConfigurationError, match="one absolute path"):
        await one.do("policy.activate", "mine.tar.gz")
    broken(tmp_path / "mine")
    with pytest.raises(ConfigurationError, match="tests fail"):
        await one.do("policy.activate", str(tmp_path / "mine"))
    assert one.said("admin_action")[-1]["done"] is False
    assert await one.ttl() == 5


# -- signatures -------------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(source, tmp_path, key):
    """A signed .tar.gz that is followed; `make` starts on it."""
    file, signers = tmp_path / "b.tar.gz", write_signers(tmp_path / "signers.yaml", {"alice": ALICE, "bob": BOB})

    def made(**more) -> PolicyRig:
        monotonic = Clock()
        return PolicyRig(
            file_source(file, monotonic), tmp_path / "kept", key, monotonic=monotonic, signers=signers, **more
        )

    write_bundle(file, source, ("alice", ALICE), ("bob", BOB))
    made.file, made.signers = file, signers
    return made


async def test_signers_stand_in_the_reference_that_records_carry(signed):
    one = signed(require=2)
    assert one.standing.policy(clock()).signers == ("alice", "bob")
    await one.standing.announce(one.say)
    assert one.said("policy_activated")[0]["signers"] == ["alice", "bob"]


async def test_an_unsigned_or_half_signed_bundle_does_not_pass_anywhere(signed, source, tmp_path):
    one = signed(require=2)
    first = one.revision
    write_policy(source, ttl_seconds=7)
    for signers, words in (((), "is not signed"), ((("alice", ALICE),), "1 of 2")):
        write_bundle(signed.file, source, *signers)
        await one.looks()
        assert one.revision == first
        assert words in one.standing.problem
        with pytest.raises(ConfigurationError, match=words):
            await one.do("policy.activate", str(signed.file))
    write_bundle(signed.file, source, ("alice", ALICE), ("bob", BOB))
    await one.looks()
    assert (await one.ttl(), one.standing.problem) == (7, None)


async def test_a_signer_who_is_revoked_takes_the_policy_s_confirmation_away(signed):
    one = signed()
    await one.follower._check_signers()
    write_signers(signed.signers, {"alice": ALICE, "bob": BOB}, revoked=["alice"])
    await one.follower._check_signers()
    assert one.standing.policy(clock()).signers == ("bob",), "one of the two that it has is enough"
    write_signers(signed.signers, {"alice": ALICE, "bob": BOB}, revoked=["alice", "bob"])
    await one.follower._check_signers()
    assert "would not be accepted now" in one.standing.problem
    assert one.log.events() == ["policy_disowned"]
    assert one.stats.events == {("policy_disowned", ""): 1}
    seen = one.standing._seen_at
    await one.looks(4)
    assert one.standing._seen_at == seen
    assert await one.ttl() == 0, "it decides until policy.max_age"
    with pytest.raises(ConfigurationError, match="revoked"):
        signed()  # nothing of theirs is put in force anew
    write_signers(signed.signers, {"alice": ALICE, "bob": BOB})
    await one.follower._check_signers()
    await one.looks()
    assert (one.standing.problem, one.standing._seen_at > seen) == (None, True)


async def test_a_signature_s_time_runs_out_without_any_change_of_a_file(signed):
    one = signed()
    clocked = one.entry.signatures
    clocked._clock = lambda: clock() + 10
    write_signers(signed.signers, {"alice": ALICE, "bob": BOB}, until_alice="2020-01-01T00:00:00Z")
    await one.follower._check_signers()
    assert one.standing.policy(clock()).signers == ("bob",)
    write_signers(signed.signers, {"alice": ALICE, "bob": BOB}, until_alice="2100-01-01T00:00:00Z")
    await one.follower._check_signers()
    assert one.standing.policy(clock()).signers == ("alice", "bob")
    clocked._clock = lambda: 4_200_000_000.0  # 2103
    await one.follower._check_signers()
    assert one.standing.policy(clock()).signers == ("alice", "bob")
    one.monotonic.now += CONFIRM_SECONDS
    await one.follower._check_signers()
    assert one.standing.policy(clock()).signers == ("bob",)


async def test_the_same_bundle_signed_anew_keeps_its_engine(signed, source):
    one = signed()
    engine = one.standing.decisions.active.engine
    write_bundle(signed.file, source, ("bob", BOB))
    await one.looks()
    assert one.standing.policy(clock()).signers == ("bob",)
    assert one.standing.decisions.active.engine is engine
    assert one.said("policy_activated")[-1]["signers"] == ["bob"]
    assert one.kept.state.bundles[0].signers == ("bob",)


# -- between two questions --------------------------------------------------------------------------------------------


class Slow:
    """An engine whose answers wait for a word."""

    name = "slow"

    def __init__(self) -> None:
        self.go, self.closed, self.asked = asyncio.Event(), 0, 0

    async def decide(self, request, canonical):
        assert not self.closed
        self.asked += 1
        await self.go.wait()
        assert not self.closed, "closed with a question under way"
        return "answer"

    async def close(self) -> None:
        self.closed += 1


async def test_an_engine_is_closed_after_its_last_question(make):
    class Active:
        def __init__(self, engine) -> None:
            self.engine = engine

    first, second = Slow(), Slow()
    current = Current(Active(first))
    asked = [asyncio.create_task(current.decide(AMY, canonical(AMY))) for _ in range(2)]
    await until(lambda: first.asked == 2)
    current.adopt(Active(second))
    late = asyncio.create_task(current.decide(AMY, canonical(AMY)))
    await until(lambda: second.asked == 1)
    assert (first.closed, current.name) == (0, "slow")
    first.go.set()
    assert await asyncio.gather(*asked) == ["answer", "answer"]
    await until(lambda: first.closed == 1)
    current.adopt(Active(second))
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    assert second.closed == 0
    await current.close()
    assert (first.closed, second.closed) == (1, 1)
