"""The ledger's secret, under which data subjects are named in its database. It never rotates.

A subject is HMAC-SHA-256(secret, kind ‖ 0 ‖ id), cut to 16 bytes: among 10⁷ subjects two fall together with a chance of
(10⁷)² / 2¹²⁹ < 2·10⁻²⁵, and nobody without the secret can look for such a pair. With another secret everybody would be
counted anew under another name, so the database holds a check value, and a secret that does not fit is refused.
"""

import hmac
import os
import re
from collections.abc import Callable
from pathlib import Path

from sidecar.errors import ConfigurationError, IntegrityError

SUBJECT_BYTES = 16
_SECRET_BYTES = 32
_CHECK = b"customhouse/ledger/check/v1"
_HEX = re.compile(rb"[0-9a-f]{64}\n?")


class Secret:
    """Names data subjects. Its representation holds nothing of it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def subject(self, kind: str, name: str) -> bytes:
        """The 16 bytes that stand for a data subject. A kind holds no zero byte, or two subjects could share a name."""
        return hmac.digest(self._key, kind.encode() + b"\0" + name.encode(), "sha256")[:SUBJECT_BYTES]

    @property
    def check(self) -> bytes:
        """What tells this secret from another, without telling what it is."""
        return hmac.digest(self._key, _CHECK, "sha256")[:SUBJECT_BYTES]

    def verify(self, check: bytes, where: Path) -> None:
        """IntegrityError when a database was made under another secret."""
        if not hmac.compare_digest(self.check, check):
            raise IntegrityError(
                "the secret is not the one under which this ledger was made, so everybody would be counted anew",
                where=str(where), fix="Put the original secret back; it belongs to the ledger for as long as it lives.",
            )  # fmt: skip


def read(path: Path) -> Secret:
    """The secret in a file. ConfigurationError when it is missing, malformed, or open to others."""
    try:
        with path.open("rb") as file:
            data, mode = file.read(_SECRET_BYTES * 4), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path),
            fix="Put the ledger's secret back. A new ledger is made by `sidecar ledger init`.",
        ) from None  # fmt: skip
    if mode & 0o007:
        raise ConfigurationError("can be read by every user of this host", where=str(path), fix="chmod 600 it.")
    if _HEX.fullmatch(data) is None:
        raise ConfigurationError(
            "holds no ledger secret (64 hexadecimal digits)", where=str(path), fix="Put the ledger's secret back."
        )
    return Secret(bytes.fromhex(data.decode()))


def write(path: Path, random: Callable[[int], bytes]) -> Secret:
    """Make a secret: a new file, mode 0600. FileExistsError when there is one; a secret is never overwritten."""
    key = random(_SECRET_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return Secret(key)
