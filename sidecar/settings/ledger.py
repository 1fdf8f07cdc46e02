"""The model of ledger.yaml."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from sidecar.settings.sidecar import Metrics, ServerTls, Text
from sidecar.settings.values import Duration, FilePath, HostPort, Section, Settings


class Listen(Section):
    """Where sidecars connect, with mutual TLS."""

    address: HostPort
    tls: ServerTls

    @model_validator(mode="after")
    def _mutual(self) -> Self:
        if self.tls.client_ca is None:
            raise ValueError("tls.client_ca is missing; sidecars are known by their certificates")
        return self


class LedgerSettings(Settings):
    """ledger.yaml. `sidecars`: certificate identities (SPIFFE URI or DNS name) that may reserve and settle.

    `secret`: the key under which data subjects are named in the database; it never changes, and is backed up apart.
    `hold`: how long a reservation waits to be settled before what it holds counts as released.
    """

    listen: Listen
    sidecars: Annotated[list[Text], Field(min_length=1)]
    database: FilePath
    secret: FilePath
    hold: Annotated[Duration, Field(ge=60.0, le=30 * 86400.0)] = 86400.0
    metrics: Metrics | None = None
