"""A call that goes the straight way is answered and recorded as one at a point that remembers nothing."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from weakref import ref

import pytest
from changing_world import CHANGES, GRANT, OTHER, SAID, World, another, decides, fails, later, mended, revoke, user
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_provider import BATCH, WEB, b64url
from pipeline_rig import GERMAN, NOBODY_KNOWS, SERVICE, US, answer, deny, get, permit, profile

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.call import Call, Door, Final, Metadata, Peer, Reply
from sidecar.enforcement.circumstances import EXCEPTION, TICKET
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.guarded import Guarded
from sidecar.enforcement.ordinary import OrdinaryCall, begin
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.regulars import Regulars
from sidecar.enforcement.release import Release
from sidecar.errors import Code, ForwardError
from sidecar.exceptions.authorization_store import NOTHING, Lifted
from sidecar.record import OutcomeBody
from sidecar.vocabulary import SecurityRequirements

pytestmark = pytest.mark.unit
Step = Callable[[World], None]
OTHER_DOOR = Door(name="interceptor", fulfils=frozenset())


def personnel(world: World) -> None:
    world.token, world.peer = (
        world.provider.token(cnf={"x5t#S256": b64url(OTHER)}),
        Peer(identities=(WEB,), certificate_sha256=OTHER),
    )


def themselves(world: World) -> None:
    world.token, world.peer = world.users.token(sub=str(US)), Peer(identities=(WEB,))


def alone(world: World) -> None:
    world.token, world.peer = None, Peer(identities=(BATCH,))


def exception(world: World) -> None:
    world.said, world.rig.grants.grant = (*SAID, (EXCEPTION, "x1")), GRANT


def another_index(world: World) -> None:
    """Noticed first at another door."""
    world.index.revision, world.door = "i9", OTHER_DOOR


def another_policy(world: World) -> None:
    world.rig.standing.revision, world.door = "p9", OTHER_DOOR


def listed(*users: int) -> bytes:
    return pb.ListProfilesResponse(
        profiles=[pb.Profile(user_id=one, handle="h", email="a@b.example") for one in users]
    ).SerializeToString()


def unattested(world: World) -> None:
    world.rig.authorizations.lifted = NOTHING


def lasting(world: World) -> None:
    world.rig.standing.revision = "p8"
    world.rig.engine.rule = lambda _request: permit(ttl=3000)


def other_mind(world: World) -> None:
    later(31)(world)
    world.rig.engine.rule = lambda _request: deny("not_us_personnel")


def old_index(world: World) -> None:
    world.index.fresh = lambda _now: False


def shows(data: bytes | None, code: Code = Code.OK) -> Step:
    return another(shown=answer(data, code, message="said", trailing=(("x-trailer", "1"),)))


STEPS: dict[str, Step] = {name: change for name, (change, _) in CHANGES.items()} | {
    "all is well again": mended,
    "personnel call": personnel,
    "a user calls": themselves,
    "a workload calls": alone,
    "they say the usual": another(said=SAID),
    "they say more": another(said=(*SAID, ("x-request-id", "7"), ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"))),
    "an exception is claimed": exception,
    "another door": another(door=OTHER_DOOR),
    "the usual door": another(door=PROXY),
    "another index says the same": another_index,
    "another policy says the same": another_policy,
    "decisions last": lasting,
    "nothing is attested": unattested,
    "another who is not listed is shown": shows(profile(NOBODY_KNOWS + 1)),
    "they are shown twice": shows(profile(US) + profile(US)),
    "one is listed": shows(listed(US)),
    "one is listed twice": shows(listed(US, US)),
    "one is listed and nobody beside": shows(listed(US, 0)),
    "two are listed": shows(listed(US, GERMAN)),
    "about a user": user(US),
    "about a German": user(GERMAN, "DE"),
    "about somebody who is not listed": user(NOBODY_KNOWS),
    "about one who says they are from Texas": user(NOBODY_KNOWS, "US"),
    "about nobody": user(None),
    "damage is sent": another(request=b"\xff"),
    "more is sent than is described": another(request=get(US) + b"\xfa\x3f\x01x"),
    "the index is too old": old_index,
    "somebody else is shown": shows(profile(GERMAN)),
    "nobody is shown": shows(b""),
    "more is shown than is described": shows(profile(US) + b"\xfa\x3f\x01x"),
    "damage is shown": shows(b"\xff"),
    "nothing is found": shows(None, Code.NOT_FOUND),
    "the service is gone": another(shown=ForwardError("the service cannot be reached")),
    "records are to go": decides("p4", {"id": "drop_records", "subjects": "us"}),
    "nothing is to leave": decides("p5", {"id": "limit_records", "max": 0}),
    "records are to be safe": decides("p6", {"id": "require_durability", "level": "acknowledged"}),
    "more than this door can do": decides("p7", {"id": "made_up"}),
    "no decision can be recorded": fails(DecisionEntry),
    "no outcome can be recorded": fails(OutcomeBody),
    "a second passes": later(1),
    "the decision ends": later(31),
}  # fmt: skip
ONCE: dict[str, Step] = {"the decision ends and its policy would now deny": other_mind}
"""Not with others: what is in memory elsewhere answers by the mind it was made in."""
KINDS = [("read", "REQUEST_FIELD"), ("write", "REQUEST_FIELD"), ("read", "CALLER"), ("read", "ANSWER")]
LISTS = ("read", "REQUEST_FIELD", "ListProfilesResponse")


async def played(world: World, steps: list[str]) -> int:
    """Calls after each step, held against a point that remembers nothing; how many of them went the straight way."""
    point, straight = world.point(), 0
    for step in ["a second passes", *steps]:
        (STEPS | ONCE)[step](world)
        _, anew = await world.call(world.point())
        for _ in range(3):
            straight += settled(point, world)
            assert (await world.call(point))[1] == anew, step
    return straight


def begun(point: EnforcementPoint, world: World) -> tuple[OrdinaryCall | None, bytes]:
    token: Metadata = () if world.token is None else (("authorization", f"Bearer {world.token}"),)
    call = Call(method=f"/{SERVICE}/GetProfile", metadata=(*token, *world.said), peer=world.peer, door=world.door)
    call, span, call_id = point._begun(call)
    return begin(point._regulars, point._parts, call, span, call_id, world.request), world.request


def settled(point: EnforcementPoint, world: World) -> bool:
    found, _ = begun(point, world)
    return found is not None and found._settled is not None


def in_a_world(kind: tuple[str, ...], steps: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(played(World(Path(folder), *kind), steps))


@settings(max_examples=60)
@given(st.sampled_from([*KINDS, LISTS]), st.lists(st.sampled_from(sorted(STEPS)), max_size=10))
def test_whatever_happens_in_between_it_goes_as_at_a_point_that_remembers_nothing(
    kind: tuple[str, ...], steps: list[str]
) -> None:
    in_a_world(kind, steps)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_each_change_alone_and_back_again(step: str) -> None:
    in_a_world(KINDS[0], [step, "all is well again", step])


@pytest.mark.parametrize(
    "steps",
    [
        ["decisions last", "a minute passes"],
        ["another index says the same", "the usual door"],
        ["another policy says the same", "the usual door"],
        ["the decision ends and its policy would now deny"],
        ["about somebody who is not listed", "another who is not listed is shown"],
        ["about somebody who is not listed", "about one who says they are from Texas"],
        ["about somebody who is not listed", "the index is too old"],
        ["records are to go", "all is well again", "about a German", "about a user", "records are to go"],
        ["the policy orders more", "nothing is found"],
        ["they say another purpose", "they say the usual", "they say another purpose"],
        ["another certificate"],
        ["a user calls", "about a German", "about a user"],
        ["an attestation comes into force", "nothing is attested"],
        ["an exception is claimed", "they say the usual", "an exception is claimed"],
        ["they say one twice"],
        ["one is listed", "two are listed"],
        ["one is listed", "one is listed and nobody beside"],
        ["one is listed", "one is listed twice", "records are to go"],
    ],
)
@pytest.mark.parametrize("kind", [*KINDS[:3], LISTS])
def test_what_could_be_taken_for_the_same_is_not(kind: tuple[str, ...], steps: list[str]) -> None:
    in_a_world(kind, steps)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        ["a user calls"],
        ["a workload calls"],
        ["about a German"],
        ["records are to go"],
        ["about nobody", "about a user"],
    ],
)
@pytest.mark.parametrize("kind", KINDS[:2])
def test_the_straight_way_is_taken_from_the_third_such_call_on(kind: tuple[str, ...], steps: list[str]) -> None:
    assert in_a_world(kind, steps) >= 1


def test_a_user_who_asks_for_themselves_goes_the_straight_way() -> None:
    assert in_a_world(("read", "CALLER"), ["a user calls", "about nobody"]) >= 1


def state(guarded: Guarded) -> dict[str, object]:
    """All that a call has come to, but for what tells one call from another."""
    case, covers = guarded.case, {phase: (one.counts, one.reached, dict(one.classes), one.minute, one.duties)
                                  for phase, one in guarded._covers.items()}  # fmt: skip
    mine = {name: getattr(guarded, name) for name in (
        "messages_in", "messages_out", "bytes_out", "_bound", "_answers", "ordered", "_classes", "_named", "_method",
        "free", "recheck_after", "expires_at",
    )}  # fmt: skip
    its = {name: getattr(case, name) for name in (
        "action", "identity", "claims", "described", "claimed_for", "claimed", "expires_at", "exposure", "revision",
        "closed", "lasting", "_refused", "_permitted", "at_once",
    )}  # fmt: skip
    figures = {name: getattr(guarded._release, name) for name in Release.__slots__}
    return mine | its | figures | {"covers": covers}


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize(
    "step", ["a user calls", "the policy orders more", "about a German", "about somebody who is not listed"]
)
async def test_whoever_leaves_the_straight_way_stands_where_the_general_one_would_have_come(
    tmp_path: Path, kind: tuple[str, ...], step: str
) -> None:
    world = World(tmp_path, *kind)
    STEPS[step](world)
    point = world.point()
    await world.call(point), await world.call(point)
    ordinary, request = begun(point, world)
    assert ordinary is not None
    assert ordinary._settled is not None
    general = Guarded(point._parts, ordinary.call, ordinary.span, "call")
    assert await general.enter(request) == await ordinary.enter(request) == request
    assert state(ordinary.whole()) == state(general)
    assert ordinary.whole() is ordinary.whole()


async def test_a_caller_who_goes_leaves_an_outcome(tmp_path: Path) -> None:
    world, reached = World(tmp_path), asyncio.Event()
    point = world.point()
    await world.call(point), await world.call(point)

    class Never:
        async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

        def reduced(self, final: Final) -> Final:
            return final

    found, request = begun(point, world)
    assert found is not None
    before = len(world.rig.records.log)
    call = asyncio.ensure_future(point.unary(found.call, request, Never()))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    decision, outcome = world.rig.records.log[before:]
    assert isinstance(decision, DecisionEntry)
    assert isinstance(outcome, OutcomeBody)
    assert (outcome.status, outcome.messages.in_, outcome.messages.out) == ("CANCELLED", 1, 0)
    assert outcome.call_id == decision.call_id


@pytest.mark.parametrize(
    "step",
    [
        "the policy changes", "no decision can be recorded", "no outcome can be recorded", "the service is gone",
        "nothing is found", "they say one twice", "they claim what they do not have", "an exception is claimed",
        "the person is revoked", "about nobody",
    ],
)  # fmt: skip
async def test_of_a_call_that_failed_or_was_not_ordinary_nothing_is_kept(tmp_path: Path, step: str) -> None:
    world = World(tmp_path)
    STEPS[step](world)
    point = world.point()
    for _ in range(3):
        await world.call(point)
    assert len(point._regulars) == 0


async def test_whoever_came_first_is_forgotten_first_and_the_token_itself_is_not_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    point = world.point()
    point._regulars = Regulars(point._parts, most=3)
    for number in range(5):
        world.said = (*SAID[:1], (TICKET, f"SUP-{number}"))
        await world.call(point), await world.call(point)
    assert len(point._regulars) == 3
    assert settled(point, world)
    assert world.token not in repr(list(point._regulars._kept))
    world.said = (*SAID[:1], (TICKET, "SUP-1"))
    assert not settled(point, world)
    world.said = (*SAID[:1], (TICKET, "SUP-2"))
    assert settled(point, world)


async def test_a_question_from_before_the_claims_lapsed_is_not_kept_under_those_after(tmp_path: Path) -> None:
    world = World(tmp_path)
    point = world.point()
    world.rig.engine.rule = lambda asked: permit(ttl=3000) if asked.context.security_requirements.version else deny()
    world.rig.authorizations.lifted = Lifted((), SecurityRequirements(version="1"), world.rig.now + 20)
    await world.call(point)
    reply = world.rig.upstream.reply

    def ends(*_: object) -> Reply:  # the attestation ends while the service works
        world.rig.now += 25
        world.rig.authorizations.lifted = NOTHING
        return answer(b"")

    world.rig.upstream.reply = ends
    await world.call(point)
    world.rig.upstream.reply = reply
    assert not settled(point, world)
    assert (await world.call(point))[0].final.code is not Code.OK


async def test_no_list_of_what_is_revoked_outlives_the_next_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    point = world.point()
    await world.call(point), await world.call(point)
    assert settled(point, world)
    lists = [ref(world.revocations.marks)]
    for number in range(3):
        revoke(f'{{"sub": "else-{number}"}}\n'.encode())(world)
        world.said = (*SAID[:1], (TICKET, f"SUP-{number + 2}"))
        await world.call(point), await world.call(point)
        lists.append(ref(world.revocations.marks))
    assert [one() is None for one in lists] == [True, True, True, False]


async def test_a_caller_keeps_no_questions_of_a_minute_that_is_over(tmp_path: Path) -> None:
    world = World(tmp_path)
    point = world.point()
    for _ in range(3):
        await world.call(point), await world.call(point)
        assert settled(point, world)
        later(60)(world)
    assert len(point._regulars) == 1
