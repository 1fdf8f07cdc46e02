"""The ledger as a process: composed, started, watched, and stopped in the right order."""

import asyncio
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import date
from pathlib import Path

import grpc
import uvloop

from sidecar.api.v1 import ledger_pb2_grpc
from sidecar.completions import take_together
from sidecar.errors import ConfigurationError
from sidecar.ledger import book, secret, wire
from sidecar.ledger.calendar import date_of, day_of
from sidecar.ledger.certificates import Files, Followed, server_credentials
from sidecar.ledger.items import LedgerError
from sidecar.ledger.rolling import LONGEST_LEAP_DAYS, LONGEST_PAUSE_DAYS, Rolling
from sidecar.ledger.service import LedgerServicer
from sidecar.ledger.writer import Writer
from sidecar.observability import certificates as ending_certificates
from sidecar.observability.logs import JsonLog, make_logger, quiet_libraries, settled_for_good, unhandled
from sidecar.observability.metrics import CallStats, Gauges
from sidecar.observability.outside import show
from sidecar.observability.telemetry import Telemetry
from sidecar.settings.environment import environment
from sidecar.settings.ledger import LedgerSettings

GRACE_SECONDS = 2.0
TIDY_SECONDS = 60.0
CERTIFICATE_SECONDS = 1.0
_SWEEP = 5_000
"""Sightings looked at each minute: ten million are through in a day and a half."""
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", wire.MOST_MESSAGE),
    ("grpc.max_connection_age_ms", 3_600_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)


def init(settings: LedgerSettings, *, keep_secret: bool) -> list[str]:
    """Make the secret and an empty ledger; a line for each. ConfigurationError, and then nothing was made.

    `keep_secret`: the secret's file is there already. Otherwise one that is there belongs to a ledger whose database is
    gone, and beginning again would forget what it counted.
    """
    if settings.database.exists():
        raise ConfigurationError("exists; a ledger is never begun again", where=str(settings.database),
                                 fix="It is there already: run it.")  # fmt: skip
    if keep_secret:
        key = secret.read(settings.secret)
    elif settings.secret.exists():
        raise ConfigurationError(
            "exists, but its database does not: a ledger that is begun again has forgotten what was released",
            where=str(settings.secret), fix="Restore the database from a backup. If this secret was put there for a new "
            "ledger, give --keep-secret.",
        )  # fmt: skip
    else:
        settings.secret.parent.mkdir(parents=True, exist_ok=True)
        key = secret.write(settings.secret, secrets.token_bytes)
    book.create(settings.database, key, day_of(_now()))
    return [f"secret    {settings.secret}", f"database  {settings.database}",
            "Back both up, apart from each other: without the secret the database counts nobody."]  # fmt: skip


def run(settings: LedgerSettings, *, after_pause: bool) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. ConfigurationError or IntegrityError at start."""
    stats = CallStats()
    log = make_logger("ledger", counts=stats.log_events)
    quiet_libraries(log)
    return uvloop.run(_serve(settings, log, stats, after_pause=after_pause))


async def _serve(settings: LedgerSettings, log: JsonLog, stats: CallStats, *, after_pause: bool) -> int:
    """0: asked to stop; 1: something failed that only a person or a restart mends."""
    loop = asyncio.get_running_loop()
    take_together(loop)
    loop.set_exception_handler(unhandled(log))
    ending: asyncio.Future[Exception | None] = loop.create_future()

    def end(why: Exception | None = None) -> None:
        if not ending.done():
            ending.set_result(why)

    def broken(why: Exception) -> None:
        loop.call_soon_threadsafe(end, why)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    settled_for_good(loop, log)
    async with AsyncExitStack() as stack:
        writer = _opened(settings, stack, broken, after_pause=after_pause)
        certificates = Followed(_files(settings))
        gauges = Gauge(writer, settings.database)
        await gauges.read()
        server = await _listen(settings, LedgerServicer(writer, frozenset(settings.sidecars), stats), certificates)
        stack.push_async_callback(server.stop, GRACE_SECONDS)
        telemetry = Telemetry("customhouse-ledger", environment())
        stack.callback(telemetry.shutdown)
        shown = {**gauges.gauges(), **ending_certificates.gauges({"listen": settings.listen.tls.cert})}
        show(stats, shown, None if settings.metrics is None else settings.metrics.listen, telemetry, stack)
        work = [asyncio.ensure_future(one) for one in (_tidy(writer, gauges, log), _follow(certificates, log))]
        stack.push_async_callback(_cancelled, work)
        for one in work:
            one.add_done_callback(lambda task: None if task.cancelled() else end(_failure(task)))
        log.info("ready", address=settings.listen.address, day=str(gauges.day), reservations=gauges.outstanding)
        failure = await ending
        if failure is not None:
            log.error("stopping", reason=str(failure), kind=type(failure).__name__)
    return 0 if failure is None else 1


def _failure(task: "asyncio.Future[None]") -> Exception:
    error = task.exception()
    return error if isinstance(error, Exception) else RuntimeError("a part has ended")


async def _cancelled(work: Sequence["asyncio.Future[None]"]) -> None:
    for one in work:
        one.cancel()
    await asyncio.gather(*work, return_exceptions=True)


def _opened(
    settings: LedgerSettings, stack: AsyncExitStack, broken: Callable[[Exception], None], *, after_pause: bool
) -> Writer:
    """The ledger under its lock, its secret checked."""
    key = secret.read(settings.secret)
    path = settings.database
    if path.parent.is_dir():
        stack.enter_context(book.lock(path))
    database, beside = book.connect(path, write=True), book.connect(path, write=True)
    stack.callback(database.close)
    stack.callback(beside.close)
    kept = book.Book(path, database)
    check = kept.about("check")
    key.verify(check if isinstance(check, bytes) else b"", settings.secret)
    pauses = iter([None if after_pause else LONGEST_PAUSE_DAYS])

    def make() -> Rolling:
        return Rolling(kept, key, _now(), hold=settings.hold, longest_pause=next(pauses, LONGEST_LEAP_DAYS))

    def checkpoint() -> None:
        beside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    writer = Writer(make, kept.transaction, checkpoint, _now, broken)
    stack.callback(writer.close)
    return writer


async def _listen(settings: LedgerSettings, servicer: LedgerServicer, certificates: Followed) -> grpc.aio.Server:
    server = grpc.aio.server(options=_OPTIONS)
    ledger_pb2_grpc.add_LedgerServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    try:
        server.add_secure_port(settings.listen.address, server_credentials(certificates))
    except RuntimeError:
        raise ConfigurationError("cannot listen there", where="listen.address", value=settings.listen.address,
                                 fix="Choose a free address of this host.") from None  # fmt: skip
    await server.start()
    return server


class Gauge:
    """What metrics show, read from the rules once a minute."""

    def __init__(self, writer: Writer, path: Path) -> None:
        self._writer, self._path = writer, path
        self.outstanding, self.reserved, self.oldest = 0, 0, None
        self.day: date | None = None

    oldest: float | None

    async def read(self) -> None:
        """Read them again. LedgerError."""
        self.outstanding, self.reserved, self.oldest, day = await self._writer.run(
            lambda rules, _now: (rules.outstanding, rules.reserved, rules.oldest, rules.day)
        )
        self.day = date_of(day)

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "ledger_reservations": ("Reservations not settled", lambda: float(self.outstanding)),
            "ledger_reserved_subjects": ("Data subjects in them", lambda: float(self.reserved)),
            "ledger_oldest_reservation_seconds": (
                "Age of the oldest", lambda: 0.0 if self.oldest is None else max(0.0, _now() - self.oldest)),
            "ledger_waiting": ("Requests not answered yet", lambda: float(self._writer.waiting)),
            "ledger_commits": ("Transactions committed", lambda: float(self._writer.commits)),
            "ledger_failures": ("Transactions that failed", lambda: float(self._writer.failures)),
            "ledger_bytes": ("Size of the database", lambda: float(self._path.stat().st_size)),
        }  # fmt: skip


async def _tidy(writer: Writer, gauges: Gauge, log: JsonLog) -> None:
    """Every minute: let reservations lapse, remove what has long expired, and look at the clock."""
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        try:
            lapsed = await writer.run(lambda rules, now: rules.lapse(now))
            await writer.run(lambda rules, _now: rules.sweep(_SWEEP))
            await gauges.read()
        except LedgerError as error:
            log.warning("waits", reason=str(error))
            continue
        if lapsed:
            log.warning("reservations_lapsed", count=lapsed, detail="nobody settled them: they count as released")


async def _follow(certificates: Followed, log: JsonLog) -> None:
    known = ""
    while True:
        await asyncio.sleep(CERTIFICATE_SECONDS)
        if await asyncio.to_thread(certificates.look):
            log.warning("certificate taken up")
        if certificates.problem and certificates.problem != known:
            log.error("new certificate files cannot be used; those in use stay", problem=certificates.problem)
        known = certificates.problem


def _files(settings: LedgerSettings) -> Files:
    tls = settings.listen.tls
    if tls.client_ca is None:
        raise ConfigurationError("is missing", where="listen.tls.client_ca", fix="Name the CA of the sidecars.")
    return Files(cert=tls.cert, key=tls.key, ca=tls.client_ca)


def _now() -> float:
    return time.time()  # noqa: TID251 - the composition root is where the ledger's clock comes from
