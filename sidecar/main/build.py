"""Makes each part of the sidecar from its settings, without serving."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sidecar import pem
from sidecar.attributes import datasets, descriptors, overlay
from sidecar.attributes import entities as resources
from sidecar.attributes.claims import Issuer
from sidecar.attributes.directory import Directory
from sidecar.attributes.entities import Entities
from sidecar.attributes.jwks import KeyRing
from sidecar.attributes.keysource import Fetch, file_source, https_source
from sidecar.attributes.peers import RegisteredWorkload, Workloads
from sidecar.attributes.resource import Describer
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.subjects_index import SubjectIndex
from sidecar.attributes.tokens import TokenVerifier
from sidecar.decision.engines import EngineMaker
from sidecar.decision.verified import Told
from sidecar.enforcement.certificates import ServerTls
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.reflection import fetch_descriptors
from sidecar.enforcement.transport import CONNECTION_AGE_MS, Limits, OperatorLog
from sidecar.enforcement.upstream import ClientTls, GrpcUpstream
from sidecar.errors import ConfigurationError, StageError
from sidecar.main import engines
from sidecar.main.given import FILE_SECONDS, clock, naming, reporter, unchanged
from sidecar.vocabulary import Place

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings import sidecar as model
    from sidecar.settings.sidecar import SidecarSettings

SHARED_CONNECTION_AGE = 60.0
"""Several workers: connections are dealt out anew every minute, and old workers have moved theirs within that time."""


def engine_maker(
    settings: "SidecarSettings", log: OperatorLog | None = None, told: Told = engines.NOBODY
) -> EngineMaker:
    """What loads bundles, as `decision` says; `told` learns where two engines differ. ConfigurationError."""
    return engines.maker(settings.decision, reporter(log), told)


def directory(settings: "SidecarSettings", log: OperatorLog | None = None) -> Directory:
    """The personnel directory."""
    where = settings.identity.directory
    with naming("identity.directory.file"):
        return Directory(where.file, where.max_age, report=reporter(log))


def index(settings: "SidecarSettings", log: OperatorLog | None = None) -> SubjectIndex:
    """The subject index."""
    with naming("subjects.index"):
        return SubjectIndex(settings.subjects.index, settings.subjects.max_age, report=reporter(log))


def workloads(settings: "SidecarSettings") -> Workloads:
    """The registered workloads."""
    return Workloads(
        RegisteredWorkload(
            id=one.id,
            operated_from=one.operated_from,
            may=tuple(one.may),
            acts_alone=one.acts_alone,
            relays=one.relays,
            asserts=one.asserts,
        )
        for one in settings.identity.workloads
    )


def tokens(
    settings: "SidecarSettings", log: OperatorLog | None = None, changed: Callable[[], None] = unchanged
) -> TokenVerifier:
    """The token verifier, its keys and revocations read once. `changed` is called, from any thread, when they change.

    What cannot be read now does not raise: callers are refused, and the operator is told, until it can.
    """
    rings = {one.issuer: key_ring(one, log, changed) for one in settings.identity.issuers}
    for ring in rings.values():
        ring.load()
    revoked = revocations(settings, log, changed)
    revoked.load()
    return verifier(settings, rings, revoked)


def verifier(settings: "SidecarSettings", rings: Mapping[str, KeyRing], revoked: Revocations) -> TokenVerifier:
    """The token verifier on these key rings, by issuer, and this list. ConfigurationError for what contradicts itself."""
    issuers = [
        Issuer(
            issuer=one.issuer,
            kind=one.kind,
            audience=one.audience,
            algorithms=tuple(one.algorithms),
            subject_claim=one.subject_claim,
        )
        for one in settings.identity.issuers
    ]
    return TokenVerifier(
        issuers=issuers,
        rings=rings,
        revocations=revoked,
        leeway=settings.identity.leeway,
        max_token=settings.limits.token,
    )


def revocations(
    settings: "SidecarSettings", log: OperatorLog | None = None, changed: Callable[[], None] = unchanged
) -> Revocations:
    """The revocation list, not read yet."""
    told, file = reporter(log), settings.identity.revoked

    def report(event: str, detail: str) -> None:
        told(event, detail)
        changed()  # an unreadable list refuses every call, so it ends open ones as well

    return Revocations(None if file is None else file.file, clock=clock, report=report)


def key_ring(
    issuer: "model.Issuer", log: OperatorLog | None = None, changed: Callable[[], None] = unchanged
) -> KeyRing:
    """An issuer's keys, not read yet. ConfigurationError for an address that may not be used."""
    jwks = issuer.jwks
    if jwks.file is not None:
        fetch, source, refresh = file_source(jwks.file), str(jwks.file), min(jwks.refresh, FILE_SECONDS)
    else:
        fetch, source, refresh = https_source(jwks.url or "", ca_file=jwks.ca), jwks.url or "", jwks.refresh
    told, news = reporter(log), _News(fetch)

    def report(event: str, detail: str) -> None:
        told(event, detail)
        if event == "jwks_refreshed" and news.fresh:
            changed()

    return KeyRing(
        fetch=news,
        source=source,
        algorithms=tuple(issuer.algorithms),
        refresh=refresh,
        max_stale=jwks.max_stale,
        clock=clock,
        report=report,
    )


class _News:
    """A key source that knows whether it gave something new: the same keys once more change nothing for open calls."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch, self._digest, self.fresh = fetch, b"", False

    def __call__(self, tag: str | None) -> tuple[bytes, str | None] | None:
        found = self._fetch(tag)
        if found is not None:
            digest = hashlib.sha256(found[0]).digest()
            self.fresh, self._digest = digest != self._digest, digest
        return found


def upstream(settings: "SidecarSettings") -> GrpcUpstream | None:
    """The way to the guarded service; None where nothing is forwarded."""
    tls = client_tls(settings.upstream.tls, "upstream.tls")
    address = settings.upstream.address
    return None if address is None else GrpcUpstream(address, tls, limits(settings))


def client_tls(tls: "model.ClientTls | None", key: str) -> ClientTls | None:
    """What a connection trusts and presents: read once, so that files which cannot be used are named.

    `key` is where it stands in the settings. ConfigurationError.
    """
    if tls is None:
        return None
    with naming(key):
        if tls.cert is not None and tls.key is not None:
            ServerTls(cert=tls.cert, key=tls.key, client_ca=tls.ca).read()
        else:
            pem.authorities(tls.ca)
    return ClientTls(ca=tls.ca, cert=tls.cert, key=tls.key, server_name=tls.server_name)


def describer(settings: "SidecarSettings") -> Describer:
    """What the upstream's methods reach; asks the upstream itself where the settings say `reflection`."""
    file = settings.describe.descriptors.file
    if file is not None:
        with naming("describe.descriptors.file"):
            found = descriptors.load(file)
        return _describer(settings, found)
    return asyncio.run(reflected(settings))


async def reflected(settings: "SidecarSettings") -> Describer:
    """As `describer`, on a running event loop."""
    if settings.describe.descriptors.file is not None:
        return describer(settings)
    link = upstream(settings)
    if link is None:
        raise ConfigurationError("nobody to ask for descriptors", where="upstream.address", fix="Give it, or a file.")
    try:
        found = await fetch_descriptors(link.channel)
    except StageError as error:
        raise ConfigurationError(
            error.operator, where="describe.descriptors.reflection", fix="Start the upstream first, or give a file."
        ) from None
    finally:
        await link.close()
    return _describer(settings, descriptors.parse(found, f"reflection of {settings.upstream.address}"))


def _describer(settings: "SidecarSettings", found: descriptors.Descriptors) -> Describer:
    over, populations = settings.describe.overlay, settings.datasets
    with naming("describe.overlay"):
        words = None if over is None else overlay.load(over)
    with naming("datasets.file"):
        reached = None if populations is None else datasets.load(populations.file)
    return Describer(
        found,
        overlay=words,
        unguarded=settings.describe.unguarded,
        datasets=reached,
        location=place(settings.upstream.location),
    )


def entities(settings: "SidecarSettings", described: Describer) -> Entities | None:
    """The types that decision APIs may be asked about; None where the settings name none."""
    if settings.describe.resources is None:
        return None
    with naming("describe.resources"):
        populations = None if settings.datasets is None else datasets.load(settings.datasets.file)
        return Entities(
            resources.load(settings.describe.resources), described, datasets=populations,
            location=place(settings.upstream.location),
        )  # fmt: skip


def place(location: "model.Location") -> Place:
    """A place as the input document has it."""
    return Place(country=location.country, provider=location.provider, region=location.region)


def destination(settings: "SidecarSettings") -> Place | None:
    """Where answers go; None: where the calling workload is registered."""
    to = settings.destination
    return None if to.from_ else Place(country=to.country, provider=to.provider, region=to.region)


def listen(one: "model.Listener") -> Listen:
    """A listener, checked. ConfigurationError for one whose callers nobody would know."""
    tls = None if one.tls is None else ServerTls(cert=one.tls.cert, key=one.tls.key, client_ca=one.tls.client_ca)
    found = Listen(address=one.address, tls=tls, workload=one.workload, plaintext=one.plaintext)
    found.check()
    return found


def limits(settings: "SidecarSettings") -> Limits:
    """Bounds of messages, metadata and streams."""
    said = settings.limits
    return Limits(
        message=said.message, metadata=said.metadata, streams=said.streams,
        connection_age=said.connection_age or (CONNECTION_AGE_MS / 1000 if settings.workers == 1 else SHARED_CONNECTION_AGE),
    )  # fmt: skip
