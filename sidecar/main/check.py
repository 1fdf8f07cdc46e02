"""What can be tried before serving: everything the settings name, without the network."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sidecar.attributes.resource import Describer
from sidecar.attributes.revoked import Revocations
from sidecar.decision.activation import Activated
from sidecar.errors import ConfigurationError
from sidecar.main import authorizations, authzen, build, grants, keys, ledger, policy_start, records, shadow
from sidecar.main.given import naming

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings


def lines(settings: "SidecarSettings") -> list[str]:
    """A line for each part that can be used. ConfigurationError or IntegrityError for the first that cannot."""
    active = policy_start.tried(settings, build.engine_maker(settings))
    build.workloads(settings)
    found = [
        f"directory      {build.directory(settings).revision[:16]}",
        f"subject index  {build.index(settings).revision[:16]}",
        _policy(settings, active),
        *shadow.check(settings),
    ]
    if settings.describe.descriptors.file is not None:
        described = build.describer(settings)
        found.append(f"methods        {sum(1 for _ in described)} described, {_refused(described)} refused")
        entities = build.entities(settings, described)
        if entities is not None:
            found.append(f"resources      {len(entities.names())} types")
    found += _callers(settings)
    found += _exceptions(settings)
    found += _authorizations(settings)
    found += ledger.check(settings)
    found += _records(settings)
    build.client_tls(settings.upstream.tls, "upstream.tls")
    for position, one in enumerate(settings.listen):
        with naming(f"listen.{position}.tls"):
            at = build.listen(one)
            if at.tls is not None:
                at.tls.read()
        found.append(f"listener       {one.door} on {at.address}")
        if one.door == "authzen":
            authzen.require_library()
            authzen.require_types(settings)
    return found


def _policy(settings: "SidecarSettings", active: Activated | None) -> str:
    """A source elsewhere is for the running sidecar to ask."""
    if active is None:
        return f"policy         from {policy_start.open_source(settings.policy.bundle).where}, not asked"
    signed = f", signed by {', '.join(active.bundle.signers)}" if active.bundle.signers else ""
    return f"policy         {active.revision[:16]}, {active.tests_passed} tests pass{signed}"


def _refused(described: Describer) -> int:
    return sum(row.status == "undescribed" for row in described.report().methods)


def _callers(settings: "SidecarSettings") -> Iterator[str]:
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


def _revoked(settings: "SidecarSettings", revoked: Revocations) -> Iterator[str]:
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


def _exceptions(settings: "SidecarSettings") -> Iterator[str]:
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


def _authorizations(settings: "SidecarSettings") -> Iterator[str]:
    store = authorizations.opened(settings, None, lambda _event: None)
    if store is None or settings.identity.authorizations is None:
        return
    store.load()
    for name, why in store.problems().items():
        key = "keys" if name == str(settings.identity.authorizations.keys) else "file"
        where = f"identity.authorizations.{key}: {name}"
        raise ConfigurationError(f"cannot be used: {why}", where=where, fix="Mend it, or take it away.")
    yield f"authorizations {len(store.in_force())} in force"


def _records(settings: "SidecarSettings") -> Iterator[str]:
    keys.trust(settings)
    keys.seal_key(settings)
    records.period_keys(settings)
    yield f"records        as {settings.producer.name} to {settings.oversight.address}"
