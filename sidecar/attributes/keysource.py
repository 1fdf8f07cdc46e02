"""Where a key set comes from: a file, or an https address. Bounded in time and size; never used on the call path."""

import os
import ssl
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.errors import ConfigurationError

MAX_BYTES = 64 * 1024
TIMEOUT = 2.0
_CHUNK = 8 * 1024
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Fetch = Callable[[str | None], tuple[bytes, str | None] | None]
"""Given the tag of what is held, the new bytes and their tag, or None when unchanged. Blocks; FetchError on failure."""


class FetchError(Exception):
    """The source could not be read. Says what was wrong with it."""


def file_source(path: Path) -> Fetch:
    """Reads a file of at most 64 KiB when its identity, size or change time differs from the tag's."""

    def fetch(tag: str | None) -> tuple[bytes, str | None] | None:
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # before opening: opening a pipe would wait for its writer
                raise FetchError("not a regular file")
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                mark = f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"
                if mark == tag:
                    return None
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise FetchError(error.strerror or type(error).__name__) from None
        if len(data) > MAX_BYTES:
            raise FetchError(f"more than {MAX_BYTES} bytes")
        return data, mark

    return fetch


def https_source(url: str, *, ca_file: Path | None = None, timeout: float = TIMEOUT,
                 monotonic: Callable[[], float] = time.monotonic) -> Fetch:  # fmt: skip
    """Gets an address: no redirects, no proxies, no cookies, at most 64 KiB and `timeout` seconds in all.

    Plain http is for loopback addresses only. `ca_file` replaces the system's certificate authorities.
    ConfigurationError when the address or the file cannot be used.
    """
    _check_address(url)
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"no certificate authorities: {error}", where="identity.issuers.jwks.ca",
                                 value=str(ca_file), fix="Give a PEM file.") from None  # fmt: skip
    # An explicit empty ProxyHandler: the default one would read proxy addresses from the environment.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect
    )

    def fetch(tag: str | None) -> tuple[bytes, str | None] | None:
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        if tag is not None:
            headers["If-None-Match"] = tag
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked above
        give_up = monotonic() + timeout
        try:
            with opener.open(request, timeout=timeout) as response:
                return _read(response, give_up, monotonic), _tag(response.headers)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 304 and tag is not None:  # Not Modified
                return None
            raise FetchError(f"answered with status {error.code}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise FetchError(f"cannot be fetched: {error}") from None

    return fetch


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the keys come from the configured address or not at all."""

    def redirect_request(self, *_refused: object) -> None:
        return None


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    plain = parts.scheme == "http" and host in _LOOPBACK
    if not host or not (parts.scheme == "https" or plain) or parts.username is not None:
        raise ConfigurationError("not an https address", where="identity.issuers.jwks.url", value=url,
                                 fix="Use https://; plain http is for loopback addresses only.")  # fmt: skip


def _read(response: HTTPResponse, give_up: float, monotonic: Callable[[], float]) -> bytes:
    # The socket's own time limit counts from byte to byte; a source that drips must not hold the thread for longer.
    parts: list[bytes] = []
    size = 0
    while chunk := response.read1(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            raise FetchError(f"more than {MAX_BYTES} bytes")
        if monotonic() > give_up:
            raise FetchError("too slow")
    return b"".join(parts)


def _tag(headers: Message) -> str | None:
    tag = headers.get("ETag")
    return tag if tag is not None and tag.isascii() and tag.isprintable() else None
