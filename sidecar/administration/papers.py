"""Papers on their way to being signed: a draft, signed offline by one person after another, until it holds.

`NAME.draft` is what somebody asks for, unsigned: `{"typ": …, "payload": {…}}`. `NAME.part` is the signed object (`jws`)
while it still lacks a signature. Neither means anything to a sidecar. Whoever signs is known by their key alone: the id
under which the list of keys has it. Files appear whole (written beside, synced, renamed) or not at all.
"""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.attributes.words import nearest
from sidecar.errors import ConfigurationError
from sidecar.exceptions import files, jws
from sidecar.exceptions.jws import SignedObjectError

DRAFT, PART = ".draft", ".part"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_MODE = 0o644
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """One of them. `signers`: who says to have signed, not verified; `signed`: the object so far, None of a draft."""

    path: Path
    typ: str
    payload: dict[str, object]
    signers: tuple[str, ...] = ()
    signed: bytes | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.payload.get("id"))

    def typed(self, kind: type[T]) -> T:
        """The payload, checked for form. SignedObjectError."""
        return jws.decode(json.dumps(self.payload).encode(), kind, "payload")


class _Draft(msgspec.Struct, forbid_unknown_fields=True):
    typ: str
    payload: dict[str, object]


def draft(folder: Path, typ: str, payload: Mapping[str, object]) -> Path:
    """Write a draft. ConfigurationError when its id is no file name, or is taken."""
    name = str(payload["id"])
    if not _NAME.fullmatch(name):
        raise ConfigurationError("cannot name a file", where="id", value=name, fix="Use letters, digits, . _ and -.")
    data = json.dumps({"typ": typ, "payload": payload}, indent=2, ensure_ascii=False).encode() + b"\n"
    return write(folder / f"{name}{DRAFT}", data, new=True)


def find(folder: Path, name: str) -> Paper:
    """The paper in a file, or of this id in the folder. ConfigurationError when there is none, or it is none."""
    for path in (Path(name), folder / f"{name}{PART}", folder / f"{name}{DRAFT}"):
        if path.is_file():
            return read(path)
    known = sorted({path.stem for path in papers(folder)})
    raise ConfigurationError("there is no draft of this id", where=str(folder), value=name, fix=nearest(name, known)
                             if known else "Make one with `request`.")  # fmt: skip


def papers(folder: Path) -> list[Path]:
    """The papers of a folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in {DRAFT, PART} and path.name[0] != ".")
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(folder),
                                 fix="Name a folder that exists.") from None  # fmt: skip


def read(path: Path) -> Paper:
    """The paper in this file. ConfigurationError."""
    try:
        data = files.read(path, jws.MAX_OBJECT)
        if path.suffix == DRAFT:
            found = jws.decode(data, _Draft, "draft")
            return Paper(path=path, typ=found.typ, payload=found.payload)
        payload, typ, signers = jws.unverified(data)
    except (OSError, SignedObjectError) as error:
        raise ConfigurationError(f"is no paper to sign: {files.why(error)}", where=str(path),
                                 fix="Ask for it to be sent again.") from None  # fmt: skip
    return Paper(path=path, typ=typ, payload=payload, signers=signers, signed=data)


def keep(paper: Paper, signed: bytes) -> Path:
    """Put a paper that still lacks a signature in the place of the one it was made from."""
    path = paper.path.with_suffix(PART)
    write(path, signed, new=paper.path != path)
    if paper.path != path:
        paper.path.unlink()
    return path


def private_key(path: Path) -> Ed25519PrivateKey:
    """An Ed25519 private key (PEM). ConfigurationError."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path), fix="Give --key FILE.") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("holds no Ed25519 private key without a password", where=str(path),
                                 fix="Make one with `sidecar keys new FILE`.")  # fmt: skip
    return key


def holder(key: Ed25519PrivateKey, keys: Mapping[str, Ed25519PublicKey], where: Path) -> str:
    """Whose key it is. ConfigurationError when the list has it under no id."""
    mine = key.public_key().public_bytes_raw()
    for name, known in keys.items():
        if known.public_bytes_raw() == mine:
            return name
    raise ConfigurationError("this key is not listed", where=str(where), fix="Ask for its public key to be added.")


def write(path: Path, data: bytes, *, new: bool) -> Path:
    """Write a file whole. ConfigurationError; where `new`, also when it exists."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with contextlib.ExitStack() as stack:
            stack.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), _MODE)
                os.fsync(file.fileno())
            if new:
                os.link(name, path)  # unlike a rename it fails where somebody was faster
            else:
                Path(name).replace(path)
    except FileExistsError:
        raise ConfigurationError(
            "exists already", where=str(path), fix="Look at it; take it away to begin anew."
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}", where=str(path.parent),
                                 fix="Name a folder that exists and that you may write to.") from None  # fmt: skip
    return path


@contextmanager
def refused(where: str) -> Iterator[None]:
    """What does not hold, as something to mend."""
    try:
        yield
    except SignedObjectError as error:
        raise ConfigurationError(
            str(error), where=where, fix="Nothing was written; ask for what can be signed."
        ) from None


def known_services(services: Iterable[str], known: Iterable[str] | None) -> None:
    """SignedObjectError for a service that the descriptors do not have. Without descriptors nothing is known of them."""
    names = None if known is None else frozenset(known)
    for service in services:
        if names is not None and service not in names:
            raise SignedObjectError(f"unknown service {service!r}; {nearest(service, names)}")


def unchecked(known: Iterable[str] | None) -> str:
    """What to add to services that were held against nothing."""
    return " (not checked: no descriptor file is configured)" if known is None else ""


def instant(moment: float) -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def local(text: str) -> str:
    """An instant as people here read it, and as it stands there."""
    there = datetime.fromtimestamp(jws.instant(text, "instant"), UTC).astimezone()
    return f"{there.strftime('%a %d %b %Y %H:%M:%S %Z')} ({text})"
