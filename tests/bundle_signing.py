"""Keys, signers' files and signed bundles for tests."""

import json
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sidecar.decision import archive, signatures
from sidecar.decision.bundle import Bundle
from sidecar.decision.signers import PrivateKey, algorithms_of
from sidecar.main.sources import load

NOW = 1_700_000_000.0


def ed25519_key() -> PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def ec_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key(bits: int = 2048) -> PrivateKey:
    return rsa.generate_private_key(65537, bits)


def public_pem(key: PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def write_key(path: Path, key: PrivateKey) -> Path:
    """The private key, and beside it, as .pub, the public one."""
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.with_name(f"{path.name}.pub").write_text(public_pem(key))
    return path


def write_signers(path: Path, keys: dict[str, PrivateKey], **more: object) -> Path:
    """A signers' file (JSON is YAML). `until_alice="…"` ends the time of alice."""
    rows = [
        {"id": name, "key": public_pem(key), "algorithm": algorithms_of(key.public_key())[0]}
        | ({"until": more.pop(f"until_{name}")} if f"until_{name}" in more else {})
        for name, key in keys.items()
    ]
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps({"signers": rows, **more}))
    beside.replace(path)
    return path


def signed(bundle: Bundle, *signers: tuple[str, PrivateKey], now: float = NOW, scope: str = "") -> Bundle:
    """The bundle, signed by these one after the other."""
    for name, key in signers:
        made = signatures.sign(bundle, key, name, scope=scope, now=now, where="test")
        bundle = replace(bundle, signatures=made)
    return bundle


def write_bundle(path: Path, source: Path, *signers: tuple[str, PrivateKey], now: float = NOW) -> Bundle:
    """Build a .tar.gz of a folder, signed by these; in one step for whoever is watching the path."""
    built = archive.load_archive(archive.write_archive(archive.built(load(source))), "test")
    found = signed(built, *signers, now=now)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(archive.write_archive(archive.exact(found)))
    beside.replace(path)
    return found
