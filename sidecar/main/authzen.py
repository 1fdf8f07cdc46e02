"""Composes the AuthZEN door: the application, whoever carries HTTP to it, and its own listener."""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sidecar.doors.authzen import AuthZen, Parts
from sidecar.doors.authzen_drafts import Drafts
from sidecar.doors.authzen_evaluation import Denied, Evaluator
from sidecar.doors.authzen_outcome import Outcomes
from sidecar.doors.authzen_requests import Requests, Terms
from sidecar.doors.authzen_search import Searches
from sidecar.enforcement.call import Peer
from sidecar.errors import ConfigurationError
from sidecar.main import build
from sidecar.main.composition import Composed
from sidecar.main.given import clock

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings


def require_library() -> None:
    """ConfigurationError without the HTTP library, which only the door's own listener needs."""
    if find_spec("h11") is None:
        raise ConfigurationError(
            "a library is missing: h11", where="listen.door", value="authzen",
            fix="Install the wheel with its extra: pip install 'customhouse[authzen]'.",
        )  # fmt: skip


def require_types(settings: "SidecarSettings") -> None:
    """ConfigurationError where nothing says what may be asked about."""
    if settings.describe.resources is None:
        raise ConfigurationError(
            "is missing: without it nothing can be asked about", where="describe.resources",
            fix="Name a file with the types of resources that callers ask about (docs/authzen.md).",
        )  # fmt: skip


def application(parts: Composed) -> AuthZen:
    """The door's application. ConfigurationError where nothing says what may be asked about."""
    require_types(parts.settings)
    if parts.entities is None:
        raise ConfigurationError("was not read", where="describe.resources")
    workloads = build.workloads(parts.settings)

    def asserts(peer: Peer) -> bool:
        caller = workloads.of(peer.identities)
        return caller is not None and caller.asserts

    requests = _requests(parts)
    evaluator = Evaluator(
        parts.point, parts.entities, parts.waiting, clock, _nothing if requests is None else requests.offer
    )
    return AuthZen(Parts(
        evaluator=evaluator, searches=Searches(parts.point, parts.entities, parts.directory),
        outcomes=Outcomes(parts.point, parts.waiting), requests=requests, asserts=asserts,
    ))  # fmt: skip


def _nothing(_denied: Denied) -> Mapping[str, object]:
    return {}


def _requests(parts: Composed) -> Requests | None:
    """Where grants are signed at all, and drafts can be put beside them."""
    settings = parts.settings
    if settings.exceptions is None or parts.grants is None:
        return None
    drafts = Drafts(
        settings.exceptions.grants, parts.grants, max_window=settings.exceptions.max_window, clock=clock
    )  # fmt: skip
    if not drafts.writable():
        parts.log.warning("access_requests_off", detail=f"{settings.exceptions.grants} cannot be written to")
        return None

    async def record(details: Mapping[str, str | int | bool | list[str] | None]) -> None:
        await parts.records.recorder.event("admin_action", dict(details), "committed")

    terms = Terms(
        ticket=re.compile(settings.record.ticket_pattern), max_window=settings.exceptions.max_window,
        justification=re.compile(settings.record.justification_pattern),
    )  # fmt: skip
    return Requests(
        point=parts.point, drafts=drafts, record=record, clock=clock, terms=terms,
        new_id=lambda: f"EX-{os.urandom(16).hex()}",
    )  # fmt: skip
