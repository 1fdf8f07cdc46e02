"""The model of oversight.yaml."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from sidecar.settings.sidecar import Metrics, ServerTls, Text
from sidecar.settings.values import Duration, FilePath, HostPort, Section, Settings


class Log(Section):
    """The transparency log: its origin (C2SP tlog-checkpoint), signing key (Ed25519 PEM) and publishing interval."""

    origin: Annotated[str, Field(pattern=r"^[^\s\x00-\x20\x7f+]+$", max_length=255)]
    key: FilePath
    interval: Annotated[Duration, Field(ge=0.05, le=3600.0)] = 1.0


class Storage(Section):
    """Where committed records are."""

    sqlite: FilePath


class Tiles(Section):
    """The public tlog-tiles folder."""

    folder: FilePath


class Listen(Section):
    """Three listeners: producers append, producers fetch keys, reviewers query. Each with mutual TLS."""

    append: HostPort
    keys: HostPort
    query: HostPort
    tls: ServerTls

    @model_validator(mode="after")
    def _mutual(self) -> Self:
        if self.tls.client_ca is None:
            raise ValueError("tls.client_ca is missing; producers and reviewers are known by their certificates")
        return self


class Producers(Section):
    """The registry that `sidecar oversight producer` edits."""

    file: FilePath


class PeriodKeys(Section):
    """How long a pseudonym key serves, and how many periods ahead are issued."""

    length: Duration = 30 * 86400.0
    ahead: Annotated[int, Field(ge=1, le=12)] = 2


class Secrets(Section):
    """What only the key service holds: the sealing key (X25519 PEM) and the key-encryption key file."""

    sealing_key: FilePath
    key_encryption_key: FilePath
    database: FilePath


class Reviewers(Section):
    """Certificate identities (SPIFFE URI or DNS name) that may query."""

    identities: Annotated[list[Text], Field(min_length=1)]


class Retention(Section):
    """How long records are kept, from the end of the engagement (28 CFR 202.1101); stated in the store's own records."""

    years: Annotated[int, Field(ge=10)] = 10


class OversightSettings(Settings):
    """oversight.yaml."""

    later: ClassVar = {
        "storage.postgres": "PostgreSQL",
        "tiles.s3": "tiles in a bucket",
        "listen.web": "the web interface",
        "witnesses": "witnesses",
        "oidc": "reviewers' sign-on",
    }

    log: Log
    storage: Storage
    tiles: Tiles
    listen: Listen
    producers: Producers
    secrets: Secrets
    reviewers: Reviewers
    period_keys: PeriodKeys = PeriodKeys()
    retention: Retention = Retention()
    metrics: Metrics | None = None
