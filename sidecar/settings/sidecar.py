"""The model of sidecar.yaml."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sidecar.settings.policy import DecisionEngine, Policy, Shadow
from sidecar.settings.values import (
    Address,
    Duration,
    FilePath,
    HostPort,
    Leeway,
    Section,
    Settings,
    Size,
    instead,
    is_loopback,
)
from sidecar.vocabulary import ACTIONS, Level

Country = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
Algorithm = Literal["ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class ServerTls(Section):
    """Certificate and key of a listener; with `client_ca`, callers must present a certificate it signed."""

    cert: FilePath
    key: FilePath
    client_ca: FilePath | None = None


class ClientTls(Section):
    """What a connection trusts (`ca`) and presents (`cert`, `key`)."""

    ca: FilePath
    cert: FilePath | None = None
    key: FilePath | None = None
    server_name: Text | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        return self


class Producer(Section):
    """The name and Ed25519 key (PEM) under which this sidecar's records are registered with the store."""

    name: Name
    key: FilePath


class Listener(Section):
    """A door. `address` is host:port or unix:DIRECTORY; a socket names the one workload that may use it.

    `proxy`: gRPC calls to the upstream. `ext_authz`, `ext_proc`: for an Envoy (`sidecar envoy-config`). `check`: the
    decision API over gRPC. `authzen`: the same over HTTPS (AuthZEN Authorization API 1.0).

    `plaintext: true` is TCP without TLS, for development on a loopback address: such callers have no identity.
    """

    door: Annotated[
        Literal["proxy", "ext_authz", "ext_proc", "check", "authzen"],
        instead({"interceptor": "the in-process door has no listener: see sidecar.main.in_process"}),
    ]
    address: Address
    tls: ServerTls | None = None
    workload: Text | None = None
    plaintext: bool = False

    @model_validator(mode="after")
    def _identity(self) -> Self:
        mutual = self.tls is not None and self.tls.client_ca is not None
        if self.address.startswith("unix:"):
            if self.plaintext:
                raise ValueError("plaintext is for TCP; a Unix socket needs no TLS")
            if not mutual and self.workload is None:
                raise ValueError("a Unix socket listener names its workload, or carries tls with client_ca")
            if mutual and self.workload is not None:
                raise ValueError("workload or tls.client_ca: each of them says who calls")
            return self
        if self.workload is not None:
            raise ValueError("workload is for Unix sockets; over TCP the caller's certificate says who it is")
        if self.plaintext and (self.tls is not None or not is_loopback(self.address)):
            raise ValueError("plaintext is for a loopback address such as 127.0.0.1:8443, and without tls")
        if not self.plaintext and self.tls is None:
            raise ValueError("a TCP listener carries tls (cert, key, client_ca)")
        return self


class Location(Section):
    """Where data is kept or goes."""

    country: Country
    provider: Text | None = None
    region: Text | None = None


class Upstream(Section):
    """The guarded service. The proxy forwards to its `address`; other doors know only where it keeps its data."""

    address: Address | None = None
    tls: ClientTls | None = None
    location: Location


class Jwks(Section):
    """Where an issuer's keys are."""

    file: FilePath | None = None
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    ca: FilePath | None = None
    refresh: Duration = 300.0
    max_stale: Duration = 86400.0

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.url is None):
            raise ValueError("exactly one of file and url")
        return self


class Issuer(Section):
    """Whose tokens are believed, and what kind of subject they name."""

    kind: Literal["personnel", "data_subject"]
    issuer: Text
    audience: Text
    subject_claim: Text = "sub"
    jwks: Jwks
    algorithms: Annotated[list[Algorithm], Field(min_length=1)]


class Directory(Section):
    """The snapshot that `sidecar directory build` wrote."""

    file: FilePath
    max_age: Annotated[Duration, Field(le=86400.0)] = 3600.0


class RegisteredWorkload(Section):
    """A service that may call. Without a token only where it `acts_alone`.

    `relays`: an Envoy that itself requires client certificates; its word on the workload behind it is believed.
    `asserts`: a gateway or enforcement point; its word on the person it asks for is believed, without their token.
    """

    id: Text
    operated_from: Country
    may: list[Literal[ACTIONS]] = Field(default_factory=list)  # type: ignore[valid-type]
    acts_alone: bool = False
    relays: bool = False
    asserts: bool = False


class FileSource(Section):
    """A file that is read again when it changes."""

    file: FilePath


class Authorizations(Section):
    """Exemptions, licences and advisory opinions (28 CFR part 202), with `attestations.jsonl` beside the file.

    `keys` lists who may sign them. Both files are read again when they change.
    """

    file: FilePath
    keys: FilePath


class Identity(Section):
    """Who may be believed to be calling."""

    issuers: Annotated[list[Issuer], Field(min_length=1)]
    bind_to_workload: Literal["cnf", "azp", "none"]
    directory: Directory
    workloads: list[RegisteredWorkload] = Field(default_factory=list)
    authorizations: Authorizations | None = None
    revoked: FileSource | None = None
    leeway: Leeway = 10.0


class Descriptors(Section):
    """Where the upstream's descriptors come from."""

    file: FilePath | None = None
    reflection: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (not self.reflection):
            raise ValueError("exactly one of file and reflection: true")
        return self


class Describe(Section):
    """What methods reach. `resources`: types of entities for the decision APIs, and HTTP routes."""

    descriptors: Descriptors
    overlay: FilePath | None = None
    resources: FilePath | None = None
    unguarded: list[Text] = Field(default_factory=lambda: ["grpc.health.v1.Health/*"])
    reflection: Literal["identified", "off"] = "off"


class Subjects(Section):
    """Who is a US data subject: the file that `sidecar subjects build` wrote."""

    index: FilePath
    max_age: Duration = 86400.0


class Levels(Section):
    """How durable a decision record must be before anything is forwarded. A policy may only raise it."""

    personnel: Level = "committed"
    workload: Level = "committed"
    data_subject: Level = "written"
    deny: Level = "written"


class Record(Section):
    """The spool, and the form of tickets and justifications (no free text enters a record)."""

    spool: FilePath
    max_bytes: Size = 8 << 30
    ticket_pattern: Pattern = r"^[A-Z]+-\d+$"
    justification_pattern: Pattern = r"^[a-z][a-z0-9_]{0,63}$"
    levels: Levels = Levels()


class Destination(Section):
    """Where answers go: the place the calling workload is registered for, or one fixed place."""

    from_: Annotated[Literal["peer"] | None, Field(alias="from")] = None
    country: Country | None = None
    provider: Text | None = None
    region: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.from_ is None) == (self.country is None):
            raise ValueError("either from: peer, or a country (with provider and region)")
        if self.from_ is not None and (self.provider is not None or self.region is not None):
            raise ValueError("provider and region go with a country; from: peer says all there is to say")
        return self


class Exceptions(Section):
    """Signed grants and the keys of those who may approve them."""

    grants: FilePath
    approvers: FilePath
    max_window: Duration = 86400.0


class Ledger(Section):
    """The rolling ledger of volumes (28 CFR 202.205): `sidecar ledger run`, shared by all sidecars."""

    address: HostPort
    tls: ClientTls
    deadline: Annotated[Duration, Field(le=5.0)] = 0.25


class Admin(Section):
    """The local socket for `sidecar status`, mode 0700."""

    socket: FilePath


class Metrics(Section):
    """Where Prometheus may scrape; host:port."""

    listen: HostPort


class Holder(Section):
    """The US person who holds the data (28 CFR 202.1103, 202.1104)."""

    name: Text
    address: Text
    contact: Text


class Store(Section):
    """The oversight store: where records go, and the pinned keys it is held to."""

    address: HostPort
    keys: HostPort
    tls: ClientTls
    trust: FilePath
    seal_key: FilePath


class Limits(Section):
    """Bounds on what one caller may send, and on how long it keeps a connection.

    `connection_age`: after it a connection is asked to reconnect, which loses no call; 1h, with several workers 1m.
    """

    message: Annotated[Size, Field(le=1 << 30)] = 4 << 20
    metadata: Annotated[Size, Field(le=1 << 20)] = 16 << 10
    token: Annotated[Size, Field(le=8 << 10)] = 8 << 10
    streams: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    connection_age: Annotated[Duration, Field(ge=1.0, le=86400.0)] | None = None


class Checks(Section):
    """The decision APIs: how long a permit may wait for its `ReportOutcome`, and how many may wait at once.

    After `report_within` the outcome is recorded as `unobserved`.
    """

    report_within: Annotated[Duration, Field(ge=1.0, le=3600.0)] = 300.0
    waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000


class SidecarSettings(Settings):
    """sidecar.yaml."""

    producer: Producer
    listen: list[Listener] = Field(default_factory=list)
    upstream: Upstream
    identity: Identity
    describe: Describe
    subjects: Subjects
    policy: Policy
    decision: DecisionEngine = DecisionEngine()
    record: Record
    destination: Destination
    datasets: FileSource | None = None
    exceptions: Exceptions | None = None
    ledger: Ledger | None = None
    shadow: Shadow | None = None
    admin: Admin | None = None
    metrics: Metrics | None = None
    holder: Holder | None = None
    oversight: Store
    limits: Limits = Limits()
    checks: Checks = Checks()
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    spare: bool = True
    drain: Annotated[Duration, Field(le=3600.0)] = 10.0

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.upstream.address is None and any(one.door == "proxy" for one in self.listen):
            raise ValueError("a proxy listener needs upstream.address: where it forwards to")
        if self.upstream.address is None and self.describe.descriptors.reflection:
            raise ValueError("describe.descriptors.reflection asks the upstream: give upstream.address, or a file")
        return self
