"""Makes each part of the sidecar from its settings, without serving."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sidecar.attributes import datasets, descriptors, overlay
from sidecar.attributes.claims import Issuer
from sidecar.attributes.directory import Directory
from sidecar.attributes.jwks import KeyRing
from sidecar.attributes.keysource import file_source, https_source
from sidecar.attributes.peers import RegisteredWorkload, Workloads
from sidecar.attributes.resource import Describer
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.subjects_index import SubjectIndex
from sidecar.attributes.tokens import TokenVerifier
from sidecar.decision.bundle import Activated, activate
from sidecar.enforcement.certificates import ServerTls
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.reflection import fetch_descriptors
from sidecar.enforcement.transport import Limits, OperatorLog
from sidecar.enforcement.upstream import ClientTls, GrpcUpstream
from sidecar.errors import ConfigurationError, StageError
from sidecar.settings import sidecar as model
from sidecar.settings.sidecar import SidecarSettings
from sidecar.vocabulary import Place

FILE_SECONDS = 1.0
"""How often files that may change are looked at."""


def now() -> datetime:
    """The wall clock, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one home of the clock


def clock() -> float:
    """The wall clock in unix seconds."""
    return time.time()  # noqa: TID251 - the one home of the clock


def reporter(log: OperatorLog | None) -> Callable[[str, str], None]:
    """What parts call with (event, detail) when something changes that the operator should know."""

    def report(event: str, detail: str) -> None:
        if log is not None:
            log.warning(event, detail=detail)

    return report


def policy(settings: SidecarSettings) -> Activated:
    """The bundle, loaded, compiled and tested. ConfigurationError says what fails."""
    return activate(settings.policy.bundle.folder, deadline_seconds=settings.decision.deadline)


def directory(settings: SidecarSettings, log: OperatorLog | None = None) -> Directory:
    """The personnel directory."""
    where = settings.identity.directory
    return Directory(where.file, where.max_age, report=reporter(log))


def index(settings: SidecarSettings, log: OperatorLog | None = None) -> SubjectIndex:
    """The subject index."""
    return SubjectIndex(settings.subjects.index, settings.subjects.max_age, report=reporter(log))


def workloads(settings: SidecarSettings) -> Workloads:
    """The registered workloads."""
    return Workloads(
        RegisteredWorkload(id=one.id, operated_from=one.operated_from, may=tuple(one.may), acts_alone=one.acts_alone)
        for one in settings.identity.workloads
    )


def tokens(settings: SidecarSettings, log: OperatorLog | None = None) -> TokenVerifier:
    """The token verifier, its keys and revocations read once. On the running event loop."""
    issuers, rings = [], {}
    for one in settings.identity.issuers:
        issuer = Issuer(
            issuer=one.issuer,
            kind=one.kind,
            audience=one.audience,
            algorithms=tuple(one.algorithms),
            subject_claim=one.subject_claim,
        )
        issuers.append(issuer)
        rings[one.issuer] = _ring(one.jwks, issuer.algorithms, log)
    revoked = settings.identity.revoked
    revocations = Revocations(None if revoked is None else revoked.file, clock=clock, report=reporter(log))
    revocations.load()
    return TokenVerifier(issuers=issuers, rings=rings, revocations=revocations, leeway=settings.identity.leeway)


def _ring(jwks: model.Jwks, algorithms: tuple[str, ...], log: OperatorLog | None) -> KeyRing:
    if jwks.file is not None:
        fetch, source, refresh = file_source(jwks.file), str(jwks.file), min(jwks.refresh, FILE_SECONDS)
    else:
        fetch, source, refresh = https_source(jwks.url or "", ca_file=jwks.ca), jwks.url or "", jwks.refresh
    ring = KeyRing(
        fetch=fetch,
        source=source,
        algorithms=algorithms,
        refresh=refresh,
        max_stale=jwks.max_stale,
        clock=clock,
        report=reporter(log),
    )
    ring.load()
    return ring


def upstream(settings: SidecarSettings) -> GrpcUpstream:
    """The way to the guarded service."""
    return GrpcUpstream(settings.upstream.address, client_tls(settings.upstream.tls), limits(settings))


def client_tls(tls: model.ClientTls | None) -> ClientTls | None:
    """What a connection trusts and presents."""
    return None if tls is None else ClientTls(ca=tls.ca, cert=tls.cert, key=tls.key, server_name=tls.server_name)


def describer(settings: SidecarSettings) -> Describer:
    """What the upstream's methods reach; asks the upstream itself where the settings say `reflection`."""
    file = settings.describe.descriptors.file
    if file is not None:
        return _describer(settings, descriptors.load(file))
    return asyncio.run(reflected(settings))


async def reflected(settings: SidecarSettings) -> Describer:
    """As `describer`, on a running event loop."""
    if settings.describe.descriptors.file is not None:
        return describer(settings)
    link = upstream(settings)
    try:
        found = await fetch_descriptors(link.channel)
    except StageError as error:
        raise ConfigurationError(
            error.operator, where="describe.descriptors.reflection", fix="Start the upstream first, or give a file."
        ) from None
    finally:
        await link.close()
    return _describer(settings, descriptors.parse(found, f"reflection of {settings.upstream.address}"))


def _describer(settings: SidecarSettings, found: descriptors.Descriptors) -> Describer:
    over = settings.describe.overlay
    return Describer(
        found,
        overlay=None if over is None else overlay.load(over),
        unguarded=settings.describe.unguarded,
        datasets=None if settings.datasets is None else datasets.load(settings.datasets.file),
        location=place(settings.upstream.location),
    )


def place(location: model.Location) -> Place:
    """A place as the input document has it."""
    return Place(country=location.country, provider=location.provider, region=location.region)


def destination(settings: SidecarSettings) -> Place | None:
    """Where answers go; None: where the calling workload is registered."""
    to = settings.destination
    return None if to.from_ else Place(country=to.country, provider=to.provider, region=to.region)


def listen(one: model.Listener) -> Listen:
    """A listener, checked. ConfigurationError for one whose callers nobody would know."""
    tls = None if one.tls is None else ServerTls(cert=one.tls.cert, key=one.tls.key, client_ca=one.tls.client_ca)
    found = Listen(address=one.address, tls=tls, workload=one.workload)
    found.check()
    return found


def limits(settings: SidecarSettings) -> Limits:
    """Bounds of messages, metadata and streams."""
    said = settings.limits
    return Limits(message=said.message, metadata=said.metadata, streams=said.streams)
