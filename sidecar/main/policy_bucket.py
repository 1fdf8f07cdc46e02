"""A bundle in an S3-compatible bucket, by `obstore`. Bounded in size and time; nothing is retried within a look."""

import configparser
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.decision.archive import MAX_ARCHIVE_BYTES, load_archive
from sidecar.decision.bundle import Bundle
from sidecar.errors import ConfigurationError
from sidecar.main.policy_http import ANSWER_SECONDS, BODY_SECONDS, FIRST_RETRY_SECONDS, check_address
from sidecar.main.sources import Look

if TYPE_CHECKING:
    from obstore.store import S3Store

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_MAX_ERROR = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Which object, of which store: settings. `url` is s3://bucket/key; `poll` is in seconds."""

    url: str
    poll: float
    region: str | None = None
    endpoint: str | None = None
    ca: Path | None = None
    credentials_file: Path | None = None


class BucketSource:
    """See the module. Credentials are read again when their file changes."""

    kind = "s3"

    def __init__(
        self, bucket: Bucket, *, jitter: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """ConfigurationError when `obstore` is not installed or the settings cannot be used."""
        self._bucket, self._jitter, self._monotonic = bucket, jitter, monotonic
        self._name, _, self._key = bucket.url.removeprefix("s3://").partition("/")
        if bucket.endpoint is not None:
            check_address(bucket.endpoint, "policy.bundle.endpoint")
        self._credentials = _credentials(bucket.credentials_file)
        self._store = self._opened()
        self._tag: str | None = None
        self._failures = 0

    @property
    def where(self) -> str:
        """The address."""
        return self._bucket.url

    @property
    def pause(self) -> float:
        """`poll`, but for a little chance; after failures shorter at first, then ever longer up to it."""
        if self._failures:
            longest = min(self._bucket.poll, FIRST_RETRY_SECONDS * 2.0 ** (self._failures - 1))
            return longest * (0.5 + self._jitter() / 2)
        return self._bucket.poll * (0.9 + self._jitter() / 5)

    def read(self) -> Bundle:
        """Get it without a tag."""
        self._tag = None
        found = self.look()
        if isinstance(found, Look):
            raise self._failed("the store does not send the object")
        return found

    def look(self) -> Bundle | Look:
        """Get it unless it has the tag of what is held."""
        try:
            found = self._get()
        except ConfigurationError:
            self._failures, self._tag = min(self._failures + 1, 30), None
            raise
        self._failures = 0
        return found

    def interrupt(self) -> None:
        """No look waits for a change."""

    def _get(self) -> Bundle | Look:
        import obstore  # noqa: PLC0415 - an extra
        from obstore.exceptions import NotModifiedError  # noqa: PLC0415

        if (now := _credentials(self._bucket.credentials_file)) != self._credentials:
            self._credentials = now
            self._store = self._opened()
        give_up = self._monotonic() + BODY_SECONDS
        try:
            found = obstore.get(self._store, self._key, options={"if_none_match": self._tag} if self._tag else None)
            tag = found.meta.get("e_tag")
            parts: list[bytes] = []
            size = int(found.meta["size"])
            if size <= MAX_ARCHIVE_BYTES:
                size = 0
                for chunk in found.stream(min_chunk_size=1 << 20):
                    parts.append(bytes(chunk))
                    size += len(parts[-1])
                    if size > MAX_ARCHIVE_BYTES or self._monotonic() > give_up:
                        break
        except NotModifiedError:
            return Look.UNCHANGED
        except FileNotFoundError:
            raise self._failed("nothing is there", "Check policy.bundle.s3: bucket and key") from None
        except Exception as error:  # noqa: BLE001 - obstore has no one class for what a store may answer
            raise self._failed(f"it cannot be fetched: {' '.join(str(error).split())[:_MAX_ERROR]}") from None
        if size > MAX_ARCHIVE_BYTES:
            raise self._failed(f"it is larger than {MAX_ARCHIVE_BYTES} bytes", "Trim the bundle's data")
        if self._monotonic() > give_up:
            raise self._failed(f"it took more than {BODY_SECONDS:g} s")
        bundle = load_archive(b"".join(parts), self.where)
        self._tag = tag
        return bundle

    def _opened(self) -> "S3Store":
        try:
            from obstore.store import S3Store  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "obstore is not installed", where="policy.bundle.s3", fix="Install customhouse[s3]."
            ) from None
        said = self._bucket
        config: dict[str, Any] = {**self._credentials}
        if said.region is not None:
            config["region"] = said.region
        client: dict[str, Any] = {"connect_timeout": f"{ANSWER_SECONDS:g}s", "timeout": f"{BODY_SECONDS:g}s"}
        if said.endpoint is not None:
            config["endpoint"] = said.endpoint
            client["allow_http"] = said.endpoint.startswith("http://")
        if said.ca is not None:
            client["root_certificate"] = _certificates(said.ca)
        try:
            return S3Store(self._name, config=config, client_options=client, retry_config={"max_retries": 0})  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - as above
            raise self._failed(f"it cannot be asked: {' '.join(str(error).split())[:_MAX_ERROR]}") from None

    def _failed(self, what: str, fix: str = "") -> ConfigurationError:
        return ConfigurationError(what, where=self.where, fix=fix or "Check endpoint, region, credentials and network")


def _credentials(file: Path | None) -> dict[str, str]:
    """Keys in the form of AWS's credentials file, `[default]`; empty: the environment has them."""
    if file is None:
        return {}
    where, fix = f"policy.bundle.credentials_file: {file}", "Write [default] with aws_access_key_id and …_secret_…"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        section = parser["default"]
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=where, fix=fix) from None
    except (configparser.Error, KeyError, UnicodeDecodeError):
        raise ConfigurationError("is no credentials file", where=where, fix=fix) from None
    found = {ours: section[theirs] for theirs, ours in _KEYS.items() if theirs in section}
    if not {"access_key_id", "secret_access_key"} <= found.keys():
        raise ConfigurationError("lacks a key", where=where, fix=fix)
    return found


def _certificates(ca: Path) -> bytes:
    try:
        return ca.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=f"policy.bundle.ca: {ca}", fix="Give a PEM file."
        ) from None
