"""Private keys in PEM files (PKCS #8, unencrypted, readable by the store alone)."""

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from sidecar.errors import ConfigurationError


def ed25519(path: Path) -> Ed25519PrivateKey:
    """The signing key in the file; ConfigurationError otherwise."""
    key = _load(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("is not an Ed25519 private key", where=str(path), fix="Make one: `sidecar keys new`.")
    return key


def x25519(path: Path) -> X25519PrivateKey:
    """The sealing key in the file; ConfigurationError otherwise."""
    key = _load(path)
    if not isinstance(key, X25519PrivateKey):
        raise ConfigurationError("is not an X25519 private key", where=str(path),
                                 fix="Make one: `sidecar keys new --sealing`.")  # fmt: skip
    return key


def own(path: Path) -> Ed25519PrivateKey:
    """The key with which the store signs its own records; made at the first start."""
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        unfinished = path.with_name(path.name + ".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    return ed25519(path)


def _load(path: Path) -> object:
    try:
        return load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigurationError(f"private key cannot be read: {error.strerror}", where=str(path),
                                 fix="Check the path and its permissions.") from None  # fmt: skip
    except (ValueError, TypeError):
        raise ConfigurationError("is not an unencrypted PEM private key", where=str(path),
                                 fix="Make one: `sidecar keys new`.") from None  # fmt: skip
