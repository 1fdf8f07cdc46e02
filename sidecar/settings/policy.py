"""The part of sidecar.yaml that says which policy is in force, and who answers from it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sidecar.settings.values import Duration, FilePath, Section

Text = Annotated[str, Field(min_length=1)]
Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
BucketUrl = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s]+$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Bundle(Section):
    """Where the policy is: exactly one of `folder`, `file` (a .tar.gz), `url` and `s3`.

    `url` is asked every `poll` with the ETag of what is held; `wait` asks the server to hold the answer back until
    there is another (OPA's long polling). `token_file` holds a bearer token for `url`. `s3` is s3://bucket/key of an
    S3-compatible store; `credentials_file` holds its keys, otherwise the environment does.
    """

    folder: FilePath | None = None
    file: FilePath | None = None
    url: Url | None = None
    s3: BucketUrl | None = None
    poll: Duration = 30.0
    wait: Duration | None = None
    ca: FilePath | None = None
    token_file: FilePath | None = None
    region: Text | None = None
    endpoint: Url | None = None
    credentials_file: FilePath | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("folder", "file", "url", "s3") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("exactly one of folder, file, url and s3")
        for key, sources in _GOES_WITH.items():
            if getattr(self, key) is not None and given[0] not in sources:
                raise ValueError(f"{key} goes with {' or '.join(sources)}")
        return self


_GOES_WITH = {
    "wait": ("url",),
    "ca": ("url", "s3"),
    "token_file": ("url",),
    "region": ("s3",),
    "endpoint": ("s3",),
    "credentials_file": ("s3",),
}


class BundleKeys(Section):
    """Whose signatures a bundle needs: `require` of the signers listed in `file`."""

    file: FilePath
    require: Annotated[int, Field(ge=1, le=16)] = 1


class Policy(Section):
    """The policy bundle. `max_age` counts from when its source was last seen to hold the bundle in force.

    With `keys`, a bundle without enough valid signatures is refused.
    """

    bundle: Bundle
    keys: BundleKeys | None = None
    max_age: Duration = 7 * 86400.0


class Cache(Section):
    """Decisions kept, at most; 0 turns the cache off."""

    entries: Annotated[int, Field(ge=0, le=10_000_000)] = 65536


class Opa(Section):
    """An OPA server: `url` of one that runs beside the sidecar with the same bundle, or `command` to start one.

    `token_file` holds a bearer token for `url`. A started one gets the bundle from the sidecar.
    """

    url: Url | None = None
    ca: FilePath | None = None
    token_file: FilePath | None = None
    command: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.url is None) == (self.command is None):
            raise ValueError("exactly one of url and command")
        if self.command is not None and (self.ca is not None or self.token_file is not None):
            raise ValueError("ca and token_file go with url")
        return self


class DecisionEngine(Section):
    """Which engine answers, within what time, and which other one checks it.

    `verify_with` runs a second engine on a `sample` (a share of decisions) and records each disagreement;
    `on_disagreement: refuse` waits for it and refuses the call when they differ.
    """

    engine: Literal["embedded", "opa"] = "embedded"
    deadline: Annotated[Duration, Field(le=5.0)] = 0.05
    cache: Cache = Cache()
    opa: Opa | None = None
    verify_with: Literal["embedded", "opa"] | None = None
    sample: Share = 1.0
    on_disagreement: Literal["record", "refuse"] = "record"

    @model_validator(mode="after")
    def _engines(self) -> Self:
        if self.verify_with == self.engine:
            raise ValueError("verify_with is the other engine")
        if "opa" in (self.engine, self.verify_with) and self.opa is None:
            raise ValueError("the OPA engine needs decision.opa: {command: opa} or {url: …}")
        if self.opa is not None and "opa" not in (self.engine, self.verify_with):
            raise ValueError("decision.opa is not used: set engine: opa or verify_with: opa")
        return self


class Shadow(Section):
    """A candidate bundle that decides beside the one in force, on a `sample` of calls; it is only recorded."""

    bundle: Bundle
    sample: Share = 1.0
