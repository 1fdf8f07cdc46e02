"""A candidate is asked what was answered already, and nothing it does or says reaches a call."""

import asyncio
import time
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from minimal_policy import write_policy
from recorded import denied, permitted, question

from sidecar.decision.bundle import Bundle
from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.decision.shadow import FLIPS, QUEUE, Shadow, ShadowedDecisionPoint
from sidecar.errors import ConfigurationError, DecideError
from sidecar.main.shadow import RETRY_SECONDS, ShadowWatch
from sidecar.main.sources import Look
from sidecar.vocabulary import AccessRequest, Decision, canonical

replaced = msgspec.structs.replace
AMY = question("amy")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Inner:
    """The policy in force."""

    name = "embedded"

    def __init__(self, answer: Decision | Exception) -> None:
        self.answer = answer

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def shadow(clock: Clock | None = None, **more: object) -> Shadow:
    given: dict[str, object] = {"active": lambda: "sha256:active", "sample": 1.0, "draw": lambda: 0.5,
                                "monotonic": clock or Clock(), "deadline": 0.05}  # fmt: skip
    return Shadow(**{**given, **more})  # type: ignore[arg-type]


def says(decision: Decision | Exception):
    """A candidate that always answers so, and the documents it was asked."""
    asked: list[bytes] = []

    def evaluate(document: bytes) -> bytes:
        asked.append(document)
        if isinstance(decision, Exception):
            raise decision
        return msgspec.json.encode(decision)

    return evaluate, asked


async def test_what_the_policy_in_force_answers_is_what_the_call_gets() -> None:
    inner, beside = Inner(permitted()), shadow()
    cache = DecisionCache(clock=Clock())
    point = ShadowedDecisionPoint(CachedDecisionPoint(inner=inner, cache=cache, revisions=lambda: ("a",)), beside)
    beside.adopt("sha256:new", says(denied())[0])
    data = canonical(AMY)
    assert point.name == "embedded"
    assert point.peek(data) is None
    assert await point.decide(AMY, data, valid_for=10.0) is inner.answer
    inner.answer = DecideError("no", reason="policy_error")
    with pytest.raises(DecideError):
        await point.decide(AMY, data, valid_for=10.0)
    beside.step()
    assert (beside.counts().asked, beside.counts().flips["newly_denied"]) == (1, 1)


async def test_answers_from_the_cache_are_compared_and_the_candidate_is_asked_once() -> None:
    inner, beside = Inner(replaced(permitted(), ttl_seconds=30)), shadow()
    evaluate, asked = says(permitted())
    beside.adopt("sha256:new", evaluate)
    cached = CachedDecisionPoint(inner=inner, cache=DecisionCache(clock=Clock()), revisions=lambda: ("a",))
    point, data = ShadowedDecisionPoint(cached, beside), canonical(AMY)
    await point.decide(AMY, data, valid_for=60.0)
    assert point.peek(data) is not None
    assert point.peek(data) is not None
    beside.step()
    assert (beside.counts().asked, len(asked)) == (3, 1)


def test_nothing_is_kept_without_a_candidate() -> None:
    beside = shadow()
    beside.offer(canonical(AMY), permitted())
    beside.adopt("sha256:new", says(permitted())[0])
    beside.step()
    assert beside.counts().asked == 0


def test_a_full_queue_drops_and_counts() -> None:
    beside = shadow()
    beside.adopt("sha256:new", says(permitted())[0])
    for _ in range(QUEUE + 7):
        beside.offer(canonical(AMY), permitted())
    assert beside.counts().dropped == 7
    beside.step()
    assert beside.counts().asked == QUEUE


def test_a_share_of_the_answers_is_compared() -> None:
    draws = iter([0.1, 0.9, 0.24, 0.25])
    beside = shadow(sample=0.25, draw=lambda: next(draws))
    beside.adopt("sha256:new", says(permitted())[0])
    for _ in range(4):
        beside.offer(canonical(AMY), permitted())
    beside.step()
    assert beside.counts().asked == 2


@pytest.mark.parametrize("answer", [RuntimeError("broken"), replaced(denied(), reasons=())])
def test_a_candidate_without_a_decision_is_counted(answer: Decision | Exception) -> None:
    beside = shadow()
    beside.adopt("sha256:new", says(answer)[0])
    beside.offer(canonical(AMY), permitted())
    beside.step()
    assert beside.counts().details["errors"] == 1
    assert beside.take()[0]["candidate_effect"] == "undecided"


def test_a_flip_says_where_its_records_are_and_names_nobody() -> None:
    beside = shadow()
    beside.adopt("sha256:new", says(permitted())[0])
    beside.offer(canonical(question("bob")), denied())
    beside.offer(canonical(question("bob")), denied())
    beside.step()
    (flip,) = beside.take()
    assert beside.take() == []
    assert beside.counts().flips["newly_permitted"] == 2
    assert flip == {
        "kind": "flip", "flip": "newly_permitted", "candidate": "sha256:new", "active": "sha256:active",
        "input_sha256": sha256(canonical(question("bob"))).hexdigest(),
        "service": "a.b.Profiles", "method": "GetProfile", "phase": "response", "time": "2026-01-01T00:00:00Z",
        "releases_more": True, "active_effect": "deny", "active_reasons": ["not_us_personnel"],
        "candidate_effect": "permit", "candidate_reasons": ["trial"],
    }  # fmt: skip
    assert "bob" not in str(flip)


def test_flips_are_recorded_up_to_a_number_of_each_kind_and_then_counted() -> None:
    beside = shadow()
    beside.adopt("sha256:new", says(permitted())[0])
    for number in range(FLIPS + 5):
        beside.offer(canonical(question(f"p{number}")), denied())
    beside.offer(canonical(AMY), replaced(permitted(), ttl_seconds=3))
    beside.step()
    assert len(beside.take()) == FLIPS + 1
    assert beside.counts().unrecorded == 5
    assert beside.counts().flips["newly_permitted"] == FLIPS + 5
    beside.refill()
    beside.offer(canonical(question("one more")), denied())
    beside.step()
    assert len(beside.take()) == 1


def test_a_late_answer_is_counted_and_the_thread_rests_as_long_as_its_share_asks() -> None:
    clock = Clock()
    beside = shadow(clock)

    def slow(_: bytes) -> bytes:
        clock.now += 0.1
        return msgspec.json.encode(permitted())

    beside.adopt("sha256:new", slow)
    beside.offer(canonical(AMY), permitted())
    beside.offer(canonical(question("bob")), permitted())
    assert beside.step() == pytest.approx(0.3)  # a quarter of a core; the second question waits
    assert (beside.counts().late, beside.counts().asked) == (1, 1)
    beside.step()
    assert beside.counts().asked == 2
    assert beside.step() < 0.1


def test_another_candidate_begins_anew() -> None:
    beside = shadow()
    beside.adopt("sha256:new", says(denied())[0])
    beside.offer(canonical(AMY), permitted())
    beside.step()
    beside.adopt("sha256:newer", says(permitted())[0])
    assert (beside.revision, beside.counts().asked) == ("sha256:newer", 0)
    beside.offer(canonical(AMY), permitted())
    beside.step()
    assert beside.counts().agreed == 1
    beside.dismiss()
    assert (beside.revision, beside.counts().asked) == (None, 0)


def test_an_offer_costs_a_call_next_to_nothing() -> None:
    """Against one evaluation of the smallest policy; the measured figures are in the benchmarks."""
    beside = shadow(monotonic=time.perf_counter)
    beside.adopt("sha256:new", says(permitted())[0])
    data, decision = canonical(AMY), permitted()
    spent = []
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(50):
            beside.offer(data, decision)
        spent.append((time.perf_counter() - begun) / 50)
    assert min(spent) < 20e-6


# -- the watch -----------------------------------------------------------------------------------------------------------


class Source:
    """What looks find, one after the other; then nothing new."""

    kind, where, pause = "folder", "candidates/", 0.01

    def __init__(self, *found: Bundle | Look | Exception) -> None:
        self.found = list(found)

    def read(self) -> Bundle:
        raise AssertionError("not asked for")

    def look(self) -> Bundle | Look:
        found = self.found.pop(0) if self.found else Look.UNCHANGED
        if isinstance(found, Exception):
            raise found
        return found

    def interrupt(self) -> None:
        pass


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, event: str, **details: object) -> None:
        self.lines.append(event)

    error = warning


class Rig:
    def __init__(self, source: Source, monotonic: object) -> None:
        self.said: list[dict[str, object]] = []
        self.log = Log()
        self.shadow = shadow(monotonic=monotonic)
        self.watch = ShadowWatch(
            shadow=self.shadow, source=source, maker=EmbeddedMaker(0.5), active=lambda: "sha256:active", say=self.say,
            log=self.log, stamp=lambda: "2026-01-01T00:00:00Z", monotonic=monotonic, sample=1.0,
        )  # fmt: skip

    async def say(self, kind: str, details: dict[str, object]) -> None:
        assert kind == "shadow"
        self.said.append(dict(details))

    async def look(self) -> None:
        found = self.watch._look()
        if found is not None:
            await self.watch._adopt(found)

    def offer(self, *people: str) -> None:
        for person in people:
            self.shadow.offer(canonical(question(person)), denied())
        self.shadow.step()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_folder(write_policy(tmp_path / "good"))


@pytest.fixture
def failing(tmp_path: Path) -> Bundle:
    folder = write_policy(tmp_path / "bad")
    test = folder / "sidecar" / "decision_test.rego"
    test.write_text(test.read_text().replace('"deny"', '"permit"'))
    return load_folder(folder)


async def test_a_candidate_is_taken_up_and_recorded_with_its_flips_and_a_summary(bundle: Bundle) -> None:
    rig = Rig(Source(Look.UNSETTLED, bundle), Clock())
    await rig.look()
    assert rig.shadow.revision is None
    await rig.look()
    assert rig.said[0]["kind"] == "candidate"
    assert rig.said[0]["candidate"] == bundle.revision
    rig.offer("amy", "bob", "amy")
    await rig.watch._summary()
    assert [one["kind"] for one in rig.said] == ["candidate", "flip", "summary"]
    assert {key: rig.said[-1][key] for key in ("asked", "agreed", "newly_permitted", "errors", "dropped")} == {
        "asked": 3, "agreed": 1, "newly_permitted": 2, "errors": 0, "dropped": 0
    }  # fmt: skip
    await rig.watch._summary()
    assert len(rig.said) == 3  # no traffic, no record
    rig.offer("amy")
    await rig.watch._summary()
    assert rig.said[-1]["asked"] == 1
    status = await rig.watch.status()
    assert (status["asked"], status["candidate"], status["problems"]) == (4, bundle.revision, [])
    msgspec.json.encode(status)


async def test_a_candidate_that_fails_its_tests_is_a_problem_and_nothing_more(bundle: Bundle, failing: Bundle) -> None:
    clock = Clock()
    rig = Rig(Source(failing, Look.UNCHANGED, bundle, failing), clock)
    await rig.look()
    assert "nothing is compared" in rig.watch.problems()[0]
    assert rig.watch.gauges()["shadow_refused"][1]() == 1.0
    await rig.look()
    await rig.look()
    assert (rig.watch.problems(), rig.shadow.revision) == ([], bundle.revision)
    await rig.look()
    assert "the candidate before is compared" in rig.watch.problems()[0]
    assert rig.shadow.revision == bundle.revision


async def test_a_refused_candidate_is_tried_again_after_a_while(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tries = Clock(), []

    def activate(*_: object) -> object:
        tries.append(clock.now)
        raise ConfigurationError("its tests took too long")

    monkeypatch.setattr("sidecar.main.shadow.activation.activate", activate)
    rig = Rig(Source(bundle), clock)
    for _ in range(3):
        await rig.look()
    clock.now += RETRY_SECONDS
    await rig.look()
    assert tries == [100.0, 100.0 + RETRY_SECONDS]
    assert rig.log.lines == ["shadow_refused"]


async def test_a_source_that_is_away_for_a_while_does_not_begin_the_counts_anew(bundle: Bundle) -> None:
    rig = Rig(Source(bundle, ConfigurationError("gone"), OSError("odd"), bundle), Clock())
    await rig.look()
    rig.offer("amy")
    await rig.look()
    assert "gone" in rig.watch.problems()[0]
    await rig.look()
    assert "odd" in rig.watch.problems()[0]
    await rig.look()
    assert rig.watch.problems() == []
    assert rig.shadow.counts().asked == 1


async def test_a_record_that_cannot_be_written_does_not_end_the_shadow(bundle: Bundle) -> None:
    rig = Rig(Source(bundle), time.monotonic)
    fails = 1

    async def say(kind: str, details: dict[str, object]) -> None:
        nonlocal fails
        if fails:
            fails -= 1
            raise RuntimeError("no disk")
        rig.said.append(dict(details))

    rig.watch._say = say
    task = asyncio.create_task(rig.watch.run())
    try:
        async with asyncio.timeout(30):
            while "shadow_failed" not in rig.log.lines:
                await asyncio.sleep(0.01)
            rig.shadow.offer(canonical(AMY), denied())
            while not any(one["kind"] == "flip" for one in rig.said):
                await asyncio.sleep(0.01)
        assert not task.done()
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_thread_compares_while_it_runs_and_ends_with_it(bundle: Bundle) -> None:
    rig = Rig(Source(bundle), time.monotonic)
    task = asyncio.create_task(rig.watch.run())
    try:
        async with asyncio.timeout(20):
            while rig.shadow.revision is None:
                await asyncio.sleep(0.01)
            rig.shadow.offer(canonical(AMY), denied())
            while not any(one["kind"] == "flip" for one in rig.said):
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert rig.shadow.revision is None
