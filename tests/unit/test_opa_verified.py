"""A second engine behind the first: what counts, what is told, and that checking never holds a call up."""

import asyncio
import json
from contextlib import contextmanager
from hashlib import sha256

import pytest
from opa_parts import DENY, PERMIT, REVISION, bundle, decide, question

from sidecar import _native
from sidecar.decision.document import parse_decision
from sidecar.decision.engines import TestResult
from sidecar.decision.verified import WAITING, Disagreement, VerifiedEngine, VerifiedMaker
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import canonical

MASKED = PERMIT | {"obligations": [{"id": "mask_fields", "categories": ["id_contact"]}]}


class Fake:
    """An engine and its maker: gives what it was given, or raises it."""

    def __init__(self, name: str, says: object) -> None:
        self.name, self.says = name, says
        self.asked = self.closed = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.tests: tuple[TestResult, ...] = ()
        self.bundles: list[str] = []

    def make(self, found):
        self.bundles.append(found.revision)
        return self

    def run_tests(self, _found):
        return self.tests

    @contextmanager
    def trial(self, _found):
        def evaluate(_canonical: bytes) -> bytes:
            if isinstance(self.says, Exception):
                raise self.says
            return json.dumps(self.says).encode()

        yield evaluate

    async def decide(self, _request, _canonical):
        self.asked += 1
        await self.gate.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return parse_decision(self.says)

    async def close(self) -> None:
        self.closed += 1


class Rig:
    def __init__(self, first: object, second: object, *, refuse: bool = False, sample: float = 1.0) -> None:
        self.first, self.second = Fake("embedded", first), Fake("opa", second)
        self.told: list[Disagreement] = []
        self.missed: list[tuple[str, str]] = []
        self.draws = iter([0.2, 0.8] * 1000)
        self.maker = VerifiedMaker(
            self.first, self.second, sample=sample, refuse=refuse, draw=lambda: next(self.draws),
            told=self,
        )  # fmt: skip
        self.engine: VerifiedEngine = self.maker.make(bundle())

    async def differ(self, found: Disagreement) -> None:
        self.told.append(found)

    def unchecked(self, why: str, detail: str) -> None:
        self.missed.append((why, detail))

    async def checked(self) -> None:
        await asyncio.wait_for(self.engine._queue.join(), 60)


NO_ANSWER = DecideError("no", reason="policy_error", operator="it is away")
OTHERS = [
    DENY,
    MASKED,
    PERMIT | {"ttl_seconds": 1},
    PERMIT | {"advice": ["x"]},
    PERMIT | {"reasons": [PERMIT["reasons"][0] | {"rule": "another"}]},
]


@pytest.mark.parametrize("refuse", [False, True])
async def test_engines_that_agree_are_believed(refuse):
    rig = Rig(PERMIT, PERMIT, refuse=refuse)
    assert (await decide(rig.engine)).permits
    await rig.checked()
    assert rig.told == []
    assert rig.second.asked == rig.maker.counts.checked == 1
    assert rig.engine.name == rig.maker.name == "embedded"


@pytest.mark.parametrize("other", OTHERS)
async def test_a_difference_is_told_and_the_first_answer_stands(other):
    rig = Rig(PERMIT, other)
    assert await decide(rig.engine) == parse_decision(PERMIT)
    await rig.checked()
    (found,) = rig.told
    assert found == Disagreement(
        input_sha256=sha256(canonical(question())).hexdigest(), revision=REVISION, engines=("embedded", "opa"),
        first=parse_decision(PERMIT), second=parse_decision(other),
    )  # fmt: skip
    assert rig.maker.counts.disagreed == 1


@pytest.mark.parametrize("other", OTHERS)
async def test_where_it_is_to_refuse_a_difference_refuses_and_is_told(other):
    rig = Rig(PERMIT, other, refuse=True)
    with pytest.raises(DecideError, match="do not agree") as caught:
        await decide(rig.engine)
    assert caught.value.reason == "policy_error"
    assert len(rig.told) == 1


@pytest.mark.parametrize("refuse", [False, True])
async def test_the_second_engine_never_makes_a_permit_of_a_deny(refuse):
    rig = Rig(DENY, PERMIT, refuse=refuse)
    try:
        assert not (await decide(rig.engine)).permits
    except DecideError:
        assert refuse
    await rig.checked()
    assert len(rig.told) == 1


async def test_a_second_engine_without_an_answer_refuses_only_where_it_is_to_refuse():
    rig = Rig(PERMIT, NO_ANSWER)
    assert (await decide(rig.engine)).permits
    await rig.checked()
    assert (rig.maker.counts.unanswered, rig.told) == (1, [])
    assert rig.missed == [("no_answer", "opa: it is away")]
    rig = Rig(PERMIT, NO_ANSWER, refuse=True)
    with pytest.raises(DecideError) as caught:
        await decide(rig.engine)
    assert "it is away" in caught.value.operator
    assert rig.told == []


@pytest.mark.parametrize("refuse", [False, True])
async def test_a_first_engine_without_an_answer_refuses(refuse):
    rig = Rig(NO_ANSWER, PERMIT, refuse=refuse)
    with pytest.raises(DecideError) as caught:
        await decide(rig.engine)
    assert caught.value is NO_ANSWER


async def test_what_cannot_be_recorded_is_still_refused():
    class Fails:
        async def differ(self, _found: Disagreement) -> None:
            raise OSError("disk full")

        def unchecked(self, _why: str, _detail: str) -> None:
            raise OSError("disk full")

    for refuse in (True, False):
        maker = VerifiedMaker(
            Fake("embedded", PERMIT), Fake("opa", DENY), sample=1.0, refuse=refuse, draw=lambda: 0.0,
            told=Fails(),
        )  # fmt: skip
        engine = maker.make(bundle())
        if refuse:
            with pytest.raises(DecideError, match="do not agree"):
                await decide(engine)
        else:
            for _ in range(20):  # more than there are workers: none of them has ended
                assert (await decide(engine)).permits
        await engine.close()
        assert maker.counts.disagreed == (1 if refuse else 20)


@pytest.mark.parametrize(("sample", "asked"), [(0.0, 0), (0.5, 10), (1.0, 20)])
async def test_a_share_is_checked(sample, asked):
    rig = Rig(PERMIT, PERMIT, sample=sample)
    for _ in range(20):
        await decide(rig.engine)
    await rig.checked()
    assert rig.second.asked == asked
    assert rig.first.asked == 20


async def test_a_second_engine_that_hangs_holds_nobody_up_and_what_is_not_checked_is_counted():
    rig = Rig(PERMIT, DENY)
    rig.second.gate.clear()
    for _ in range(WAITING + 50):
        assert (await decide(rig.engine)).permits
    await asyncio.sleep(0)
    waiting = rig.engine._queue.qsize() + rig.second.asked
    assert rig.maker.counts.dropped == len(rig.missed) == WAITING + 50 - waiting > 0
    assert {why for why, _ in rig.missed} == {"dropped"}
    rig.second.gate.set()
    await rig.checked()
    assert len(rig.told) == waiting


async def test_closing_checks_what_waits_and_closes_both():
    rig = Rig(PERMIT, DENY)
    for _ in range(10):
        await decide(rig.engine)
    await rig.engine.close()
    await rig.engine.close()
    assert len(rig.told) == 10
    assert (rig.first.closed, rig.second.closed) == (1, 1)
    with pytest.raises(DecideError):
        await decide(rig.engine)


async def test_each_bundle_is_made_on_both_and_counted_together():
    rig = Rig(PERMIT, DENY)
    other = rig.maker.make(bundle(revision="sha256:2"))
    await decide(other)
    await other.close()
    assert rig.first.bundles == rig.second.bundles == [REVISION, "sha256:2"]
    assert [one.revision for one in rig.told] == ["sha256:2"]
    assert rig.maker.counts.disagreed == 1


# -- activation -----------------------------------------------------------------------------------------------------


def result(name: str, passed: bool = True, error: str | None = None) -> TestResult:
    return TestResult(package="p", name=name, passed=passed, error=error)


def test_a_test_has_to_pass_on_both():
    rig = Rig(PERMIT, PERMIT)
    rig.first.tests = (result("both"), result("first"), result("missing"), result("second", False, "why"))
    rig.second.tests = (result("both"), result("first", False, "no"), result("second"))
    found = {one.name: one for one in rig.maker.run_tests(bundle())}
    assert {name: one.passed for name, one in found.items()} == {
        "both": True, "first": False, "missing": False, "second": False,
    }  # fmt: skip
    assert found["first"].error == "passes on embedded, fails: no on opa"
    assert found["missing"].error == "passes on embedded, is not run on opa"
    assert found["second"].error == "why"


@pytest.mark.parametrize("other", OTHERS)
def test_engines_that_differ_on_a_document_refuse_the_bundle(other):
    for first, second in ((PERMIT, other), (other, PERMIT)):
        with Rig(first, second).maker.trial(bundle()) as evaluate, pytest.raises(ConfigurationError, match="differ"):
            evaluate(canonical(question()))


@pytest.mark.parametrize("nothing", [_native.EvaluationError("x"), ValueError("x"), {"effect": "?"}])
def test_a_permit_needs_both_engines_and_a_refusal_one(nothing):
    with Rig(PERMIT, nothing).maker.trial(bundle()) as evaluate, pytest.raises(ConfigurationError, match="nothing"):
        evaluate(canonical(question()))
    with Rig(DENY, nothing).maker.trial(bundle()) as evaluate:
        assert json.loads(evaluate(canonical(question()))) == DENY


def test_an_engine_that_is_late_proves_nothing():
    for first, second in ((_native.DeadlineExceeded("x"), PERMIT), (PERMIT, _native.DeadlineExceeded("x"))):
        with Rig(first, second).maker.trial(bundle()) as evaluate, pytest.raises(_native.DeadlineExceeded):
            evaluate(canonical(question()))


def test_a_first_engine_without_an_answer_has_none_on_trial_either():
    with (
        Rig(_native.EvaluationError("x"), PERMIT).maker.trial(bundle()) as evaluate,
        pytest.raises(_native.EvaluationError),
    ):
        evaluate(canonical(question()))
