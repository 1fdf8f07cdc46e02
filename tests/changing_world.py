"""A world behind an enforcement point that changes between calls: real wherever something is remembered of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import msgspec
from google.protobuf import descriptor_pb2
from identity_provider import NOW, WEB, Entry, Provider, b64url, desk, jwks, person
from pipeline_rig import SERVICE, US, Index, Rig, answer, deny, get, permit, profile

from sidecar.api.v1 import annotations_pb2
from sidecar.attributes import descriptors
from sidecar.attributes.resource import Classifier, Describer
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.subject import Identifier
from sidecar.attributes.tokens import TokenVerifier
from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.enforcement.call import Call, Metadata, Peer, Reply
from sidecar.enforcement.circumstances import EXCEPTION, PURPOSE, TICKET, Circumstances
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.prepared import Preparations
from sidecar.enforcement.questions import Questions
from sidecar.errors import Code, DecideError
from sidecar.exceptions.authorization_store import NOTHING, Lifted
from sidecar.record import OutcomeBody
from sidecar.vocabulary import AccessRequest, Decision, ExceptionGrant, GrantScope, Place, SecurityRequirements

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

    def __init__(
        self, folder: Path, action: str = "read", subject: str = "REQUEST_FIELD", answers: str = "Profile"
    ) -> None:
        """`action`, `subject`: what the annotation of `GetProfile` says; `answers`: the type it answers with."""
        self.rig, self.provider, self.folder = Rig(), Provider(issuer="https://corp"), folder
        self.users = Provider(issuer="https://users", kind="data_subject")
        self.described = described(action, subject, answers)
        self.rig.now, self.monotonic = NOW, 0.0
        (folder / "revoked.jsonl").write_bytes(b"")
        self.revocations = Revocations(folder / "revoked.jsonl", clock=lambda: self.rig.now)
        self.revocations.load()
        self.desk = desk(self.provider, self.users, revocations=self.revocations)
        self.index = Index()
        self.rig.standing.index = lambda: self.index.revision
        self.rig.upstream.reply = lambda _message: self.shown
        self.said, self.request, self.shown = SAID, get(US), answer(profile(US))
        decides("p1")(self)
        self.token: str | None = self.provider.token(cnf={"x5t#S256": b64url(OTHER)})
        self.peer, self.door = Peer(identities=(WEB,), certificate_sha256=OTHER), PROXY

    def point(self) -> EnforcementPoint:
        """A point that remembers nothing yet."""
        rig, people = self.rig, self.desk.people
        tokens = TokenVerifier(
            issuers=[self.provider.trusted(), self.users.trusted()], rings=self.desk.rings,
            revocations=self.revocations,
        )  # fmt: skip
        workloads = self.desk.identifier._workloads
        return EnforcementPoint(
            replace(
                rig.point._parts,
                identifier=Identifier(tokens=tokens, people=people, workloads=workloads, binding="azp"),
                describer=self.described, classifier=Classifier(self.index),
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
        token = () if self.token is None else (("authorization", f"Bearer {self.token}"),)
        metadata = (*token, *self.said)
        call = Call(method=f"/{SERVICE}/GetProfile", metadata=metadata, peer=self.peer, door=self.door)
        reply = await point.unary(call, self.request)
        entries = [plain(one) for one in self.rig.records.log[before:]]
        told = (reply.headers[:-1], reply.final.trailing, reply.final.retry_after)
        forwarded = [(message, _kept(said)) for message, said, _ in self.rig.upstream.seen[sent:]]
        return reply, [reply.final.code, reply.message, told, *entries, forwarded]


@lru_cache
def described(action: str, subject: str, answers: str) -> Describer:
    """The demo's API, with other words about its first method."""
    found = descriptor_pb2.FileDescriptorSet()
    for source in (descriptor_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR, profiles_pb2.DESCRIPTOR):
        source.CopyToProto(found.file.add())
    method = found.file[2].service[0].method[0]
    method.output_type = f".sidecar.demo.profiles.v1.{answers}"
    said = method.options.Extensions[annotations_pb2.access]
    said.action, said.subject = action, annotations_pb2.Access.Subject.Value(subject)
    return Describer(descriptors.parse(found.SerializeToString(), "test"))


def _kept(metadata: Metadata) -> Metadata:
    return tuple(one for one in metadata if one[0] not in {"x-customhouse-call-id", "traceparent"})


def plain(entry: DecisionEntry | OutcomeBody) -> object:
    """An entry but for ids and times."""
    if isinstance(entry, OutcomeBody):
        return msgspec.structs.replace(entry, call_id="", duration_ms=0.0)
    form = entry.form
    return (
        form.phase, form.service, form.method, form.door, form.policy, form.directory, form.index, bytes(form.input),
        bytes(form.decision), form.obligations, form.level, form.engine, tuple(entry.subjects), entry.deadline,
    )  # fmt: skip


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
    world.desk.people.entries.pop("p1", None)


def old_directory(world: World) -> None:
    world.desk.people.young = False


def decides(revision: str, *orders: dict[str, object], code: str = "") -> Callable[[World], None]:
    """From now on another policy: a permit with these obligations, or a deny with this code."""

    def change(world: World) -> None:
        world.rig.standing.revision = revision
        world.rig.engine.rule = lambda _request: deny(code) if code else permit(*orders)

    return change


def old_policy(world: World) -> None:
    world.rig.standing.error = DecideError("the policy is too old to decide by", reason="policy_error")


def index(world: World) -> None:
    world.index.revision = "i2"
    world.index.classify = lambda _kind, _id: "non_us"


def lifted(world: World) -> None:
    world.rig.authorizations.lifted = Lifted((), SecurityRequirements(version="1"), NOW + 60)


def ended(world: World) -> None:
    world.rig.authorizations.lifted = Lifted((), SecurityRequirements(), NOW + 60)


def mended(world: World) -> None:
    """All is well again, and it is the time it was."""
    revoke(b"")(world)
    world.rig.now = NOW
    world.revocations.load()
    keys(world.provider.jwk())(world)
    world.desk.people.entries["p1"], world.desk.people.young = Entry(person("p1")), True
    decides("p1")(world)
    world.rig.standing.error = None
    vars(world.index).clear()
    world.rig.authorizations.lifted, world.rig.grants.grant = NOTHING, None
    world.rig.records.fail = lambda _entry: False
    user(US)(world)


def another(**changed: object) -> Callable[[World], None]:
    def change(world: World) -> None:
        for name, value in changed.items():
            setattr(world, name, value)

    return change


def user(number: int | None, country: str = "") -> Callable[[World], None]:
    """Somebody asks for this user, and is shown them."""

    def change(world: World) -> None:
        world.request = b"" if number is None else get(number)
        world.shown = answer(profile(number or US, country=country))

    return change


def fails(of: type) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.rig.records.fail = lambda entry: isinstance(entry, of)

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
    "the policy changes": (decides("p2", code="not_us_personnel"), Code.PERMISSION_DENIED),
    "the policy orders more": (decides("p3", {"id": "redact_fields", "categories": ["id_contact"], "fields": []}), Code.OK),
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
