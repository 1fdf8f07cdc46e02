"""Exceptions from request to end: drafts, approvals one by one, revocations, and what is in the folder of grants."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.administration import papers
from sidecar.administration.papers import Paper
from sidecar.attributes.words import nearest
from sidecar.errors import ConfigurationError
from sidecar.exceptions import files, jws
from sidecar.exceptions.approvers import ApproverKeys
from sidecar.exceptions.grant import (
    MIN_APPROVERS,
    REVOCATION_TYPE,
    TYPE,
    GrantPayload,
    Revocation,
    SignedGrant,
    checked,
    read_grant,
    sign_grant,
    sign_revocation,
)
from sidecar.exceptions.jws import SignedObjectError
from sidecar.exceptions.store import MAX_APPROVERS, REVOKED, GrantStore
from sidecar.vocabulary import ExceptionGrant


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One grant, or one on its way.

    `state`: draft, waiting (for an approver), in_force, not_yet, expired, revoked or damaged; `why`: of what is damaged.
    """

    id: str
    state: str
    file: str
    person: str = ""
    requested_by: str = ""
    services: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    ticket: str = ""
    not_before: str = ""
    expires: str = ""
    approvers: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionDesk:
    """The folder of grants and what holds there.

    `services`: those that the descriptors have, None where only a running upstream knows them. `ticket`,
    `justification`: patterns of the settings.
    """

    grants: Path
    approvers: Path
    max_window: float
    services: frozenset[str] | None
    ticket: str
    justification: str

    def request(self, payload: dict[str, object], now: float) -> Paper:
        """Write a draft. ConfigurationError for what could never be approved."""
        paper = Paper(path=self.grants, typ=TYPE, payload=payload)
        with papers.refused("exception"):
            self._check(paper, (), now)
        return papers.read(papers.draft(self.grants, TYPE, payload))

    def pending(self, name: str) -> Paper:
        """The draft of this id, or in this file. ConfigurationError."""
        if (self.grants / f"{name}.json").is_file():
            raise ConfigurationError("has its approvals already", where=str(self.grants / f"{name}.json"))
        return papers.find(self.grants, name)

    def shown(self, paper: Paper, now: float) -> Iterator[str]:
        """What is being signed, line by line. ConfigurationError for what cannot be."""
        with papers.refused(str(paper.path)):
            held = self._check(paper, paper.signers, now)
        grant, hours = held.grant, (held.expires - held.not_before) / 3600
        yield f"exception      {grant.id}"
        yield f"person         {grant.person}"
        yield f"services       {', '.join(grant.scope.services)}{papers.unchecked(self.services)}"
        yield f"categories     {', '.join(grant.scope.categories)}"
        yield f"data subjects  {grant.scope.subjects}"
        yield f"records        {'no limit' if grant.max_records is None else f'at most {grant.max_records}'}"
        yield f"from           {papers.local(grant.not_before)}"
        yield f"until          {papers.local(grant.expires)}, {hours:g} hours"
        yield f"justification  {grant.justification}"
        yield f"ticket         {grant.ticket}"
        yield f"asked for by   {grant.requested_by}"
        yield f"approved by    {', '.join(grant.approvers) or 'nobody yet'}"

    def approve(self, paper: Paper, key: Ed25519PrivateKey, now: float) -> tuple[Path, str, int]:
        """Sign. (file, who approved, how many are still missing): with none missing it is a grant, in its place.

        ConfigurationError for a key that no approver has, one's own exception, one that has been approved by the same
        person, is over, or reaches what nobody knows.
        """
        keys = self._keys()
        name = papers.holder(key, keys.keys, self.approvers)
        with papers.refused(str(paper.path)):
            if paper.signed is not None:
                jws.verify(paper.signed, keys.keys, TYPE, GrantPayload, least=1, role="approver")
            self._check(paper, (*paper.signers, name), now)
            signed = sign_grant(paper.payload, key, name, paper.signed)
        missing = MIN_APPROVERS - len(paper.signers) - 1
        if missing > 0:
            return papers.keep(paper, signed), name, missing
        with papers.refused(str(paper.path)):
            read_grant(signed, keys, max_window=self.max_window)
        path = papers.write(self.grants / f"{paper.id}.json", signed, new=True)
        paper.path.unlink()
        return path, name, 0

    def revoke(self, grant_id: str, reason: str, key: Ed25519PrivateKey, now: float) -> tuple[Path, str]:
        """Take a grant back. (file, who revoked it.) ConfigurationError for one that is not there."""
        name = papers.holder(key, self._keys().keys, self.approvers)
        rows = {row.id: row for row in self.rows(now)}
        found = rows.get(grant_id)
        if found is None:
            raise ConfigurationError("there is no such exception", where=str(self.grants), value=grant_id,
                                     fix=nearest(grant_id, rows) if rows else "")  # fmt: skip
        with papers.refused(grant_id):
            revocation = Revocation(grant=grant_id, reason=reason, revoked_at=papers.instant(now))
            signed = sign_revocation(revocation, key, name)
            jws.verify(signed, self._keys().keys, REVOCATION_TYPE, Revocation, least=1, role="approver")
        stem = found.file.rpartition(".")[0]
        return papers.write(self.grants / f"{stem}{REVOKED}", signed, new=True), name

    def rows(self, now: float) -> list[Row]:
        """Everything in the folder of grants, by id."""
        store = GrantStore(folder=self.grants, approvers=self.approvers, clock=lambda: now,
                           on_event=lambda _event: None, max_window=self.max_window)  # fmt: skip
        store.load()
        rows = []
        for one in store.listing():
            if one.grant is None:
                rows.append(Row(id=one.file.removesuffix(".json"), state=one.state, file=one.file, why=one.why))
            else:
                rows.append(_row(one.grant, one.state, one.file))
        named = {row.file for row in rows}
        for name, why in store.status().problems.items():
            if name not in named:
                rows.append(Row(id=Path(name).stem, state="damaged", file=name, why=why))
        return sorted([*rows, *self._on_their_way(now)], key=lambda row: (row.id, row.file))

    def _on_their_way(self, now: float) -> Iterator[Row]:
        for path in papers.papers(self.grants):
            try:
                paper = papers.read(path)
                held = self._check(paper, paper.signers, now)
            except (ConfigurationError, SignedObjectError) as error:
                why = error.what if isinstance(error, ConfigurationError) else str(error)
                yield Row(id=path.stem, state="damaged", file=path.name, why=why)
            else:
                yield _row(held.grant, "waiting" if paper.signers else "draft", path.name)

    def _check(self, paper: Paper, signers: tuple[str, ...], now: float) -> SignedGrant:
        if paper.typ != TYPE:
            raise SignedObjectError(f"it is a {paper.typ}, no exception")
        payload = paper.typed(GrantPayload)
        held = checked(payload, signers, max_window=self.max_window)
        if now >= held.expires:
            raise SignedObjectError(f"its window is over: it ended {payload.expires}")
        if not payload.scope.services or not payload.scope.categories:
            raise SignedObjectError("it names no services or no categories, so it covers nothing")
        papers.known_services(payload.scope.services, self.services)
        for name, text, pattern in (("ticket", payload.ticket, self.ticket),
                                    ("justification", payload.justification, self.justification)):  # fmt: skip
            if not re.fullmatch(pattern, text):
                raise SignedObjectError(f"{name} {text!r} does not match {pattern}")
        return held

    def _keys(self) -> ApproverKeys:
        try:
            return ApproverKeys.parse(files.read(self.approvers, MAX_APPROVERS), str(self.approvers))
        except (OSError, SignedObjectError) as error:
            raise ConfigurationError(f"cannot be read: {files.why(error)}", where=str(self.approvers),
                                     fix="Correct exceptions.approvers.") from None  # fmt: skip


def _row(grant: ExceptionGrant, state: str, file: str) -> Row:
    return Row(id=grant.id, state=state, file=file, person=grant.person, requested_by=grant.requested_by,
               services=grant.scope.services, categories=grant.scope.categories, ticket=grant.ticket,
               not_before=grant.not_before, expires=grant.expires, approvers=grant.approvers)  # fmt: skip
