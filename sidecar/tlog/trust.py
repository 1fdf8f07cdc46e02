"""Trust policies: which logs a reader believes, and which witnesses must have cosigned (c2sp.org/tlog-policy).

::

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none

The file is read as octets; a name is whatever octets stand there. Only a complete file counts: its last line ends in a
newline, so that one cut short inside the quorum's name is not taken for another policy.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Self

from sidecar.tlog.checkpoint import SignedCheckpoint, open_checkpoint
from sidecar.tlog.cosignature import CosignatureVerifier
from sidecar.tlog.encoding import decode_decimal
from sidecar.tlog.errors import NoteError, TrustError
from sidecar.tlog.key import COSIGNATURE_V1, ED25519, Verifier, VerifierKey, key_of_type

MAX_TRUST_SIZE = 262_144
NO_QUORUM = "none"

_OCTETS = re.compile(rb"[\t\n\x20-\x7e\x80-\xff]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log that is believed; its key's name is its origin."""

    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A witness, under the name that groups and the quorum use."""

    name: str
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Holds if at least ``threshold`` of its members, witnesses or groups, hold."""

    name: str
    threshold: int
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise `TrustError` for a group that would always or never hold."""
        if not 1 <= self.threshold <= len(self.members):
            raise TrustError(f"group {self.name!r}: threshold {self.threshold} is not from 1 to {len(self.members)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """A trust policy. Made by `parse` or `for_log`; ``groups`` only name what stands before them.

    Two keys of one origin are one log that changed its key.
    """

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...] = ()
    groups: tuple[Group, ...] = ()
    quorum: str = NO_QUORUM

    @classmethod
    def for_log(cls, vkey: str) -> Self:
        """Trust one log, whatever witnesses say; raise `NoteError` for a malformed key."""
        return cls(logs=(Log(key=key_of_type(vkey, ED25519)),))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a policy file; raise `TrustError`, naming the line, unless it is exactly in the format."""
        if len(data) > MAX_TRUST_SIZE:
            raise TrustError(f"trust policy has {len(data)} bytes, more than {MAX_TRUST_SIZE}")
        if not _OCTETS.match(data):
            raise TrustError("trust policy has a control character")
        if not data.endswith(b"\n"):
            raise TrustError("trust policy does not end in a newline; it may have been cut short")
        parser = _Parser()
        for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), start=1):
            parser.read(number, re.sub("[ \t]+", " ", line).strip(" "))
        if parser.quorum is None:
            raise TrustError("trust policy has no quorum line; without witnesses it is 'quorum none'")
        return cls(
            logs=tuple(parser.logs),
            witnesses=tuple(parser.witnesses),
            groups=tuple(parser.groups),
            quorum=parser.quorum,
        )

    def open_checkpoint(self, message: bytes) -> SignedCheckpoint:
        """Read a checkpoint that this policy accepts: of one of its logs, and cosigned by its quorum.

        Raises `TrustError` if the quorum is not met, `CheckpointError` or `NoteError` for anything before that. The
        times of cosignatures are not judged.
        """
        logs = [Verifier(log.key) for log in self.logs]
        witnesses = [CosignatureVerifier(witness.key) for witness in self.witnesses]
        signed = open_checkpoint(message, logs, witnesses)
        keys = {cosignature.key for cosignature in signed.cosignatures}
        names = {witness.name for witness in self.witnesses if witness.key in keys}
        if not self.is_quorum(names):
            found = ", ".join(repr(name) for name in sorted(names)) or "none"
            raise TrustError(f"quorum {self.quorum!r} is not met; witnesses that cosigned: {found}")
        return signed

    def is_quorum(self, names: Collection[str]) -> bool:
        """Whether cosignatures of the witnesses with these names meet the quorum."""
        holding = {witness.name for witness in self.witnesses if witness.name in names}
        for group in self.groups:
            if len(holding.intersection(group.members)) >= group.threshold:
                holding.add(group.name)
        return self.quorum == NO_QUORUM or self.quorum in holding


@dataclass(slots=True)
class _Parser:
    """Collects lines in order; every name must be defined before it is used."""

    logs: list[Log] = field(default_factory=list)
    witnesses: list[Witness] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    quorum: str | None = None
    names: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)

    def read(self, number: int, line: str) -> None:
        if not line or line.startswith("#"):
            return
        where = f"trust policy, line {number}"
        match line.split(" "):
            case ["log", vkey, *rest] if len(rest) < 2:
                self._log(where, vkey, rest)
            case ["witness", name, vkey, *rest] if len(rest) < 2:
                self._witness(where, name, vkey, rest)
            case ["group", name, threshold, *members] if members:
                self._group(where, name, threshold, members)
            case ["quorum", name]:
                self._quorum(where, name)
            case _:
                raise TrustError(f"{where}: not a log, witness, group or quorum line: {line[:80]!r}")

    def _log(self, where: str, vkey: str, rest: Sequence[str]) -> None:
        key = _parse_key(where, vkey, ED25519)
        if any(log.key.public_key == key.public_key for log in self.logs):
            raise TrustError(f"{where}: a log with this public key is there already")
        self.logs.append(Log(key=key, url=rest[0] if rest else None))

    def _witness(self, where: str, name: str, vkey: str, rest: Sequence[str]) -> None:
        key = _parse_key(where, vkey, COSIGNATURE_V1)
        if any(witness.key.public_key == key.public_key for witness in self.witnesses):
            raise TrustError(f"{where}: a witness with this public key is there already")
        self._define(where, name)
        self.witnesses.append(Witness(name=name, key=key, url=rest[0] if rest else None))

    def _group(self, where: str, name: str, threshold: str, members: Sequence[str]) -> None:
        for member in members:
            if member not in self.names:
                raise TrustError(f"{where}: {member!r} is not defined before this line")
            if member in self.members:
                raise TrustError(f"{where}: {member!r} is a member twice; each name counts in one way only")
            self.members.add(member)
        match threshold:
            case "all":
                needed = len(members)
            case "any":
                needed = 1
            case _:
                needed = decode_decimal(threshold, error=TrustError, what=f"{where}: threshold")
        self._define(where, name)
        self.groups.append(Group(name=name, threshold=needed, members=tuple(members)))

    def _quorum(self, where: str, name: str) -> None:
        if self.quorum is not None:
            raise TrustError(f"{where}: a second quorum line")
        if name != NO_QUORUM and name not in self.names:
            raise TrustError(f"{where}: quorum {name!r} is not defined before this line")
        self.quorum = name

    def _define(self, where: str, name: str) -> None:
        if name == NO_QUORUM or name in self.names:
            raise TrustError(f"{where}: the name {name!r} is taken")
        self.names.add(name)


def _parse_key(where: str, vkey: str, expected: int) -> VerifierKey:
    try:
        return key_of_type(vkey, expected)
    except NoteError as error:
        raise TrustError(f"{where}: {error}") from None
