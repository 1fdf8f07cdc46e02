"""A folder of grants, read again when it changes, and which of them are in force for a person.

* Files end in `.json`; names that begin with a dot are left alone, so write there and rename. Drafts and grants that
  are still short of an approver have other endings.
* `NAME.revoked` is a signed revocation: it ends the grant that it names, for good. One that does not hold (its signer is
  an approver no more) is named, and suspends the grant that it says, the one that its file is named after, and the one
  in `NAME.json`: somebody meant to take it back. Taking the file away undoes neither the revocation that was read from it,
  as long as this process lives, nor the record of it.
* A file that does not hold is named in `status` and reported, and grants nothing. Neither does anything while the
  folder or the list of approvers cannot be read: a grant may be missed, never invented.
* Removing a file, or an approver, withdraws the grant at the next poll, as a revocation ends it; its own end takes effect
  on the instant.
* After a restart grants in force are reported as opened once more; a reader counts openings by the grant's id.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sidecar.errors import ConfigurationError
from sidecar.exceptions import files, jws
from sidecar.exceptions.approvers import ApproverKeys
from sidecar.exceptions.files import Mark
from sidecar.exceptions.grant import MAX_WINDOW, SignedGrant, read_grant, read_revocation
from sidecar.exceptions.jws import MAX_OBJECT, SignedObjectError
from sidecar.vocabulary import ExceptionGrant

POLL = 1.0
MAX_GRANTS = 4096
MAX_APPROVERS = 256 * 1024
REVOKED = ".revoked"

EventType = Literal["exception_opened", "exception_used", "exception_closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEvent:
    """Something that happened to a grant. `why`: of a closing, `expired`, `withdrawn` or `revoked`. `call_id`: of a use."""

    type: EventType
    grant: ExceptionGrant
    why: str = ""
    call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Ids of the grants in force, and what is wrong with which file."""

    in_force: tuple[str, ...]
    problems: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One file of the folder. `grant` None: it does not hold, `why` says for what reason."""

    file: str
    state: Literal["in_force", "not_yet", "expired", "revoked", "damaged"]
    grant: ExceptionGrant | None
    why: str = ""


@dataclass(slots=True)
class _Reading:
    """One look at the folder.

    `files` and `revocations` keep what each file held under its mark, so that only changes are verified. `ended`: ids of
    grants that a revocation ends, and what to say of it; `suspended`: what revocations that do not hold are about.
    """

    approvers_mark: Mark | None = None
    approvers: ApproverKeys = field(default_factory=lambda: ApproverKeys({}))
    files: dict[str, tuple[Mark, SignedGrant | str]] = field(default_factory=dict)
    grants: dict[str, SignedGrant] = field(default_factory=dict)
    revocations: dict[str, tuple[Mark, str | SignedObjectError]] = field(default_factory=dict)
    ended: dict[str, Literal["revoked", "withdrawn"]] = field(default_factory=dict)
    suspended: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)


class _UnprovenError(SignedObjectError):
    """A revocation that does not hold, and the grant that it says it is of; empty where it says nothing."""

    grant = ""

    @classmethod
    def of(cls, data: bytes, error: SignedObjectError) -> "_UnprovenError":
        found = cls(str(error))
        with suppress(SignedObjectError):
            found.grant = str(jws.unverified(data)[0].get("grant", ""))
        return found


class GrantStore:
    """The grants of `exceptions.grants`, approved by `exceptions.approvers`.

    `load` reads everything once and may block; `run` polls until cancelled. The others are for the call path.
    """

    def __init__(self, *, folder: Path, approvers: Path, clock: Callable[[], float],
                 on_event: Callable[[GrantEvent], None], max_window: float = MAX_WINDOW, poll: float = POLL,
                 report: Callable[[str, str], None] = lambda _event, _detail: None) -> None:  # fmt: skip
        self._folder, self._approvers = folder, approvers
        self._clock, self._on_event, self._report = clock, on_event, report
        self._max_window, self._poll = max_window, poll
        self._reading = _Reading()
        self._by_person: dict[str, tuple[SignedGrant, ...]] = {}
        self._open: dict[str, SignedGrant] = {}
        self._revoked: set[str] = set()

    def for_call(self, person: str, claimed: str | None, now: float) -> tuple[ExceptionGrant, ...]:
        """The grants in force for this person, in the order of their ids; only the claimed one where one is claimed.

        SignedObjectError (refuse with `exception_invalid`) when the claimed one is not among them.
        """
        if claimed is not None:
            return (self.claim(person, claimed, now),)
        held = self._by_person.get(person)
        return () if held is None else tuple(one.grant for one in held if one.in_force(now))

    def claim(self, person: str, grant_id: str, now: float) -> ExceptionGrant:
        """The grant of this id, if it names this person and is in force. SignedObjectError with one wording otherwise."""
        for held in self._by_person.get(person, ()):
            if held.grant.id == grant_id and held.in_force(now):
                return held.grant
        # Whether it exists, for somebody else or at another time, is not the caller's to learn.
        raise SignedObjectError("no such exception is in force for this person")

    def used(self, grant: ExceptionGrant, call_id: str) -> None:
        """Say that a call was permitted by this grant."""
        self._on_event(GrantEvent(type="exception_used", grant=grant, call_id=call_id))

    def status(self) -> StoreStatus:
        """What is in force as of the last poll, and what is wrong."""
        return StoreStatus(in_force=tuple(sorted(self._open)), problems=dict(self._reading.problems))

    def listing(self) -> list[Listed]:
        """Every grant of the folder as of the last look, by file name."""
        now, reading = self._clock(), self._reading
        found = []
        for name, (_, held) in reading.files.items():
            why = reading.problems.get(name)
            if isinstance(held, str) or why is not None:
                found.append(Listed(file=name, state="damaged", grant=None, why=why or str(held)))
            elif held.grant.id in reading.ended:
                found.append(Listed(file=name, state="revoked", grant=held.grant))
            elif held.in_force(now):
                found.append(Listed(file=name, state="in_force", grant=held.grant))
            else:
                state: Literal["expired", "not_yet"] = "expired" if now >= held.expires else "not_yet"
                found.append(Listed(file=name, state=state, grant=held.grant))
        return found

    def load(self) -> None:
        """Look at the folder now, in this thread."""
        self._adopt(self._look())

    async def run(self) -> None:
        """Look at the folder again and again, until cancelled."""
        while True:
            self._adopt(await asyncio.to_thread(self._look))
            await asyncio.sleep(self._poll)

    def _look(self) -> _Reading:
        old, new = self._reading, _Reading()
        where = self._approvers
        try:
            mark = files.mark(self._approvers)
            if mark == old.approvers_mark:
                new.approvers = old.approvers
            else:
                new.approvers = ApproverKeys.parse(files.read(self._approvers, MAX_APPROVERS), str(self._approvers))
            new.approvers_mark, where = mark, self._folder
            every = sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
        except (OSError, SignedObjectError, ConfigurationError) as error:
            new.problems[str(where)] = files.why(error)
            return new
        names = [name for name in every if name.endswith(".json")]
        if len(names) > MAX_GRANTS:
            new.problems[str(self._folder)] = f"more than {MAX_GRANTS} grants; only the first by name are read"
        same = new.approvers is old.approvers
        for name in every:
            if name.endswith(REVOKED):
                self._take_back(name, old.revocations.get(name) if same else None, new)
        for name in names[:MAX_GRANTS]:
            self._take(name, old.files.get(name) if same else None, new)
        self._suspend(new)
        return new

    def _take_back(self, name: str, kept: tuple[Mark, str | SignedObjectError] | None, new: _Reading) -> None:
        path = self._folder / name
        try:
            mark = files.mark(path)
            if kept is None or kept[0] != mark:
                kept = (mark, self._revocation(path, new.approvers))
            new.revocations[name] = kept
            found = kept[1]
        except OSError as error:
            found = SignedObjectError(files.why(error))
        if isinstance(found, str):
            new.ended[found] = "revoked"
        else:
            new.problems[name] = str(found)
            new.suspended.add(name.removesuffix(REVOKED))
            if isinstance(found, _UnprovenError):
                new.suspended.add(found.grant)

    def _revocation(self, path: Path, approvers: ApproverKeys) -> str | SignedObjectError:
        data = b""
        try:
            data = files.read(path, MAX_OBJECT)
            return read_revocation(data, approvers).grant
        except SignedObjectError as error:
            return _UnprovenError.of(data, error)

    @staticmethod
    def _suspend(new: _Reading) -> None:
        """End what revocations that do not hold would have ended, by id or by the name of the grant's file."""
        for name in new.suspended:
            new.ended.setdefault(name, "withdrawn")
            _, held = new.files.get(f"{name}.json", (None, ""))
            if not isinstance(held, str):
                new.ended.setdefault(held.grant.id, "withdrawn")

    def _take(self, name: str, kept: tuple[Mark, SignedGrant | str] | None, new: _Reading) -> None:
        path = self._folder / name
        try:
            mark = files.mark(path)
            if kept is None or kept[0] != mark:
                kept = (mark, self._grant(path, new.approvers))
        except OSError as error:
            new.problems[name] = files.why(error)
            return
        new.files[name] = kept
        held = kept[1]
        if isinstance(held, str):
            new.problems[name] = held
        elif held.grant.id in new.grants:
            new.problems[name] = f"its id {held.grant.id!r} is that of another grant"
        else:
            new.grants[held.grant.id] = held

    def _grant(self, path: Path, approvers: ApproverKeys) -> SignedGrant | str:
        try:
            return read_grant(files.read(path, MAX_OBJECT), approvers, max_window=self._max_window)
        except SignedObjectError as error:
            return str(error)

    def _adopt(self, new: _Reading) -> None:
        for name, why in new.problems.items():
            if self._reading.problems.get(name) != why:
                self._report("exception_damaged", f"{name}: {why}")
        self._revoked |= {name for name, how in new.ended.items() if how == "revoked"}
        new.ended.update(dict.fromkeys(self._revoked, "revoked"))
        self._reading = new
        by_person: dict[str, tuple[SignedGrant, ...]] = {}
        live = {name: held for name, held in sorted(new.grants.items()) if name not in new.ended}
        for held in live.values():
            by_person[held.grant.person] = (*by_person.get(held.grant.person, ()), held)
        self._by_person = by_person
        now = self._clock()
        for name, held in list(self._open.items()):
            if live.get(name) != held or not held.in_force(now):
                del self._open[name]
                why = new.ended.get(name, "withdrawn") if held.in_force(now) else "expired"
                self._on_event(GrantEvent(type="exception_closed", grant=held.grant, why=why))
        for name, held in live.items():
            if name not in self._open and held.in_force(now):
                self._open[name] = held
                self._on_event(GrantEvent(type="exception_opened", grant=held.grant))
