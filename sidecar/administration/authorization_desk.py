"""Authorizations and attestations (28 CFR part 202) from draft to file: asked for, signed offline, installed, listed."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.administration import papers
from sidecar.administration.papers import Paper
from sidecar.errors import ConfigurationError
from sidecar.exceptions import attestations, authorizations, files, jws
from sidecar.exceptions.attestations import AttestationPayload, SignedAttestation
from sidecar.exceptions.authorization_store import MAX_FILE, MAX_KEYS, AuthorizationStore, Signed
from sidecar.exceptions.authorizations import SIGNERS, AuthorizationPayload
from sidecar.exceptions.jws import SignedObjectError
from sidecar.exceptions.signers import SignerKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One of them. `state`: draft, waiting (for a signer), in_force, not_yet, expired or damaged."""

    id: str
    type: str
    state: str
    kind: str = ""
    paragraph: str = ""
    persons: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    owner: str = ""
    not_before: str = ""
    expires: str = ""
    signers: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationDesk:
    """`identity.authorizations`: drafts lie beside its file. `services`: as `ExceptionDesk`."""

    file: Path
    keys: Path
    services: frozenset[str] | None

    def request(self, typ: str, payload: Mapping[str, object], now: float) -> Paper:
        """Write a draft. ConfigurationError for what could never be signed."""
        paper = Paper(path=self.file.parent, typ=typ, payload=dict(payload))
        with papers.refused(str(payload.get("id"))):
            self._check(paper, (), now)
        return papers.read(papers.draft(self.file.parent, typ, payload))

    def pending(self, name: str) -> Paper:
        """The draft of this id, or in this file. ConfigurationError."""
        return papers.find(self.file.parent, name)

    def shown(self, paper: Paper, now: float) -> Iterator[str]:
        """What is being signed, line by line. ConfigurationError for what cannot be."""
        with papers.refused(str(paper.path)):
            self._check(paper, paper.signers, now)
        for name, value in paper.payload.items():
            if isinstance(value, list):
                said = ", ".join(map(str, value)) or "none"
            else:
                said = papers.local(str(value)) if name in _INSTANTS else str(value)
            unchecked = papers.unchecked(self.services) if name == "services" else ""
            yield f"{name.replace('_', ' '):14} {said}{unchecked}"
        yield f"{'signed by':14} {', '.join(paper.signers) or 'nobody yet'}"

    def sign(self, paper: Paper, key: Ed25519PrivateKey, now: float) -> tuple[Path, str, int]:
        """Sign. (file, who signed, how many are still missing): with none missing it has a line in its file.

        ConfigurationError for a key that may not sign it, or has, and for what is over or reaches what nobody knows.
        """
        keys = self._keys()
        name = papers.holder(key, keys.keys, self.keys)
        with papers.refused(str(paper.path)):
            if paper.signed is not None:
                jws.verify(paper.signed, keys.keys, paper.typ, dict[str, object], least=1, role="signer")
            self._check(paper, (*paper.signers, name), now)
            signed = jws.sign(paper.payload, key, name, paper.typ, paper.signed)
        missing = _needed(paper) - len(paper.signers) - 1
        if missing > 0:
            return papers.keep(paper, signed), name, missing
        with papers.refused(str(paper.path)):
            self.verify(signed)
        path = self._install(paper, signed)
        paper.path.unlink()
        return path, name, 0

    def verify(self, data: bytes) -> Signed:
        """The authorization or attestation in these bytes. SignedObjectError when it does not hold."""
        _, typ, _ = jws.unverified(data)
        if typ == attestations.TYPE:
            return attestations.read_attestation(data, self._keys())
        return authorizations.read_authorization(data, self._keys())

    def rows(self, now: float) -> list[Row]:
        """Everything there is, by id."""
        store = AuthorizationStore(file=self.file, keys=self.keys, clock=lambda: now, on_event=lambda _event: None)
        store.load()
        rows = [_row(kind, one, now) for kind, one in store.listing()]
        rows += [Row(id=name, type="line", state="damaged", why=why) for name, why in store.problems().items()]
        return sorted([*rows, *self._on_their_way(now)], key=lambda row: (row.id, row.type))

    def _on_their_way(self, now: float) -> Iterator[Row]:
        for path in papers.papers(self.file.parent):
            try:
                paper = papers.read(path)
                if paper.typ not in _TYPES:
                    continue  # the folder may be that of exceptions too
                held = self._check(paper, paper.signers, now)
            except (ConfigurationError, SignedObjectError) as error:
                why = error.what if isinstance(error, ConfigurationError) else str(error)
                yield Row(id=path.stem, type="paper", state="damaged", why=why)
            else:
                row = _row(_TYPES[paper.typ], held, now)
                yield replace(row, state="waiting" if paper.signers else "draft", signers=paper.signers)

    def _check(self, paper: Paper, signers: tuple[str, ...], now: float) -> Signed:
        held: Signed
        if paper.typ == authorizations.TYPE:
            held = authorizations.checked(paper.typed(AuthorizationPayload), signers, self._keys())
        elif paper.typ == attestations.TYPE:
            said = paper.typed(AttestationPayload)
            held = attestations.checked(said, signers or (said.officer,), self._keys())
        else:
            raise SignedObjectError(f"it is a {paper.typ}, no authorization or attestation")
        if now >= held.expires:
            raise SignedObjectError("its window is over")
        papers.known_services(held.payload.services, self.services)
        return held

    def _install(self, paper: Paper, signed: bytes) -> Path:
        attested = paper.typ == attestations.TYPE
        path = self.file.with_name("attestations.jsonl") if attested else self.file
        with _alone(path.parent):
            lines = files.read(path, MAX_FILE).splitlines() if path.exists() else []
            for line in lines:
                if line.strip() and _id_of(line) == paper.id:
                    raise ConfigurationError("has a line of this id already", where=str(path), value=paper.id,
                                             fix="Take that line away first, or use another id.")  # fmt: skip
            return papers.write(path, b"\n".join([*lines, signed]) + b"\n", new=False)

    def _keys(self) -> SignerKeys:
        try:
            return SignerKeys.parse(files.read(self.keys, MAX_KEYS), str(self.keys))
        except (OSError, SignedObjectError) as error:
            raise ConfigurationError(f"cannot be read: {files.why(error)}", where=str(self.keys),
                                     fix="Correct identity.authorizations.keys.") from None  # fmt: skip


def _id_of(line: bytes) -> object:
    """None for a damaged line: it grants nothing, `list` names it, and it keeps nobody from signing."""
    try:
        return jws.unverified(line)[0].get("id")
    except SignedObjectError:
        return None


_INSTANTS = frozenset({"not_before", "expires", "attested_at", "valid_until"})
_TYPES: Mapping[str, str] = {authorizations.TYPE: "authorization", attestations.TYPE: "attestation"}


def _needed(paper: Paper) -> int:
    return 1 if paper.typ == attestations.TYPE else SIGNERS[paper.typed(AuthorizationPayload).kind]


def _row(kind: str, one: Signed, now: float) -> Row:
    state = "in_force" if one.in_force(now) else "expired" if now >= one.expires else "not_yet"
    if isinstance(one, SignedAttestation):
        attested = one.payload
        return Row(id=attested.id, type=kind, state=state, kind=attested.version, services=attested.services,
                   owner=attested.officer, not_before=attested.attested_at, expires=attested.valid_until,
                   signers=one.signers)  # fmt: skip
    said = one.payload
    return Row(id=said.id, type=kind, state=state, kind=said.kind, paragraph=said.paragraph, persons=said.persons,
               groups=said.groups, services=said.services, owner=said.owner, not_before=said.not_before,
               expires=said.expires, signers=one.signers)  # fmt: skip


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep others who install here waiting: each rewrites the file, and one would lose the other's line."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
