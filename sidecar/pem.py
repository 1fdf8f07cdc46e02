"""PEM files that a connection needs, read and checked: what is wrong is named with its file."""

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from sidecar.errors import ConfigurationError


def authorities(path: Path) -> bytes:
    """One or more certificates. ConfigurationError when there is none that can be read."""
    pem = _read(path)
    _certificates(pem, path)
    return pem


def pair(cert: Path, key: Path) -> tuple[bytes, bytes]:
    """A certificate chain and its private key. ConfigurationError; also when the key is another certificate's."""
    chain, private = _read(cert), _read(key)
    leaf = _certificates(chain, cert)[0]
    if _spki(leaf.public_key()) != _spki(_private(private, key).public_key()):
        raise ConfigurationError(
            "is not the key of the certificate", where=str(key), fix=f"Give the key that {cert} certifies."
        )
    return chain, private


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Name a PEM file that this process may read."
        ) from None


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError(
            "holds no certificate that can be read", where=str(path), fix="Give one or more PEM certificates."
        ) from None


def _private(pem: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "holds no unencrypted private key that can be read", where=str(path), fix="Give a PEM key without password."
        ) from None


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
