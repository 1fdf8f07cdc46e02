"""What is remembered about a caller changes nothing: the next call goes as it would at a point that remembers nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from identity_provider import NOW, WEB, Entry, Provider, b64url, desk, jwks, person
from pipeline_rig import SERVICE, US, Index, Rig, answer, deny, get, permit, profile

from sidecar.attributes.resource import Classifier
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.subject import Identifier
from sidecar.attributes.tokens import TokenVerifier
from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.enforcement.call import Call, Peer, Reply
from sidecar.enforcement.circumstances import EXCEPTION, PURPOSE, TICKET, Circumstances
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.prepared import Preparations
from sidecar.enforcement.questions import Questions
from sidecar.errors import Code, DecideError
from sidecar.exceptions.authorization_store import Lifted
from sidecar.record import Trace
from sidecar.vocabulary import AccessRequest, Decision, ExceptionGrant, GrantScope, Place, SecurityRequirements

pytestmark = pytest.mark.unit
OTHER = b"c" * 32
SAID = ((PURPOSE, "user_support"), (TICKET, "SUP-1"))
GRANT = ExceptionGrant(
    id="x1", person="p1", scope=GrantScope(), justification="j", ticket="SUP-1", not_before="2026-01-01T00:00:00Z",
    expires="2028-01-01T00:00:00Z", requested_by="a", approvers=("b", "c"),
)  # fmt: skip


class Asked:
    """The rig's engine, as a decision cache asks it."""

    def __init__(self, rig: Rig) -> None:
        self.name, self._rig = rig.engine.name, rig

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        return await self._rig.engine.decide(request, canonical, valid_for=0.0)


class World:
    """Everything that stands behind a call, real where something is remembered of it; and points in front of it."""

    def __init__(self, folder: Path) -> None:
        self.rig, self.provider, self.folder = Rig(), Provider(issuer="https://corp"), folder
        self.rig.now, self.monotonic = NOW, 0.0
        (folder / "revoked.jsonl").write_bytes(b"")
        self.revocations = Revocations(folder / "revoked.jsonl", clock=lambda: self.rig.now)
        self.revocations.load()
        self.desk = desk(self.provider, revocations=self.revocations)
        self.index = Index()
        self.rig.upstream.reply = lambda _message: answer(profile(US))
        self.said, self.peer = SAID, Peer(identities=(WEB,))
        self.token = self.provider.token(cnf={"x5t#S256": b64url(OTHER)})
        self.peer = Peer(identities=(WEB,), certificate_sha256=OTHER)

    def point(self) -> EnforcementPoint:
        """A point that remembers nothing yet."""
        rig, people = self.rig, self.desk.people
        tokens = TokenVerifier(
            issuers=[self.provider.trusted()], rings=self.desk.rings, revocations=self.revocations
        )  # fmt: skip
        workloads = self.desk.identifier._workloads
        return EnforcementPoint(
            replace(
                rig.point._parts,
                identifier=Identifier(tokens=tokens, people=people, workloads=workloads, binding="azp"),
                classifier=Classifier(self.index),
                decisions=CachedDecisionPoint(
                    inner=Asked(rig), cache=DecisionCache(clock=lambda: self.monotonic),
                    revisions=lambda: (rig.standing.revision, people.revision, self.index.revision),
                ),
                circumstances=Circumstances(
                    ticket_pattern=r"[A-Z]+-\d+", justification_pattern=r"[a-z_]+", destination=Place(country="US"),
                    grants=rig.grants, authorizations=rig.authorizations,
                ),
                preparations=Preparations(), questions=Questions(),
            )
        )  # fmt: skip

    async def call(self, point: EnforcementPoint) -> tuple[Reply, list[object]]:
        """A call, and everything it left, but for its ids and times."""
        before, sent = len(self.rig.records.log), len(self.rig.upstream.seen)
        metadata = (("authorization", f"Bearer {self.token}"), *self.said)
        call = Call(method=f"/{SERVICE}/GetProfile", metadata=metadata, peer=self.peer, door=PROXY)
        reply = await point.unary(call, get(US))
        entries = [_plain(one) for one in self.rig.records.log[before:]]
        return reply, [reply.final.code, reply.message, *entries, [one[0] for one in self.rig.upstream.seen[sent:]]]


def _plain(entry: object) -> object:
    if isinstance(entry, DecisionEntry):
        trace = Trace(trace_id=None, span_id=None, from_="sidecar")
        return msgspec.structs.replace(entry, call_id="", trace=trace, eval_us=0)
    return msgspec.structs.replace(entry, call_id="", duration_ms=0.0)


def revoke(line: bytes) -> Callable[[World], None]:
    def change(world: World) -> None:
        (world.folder / "new").write_bytes(line)
        (world.folder / "new").rename(world.folder / "revoked.jsonl")
        world.revocations.load()

    return change


def later(seconds: float, *, read: bool = True) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.rig.now += seconds
        world.monotonic += seconds
        if read:
            world.revocations.load()

    return change


def keys(*jwk: dict) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.provider.source.content = jwks(*(jwk or (world.provider.jwk(use="sig", x="1"),)))
        world.desk.rings[world.provider.issuer].load()

    return change


def stale_keys(world: World) -> None:
    world.desk.rings[world.provider.issuer].good_until = world.rig.now - 1


def moved(world: World) -> None:
    world.desk.people.entries["p1"] = Entry(person("p1", roles=("nobody",)), revision="rev3")


def gone(world: World) -> None:
    del world.desk.people.entries["p1"]


def old_directory(world: World) -> None:
    world.desk.people.young = False


def policy(world: World) -> None:
    world.rig.standing.revision = "p2"
    world.rig.engine.rule = lambda _request: deny("not_us_personnel")


def old_policy(world: World) -> None:
    world.rig.standing.error = DecideError("the policy is too old to decide by", reason="policy_error")


def index(world: World) -> None:
    world.index.revision = "i2"
    world.index.classify = lambda _kind, _id: "non_us"


def lifted(world: World) -> None:
    world.rig.authorizations.lifted = Lifted((), SecurityRequirements(version="1"), NOW + 60)


def ended(world: World) -> None:
    world.rig.authorizations.lifted = Lifted((), SecurityRequirements(), NOW + 60)


def obliged(world: World) -> None:
    world.rig.standing.revision = "p3"
    world.rig.engine.rule = lambda _request: permit({"id": "redact_fields", "categories": ["id_contact"], "fields": []})


def another(**changed: object) -> Callable[[World], None]:
    def change(world: World) -> None:
        for name, value in changed.items():
            setattr(world, name, value)

    return change


CHANGES: dict[str, tuple[Callable[[World], None], Code]] = {
    "the person is revoked": (revoke(b'{"sub": "p1"}\n'), Code.UNAUTHENTICATED),
    "the workload is revoked": (revoke(f'{{"sub": "{WEB}"}}\n'.encode()), Code.UNAUTHENTICATED),
    "the list is damaged": (revoke(b"damage"), Code.UNAVAILABLE),
    "the list is not read any more": (later(61, read=False), Code.UNAVAILABLE),
    "the key is replaced": (keys(Provider(kid="other").jwk()), Code.UNAUTHENTICATED),
    "the keys are stale": (stale_keys, Code.UNAVAILABLE),
    "the person's entry changes": (moved, Code.OK),
    "the person has left": (gone, Code.PERMISSION_DENIED),
    "the directory is too old": (old_directory, Code.UNAVAILABLE),
    "the token ends": (later(1000), Code.UNAUTHENTICATED),
    "the policy changes": (policy, Code.PERMISSION_DENIED),
    "the policy orders more": (obliged, Code.OK),
    "the policy is too old": (old_policy, Code.UNAVAILABLE),
    "the index changes": (index, Code.OK),
    "an attestation comes into force": (lifted, Code.OK),
    "a minute passes": (later(60), Code.OK),
    "they say another purpose": (another(said=((PURPOSE, "billing"), SAID[1])), Code.OK),
    "they say no ticket": (another(said=SAID[:1]), Code.OK),
    "they say one twice": (another(said=(*SAID, SAID[0])), Code.INVALID_ARGUMENT),
    "they claim what they do not have": (another(said=(*SAID, (EXCEPTION, "x1"))), Code.PERMISSION_DENIED),
    "another certificate": (
        another(peer=Peer(identities=(WEB,), certificate_sha256=b"d" * 32)), Code.UNAUTHENTICATED,
    ),
    "no certificate": (another(peer=Peer(identities=(WEB,))), Code.UNAUTHENTICATED),
    "another peer": (
        another(peer=Peer(identities=("spiffe://corp/ns/other",), certificate_sha256=OTHER)), Code.UNAUTHENTICATED,
    ),
    "a token that was never issued": (another(token="a.b.c"), Code.UNAUTHENTICATED),  # noqa: S106 - no secret
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("what", CHANGES)
async def test_whatever_changes_is_heeded_by_the_very_next_call(world: World, what: str) -> None:
    change, code = CHANGES[what]
    point = world.point()
    first, second = (await world.call(point))[1], (await world.call(point))[1]
    assert first == second
    assert first[0] is Code.OK
    assert len(world.rig.engine.documents) == 1, "the second call was answered from memory"
    change(world)
    _, heeded = await world.call(point)
    _, anew = await world.call(world.point())
    assert heeded == anew
    assert heeded[0] is code
    assert heeded != second


async def test_an_exception_or_an_attestation_that_ends_is_heeded_by_the_very_next_call(world: World) -> None:
    point, world.said, world.rig.grants.grant = world.point(), (*SAID, (EXCEPTION, "x1")), GRANT
    lifted(world)
    _, first = await world.call(point)
    assert first[0] is Code.OK
    world.rig.authorizations.lifted = Lifted((), SecurityRequirements(), NOW + 60)
    _, without = await world.call(point)
    assert without == (await world.call(world.point()))[1]
    assert without != first
    world.rig.grants.grant = None
    assert (await world.call(point))[1][0] is Code.PERMISSION_DENIED


async def test_a_decision_is_not_used_beyond_its_life(world: World) -> None:
    point = world.point()
    world.rig.engine.rule = lambda _request: permit(ttl=30)
    await world.call(point)
    world.rig.engine.rule = lambda _request: deny("not_us_personnel")
    assert (await world.call(point))[1][0] is Code.OK
    world.monotonic += 30
    assert (await world.call(point))[1][0] is Code.PERMISSION_DENIED


async def test_a_refusal_is_not_remembered(world: World) -> None:
    point = world.point()
    world.desk.people.young = False
    assert (await world.call(point))[1][0] is Code.UNAVAILABLE
    world.desk.people.young = True
    assert (await world.call(point))[1][0] is Code.OK
    world.said = (*SAID, SAID[0])
    assert (await world.call(point))[1][0] is Code.INVALID_ARGUMENT
    world.said = SAID
    assert (await world.call(point))[1][0] is Code.OK


async def test_the_token_itself_is_not_kept(world: World) -> None:
    point = world.point()
    await world.call(point)
    identifier = point._parts.identifier
    assert identifier._known
    assert world.token not in repr((identifier._known, identifier._tokens._kept))
