"""Authorizations and attestations, joined to the records and to the calls that are open."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.enforcement.transport import OperatorLog
from sidecar.exceptions.authorization_store import AuthorizationEvent, AuthorizationStore
from sidecar.exceptions.authorizations import SignedAuthorization
from sidecar.main.given import clock, reporter
from sidecar.main.records import Details
from sidecar.main.standing import Announce, recording

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings


def recorded(
    settings: "SidecarSettings", log: OperatorLog, say: Announce, changed: Callable[[], None]
) -> AuthorizationStore | None:
    """What is in force, read once; None without `identity.authorizations`. On the event loop.

    Every coming into force and every end is recorded by `say` (28 CFR 202.1101(b)(8)-(9)); `changed` is called then.
    """

    async def write(event: AuthorizationEvent) -> None:
        signed = isinstance(event.item, SignedAuthorization)
        await say("authorization" if signed else "attestation", details(event))

    written = recording(write)

    def record(event: AuthorizationEvent) -> None:
        written(event)
        changed()

    store = opened(settings, log, record)
    if store is not None:
        store.load()
    return store


def details(event: AuthorizationEvent) -> Details:
    """What the record says."""
    item = event.item
    common: Details = {"id": item.payload.id, "state": event.state, "why": event.why, "signers": list(item.signers)}
    if not isinstance(item, SignedAuthorization):
        said = item.payload
        return {
            **common,
            "version": said.version, "services": list(said.services), "officer": said.officer,
            "attested_at": said.attested_at, "valid_until": said.valid_until,
        }  # fmt: skip
    claim = item.payload
    return {
        **common,
        "kind": claim.kind, "paragraph": claim.paragraph, "persons": list(claim.persons), "groups": list(claim.groups),
        "services": list(claim.services), "categories": list(claim.categories), "purposes": list(claim.purposes),
        "owner": claim.owner, "not_before": claim.not_before, "expires": claim.expires,
    }  # fmt: skip


def opened(
    settings: "SidecarSettings", log: OperatorLog | None, on_event: Callable[[AuthorizationEvent], None]
) -> AuthorizationStore | None:
    """What is in force, not read yet; None without `identity.authorizations`."""
    where = settings.identity.authorizations
    if where is None:
        return None
    return AuthorizationStore(file=where.file, keys=where.keys, clock=clock, on_event=on_event, report=reporter(log))
