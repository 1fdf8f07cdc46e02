"""The composition root of the oversight store: settings in, running listeners out."""

import asyncio
import secrets
import signal
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.errors import ConfigurationError
from sidecar.observability import certificates
from sidecar.observability.logs import JsonLog, make_logger, quiet_libraries, settled_for_good, unhandled
from sidecar.observability.metrics import CallStats
from sidecar.observability.outside import show
from sidecar.observability.telemetry import Telemetry
from sidecar.oversight import private_keys
from sidecar.oversight.append import Appending, AppendService
from sidecar.oversight.committer import Committer
from sidecar.oversight.gauges import StoreGauges
from sidecar.oversight.ingest import Header, check_batch
from sidecar.oversight.integrator import Integrator
from sidecar.oversight.journal import Details, Journal, Outside
from sidecar.oversight.key_service import KeyServicer
from sidecar.oversight.keys import KeyVault, read_key_encryption_key
from sidecar.oversight.openings import EpochKeys, Opener
from sidecar.oversight.periods import rfc3339
from sidecar.oversight.producers import STORE, Registry
from sidecar.oversight.publisher import News, Publications, Publisher
from sidecar.oversight.query import Querying, QueryService
from sidecar.oversight.search import SearchIndex
from sidecar.oversight.sqlite import SqliteStorage
from sidecar.oversight.storage import Item, Places, StorageError
from sidecar.oversight.tiles import TileFolder
from sidecar.oversight.wire import MOST_MESSAGE, encode_header
from sidecar.settings.environment import environment
from sidecar.settings.oversight import Listen, OversightSettings
from sidecar.tlog.key import Signer

GRACE_SECONDS = 2.0
SILENT_AFTER = timedelta(seconds=90)
_MERGE_INTERVALS = 10
_FOLLOW_SECONDS = 1.0
_OPTIONS = (
    ("grpc.max_receive_message_length", MOST_MESSAGE),
    ("grpc.max_send_message_length", MOST_MESSAGE),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The parts of a running store, for those that serve it."""

    storage: SqliteStorage
    vault: KeyVault
    index: SearchIndex
    opener: Opener
    committer: Committer
    journal: Journal
    publisher: Publisher
    publications: Publications
    commits: News
    epoch_keys: EpochKeys
    registry: Registry
    log_key: Ed25519PrivateKey
    sealing_public: bytes
    pool: ThreadPoolExecutor
    failed: "asyncio.Future[Exception]"
    log: JsonLog


def run(settings: OversightSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. Raises ConfigurationError or IntegrityError at start."""
    stats = CallStats()
    log = make_logger("oversight", counts=stats.log_events)
    quiet_libraries(log)
    return uvloop.run(serve(settings, log, stats))


async def serve(settings: OversightSettings, log: JsonLog, stats: CallStats | None = None) -> int:
    """As `run`, in this event loop. 0: asked to stop; 1: something failed that only a person or a restart mends."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(unhandled(log))
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    settled_for_good(loop, log)
    async with AsyncExitStack() as stack:
        store = _compose(settings, log, stack)
        # The first step finishes what a crash interrupted and refuses to go on from what contradicts itself.
        await store.publisher.step()
        about: Details = {"retention_years": settings.retention.years}
        await store.journal.open(store.storage, store.epoch_keys, about)
        followers = [
            asyncio.ensure_future(work)
            for work in (store.publisher.run(), _follow(store, store.opener.step), _follow(store, store.index.step))
        ]
        measured = _measured(settings, store, stats or CallStats(), stack)
        followers.append(asyncio.ensure_future(measured.run()))
        servers = await _listen(settings, store, stopping)
        log.info("ready", records=store.storage.size(), origin=settings.log.origin,
                 append=settings.listen.append, keys=settings.listen.keys, query=settings.listen.query)  # fmt: skip
        stop = asyncio.ensure_future(stopping.wait())
        await asyncio.wait((stop, store.failed), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        failure = store.failed.result() if store.failed.done() else None
        if failure is not None:
            log.error("stopping", reason=str(failure), kind=type(failure).__name__)
        stopping.set()
        await _stop(store, servers, followers, orderly=failure is None)
    return 0 if failure is None else 1


def _compose(settings: OversightSettings, log: JsonLog, stack: AsyncExitStack) -> Store:
    origin, database = settings.log.origin, settings.storage.sqlite
    log_key = private_keys.ed25519(settings.log.key)
    sealing_key = private_keys.x25519(settings.secrets.sealing_key)
    publications, commits, failed = Publications(), News(), asyncio.get_running_loop().create_future()
    on_broken = _reporter(failed)

    storage = SqliteStorage(database)
    stack.callback(storage.close)
    own_key = private_keys.own(database.with_name(database.name + ".store-key.pem"))
    kek = read_key_encryption_key(settings.secrets.key_encryption_key)
    vault = KeyVault(settings.secrets.database, kek, secrets.token_bytes)
    stack.callback(vault.close)
    index = SearchIndex(database.with_name(database.name + ".search"), storage, _timestamp)
    stack.callback(index.close)
    pool, integrating = ThreadPoolExecutor(4, "work"), ThreadPoolExecutor(1, "integrate")
    stack.callback(pool.shutdown)
    stack.callback(integrating.shutdown)
    committer = Committer(storage, _timestamp, on_broken, commits.tell_from_thread)
    stack.callback(committer.close)
    integrator = Integrator(
        storage, TileFolder(settings.tiles.folder), Signer(origin, log_key), holder=secrets.token_hex(8),
        timestamp=_timestamp, clock=lambda: _now().timestamp(),
    )  # fmt: skip
    epoch_keys = EpochKeys(storage, [sealing_key])
    return Store(
        storage=storage, vault=vault, index=index, opener=Opener(storage, vault, epoch_keys, _timestamp),
        committer=committer, publications=publications, commits=commits, epoch_keys=epoch_keys,
        registry=Registry(settings.producers.file),
        journal=Journal(_own_append(committer, own_key.public_key(), pool), own_key, sealing_key.public_key(),
                        Outside(now=_now, random=secrets.token_bytes, encode_header=encode_header)),
        publisher=Publisher(integrator, publications, integrating, interval=settings.log.interval,
                            log=log, on_broken=on_broken),
        log_key=log_key, sealing_public=sealing_key.public_key().public_bytes_raw(), pool=pool, failed=failed, log=log,
    )  # fmt: skip


def _measured(settings: OversightSettings, store: Store, stats: CallStats, stack: AsyncExitStack) -> StoreGauges:
    """Shows metrics to those whom settings or environment name; the figures are kept by what is returned."""
    database = settings.storage.sqlite
    places = {
        "records": database, "search": database.with_name(database.name + ".search"), "tiles": settings.tiles.folder,
        "secrets": settings.secrets.database,
    }  # fmt: skip
    found = StoreGauges(
        storage=store.storage, publications=store.publications, committer=store.committer, index=store.index,
        producers=settings.producers.file, places=places, silent_after=SILENT_AFTER, now=_now, log=store.log,
    )  # fmt: skip
    telemetry = Telemetry("customhouse-oversight", environment())
    stack.callback(telemetry.shutdown)
    listen = None if settings.metrics is None else settings.metrics.listen
    gauges = {**found.gauges(), **certificates.gauges({"listen": settings.listen.tls.cert})}
    show(stats, gauges, listen, telemetry, stack)
    return found


def _own_append(
    committer: Committer, key: Ed25519PublicKey, pool: ThreadPoolExecutor
) -> Callable[[Header, bytes, Sequence[Item]], Awaitable[Places]]:
    """The journal's way in: the same checks, the same committer."""

    async def append(header: Header, signature: bytes, items: Sequence[Item]) -> Places:
        if header.producer != STORE:
            raise ConfigurationError("only the store's own records come this way", where="journal")
        checking = asyncio.get_running_loop().run_in_executor(pool, check_batch, header, signature, items, key)
        return await committer.submit(await checking)

    return append


async def _follow(store: Store, step: Callable[[], int]) -> None:
    """Keep a derived database up with the log.

    Ingest goes first: while batches wait to be committed, this takes a sixth of the time at most and falls behind. A
    search says how far it reached.
    """
    loop = asyncio.get_running_loop()
    while True:
        began, commit = loop.time(), store.commits.next
        try:
            done = await loop.run_in_executor(store.pool, step)
        except StorageError as error:
            store.log.warning("a derived database waits", reason=str(error))
            done = 0
        except Exception as error:  # noqa: BLE001 - handed to the composition root, which stops
            _set(store.failed, error)
            return
        if store.committer.waiting:
            await asyncio.sleep(5 * (loop.time() - began))
        elif done == 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(commit.wait(), _FOLLOW_SECONDS)


async def _listen(settings: OversightSettings, store: Store, stopping: asyncio.Event) -> list[grpc.aio.Server]:
    interval = timedelta(seconds=settings.log.interval)
    append = AppendService(
        Appending(
            registry=store.registry, storage=store.storage, committer=store.committer, epoch_keys=store.epoch_keys,
            publications=store.publications, pool=store.pool, log_key=store.log_key, origin=settings.log.origin,
            merge_delay=max(_MERGE_INTERVALS * interval, timedelta(seconds=10)), now=_now, log=store.log,
            stopping=stopping,
        )
    )  # fmt: skip
    query = QueryService(
        Querying(
            storage=store.storage, index=store.index, vault=store.vault, journal=store.journal,
            publications=store.publications, reviewers=frozenset(settings.reviewers.identities),
            silent_after=SILENT_AFTER, pool=store.pool, now=_now, log=store.log,
        )
    )  # fmt: skip
    keys = KeyServicer(
        store.registry, store.vault, store.sealing_public, store.pool, ahead=settings.period_keys.ahead,
        length=timedelta(seconds=settings.period_keys.length), now=_now, log=store.log,
    )  # fmt: skip
    servers = [grpc.aio.server(options=_OPTIONS) for _ in range(3)]
    oversight_pb2_grpc.add_OversightServicer_to_server(append, servers[0])  # type: ignore[no-untyped-call]
    oversight_pb2_grpc.add_KeyServiceServicer_to_server(keys, servers[1])  # type: ignore[no-untyped-call]
    oversight_pb2_grpc.add_QueryServicer_to_server(query, servers[2])  # type: ignore[no-untyped-call]
    credentials = _credentials(settings.listen)
    for server, address in zip(servers, (settings.listen.append, settings.listen.keys, settings.listen.query),
                               strict=True):  # fmt: skip
        try:
            server.add_secure_port(address, credentials)
        except RuntimeError:
            raise ConfigurationError("cannot listen there", where="listen", value=address,
                                     fix="Choose a free address of this host.") from None  # fmt: skip
        await server.start()
    return servers


def _credentials(listen: Listen) -> grpc.ServerCredentials:
    """Mutual TLS, always: without a client CA anybody could fetch keys and records."""
    if listen.tls.client_ca is None:
        raise ConfigurationError("is missing", where="listen.tls.client_ca",
                                 fix="Name the CA that signs producers' and reviewers' certificates.")  # fmt: skip
    key, cert, ca = (_read(path) for path in (listen.tls.key, listen.tls.cert, listen.tls.client_ca))
    return grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)


async def _stop(
    store: Store, servers: Sequence[grpc.aio.Server], followers: Sequence["asyncio.Future[None]"], *, orderly: bool
) -> None:
    """Answer what was received, close the journal, publish it, and release everything. A crash here loses nothing."""
    await asyncio.gather(*(server.stop(GRACE_SECONDS) for server in servers))
    for follower in followers:
        follower.cancel()
    await asyncio.gather(*followers, return_exceptions=True)
    if orderly:
        await store.journal.close()
        while await store.publisher.step():
            pass


def _reporter(failed: "asyncio.Future[Exception]") -> Callable[[Exception], None]:
    """Tells the event loop, from any thread, that the store must stop."""
    loop = asyncio.get_running_loop()

    def report(error: Exception) -> None:
        loop.call_soon_threadsafe(_set, failed, error)

    return report


def _set(failed: "asyncio.Future[Exception]", error: Exception) -> None:
    if not failed.done():
        failed.set_result(error)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path),
                                 fix="Check the path and its permissions.") from None  # fmt: skip


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the composition root is where the store's clock comes from


def _timestamp() -> str:
    return rfc3339(_now())
