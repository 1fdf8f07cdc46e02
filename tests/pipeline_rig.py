"""An enforcement point with everything around it in memory: correct simulators that a test bends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2

from sidecar.api.v1 import annotations_pb2
from sidecar.attributes import descriptors
from sidecar.attributes.resource import Classifier, Describer
from sidecar.attributes.subject import Basis, Identity
from sidecar.decision.document import parse_decision
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.call import Call, Final, Metadata, Peer, Reply
from sidecar.enforcement.circumstances import Circumstances
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.prepared import Preparations
from sidecar.errors import Code, DecideError, ForwardError, IdentifyError, RecordError, StageError
from sidecar.exceptions.authorization_store import NOTHING, Lifted
from sidecar.exceptions.jws import SignedObjectError
from sidecar.observability.calls import CallObserver
from sidecar.observability.metrics import CallStats
from sidecar.record import OutcomeBody, PolicyRef
from sidecar.vocabulary import AccessRequest, Decision, ExceptionGrant, Person, Place, Subject, Workload

US, GERMAN, NOBODY_KNOWS = 1, 2, 3
NOW = 1_795_000_000.0
PERMIT = {
    "effect": "permit",
    "reasons": [{"code": "ok", "message": "", "rule": "test"}],
    "obligations": [],
    "advice": [],
    "ttl_seconds": 30,
}
SERVICE = "sidecar.demo.profiles.v1.Profiles"


def deny(*codes: str) -> dict[str, object]:
    reasons = [{"code": code, "message": "m", "rule": "test"} for code in codes]
    return {**PERMIT, "effect": "deny", "reasons": reasons}


def permit(*obligations: dict[str, object], ttl: int = 30, code: str = "ok") -> dict[str, object]:
    return {
        **PERMIT,
        "obligations": list(obligations),
        "ttl_seconds": ttl,
        "reasons": [{"code": code, "message": "", "rule": "t"}],
    }


def describer() -> Describer:
    found = descriptor_pb2.FileDescriptorSet()
    for source in (descriptor_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR, profiles_pb2.DESCRIPTOR):
        source.CopyToProto(found.file.add())
    return Describer(descriptors.parse(found.SerializeToString(), "test"), unguarded=["grpc.health.v1.Health/*"])


@dataclass
class Identifiers:
    """Answers with `identity`, or raises `error`."""

    identity: Identity = field(default_factory=lambda: personnel())
    error: IdentifyError | None = None
    asked: int = 0

    def identify(
        self, metadata: Metadata, identities: tuple[str, ...], certificate: bytes | None, now: float,
        asserted: str | None = None,
    ) -> Identity:  # fmt: skip
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.identity

    def basis(
        self, authorization: str | None, identities: tuple[str, ...], certificate: bytes | None, now: float
    ) -> Basis | None:
        return None if self.error is not None else Basis(self.identity, None)

    def holds(self, known: Basis, now: float) -> bool:
        return self.error is None and known.identity is self.identity and now < known.identity.expires_at

    def calling(self, identities: tuple[str, ...], now: float) -> Identity:
        if not identities:
            raise IdentifyError("the calling workload is not known", reason="unidentified_workload")
        subject = Subject(kind="workload", workload=Workload(id=identities[0], operated_from="US"))
        return Identity(
            subjects=(subject,), person=None, workload=identities[0], own=None, expires_at=float("inf"), directory=None
        )


def personnel(*people: str, expires_at: float = NOW + 3600) -> Identity:
    subjects = tuple(
        Subject(kind="personnel", person=Person(id=one), workload=Workload(id="spiffe://t/console", operated_from="US"))
        for one in people or ("amy",)
    )
    return Identity(
        subjects=subjects,
        person=subjects[0].person.id,
        workload="spiffe://t/console",
        own=None,
        expires_at=expires_at,
        directory="d1",
    )


def user(number: int) -> Identity:
    subject = Subject(kind="data_subject", workload=Workload(id="spiffe://t/web", operated_from="US"))
    return Identity(
        subjects=(subject,),
        person=None,
        workload="spiffe://t/web",
        own=("person", str(number)),
        expires_at=NOW + 60,
        directory=None,
    )


class Index:
    revision = "i1"

    def classify(self, kind: str, id: str) -> str:
        return {str(US): "us", str(GERMAN): "non_us"}.get(id, "unknown")

    def fresh(self, now: float) -> bool:
        return True


class Engine:
    """Decides by `rule`; `documents` are the inputs it was asked about."""

    name = "simulated"

    def __init__(self) -> None:
        self.rule: Callable[[AccessRequest], dict[str, object] | Exception] = lambda _request: PERMIT
        self.documents: list[AccessRequest] = []
        self.known: dict[bytes, Decision] = {}
        self.valid_for: list[float] = []

    def peek(self, canonical: bytes) -> Decision | None:
        return self.known.get(canonical)

    def left(self, canonical: bytes) -> float:
        return float(self.known[canonical].ttl_seconds)

    async def decide(self, request: AccessRequest, canonical: bytes, *, valid_for: float) -> Decision:
        assert msgspec.json.decode(canonical, type=AccessRequest) == request
        self.documents.append(request)
        self.valid_for.append(valid_for)
        answer = self.rule(request)
        if isinstance(answer, Exception):
            raise answer
        return parse_decision(answer)


class Recorded:
    """A decision that was recorded: what its entry says and what its form says, by name."""

    def __init__(self, entry: DecisionEntry) -> None:
        self.entry, self.form = entry, entry.form

    def __getattr__(self, name: str) -> Any:
        return getattr(self.entry if name in DecisionEntry.__struct_fields__ else self.form, name)


class Records:
    """Keeps what was recorded, in order; `fail` decides what the disk refuses."""

    def __init__(self) -> None:
        self.log: list[DecisionEntry | OutcomeBody] = []
        self.fail: Callable[[DecisionEntry | OutcomeBody], bool] = lambda _entry: False
        self.levels: list[str] = []
        self.on_decision: Callable[[DecisionEntry], None] = lambda _entry: None

    async def decision(self, entry: DecisionEntry) -> None:
        self._take(entry)
        self.on_decision(entry)

    async def outcome(self, body: OutcomeBody, level: str) -> None:
        self.levels.append(level)
        self._take(body)

    def _take(self, entry: DecisionEntry | OutcomeBody) -> None:
        if self.fail(entry):
            raise RecordError("the access cannot be recorded now", reason="record_unavailable", operator="disk full")
        self.log.append(entry)

    @property
    def decisions(self) -> list["Recorded"]:
        return [Recorded(one) for one in self.log if isinstance(one, DecisionEntry)]

    @property
    def outcomes(self) -> list[OutcomeBody]:
        return [one for one in self.log if isinstance(one, OutcomeBody)]


class Port:
    """What the enforcement point has of `Records`, where `decisions` are what was recorded."""

    def __init__(self, records: Records) -> None:
        self.records = records

    async def decision(self, entry: DecisionEntry) -> None:
        await self.records.decision(entry)

    async def decisions(self, entries: Sequence[DecisionEntry]) -> None:
        if any(self.records.fail(one) for one in entries):
            raise RecordError("the access cannot be recorded now", reason="record_unavailable", operator="disk full")
        for one in entries:
            await self.records.decision(one)

    async def outcome(self, body: OutcomeBody, level: str) -> None:
        await self.records.outcome(body, level)

    async def outcomes(self, bodies: Sequence[OutcomeBody], level: str) -> None:
        if any(self.records.fail(one) for one in bodies):
            raise RecordError("the access cannot be recorded now", reason="record_unavailable", operator="disk full")
        for one in bodies:
            await self.records.outcome(one, level)


class Exchange:
    """One simulated streaming call."""

    def __init__(self, upstream: "Upstream", metadata: Metadata) -> None:
        self._upstream, self.metadata = upstream, metadata
        self.sent: list[bytes] = []
        self.closed = self.cancelled = False
        self.answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        for one in upstream.answers:
            self.answers.put_nowait(one)

    async def write(self, message: bytes) -> None:
        self.sent.append(message)
        answer = self._upstream.echo(message)
        if answer is not None:
            self.answers.put_nowait(answer)

    async def close_send(self) -> None:
        self.closed = True
        if self._upstream.ends:
            self.answers.put_nowait(None)

    async def headers(self) -> Metadata:
        return self._upstream.headers

    async def read(self) -> bytes | None:
        return await self.answers.get()

    async def final(self) -> Final:
        return self._upstream.final

    def cancel(self) -> None:
        self.cancelled = True


class Upstream:
    """Answers with `reply` or `answers`; `seen` is what it was sent."""

    def __init__(self) -> None:
        self.reply: Callable[[bytes], Reply | Exception] = lambda _message: answer(profile(US))
        self.echo: Callable[[bytes], bytes | None] = lambda _message: None
        self.answers: Sequence[bytes] = ()
        self.headers: Metadata = (("x-upstream", "1"),)
        self.final = Final(code=Code.OK, trailing=(("x-trailer", "1"),))
        self.ends = True
        self.unreachable = False
        self.seen: list[tuple[bytes, Metadata, float | None]] = []
        self.exchanges: list[Exchange] = []

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        self.seen.append((message, metadata, timeout))
        found = self.reply(message)
        if isinstance(found, Exception):
            raise found
        return found

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> Exchange:
        if self.unreachable:
            raise ForwardError("the service cannot be reached")
        self.exchanges.append(Exchange(self, metadata))
        return self.exchanges[-1]

    def reduced(self, final: Final) -> Final:
        return Final(code=final.code, message="reduced")


def profile(number: int, **fields: object) -> bytes:
    return pb.Profile(user_id=number, handle="h", email="a@b.example", **fields).SerializeToString()


def answer(data: bytes | None, /, code: Code = Code.OK, **final: object) -> Reply:
    return Reply(message=data, headers=(("x-upstream", "1"),), final=Final(code=code, **final))


def get(number: int) -> bytes:
    return pb.GetProfileRequest(user_id=number).SerializeToString()


class Grants:
    def __init__(self) -> None:
        self.grant: ExceptionGrant | None = None
        self.uses: list[str] = []

    def claim(self, person: str, grant_id: str, now: float) -> ExceptionGrant:
        if self.grant is None or self.grant.id != grant_id:
            raise SignedObjectError("no such exception is in force for this person")
        return self.grant

    def used(self, grant: ExceptionGrant, call_id: str) -> None:
        self.uses.append(call_id)


class Authorizations:
    def __init__(self) -> None:
        self.lifted: Lifted = NOTHING
        self.asked: list[tuple[list[tuple[str, str | None]], str]] = []

    def for_call(self, people: Iterable[tuple[str, str | None]], service: str, now: float) -> Lifted:
        self.asked.append((list(people), service))
        return self.lifted if now < self.lifted.expires_at else NOTHING


class Standing:
    def __init__(self) -> None:
        self.error: DecideError | None = None
        self.revision = "p1"

    def policy(self, now: float) -> PolicyRef:
        if self.error is not None:
            raise self.error
        return PolicyRef(revision=self.revision)

    def directory(self) -> str | None:
        return "d1"

    def index(self) -> str | None:
        return "i1"


class Rig:
    """Everything, and the point."""

    def __init__(self) -> None:
        self.identifier, self.engine, self.records = Identifiers(), Engine(), Records()
        self.upstream, self.grants, self.standing = Upstream(), Grants(), Standing()
        self.authorizations = Authorizations()
        self.stats, self.reports = CallStats(), list[StageError]()
        self.now = NOW
        self.numbers = iter(range(1, 1000))
        self.point = EnforcementPoint(
            Parts(
                identifier=self.identifier,
                describer=describer(),
                classifier=Classifier(Index()),
                decisions=self.engine,
                recorder=Port(self.records),
                upstream=self.upstream,
                standing=self.standing,
                observer=CallObserver(self.stats),
                preparations=Preparations(),
                circumstances=Circumstances(
                    ticket_pattern=r"[A-Z]+-\d+",
                    justification_pattern=r"[a-z_]+",
                    destination=Place(country="US"),
                    grants=self.grants,
                    authorizations=self.authorizations,
                ),
                levels={
                    "personnel": "committed",
                    "workload": "committed",
                    "data_subject": "written",
                    "deny": "written",
                },
                reflection=True,
                report=self.reports.append,
                clock=lambda: self.now,
                new_id=lambda: f"call-{next(self.numbers)}",
            )
        )

    def call(
        self,
        method: str = "GetProfile",
        *metadata: tuple[str, str],
        deadline: float | None = None,
        service: str = SERVICE,
    ) -> Call:
        return Call(
            method=f"/{service}/{method}",
            metadata=metadata,
            peer=Peer(identities=("spiffe://t/console",)),
            door=PROXY,
            deadline=deadline,
        )

    async def unary(self, message: bytes = b"", *metadata: tuple[str, str], method: str = "GetProfile") -> Reply:
        return await self.point.unary(self.call(method, *metadata), message or get(US))

    async def stream(self, method: str, *messages: bytes) -> tuple[Final, "Sink"]:
        sink = Sink()
        return await self.point.stream(self.call(method), several(*messages), sink), sink


class Sink:
    """Where the answer of a stream goes."""

    def __init__(self) -> None:
        self.initial: Metadata | None = None
        self.messages: list[bytes] = []
        self.came = asyncio.Event()

    async def headers(self, metadata: Metadata) -> None:
        assert self.initial is None
        self.initial = metadata

    async def message(self, data: bytes) -> None:
        assert self.initial is not None
        self.messages.append(data)
        self.came.set()


async def several(*messages: bytes, then: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
    if then is not None:
        await then.wait()
