"""What can be tried before serving: everything the settings name, without the network."""

from collections.abc import Iterator

from sidecar.attributes.resource import Describer
from sidecar.attributes.revoked import Revocations
from sidecar.errors import ConfigurationError
from sidecar.main import build, grants, keys, records
from sidecar.main.build import naming
from sidecar.settings.sidecar import SidecarSettings


def lines(settings: SidecarSettings) -> list[str]:
    """A line for each part that can be used. ConfigurationError or IntegrityError for the first that cannot."""
    active = build.policy(settings)
    build.workloads(settings)
    found = [
        f"directory      {build.directory(settings).revision[:16]}",
        f"subject index  {build.index(settings).revision[:16]}",
        f"policy         {active.revision[:16]}, {active.tests_passed} tests pass",
    ]
    if settings.describe.descriptors.file is not None:
        described = build.describer(settings)
        found.append(f"methods        {sum(1 for _ in described)} described, {_refused(described)} refused")
    found += _callers(settings)
    found += _exceptions(settings)
    found += _records(settings)
    build.client_tls(settings.upstream.tls, "upstream.tls")
    for position, one in enumerate(settings.listen):
        with naming(f"listen.{position}.tls"):
            at = build.listen(one)
            if at.tls is not None:
                at.tls.read()
        found.append(f"listener       {one.door} on {at.address}")
    return found


def _refused(described: Describer) -> int:
    return sum(row.status == "undescribed" for row in described.report().methods)


def _callers(settings: SidecarSettings) -> Iterator[str]:
    """Keys from addresses are for the running sidecar to fetch; keys in files are read now."""
    rings = {}
    for position, one in enumerate(settings.identity.issuers):
        key = f"identity.issuers.{position}.jwks"
        with naming(key):
            ring = rings[one.issuer] = build.key_ring(one)
        if one.jwks.file is None:
            continue
        ring.load()
        status = ring.status()
        if status.error is not None:
            raise ConfigurationError(
                f"holds no keys: {status.error}", where=f"{key}.file: {status.source}", fix="Give a JWKS (RFC 7517)."
            )
        yield f"issuer         {one.issuer}, {len(status.kids)} keys"
    revoked = build.revocations(settings)
    build.verifier(settings, rings, revoked)
    yield from _revoked(settings, revoked)


def _revoked(settings: SidecarSettings, revoked: Revocations) -> Iterator[str]:
    if settings.identity.revoked is None:
        return
    revoked.load()
    if revoked.error is not None:
        raise ConfigurationError(
            f"cannot be used: {revoked.error}",
            where=f"identity.revoked.file: {settings.identity.revoked.file}",
            fix='Write a JSON object a line, {"jti": …} or {"sub": …}; an empty file revokes nobody.',
        )
    yield f"revoked        {revoked.size} entries"


def _exceptions(settings: SidecarSettings) -> Iterator[str]:
    store = grants.opened(settings, None, lambda _event: None)
    if store is None or settings.exceptions is None:
        return
    store.load()
    status = store.status()
    for name, why in status.problems.items():
        key = "approvers" if name == str(settings.exceptions.approvers) else "grants"
        where = f"exceptions.{key}: {settings.exceptions.grants / name}"
        raise ConfigurationError(f"cannot be used: {why}", where=where, fix="Mend it, or take it away.")
    yield f"exceptions     {len(status.in_force)} in force"


def _records(settings: SidecarSettings) -> Iterator[str]:
    keys.trust(settings)
    keys.seal_key(settings)
    records.period_keys(settings)
    yield f"records        as {settings.producer.name} to {settings.oversight.address}"
