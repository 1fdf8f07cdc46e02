"""The sidecar as a process: everything composed, started, watched, and stopped in the right order."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvloop

from sidecar.attributes.resource import Classifier, Describer
from sidecar.attributes.subject import Identifier
from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.enforcement.admin import AdminSocket
from sidecar.enforcement.circumstances import Circumstances
from sidecar.enforcement.intercept import PROXY, ProxyHandler
from sidecar.enforcement.listen import Listener
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.prepared import Preparations
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code, DecideError, EnforceError, StageError
from sidecar.exceptions.store import GrantEvent, GrantStore
from sidecar.main import build
from sidecar.main.build import clock, now
from sidecar.main.records import Records
from sidecar.main.standing import InForce
from sidecar.observability import metrics
from sidecar.observability.calls import CallObserver
from sidecar.observability.logs import make_logger
from sidecar.observability.metrics import CallStats
from sidecar.observability.traces import Telemetry
from sidecar.settings import loader
from sidecar.settings.sidecar import SidecarSettings
from sidecar.spool.epoch import RandomPool, uuid7

DRAIN_SECONDS = 10.0
SEND_SECONDS = 3.0


def run(settings: SidecarSettings) -> None:
    """Serve until SIGTERM or SIGINT. ConfigurationError or IntegrityError when a part cannot start."""
    uvloop.run(_serve(settings, make_logger("sidecar")))


def check(settings: SidecarSettings) -> list[str]:
    """Build everything that needs no network; a line for each part. ConfigurationError for the first that fails."""
    active = build.policy(settings)
    build.workloads(settings)
    lines = [
        f"directory      {build.directory(settings).revision[:16]}",
        f"subject index  {build.index(settings).revision[:16]}",
        f"policy         {active.revision[:16]}, {active.tests_passed} tests pass",
    ]
    if settings.describe.descriptors.file is not None:
        described = build.describer(settings)
        lines.append(f"methods        {sum(1 for _ in described)} described, {_refused(described)} refused")
    lines += [f"listener       {one.door} on {build.listen(one).address}" for one in settings.listen]
    return lines


def _refused(described: Describer) -> int:
    return sum(row.status == "undescribed" for row in described.report().methods)


async def _serve(settings: SidecarSettings, log: OperatorLog) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _running(settings, log) as status:
        log.warning("ready", **{key: value for key, value in status().items() if key != "problems"})
        await stop.wait()
        log.warning("stopping", drain_seconds=DRAIN_SECONDS)


@asynccontextmanager
async def _running(settings: SidecarSettings, log: OperatorLog) -> AsyncIterator[Callable[[], dict[str, object]]]:
    """Everything, running; leaving stops the doors first and the records last."""
    if settings.identity.bind_to_workload == "none":
        log.warning("stated_risk", detail="identity.bind_to_workload is none: whoever steals a token can use it")
    async with AsyncExitStack() as stack:
        telemetry = Telemetry("customhouse-sidecar", loader.environment())
        stack.callback(telemetry.shutdown)
        link = build.upstream(settings)
        stack.push_async_callback(link.close)
        directory, index = build.directory(settings, log), build.index(settings, log)
        active = build.policy(settings)
        described = await build.reflected(settings)
        records = Records.open(settings, log)
        stack.push_async_callback(records.close)
        await records.start()
        standing = InForce(active, directory, index, settings.policy.max_age)
        await standing.announce(records.say)
        stats = CallStats()
        decisions = CachedDecisionPoint(
            inner=active.engine,
            cache=DecisionCache(clock=time.monotonic, entries=settings.decision.cache.entries),
            revisions=lambda: (active.revision, directory.revision, index.revision),
        )
        tokens = build.tokens(settings, log)
        grants = _grants(settings, log, records)
        pool = RandomPool()
        point = EnforcementPoint(
            Parts(
                identifier=Identifier(
                    tokens=tokens,
                    people=directory,
                    workloads=build.workloads(settings),
                    binding=settings.identity.bind_to_workload,
                ),
                describer=described,
                classifier=Classifier(index),
                decisions=decisions,
                recorder=records.recorder,
                upstream=link,
                circumstances=_circumstances(settings, grants),
                standing=standing,
                preparations=Preparations(),
                observer=CallObserver(
                    stats,
                    telemetry.tracer,
                    random.SystemRandom().getrandbits,
                    known=lambda method: described.kind(f"/{method}") is not None,
                ),
                levels=settings.record.levels.model_dump(),
                reflection=settings.describe.reflection == "identified",
                report=lambda error: _report(log, error),
                clock=clock,
                new_id=lambda: uuid7(now(), pool.take(10)),
            )
        )

        def changed() -> None:
            decisions.cache.drop()
            point.reconsider()

        work = [tokens.run(), point.watch(), standing.follow(records.say, changed), *records.run()]
        if grants is not None:
            work.append(grants.run())
        stack.push_async_callback(_gathered, _watched(work, log))
        stack.push_async_callback(records.drain, SEND_SECONDS)
        listeners = await _listeners(settings, point, log, stack)

        def status() -> dict[str, object]:
            return {
                "producer": settings.producer.name,
                "listeners": [one.address for one in listeners],
                **standing.status(clock()),
                **records.status(),
                "problems": [*standing.problems(clock()), *records.problems()],
            }

        await _outside(settings, telemetry, stats, {**standing.gauges(), **records.gauges()}, status, stack)
        yield status


async def _listeners(
    settings: SidecarSettings, point: EnforcementPoint, log: OperatorLog, stack: AsyncExitStack
) -> list[Listener]:
    listeners = []
    for one in settings.listen:
        at = build.listen(one)
        handler = ProxyHandler(point, PROXY, at.peers(clock), log)
        listeners.append(Listener(at, (handler,), build.limits(settings), log))
    for listener in listeners:
        await listener.start()

    async def stop() -> None:
        await asyncio.gather(*(listener.stop(DRAIN_SECONDS) for listener in listeners))

    stack.push_async_callback(stop)
    return listeners


def _circumstances(settings: SidecarSettings, grants: GrantStore | None) -> Circumstances:
    return Circumstances(
        ticket_pattern=settings.record.ticket_pattern,
        justification_pattern=settings.record.justification_pattern,
        destination=build.destination(settings),
        grants=grants,
    )


def _grants(settings: SidecarSettings, log: OperatorLog, records: Records) -> GrantStore | None:
    if settings.exceptions is None:
        return None
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()

    def record(event: GrantEvent) -> None:
        grant = event.grant
        details = {
            "id": grant.id, "person": grant.person, "ticket": grant.ticket, "requested_by": grant.requested_by,
            "approvers": list(grant.approvers), "expires": grant.expires, "why": event.why, "call_id": event.call_id,
        }  # fmt: skip
        task = loop.create_task(records.say(event.type, details))
        pending.add(task)
        task.add_done_callback(pending.discard)

    store = GrantStore(
        folder=settings.exceptions.grants,
        approvers=settings.exceptions.approvers,
        clock=clock,
        on_event=record,
        max_window=settings.exceptions.max_window,
        report=build.reporter(log),
    )
    store.load()
    return store


def _watched(work: list[Coroutine[Any, Any, None]], log: OperatorLog) -> list[asyncio.Task[None]]:
    """Background tasks. One that ends by itself stops the process: a sidecar that has lost a part must not go on."""
    loop = asyncio.get_running_loop()

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("part_ended", part=task.get_name(), error=repr(task.exception()))
            signal.raise_signal(signal.SIGTERM)

    tasks = [loop.create_task(one, name=str(one)) for one in work]
    for task in tasks:
        task.add_done_callback(ended)
    return tasks


def _report(log: OperatorLog, error: StageError) -> None:
    """Refusals of bad callers are counted and recorded; the log is for what an operator can mend."""
    if error.code is Code.UNAVAILABLE or isinstance(error, EnforceError | DecideError):
        log.error("refused", stage=error.stage, reason=error.reason or "", detail=error.operator)


async def _gathered(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _outside(
    settings: SidecarSettings,
    telemetry: Telemetry,
    stats: CallStats,
    gauges: metrics.Gauges,
    status: Callable[[], dict[str, object]],
    stack: AsyncExitStack,
) -> None:
    if telemetry.meter is not None:
        metrics.export(telemetry.meter, stats, gauges)
    if settings.metrics is not None:
        host, _, port = settings.metrics.listen.rpartition(":")
        stack.callback(metrics.serve(stats, gauges, host, int(port)))
    if settings.admin is not None:
        admin = AdminSocket(settings.admin.socket, status)
        await admin.start()
        stack.push_async_callback(admin.stop)
