"""Who may append: the registry of producers, a file of JSON lines that is read again whenever it changes.

Each line is `{"name","key","identity","added","revoked"}`: the Ed25519 public key in base64, the identity in the
producer's client certificate (SPIFFE URI or DNS name, exactly as in its subject alternative names), and RFC 3339 times
of the store's clock. A revoked line stays, so that it shows under which key old records were signed; the name may be
added again with a new key.
"""

import fcntl
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sidecar.errors import ConfigurationError

STORE = "store"
"""The store's own name as a producer; nobody can register it."""
_FIX = "Mend the line, or remove it and add the producer again."


class Producer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the registry."""

    name: str
    key: str
    identity: str
    added: str
    revoked: str | None = None

    def public_key(self) -> Ed25519PublicKey:
        """The key with which this producer's batches are verified."""
        return Ed25519PublicKey.from_public_bytes(b64decode(self.key, validate=True))


_decoder = msgspec.json.Decoder(Producer)


class Registry:
    """The producers as the file says now."""

    def __init__(self, path: Path, own: Mapping[str, Ed25519PublicKey] | None = None) -> None:
        """`own`: producers inside this process, which no certificate can name. Raises ConfigurationError."""
        self._path = path
        self._own = dict(own or {})
        self._stamp: tuple[int, ...] = ()
        self._active: dict[str, tuple[Producer, Ed25519PublicKey]] = {}
        self._reload()

    def find(self, name: str, identities: frozenset[str]) -> Ed25519PublicKey | None:
        """The key of the producer of this name if it is not revoked and the peer's certificate is the registered one.

        Raises ConfigurationError when the file cannot be read: then nobody is let in, because the line that is
        unreadable may be the one that revokes.
        """
        self._reload()
        known = self._active.get(name)
        if known is None or known[0].identity not in identities:
            return None
        return known[1]

    def knows(self, identities: frozenset[str]) -> bool:
        """Whether any producer that is not revoked has one of these certificate identities."""
        self._reload()
        return any(producer.identity in identities for producer, _ in self._active.values())

    def own_key(self, name: str) -> Ed25519PublicKey | None:
        """The key of a producer inside this process."""
        return self._own.get(name)

    def _reload(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._stamp, self._active = (), {}
            return
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            active = {one.name: (one, one.public_key()) for one in list_producers(self._path) if one.revoked is None}
            self._stamp, self._active = stamp, active


def list_producers(path: Path) -> list[Producer]:
    """Every line, revoked ones too; [] if there is no file. Raises ConfigurationError naming the line."""
    if not path.exists():
        return []
    producers: list[Producer] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        where = f"{path}:{number}"
        try:
            producer = _decoder.decode(line)
            producer.public_key()
        except ValueError as error:  # msgspec.DecodeError, binascii.Error and a key of the wrong size are ValueErrors
            raise ConfigurationError(f"not a producer: {error}", where=where, fix=_FIX) from None
        _check_name(producer.name, producer.identity, where)
        if any(one.name == producer.name and one.revoked is None for one in producers):
            raise ConfigurationError(f"producer {producer.name!r} is there twice", where=where, fix=_FIX)
        producers.append(producer)
    return producers


def add_producer(path: Path, *, name: str, public_key: Ed25519PublicKey, identity: str, now: str) -> Producer:
    """Register a producer. Raises ConfigurationError if the name is in use (revoke it first) or reserved."""
    _check_name(name, identity, str(path))
    key = b64encode(public_key.public_bytes_raw()).decode("ascii")
    with _editing(path):
        producers = list_producers(path)
        if any(one.name == name and one.revoked is None for one in producers):
            raise ConfigurationError(f"producer {name!r} is registered already", where=str(path),
                                     fix="Revoke it first if its key is to be replaced.")  # fmt: skip
        producer = Producer(name=name, key=key, identity=identity, added=now)
        _write(path, [*producers, producer])
    return producer


def revoke_producer(path: Path, *, name: str, now: str) -> Producer:
    """Let the producer append nothing more; running streams included. Raises ConfigurationError if there is none."""
    with _editing(path):
        producers = list_producers(path)
        for place, one in enumerate(producers):
            if one.name == name and one.revoked is None:
                producers[place] = revoked = msgspec.structs.replace(one, revoked=now)
                _write(path, producers)
                return revoked
    raise ConfigurationError(f"no producer {name!r} is registered", where=str(path),
                             fix="`sidecar oversight producer list` shows them.")  # fmt: skip


def read_public_key(pem: bytes, where: str) -> Ed25519PublicKey:
    """The Ed25519 key in a PEM text; ConfigurationError otherwise."""
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        raise ConfigurationError("not a public key", where=where, fix="Give the PEM of an Ed25519 key.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError("not an Ed25519 key", where=where, fix="Give the PEM of an Ed25519 key.")
    return key


def _check_name(name: str, identity: str, where: str) -> None:
    if not 1 <= len(name) <= 100 or not name.isprintable() or name == STORE:
        raise ConfigurationError("a producer's name has 1 to 100 printable characters and is not 'store'", where=where,
                                 value=name[:120], fix="Choose another name.")  # fmt: skip
    if not identity or not identity.isprintable():
        raise ConfigurationError("a producer has a certificate identity", where=where, value=identity[:120],
                                 fix="Give the SPIFFE URI or DNS name of its client certificate.")  # fmt: skip


@contextmanager
def _editing(path: Path) -> Iterator[None]:
    """Keep two commands from overwriting each other's line."""
    with path.with_name(path.name + ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, producers: list[Producer]) -> None:
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("wb") as file:
        file.write(b"".join(msgspec.json.encode(one) + b"\n" for one in producers))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Otherwise a power cut could bring a revoked producer back.
        os.fsync(folder)
    finally:
        os.close(folder)
