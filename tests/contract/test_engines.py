"""What every engine promises (`sidecar/decision/engines.py`): one suite, run on each of them."""

import asyncio
import json
from pathlib import Path

import pytest
from opa_parts import DENY, ONLY_AMY, PERMIT, bundle, decide, question

from sidecar import _native
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.engines import EngineMaker
from sidecar.decision.opa import OpaMaker
from sidecar.decision.verified import VerifiedMaker
from sidecar.errors import Code, ConfigurationError, DecideError
from sidecar.vocabulary import Effect, LimitRecords, UnknownObligation, canonical

DEADLINE = 10.0
SPIN = "count([1 | some a in data.l; some b in data.l; some c in data.l; a + b + c == 1]) >= 0"


class NoDifference:
    def __init__(self) -> None:
        self.told: list[object] = []

    async def differ(self, found: object) -> None:
        self.told.append(found)

    def unchecked(self, why: str, detail: str) -> None:
        pass


@pytest.fixture(params=["embedded", "opa", "embedded, verified by opa"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def making(kind: str, needs):
    """Makes a maker with a deadline."""

    def make(deadline: float = DEADLINE) -> EngineMaker:
        if kind == "embedded":
            return EmbeddedMaker(deadline)
        opa = OpaMaker(str(needs("opa", "run `make tools`")), deadline, lambda *_said: None)
        if kind == "opa":
            return opa
        return VerifiedMaker(
            EmbeddedMaker(deadline), opa, sample=1.0, refuse=True, draw=lambda: 0.0, told=NoDifference()
        )

    return make


@pytest.fixture
def maker(making) -> EngineMaker:
    return making()


async def answers(maker: EngineMaker, rules: str, person: str = "amy", data: object = None):
    engine = await asyncio.to_thread(maker.make, bundle(rules, data=data))
    try:
        return await decide(engine, person)
    finally:
        await engine.close()


async def test_it_decides_by_the_canonical_document(maker, kind):
    engine = await asyncio.to_thread(maker.make, bundle())
    assert engine.name == maker.name == kind.split(",")[0]
    assert (await decide(engine, "amy")).permits
    denied = await decide(engine, "ed")
    assert denied.effect is Effect.DENY
    assert [reason.code for reason in denied.reasons] == ["not_us_personnel"]
    await engine.close()


async def test_a_decision_is_typed(maker):
    said = PERMIT | {"obligations": [{"id": "limit_records", "max": 5}, {"id": "new"}], "ttl_seconds": 30}
    decision = await answers(maker, f"decision := {json.dumps(said)}")
    assert decision.obligations == (LimitRecords(max=5), UnknownObligation(name="new"))
    assert decision.ttl_seconds == 30


@pytest.mark.parametrize(
    "rules",
    [
        "decision := 1 if input.action.name == 1",
        "decision := lower(input.version)",
        'decision := "a" if input.version == 1\n\ndecision := "b" if input.version == 1',
        f"decision := {json.dumps(PERMIT | {'effect': 'allow'})}",
        f"decision := {json.dumps(PERMIT | {'surplus': 1})}",
        f"decision := {json.dumps(PERMIT | {'ttl_seconds': '30'})}",
        f"decision := {json.dumps(PERMIT | {'reasons': []})}",
        f"decision := {json.dumps(DENY | {'reasons': [{'code': 'made_up', 'message': 'm', 'rule': 'r'}]})}",
        # Where a failing built-in is only undefined, this permits.
        f'default decision := {json.dumps(PERMIT)}\n\ndecision := {json.dumps(DENY)} if lower(input.version) == "a"',
        "decision := true",
        "decision := null",
        "other := 1",
    ],
)
async def test_no_well_formed_answer_is_a_refusal(making, rules):
    try:
        engine = await asyncio.to_thread(making().make, bundle(rules))
    except ConfigurationError:
        return  # earlier is better
    with pytest.raises(DecideError) as caught:
        await decide(engine)
    await engine.close()
    assert caught.value.reason == "policy_error"
    assert caught.value.code is Code.UNAVAILABLE
    assert len(caught.value.operator) > len(caught.value.message)


async def test_a_policy_that_takes_too_long_is_refused_in_time(making):
    engine = await asyncio.to_thread(making(0.2).make, bundle(f"decision if {SPIN}", data={"l": list(range(400))}))
    began = asyncio.get_running_loop().time()
    with pytest.raises(DecideError):
        await decide(engine)
    assert asyncio.get_running_loop().time() - began < 10
    await engine.close()


@pytest.mark.parametrize(
    "call",
    ['http.send({"method": "GET", "url": "http://127.0.0.1"}).status_code', "time.now_ns()", 'rand.intn("a", 9)',
     "opa.runtime().env", 'uuid.rfc4122("a")', 'net.lookup_ip_addr("localhost")'],
)  # fmt: skip
async def test_nothing_looks_beyond_the_input(maker, call):
    rules = f"decision := {json.dumps(PERMIT)} if {call} != 1"
    for load in (maker.make, maker.run_tests):
        with pytest.raises(ConfigurationError, match="decision.rego"):
            await asyncio.to_thread(load, bundle(rules))


@pytest.mark.parametrize("rules", ["decision := {", "decision := missing_function(1)", "decision := x if y == 2"])
async def test_what_does_not_compile_is_refused_with_file_and_line(maker, rules):
    with pytest.raises(ConfigurationError, match=r"sidecar/decision.rego:\d"):
        await asyncio.to_thread(maker.make, bundle(rules))


def test_tests_are_run_one_by_one_and_told_by_name(maker):
    tests = "test_good if true\n\ntest_bad if 1 == 2\n\ntest_data if data.t.n == 7\n"
    found = {one.name: one for one in maker.run_tests(bundle(tests=tests, data={"t": {"n": 7}}))}
    assert {name: one.passed for name, one in found.items()} == {
        "test_good": True,
        "test_bad": False,
        "test_data": True,
    }
    assert {one.package for one in found.values()} == {"sidecar.trial_test"}


def test_test_modules_are_there_for_tests_only(maker):
    asked = bundle(f"decision := {json.dumps(PERMIT)} if data.sidecar.trial_test.x", "x := true")
    try:
        trial = maker.trial(asked)
        evaluate = trial.__enter__()
    except ConfigurationError:
        return  # the embedded engine says at load that there is no such rule
    assert undecided(evaluate)
    trial.__exit__(None, None, None)


def test_a_trial_gives_the_decision_document(maker):
    with maker.trial(bundle()) as evaluate:
        assert json.loads(evaluate(canonical(question("amy")))) == PERMIT
        assert json.loads(evaluate(canonical(question("ed")))) == DENY


def test_a_trial_without_an_answer_says_so(maker):
    with maker.trial(bundle("decision := 1 if input.version == 2")) as evaluate:
        assert undecided(evaluate)


def undecided(evaluate) -> bool:
    with pytest.raises((_native.EvaluationError, ValueError)):
        evaluate(canonical(question()))
    return True


async def test_bundles_live_side_by_side_and_end_by_themselves(maker):
    old = await asyncio.to_thread(maker.make, bundle())
    new = await asyncio.to_thread(maker.make, bundle(ONLY_AMY.replace("amy", "bob"), revision="sha256:" + "b" * 64))
    assert (await decide(old, "amy")).permits
    assert not (await decide(new, "amy")).permits
    under_way = [asyncio.create_task(decide(old, person)) for person in ("amy", "ed") * 20]
    await asyncio.sleep(0)
    await old.close()
    assert [one.permits for one in await asyncio.gather(*under_way)] == [True, False] * 20
    await old.close()
    assert (await decide(new, "bob")).permits
    await new.close()


async def test_a_question_given_up_harms_no_other(maker):
    engine = await asyncio.to_thread(maker.make, bundle())
    for _ in range(10):
        given_up = [asyncio.create_task(decide(engine, "amy")) for _ in range(4)]
        await asyncio.sleep(0)
        for one in given_up:
            one.cancel()
        kept = await asyncio.gather(decide(engine, "ed"), *given_up, return_exceptions=True)
        assert not kept[0].permits
    await engine.close()


def test_the_shipped_tests_pass(maker):
    folder = Path(__file__).resolve().parents[2] / "policies"
    from sidecar.decision.folder import load_folder

    results = maker.run_tests(load_folder(folder))
    assert len(results) > 100
    assert [one for one in results if not one.passed] == []
