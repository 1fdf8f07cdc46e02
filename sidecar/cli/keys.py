"""`sidecar keys new`."""

import os
from base64 import b64encode
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sidecar.errors import ConfigurationError
from sidecar.tlog.errors import NoteError
from sidecar.tlog.key import Signer, check_name


def new(file: Path, name: str | None, *, sealing: bool) -> list[str]:
    """Write a private key (PKCS #8 PEM, mode 0600) and its public key beside it; say where they are.

    ConfigurationError when either file exists (a key is never overwritten) or `name` is none that a key can have.
    """
    if name is not None:
        _check_name(name, sealing=sealing)
    if not file.name or file.is_dir():
        raise ConfigurationError("is a folder", where=str(file), fix="Name a file.")
    public = file.with_name(file.name + ".pub")
    for path in (file, public):
        if path.exists() or path.is_symlink():
            raise ConfigurationError("exists; a key is never overwritten", where=str(path), fix="Choose another name.")
    key = X25519PrivateKey.generate() if sealing else Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shown = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _write(file, secret, 0o600)
    _write(public, shown, 0o644)
    lines = [f"private key {file}", f"public key  {public}"]
    if isinstance(key, Ed25519PrivateKey):  # as approvers.yaml and signers.yaml have it under `key`
        lines.append(f"base64      {b64encode(key.public_key().public_bytes_raw()).decode()}")
    if name is not None and isinstance(key, Ed25519PrivateKey):
        lines.append(f"verifier    {Signer(name, key).key}")
    return lines


def _check_name(name: str, *, sealing: bool) -> None:
    if sealing:
        raise ConfigurationError("a sealing key has no verifier", where="--name", fix="Leave out --name or --sealing.")
    try:
        check_name(name)
    except NoteError as error:
        raise ConfigurationError(str(error), where="--name", fix="Use a name such as store.example/log.") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
