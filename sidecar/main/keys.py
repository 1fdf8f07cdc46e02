"""The keys and pins that the records of a sidecar rest on, read from the files its settings name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from sidecar.errors import ConfigurationError
from sidecar.main.given import naming
from sidecar.tlog.errors import TlogError
from sidecar.tlog.trust import Trust

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings

_MAKE = "Correct the path, or make one with `sidecar keys new FILE`."
_ASK = "Ask the store's operator for its sealing key (PEM)."
T = TypeVar("T")


def producer_key(settings: "SidecarSettings") -> Ed25519PrivateKey:
    """The key that signs this sidecar's batches. ConfigurationError."""
    path = settings.producer.key
    with naming("producer.key"):
        key = _pem(path, lambda data: load_pem_private_key(data, None), _MAKE)
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError("is no Ed25519 key", where=str(path), fix=_MAKE)
    return key


def seal_key(settings: "SidecarSettings") -> bytes:
    """The store's X25519 public key, to which openings are sealed. ConfigurationError."""
    path = settings.oversight.seal_key
    with naming("oversight.seal_key"):
        key = _pem(path, load_pem_public_key, _ASK)
        if not isinstance(key, X25519PublicKey):
            raise ConfigurationError("is no X25519 public key", where=str(path), fix=_ASK)
    return key.public_bytes_raw()


def trust(settings: "SidecarSettings") -> Trust:
    """The log key (and witnesses) that receipts are held to. ConfigurationError."""
    path = settings.oversight.trust
    with naming("oversight.trust"):
        try:
            return Trust.parse(path.read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"cannot be read: {error.strerror}", where=str(path), fix="Ask the store's operator for its log key."
            ) from None
        except TlogError as error:
            raise ConfigurationError(
                f"is no trust file: {error}",
                where=str(path),
                fix="It holds `log <vkey>` and `quorum none|<name>` lines.",
            ) from None


def _pem(path: Path, read: Callable[[bytes], T], fix: str) -> T:
    try:
        return read(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path), fix=fix) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError("holds no PEM key without a password", where=str(path), fix=fix) from None
