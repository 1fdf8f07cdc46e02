"""Which engine answers, and which one checks it."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.engines import EngineMaker
from sidecar.decision.opa_http import Address
from sidecar.decision.verified import Disagreement, Told, Unchecked, VerifiedMaker
from sidecar.errors import ConfigurationError

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.policy import DecisionEngine, Opa

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_TOKEN_SECONDS = 10.0
"""How long a bearer token is used before its file is read again."""
_MAX_TOKEN = 16 << 10

Report = Callable[[str, str], None]


class Nobody:
    """Is told nothing: for bundles that are only tried."""

    async def differ(self, found: Disagreement) -> None:
        """Nothing follows."""

    def unchecked(self, why: Unchecked, detail: str) -> None:
        """Nothing follows."""


NOBODY = Nobody()


def maker(decision: "DecisionEngine", report: Report, told: Told = NOBODY) -> EngineMaker:
    """What loads bundles, as the settings say. `report` may be called from any thread. ConfigurationError."""
    first = _one(decision.engine, decision, report)
    if decision.verify_with is None:
        return first
    return VerifiedMaker(
        first, _one(decision.verify_with, decision, report), sample=decision.sample,
        refuse=decision.on_disagreement == "refuse", draw=random.SystemRandom().random, told=told,
    )  # fmt: skip


def _one(name: str, decision: "DecisionEngine", report: Report) -> EngineMaker:
    if name == "embedded":
        return EmbeddedMaker(decision.deadline)
    if decision.opa is None:
        raise ConfigurationError("is missing", where="decision.opa", fix="Write {command: opa} or {url: …}.")
    try:
        # Only here: the client takes 24 MiB, which the embedded engine alone has no use for.
        from sidecar.decision import opa  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"a library is missing: {error.name}", where="decision.engine", value="opa",
            fix="Install the wheel with its extra: pip install 'customhouse[opa]'.",
        ) from None  # fmt: skip
    if decision.opa.command is not None:
        return opa.OpaMaker(decision.opa.command, decision.deadline, report)
    address, token = _address(decision.opa), decision.opa.token_file
    tls = opa.tls_context(decision.opa.ca) if address.scheme == "https" else None
    return opa.OpaAtUrl(
        Address(
            host=address.hostname or "", port=address.port or (80 if tls is None else 443),
            prefix=address.path.rstrip("/"), tls=tls,
        ),
        decision.deadline,
        token=(lambda: None) if token is None else TokenFile(token, time.monotonic),
    )  # fmt: skip


def _address(opa: "Opa") -> SplitResult:
    """The parts of `url`. ConfigurationError: whoever can answer for OPA decides, so it is https, or this host."""
    url = opa.url or ""
    try:
        found = urlsplit(url)
        plain = found.scheme == "http" and found.hostname in _LOOPBACK and opa.ca is None
        good = bool(found.hostname) and (found.scheme == "https" or plain) and found.port != 0
        good = good and not (found.username or found.query or found.fragment)
    except ValueError:
        found, good = urlsplit(""), False
    if not good:
        raise ConfigurationError(
            "not an address to ask", where="decision.opa.url", value=url,
            fix="Use https://host:port; plain http (without ca) is for loopback addresses only.",
        )  # fmt: skip
    return found


class TokenFile:
    """A bearer token that others may renew. An unreadable file leaves the token as it was; OPA says when it is over."""

    def __init__(self, file: Path, monotonic: Callable[[], float]) -> None:
        """ConfigurationError when it holds no token now."""
        self._file, self._monotonic = file, monotonic
        self._token, self._next = self._read(), monotonic() + _TOKEN_SECONDS
        if self._token is None:
            raise ConfigurationError(
                "holds no token",
                where="decision.opa.token_file",
                value=str(file),
                fix="Write the bearer token into it.",
            )

    def __call__(self) -> str | None:
        """The token to send now."""
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + _TOKEN_SECONDS
            self._token = self._read() or self._token
        return self._token

    def _read(self) -> str | None:
        try:
            with self._file.open("rb") as file:
                token = file.read(_MAX_TOKEN).decode("ascii").strip()
        except (OSError, ValueError):
            return None
        return token if token and token.isprintable() and " " not in token else None
