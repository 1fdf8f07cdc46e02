"""The exception grants, joined to the records and to the calls that are open."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.enforcement.transport import OperatorLog
from sidecar.exceptions.store import GrantEvent, GrantStore
from sidecar.main.given import clock, reporter
from sidecar.main.standing import Announce, recording

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings


def recorded(
    settings: "SidecarSettings", log: OperatorLog, say: Announce, changed: Callable[[], None]
) -> GrantStore | None:
    """The grants, read once; None without `exceptions`. On the event loop.

    Every opening, use and end is recorded by `say`; `changed` is called when one is opened or ends.
    """

    async def write(event: GrantEvent) -> None:
        grant = event.grant
        await say(event.type, {
            "id": grant.id, "person": grant.person, "ticket": grant.ticket, "requested_by": grant.requested_by,
            "approvers": list(grant.approvers), "expires": grant.expires, "why": event.why, "call_id": event.call_id,
        })  # fmt: skip

    written = recording(write)

    def record(event: GrantEvent) -> None:
        written(event)
        if event.type != "exception_used":
            changed()

    store = opened(settings, log, record)
    if store is not None:
        store.load()
    return store


def opened(
    settings: "SidecarSettings", log: OperatorLog | None, on_event: Callable[[GrantEvent], None]
) -> GrantStore | None:
    """The grants, not read yet; None without `exceptions`."""
    if settings.exceptions is None:
        return None
    return GrantStore(
        folder=settings.exceptions.grants,
        approvers=settings.exceptions.approvers,
        clock=clock,
        on_event=on_event,
        max_window=settings.exceptions.max_window,
        report=reporter(log),
    )
