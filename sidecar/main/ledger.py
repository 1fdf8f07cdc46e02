"""The sidecar's way to the rolling ledger, made from its settings."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.enforcement.exposure import Exposures
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError, DecideError
from sidecar.ledger.certificates import Files
from sidecar.ledger.client import LedgerClient
from sidecar.main.given import clock, naming
from sidecar.observability.metrics import Gauges

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import Ledger, SidecarSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLink:
    """The connection, and what the enforcement point uses it through."""

    client: LedgerClient
    exposures: Exposures

    def work(self) -> list[Coroutine[Any, Any, None]]:
        """What runs in the background until cancelled."""
        return [self.exposures.run(), self.client.follow()]

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "ledger_requests": ("Requests", lambda: {
                ("answered",): float(self.client.answered), ("failed",): float(self.client.failed)}),
            "ledger_owed": ("Settlements the ledger has not taken yet", lambda: float(self.exposures.owed)),
            "ledger_lost": ("Settlements given up: what they held counts as reserved", lambda: float(self.exposures.lost)),
        }  # fmt: skip

    def problems(self) -> list[str]:
        """What an operator has to mend."""
        owed = self.exposures.owed
        return [f"ledger: {owed} settlements cannot be told; covered persons are refused"] if owed else []

    async def close(self) -> None:
        """Tell the ledger what it can still be told, and end the connection."""
        await self.exposures.pay()
        await self.client.close()


def files(ledger: "Ledger") -> Files:
    """What the connection presents and trusts. ConfigurationError: the ledger knows sidecars by their certificates."""
    tls = ledger.tls
    if tls.cert is None or tls.key is None:
        raise ConfigurationError(
            "is missing", where="ledger.tls.cert", fix="Give cert and key: the ledger knows sidecars by certificate."
        )
    return Files(cert=tls.cert, key=tls.key, ca=tls.ca)


def opened(settings: "SidecarSettings", log: OperatorLog, report: Callable[[DecideError], None]) -> LedgerLink | None:
    """The link, on a running event loop; None where no ledger is configured. ConfigurationError."""
    ledger = settings.ledger
    if ledger is None:
        return None
    with naming("ledger.tls"):
        client = LedgerClient(
            ledger.address, files(ledger), deadline=ledger.deadline, server_name=ledger.tls.server_name, log=log
        )
    return LedgerLink(client=client, exposures=Exposures(client, report, clock))


def check(settings: "SidecarSettings") -> list[str]:
    """A line for `check-config`. ConfigurationError when the certificates cannot be used."""
    if settings.ledger is None:
        return []
    with naming("ledger.tls"):
        files(settings.ledger).read()
    return [f"ledger         {settings.ledger.address}"]
