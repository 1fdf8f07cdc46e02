"""The parts of a running sidecar, put together."""

import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar._native import CallIds, RandomPool
from sidecar.attributes.directory import Directory
from sidecar.attributes.entities import Entities
from sidecar.attributes.resource import Classifier, Describer
from sidecar.attributes.subject import Identifier
from sidecar.attributes.tokens import TokenVerifier
from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.decision.shadow import ShadowedDecisionPoint
from sidecar.doors.check import METHODS as CHECK_METHODS
from sidecar.doors.check import SERVICE as CHECK_SERVICE
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.circumstances import Circumstances
from sidecar.enforcement.parts import DecisionPoint, Parts
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.prepared import Preparations
from sidecar.enforcement.transport import OperatorLog
from sidecar.enforcement.upstream import GrpcUpstream, NoUpstream
from sidecar.errors import Code, DecideError, EnforceError, StageError
from sidecar.exceptions.authorization_store import AuthorizationStore
from sidecar.exceptions.store import GrantStore
from sidecar.main import authorizations, build, grants, renewal
from sidecar.main.disagreements import Disagreements
from sidecar.main.given import clock
from sidecar.main.ledger import LedgerLink
from sidecar.main.ledger import opened as open_ledger
from sidecar.main.policy_follow import Follower, Told
from sidecar.main.policy_origin import policy_origin
from sidecar.main.records import Details, Records, about
from sidecar.main.seat import ALONE, Seat
from sidecar.main.shadow import ShadowWatch
from sidecar.main.shadow import opened as open_shadow
from sidecar.main.slots import Leftovers
from sidecar.main.standing import Changes, InForce
from sidecar.observability.calls import CallObserver
from sidecar.observability.metrics import CallStats
from sidecar.observability.telemetry import Telemetry

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings

_SCHEMAS = frozenset(f"grpc.reflection.{one}.ServerReflection/ServerReflectionInfo" for one in ("v1", "v1alpha"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A sidecar without its doors: what they hand calls to, and what is read and run beside it."""

    settings: "SidecarSettings"
    point: EnforcementPoint
    describer: Describer
    entities: Entities | None
    records: Records
    standing: InForce
    stats: CallStats
    cache: DecisionCache
    tokens: TokenVerifier
    grants: GrantStore | None
    authorizations: AuthorizationStore | None
    upstream: GrpcUpstream | None
    ledger: LedgerLink | None
    policy: Follower | None
    """What follows the policy's source; None in a worker, which is given its policy."""
    leftovers: Leftovers
    shadow: ShadowWatch | None
    log: OperatorLog
    waiting: Waiting
    directory: Directory
    """Permits of the decision APIs whose outcome is to be reported."""
    changed: Callable[[], None]
    """Policy, directory or index is another: nothing decided before may be used again."""

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs in the background until cancelled."""
        say = self.records.say
        work = [
            self.tokens.run(),
            self.point.watch(),
            self.waiting.run(),
            self.standing.follow(say, self.changed),
            self.leftovers.run(),
            *([self.policy.run()] if self.policy is not None else ()),
            *([renewal.follow(self.upstream, self.log)] if self.upstream is not None else ()),
            *self.records.run(),
            *(self.ledger.work() if self.ledger is not None else ()),
            *([self.shadow.run()] if self.shadow is not None else ()),
        ]
        return work + [store.run() for store in (self.grants, self.authorizations) if store is not None]

    def problems(self) -> list[str]:
        """What an operator has to mend."""
        found = [*self.standing.problems(clock()), *self.records.problems(), *self.tokens.problems()]
        found += self.leftovers.problems()
        if self.policy is not None and self.policy.kept.problem is not None:
            found.append(f"policy: it would not survive a restart, since it cannot be kept: {self.policy.kept.problem}")
        if self.grants is not None:
            found += [f"exceptions: {name}: {why}" for name, why in self.grants.status().problems.items()]
        if self.ledger is not None:
            found += self.ledger.problems()
        if self.shadow is not None:
            found += self.shadow.problems()
        if self.authorizations is not None:
            found += [f"authorizations: {name}: {why}" for name, why in self.authorizations.problems().items()]
        return found


async def compose(
    settings: "SidecarSettings", log: OperatorLog, telemetry: Telemetry, stats: CallStats, stack: AsyncExitStack,
    seat: Seat = ALONE,
) -> Composed:  # fmt: skip
    """Make every part and begin the records; `stack` takes them down again. ConfigurationError or IntegrityError."""
    changes = Changes()
    link = build.upstream(settings)
    if link is not None:
        stack.push_async_callback(link.close)
    directory, index = build.directory(settings, log), build.index(settings, log)
    differences = Disagreements(log, stats)
    origin = await policy_origin(settings, log, build.engine_maker(settings, log, differences), seat)
    started = origin.started
    stack.push_async_callback(started.active.engine.close)  # also where what follows fails
    described = await build.reflected(settings)
    records = await _begun(settings, log, about(settings, described), stack, seat)
    differences.connect(records.say)
    standing = InForce(
        started.active, directory, index, settings.policy.max_age, source=started.source, seen=started.seen
    )
    stack.push_async_callback(standing.decisions.close)
    await standing.announce(records.say)
    cache = DecisionCache(clock=time.monotonic, entries=settings.decision.cache.entries)
    tokens = build.tokens(settings, log, changes.tell)
    granted = grants.recorded(settings, log, records.say, changes.tell)
    authorized = authorizations.recorded(settings, log, records.say, changes.tell)
    ledger = open_ledger(settings, log, lambda error: _report(log, error))
    if ledger is not None:
        stack.push_async_callback(ledger.close)
    decisions: DecisionPoint = CachedDecisionPoint(inner=standing.decisions, cache=cache, revisions=standing.revisions)
    shadow = open_shadow(settings, standing, records.say, log)
    if shadow is not None:
        decisions = ShadowedDecisionPoint(decisions, shadow.shadow)
    parts = Parts(
        identifier=identifier(settings, tokens, directory),
        describer=described,
        classifier=Classifier(index),
        decisions=decisions,
        recorder=records.recorder,
        upstream=link or NoUpstream(),
        circumstances=circumstances(settings, granted, authorized),
        standing=standing,
        preparations=Preparations(),
        observer=observer(settings, described, stats, telemetry),
        levels=dict(settings.record.levels),
        reflection=settings.describe.reflection == "identified",
        report=lambda error: _report(log, error),
        clock=clock,
        new_id=CallIds(clock, RandomPool()),
        exposures=None if ledger is None else ledger.exposures,
    )
    point = EnforcementPoint(parts)
    changes.connect(point.reconsider)

    def changed() -> None:
        cache.drop()
        point.reconsider()

    told = Told(say=records.say, changed=changed, log=log, stats=stats)
    return Composed(
        settings=settings, point=point, describer=described, entities=build.entities(settings, described), records=records, standing=standing, stats=stats, cache=cache, tokens=tokens,
        grants=granted, authorizations=authorized, upstream=link, ledger=ledger, log=log, changed=changed,
        waiting=_waiting(settings), directory=directory,
        policy=origin.followed(standing, told), leftovers=Leftovers(settings, log), shadow=shadow,
    )  # fmt: skip


async def _begun(
    settings: "SidecarSettings", log: OperatorLog, said: Details, stack: AsyncExitStack, seat: Seat
) -> Records:
    """The records, their epoch begun; `said` stands in its `open`."""
    records = Records.open(settings, log, seat.slots)
    stack.push_async_callback(records.close)
    await records.start(said)
    return records


def _waiting(settings: "SidecarSettings") -> Waiting:
    most = settings.checks.waiting
    return Waiting(time.monotonic, settings.checks.report_within, most, per_owner=max(1, most * 3 // 4))


def identifier(settings: "SidecarSettings", tokens: TokenVerifier, people: Directory) -> Identifier:
    """Says who calls."""
    return Identifier(
        tokens=tokens,
        people=people,
        workloads=build.workloads(settings),
        binding=settings.identity.bind_to_workload,
    )


def observer(settings: "SidecarSettings", described: Describer, stats: CallStats, telemetry: Telemetry) -> CallObserver:
    """Counts and traces calls under the names that the API has; any other is `_OTHER`."""
    schemas = _SCHEMAS if settings.describe.reflection == "identified" else frozenset()
    known = schemas | {f"{CHECK_SERVICE}/{name}" for name in CHECK_METHODS}
    return CallObserver(stats, telemetry.tracer, known=known_methods(described, known))


def known_methods(described: Describer, more: frozenset[str]) -> Callable[[str], bool]:
    """Whether "package.Service/Method" is one of the API's, or one of `more`."""
    return lambda method: method in more or described.kind(f"/{method}") is not None


def circumstances(
    settings: "SidecarSettings", granted: GrantStore | None, authorized: AuthorizationStore | None
) -> Circumstances:
    """What of a call's metadata is believed, in which form, and what is in force besides."""
    return Circumstances(
        ticket_pattern=settings.record.ticket_pattern,
        justification_pattern=settings.record.justification_pattern,
        destination=build.destination(settings),
        grants=granted,
        authorizations=authorized,
    )


def _report(log: OperatorLog, error: StageError) -> None:
    """Refusals of bad callers are counted and recorded; the log is for what an operator can mend."""
    if error.code is Code.UNAVAILABLE or isinstance(error, EnforceError | DecideError):
        log.error("refused", stage=error.stage, reason=error.reason or "", detail=error.operator)
