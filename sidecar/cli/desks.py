"""What `sidecar exception` and `sidecar authorization` share: where papers are signed, by the settings."""

import os
import sys
from pathlib import Path

import typer

from sidecar.administration.authorization_desk import AuthorizationDesk
from sidecar.administration.exception_desk import ExceptionDesk
from sidecar.attributes import descriptors
from sidecar.cli.console import USAGE, fail
from sidecar.errors import ConfigurationError
from sidecar.main.given import naming, now
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings
from sidecar.spool.epoch import uuid7


def exceptions(config: Path) -> ExceptionDesk:
    """Where exceptions are asked for and approved. ConfigurationError when none are configured."""
    settings = load(config, SidecarSettings)
    where = settings.exceptions
    if where is None:
        raise ConfigurationError("no exceptions are configured", where="exceptions",
                                 fix="Add exceptions: {grants: FOLDER, approvers: FILE}.")  # fmt: skip
    return ExceptionDesk(
        grants=where.grants, approvers=where.approvers, max_window=where.max_window, services=_services(settings),
        ticket=settings.record.ticket_pattern, justification=settings.record.justification_pattern,
    )  # fmt: skip


def authorizations(config: Path) -> AuthorizationDesk:
    """Where authorizations and attestations are signed. ConfigurationError when none are configured."""
    settings = load(config, SidecarSettings)
    where = settings.identity.authorizations
    if where is None:
        raise ConfigurationError("no authorizations are configured", where="identity.authorizations",
                                 fix="Add authorizations: {file: FILE, keys: FILE}.")  # fmt: skip
    return AuthorizationDesk(file=where.file, keys=where.keys, services=_services(settings))


def new_id(prefix: str) -> str:
    """An id that nobody has used."""
    return f"{prefix}-{uuid7(now(), os.urandom(10))}"


def agreed(*, yes: bool) -> None:
    """Ask whether to sign what was shown; end when the answer is no, or nobody is there to answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail("nobody is there to agree; look at what is shown, then give --yes", USAGE)
    if not typer.confirm("Sign this?"):
        fail("nothing was signed", USAGE)


def _services(settings: SidecarSettings) -> frozenset[str] | None:
    file = settings.describe.descriptors.file
    if file is None:  # reflection: only a running upstream can say
        return None
    with naming("describe.descriptors.file"):
        return frozenset(method.partition("/")[0] for method in descriptors.load(file).methods)
