"""A folder of grants, read again when it changes, and which of them are in force for a person.

* Files end in `.json`; names that begin with a dot are left alone, so write there and rename.
* A file that does not hold is named in `status` and reported, and grants nothing. Neither does anything while the
  folder or the list of approvers cannot be read: a grant may be missed, never invented.
* Removing a file, or an approver, withdraws the grant at the next poll; its end takes effect on the instant.
* After a restart grants in force are reported as opened once more; a reader counts openings by the grant's id.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from sidecar.errors import ConfigurationError
from sidecar.exceptions.approvers import ApproverKeys
from sidecar.exceptions.grant import MAX_GRANT, MAX_WINDOW, GrantError, SignedGrant, read_grant
from sidecar.vocabulary import ExceptionGrant

POLL = 1.0
MAX_GRANTS = 4096
MAX_APPROVERS = 256 * 1024

EventType = Literal["exception_opened", "exception_used", "exception_closed"]
Mark = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEvent:
    """Something that happened to a grant. `why`: of a closing, `expired` or `withdrawn`. `call_id`: of a use."""

    type: EventType
    grant: ExceptionGrant
    why: str = ""
    call_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """Ids of the grants in force, and what is wrong with which file."""

    in_force: tuple[str, ...]
    problems: dict[str, str]


@dataclass(slots=True)
class _Reading:
    """One look at the folder. `files` keeps what each file held under its mark, so that only changes are verified."""

    approvers_mark: Mark | None = None
    approvers: ApproverKeys = field(default_factory=lambda: ApproverKeys({}))
    files: dict[str, tuple[Mark, SignedGrant | str]] = field(default_factory=dict)
    grants: dict[str, SignedGrant] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


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

    def for_call(self, person: str, claimed: str | None, now: float) -> tuple[ExceptionGrant, ...]:
        """The grants in force for this person, in the order of their ids; only the claimed one where one is claimed.

        GrantError (refuse with `exception_invalid`) when the claimed one is not among them.
        """
        if claimed is not None:
            return (self.claim(person, claimed, now),)
        held = self._by_person.get(person)
        return () if held is None else tuple(one.grant for one in held if one.in_force(now))

    def claim(self, person: str, grant_id: str, now: float) -> ExceptionGrant:
        """The grant of this id, if it names this person and is in force. GrantError with one wording otherwise."""
        for held in self._by_person.get(person, ()):
            if held.grant.id == grant_id and held.in_force(now):
                return held.grant
        # Whether it exists, for somebody else or at another time, is not the caller's to learn.
        raise GrantError("no such exception is in force for this person")

    def used(self, grant: ExceptionGrant, call_id: str) -> None:
        """Say that a call was permitted by this grant."""
        self._on_event(GrantEvent(type="exception_used", grant=grant, call_id=call_id))

    def status(self) -> StoreStatus:
        """What is in force as of the last poll, and what is wrong."""
        return StoreStatus(in_force=tuple(sorted(self._open)), problems=dict(self._reading.problems))

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
            mark = _mark(self._approvers)
            if mark == old.approvers_mark:
                new.approvers = old.approvers
            else:
                new.approvers = ApproverKeys.parse(_read(self._approvers, MAX_APPROVERS), str(self._approvers))
            new.approvers_mark, where = mark, self._folder
            names = sorted(path.name for path in self._folder.iterdir() if _is_grant(path.name))
        except (OSError, GrantError, ConfigurationError) as error:
            new.problems[str(where)] = _why(error)
            return new
        if len(names) > MAX_GRANTS:
            new.problems[str(self._folder)] = f"more than {MAX_GRANTS} grants; only the first by name are read"
        kept = old.files if new.approvers is old.approvers else {}
        for name in names[:MAX_GRANTS]:
            self._take(name, kept.get(name), new)
        return new

    def _take(self, name: str, kept: tuple[Mark, SignedGrant | str] | None, new: _Reading) -> None:
        path = self._folder / name
        try:
            mark = _mark(path)
            if kept is None or kept[0] != mark:
                kept = (mark, self._grant(path, new.approvers))
        except OSError as error:
            new.problems[name] = _why(error)
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
            return read_grant(_read(path, MAX_GRANT), approvers, max_window=self._max_window)
        except GrantError as error:
            return str(error)

    def _adopt(self, new: _Reading) -> None:
        for name, why in new.problems.items():
            if self._reading.problems.get(name) != why:
                self._report("exception_damaged", f"{name}: {why}")
        self._reading = new
        by_person: dict[str, tuple[SignedGrant, ...]] = {}
        for _, held in sorted(new.grants.items()):
            by_person[held.grant.person] = (*by_person.get(held.grant.person, ()), held)
        self._by_person = by_person
        now = self._clock()
        for name, held in list(self._open.items()):
            if new.grants.get(name) != held or not held.in_force(now):
                del self._open[name]
                why = "withdrawn" if held.in_force(now) else "expired"
                self._on_event(GrantEvent(type="exception_closed", grant=held.grant, why=why))
        for name, held in new.grants.items():
            if name not in self._open and held.in_force(now):
                self._open[name] = held
                self._on_event(GrantEvent(type="exception_opened", grant=held.grant))


def _is_grant(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _mark(path: Path) -> Mark:
    found = path.stat()
    if not S_ISREG(found.st_mode):  # opening a pipe would wait for its writer
        raise OSError(0, "not a regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise GrantError(f"more than {limit} bytes")
    return data


def _why(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
