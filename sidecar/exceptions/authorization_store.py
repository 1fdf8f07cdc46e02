"""`authorizations.jsonl` and `attestations.jsonl`, read again when they change, and what is in force for a call.

* A signed object a line; blank lines are allowed. Write a new file beside and rename it over the old one.
* A line that does not hold is named, and grants nothing; the others are not affected. So does a second line with one id.
* While a file or the list of signers cannot be read, nothing in it is in force: an authorization may be missed, never
  invented. No attestations file means that nothing is attested.
* Taking a line away ends it at the next look; its own end takes effect on the instant.
* After a restart what is in force is reported once more; a reader counts by the id.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from sidecar.errors import ConfigurationError
from sidecar.exceptions import files
from sidecar.exceptions.attestations import SignedAttestation, read_attestation
from sidecar.exceptions.authorizations import SignedAuthorization, read_authorization
from sidecar.exceptions.files import Mark
from sidecar.exceptions.jws import SignedObjectError
from sidecar.exceptions.signers import SignerKeys
from sidecar.vocabulary import Authorization, SecurityRequirements

POLL = 1.0
MAX_FILE = 16 << 20
MAX_LINES = 4096
MAX_KEYS = 256 * 1024

Signed = SignedAuthorization | SignedAttestation
T = TypeVar("T", SignedAuthorization, SignedAttestation)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationEvent:
    """One came into force, or ended: `expired`, or `withdrawn` when its line is gone or no longer holds."""

    item: Signed
    state: Literal["in_force", "ended"]
    why: Literal["", "expired", "withdrawn"] = ""


class Lifted(NamedTuple):
    """What is in force for a call. `expires_at`: unix seconds at which the first of it ends; infinite for nothing."""

    authorizations: tuple[Authorization, ...]
    requirements: SecurityRequirements
    expires_at: float


NOTHING = Lifted((), SecurityRequirements(), math.inf)


@dataclass(slots=True)
class _File(Generic[T]):
    """One look at a file. `lines`: number, what is there, or what is wrong with it."""

    mark: Mark | None = None
    lines: list[tuple[int, T | str]] = field(default_factory=list)
    problem: str | None = None


@dataclass(slots=True)
class _Reading:
    keys_mark: Mark | None = None
    keys: SignerKeys = field(default_factory=lambda: SignerKeys({}, {}))
    authorizations: _File[SignedAuthorization] = field(default_factory=_File)
    attestations: _File[SignedAttestation] = field(default_factory=_File)
    held: dict[tuple[str, str], Signed] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class AuthorizationStore:
    """What `identity.authorizations` names.

    `load` reads everything once and may block; `run` polls until cancelled. `for_call` is for the call path.
    """

    def __init__(self, *, file: Path, keys: Path, clock: Callable[[], float],
                 on_event: Callable[[AuthorizationEvent], None], poll: float = POLL,
                 report: Callable[[str, str], None] = lambda _event, _detail: None) -> None:  # fmt: skip
        self.authorizations, self.attestations, self._keys = file, file.with_name("attestations.jsonl"), keys
        self._clock, self._on_event, self._report, self._poll = clock, on_event, report, poll
        self._reading = _Reading()
        self._by_service: dict[str, tuple[list[SignedAuthorization], list[SignedAttestation]]] = {}
        self._open: dict[tuple[str, str], Signed] = {}

    def for_call(self, people: Iterable[tuple[str, str | None]], service: str, now: float) -> Lifted:
        """What is in force at `now` for these people (id, counterparty group) at this service, in the order of ids."""
        found = self._by_service.get(service)
        if found is None:
            return NOTHING
        people, ends, shown = tuple(people), math.inf, []
        for one in found[0]:
            if one.in_force(now) and (authorization := one.shown(people)) is not None:
                shown.append(authorization)
                ends = min(ends, one.expires)
        attested = [one for one in found[1] if one.in_force(now)]
        if not attested:
            return Lifted(tuple(shown), SecurityRequirements(), ends)
        latest = max(attested, key=lambda one: (one.not_before, one.expires, one.payload.id))
        return Lifted(tuple(shown), latest.shown(), min(ends, latest.expires))

    def in_force(self) -> tuple[str, ...]:
        """Ids of what was in force at the last look."""
        return tuple(sorted(name for _, name in self._open))

    def problems(self) -> dict[str, str]:
        """What is wrong, by file and line."""
        return dict(self._reading.problems)

    def listing(self) -> list[tuple[str, Signed]]:
        """(type, what holds), in force or not, as of the last look."""
        return [(kind, one) for (kind, _), one in sorted(self._reading.held.items())]

    def load(self) -> None:
        """Look at the files now, in this thread."""
        self._adopt(self._look())

    async def run(self) -> None:
        """Look at the files again and again, until cancelled."""
        while True:
            self._adopt(await asyncio.to_thread(self._look))
            await asyncio.sleep(self._poll)

    def _look(self) -> _Reading:
        old, new = self._reading, _Reading()
        try:
            mark = files.mark(self._keys)
            same = mark == old.keys_mark
            new.keys = old.keys if same else SignerKeys.parse(files.read(self._keys, MAX_KEYS), str(self._keys))
            new.keys_mark = mark
        except (OSError, SignedObjectError, ConfigurationError) as error:
            new.problems[str(self._keys)] = files.why(error)
            return new
        empty: _File[SignedAuthorization] = _File()
        kept = old.authorizations if same else empty
        new.authorizations = _lines(self.authorizations, lambda data: read_authorization(data, new.keys), kept)
        none: _File[SignedAttestation] = _File()
        before = old.attestations if same else none
        new.attestations = _lines(
            self.attestations, lambda data: read_attestation(data, new.keys), before, needed=False
        )
        _collect(new, "authorization", self.authorizations, new.authorizations)
        _collect(new, "attestation", self.attestations, new.attestations)
        return new

    def _adopt(self, new: _Reading) -> None:
        for name, why in new.problems.items():
            if self._reading.problems.get(name) != why:
                self._report("authorization_damaged", f"{name}: {why}")
        self._reading = new
        by_service: dict[str, tuple[list[SignedAuthorization], list[SignedAttestation]]] = {}
        for _, one in sorted(new.held.items()):
            for service in one.payload.services:
                found = by_service.setdefault(service, ([], []))
                if isinstance(one, SignedAuthorization):
                    found[0].append(one)
                else:
                    found[1].append(one)
        self._by_service = by_service
        self._tell(new, self._clock())

    def _tell(self, new: _Reading, now: float) -> None:
        for name, one in list(self._open.items()):
            if new.held.get(name) != one or not one.in_force(now):
                del self._open[name]
                why: Literal["expired", "withdrawn"] = "withdrawn" if one.in_force(now) else "expired"
                self._on_event(AuthorizationEvent(item=one, state="ended", why=why))
        for name, one in new.held.items():
            if name not in self._open and one.in_force(now):
                self._open[name] = one
                self._on_event(AuthorizationEvent(item=one, state="in_force"))


def _lines(path: Path, read: Callable[[bytes], T], old: _File[T], *, needed: bool = True) -> _File[T]:
    try:
        mark = files.mark(path)
        if mark == old.mark:
            return old
        numbered = [(number, line) for number, line in enumerate(files.read(path, MAX_FILE).split(b"\n"), 1)]
    except FileNotFoundError as error:
        return _File(problem=files.why(error) if needed else None)
    except (OSError, SignedObjectError) as error:
        return _File(problem=files.why(error))
    found: _File[T] = _File(mark=mark)
    lines = [(number, line) for number, line in numbered if line.strip()]
    if len(lines) > MAX_LINES:
        found.problem = f"more than {MAX_LINES} lines; only the first are read"
    for number, line in lines[:MAX_LINES]:
        try:
            found.lines.append((number, read(line)))
        except SignedObjectError as error:
            found.lines.append((number, str(error)))
    return found


def _collect(new: _Reading, kind: str, path: Path, found: _File[T]) -> None:
    if found.problem is not None:
        new.problems[str(path)] = found.problem
    for number, one in found.lines:
        if isinstance(one, str):
            new.problems[f"{path}:{number}"] = one
        elif (kind, one.payload.id) in new.held:
            new.problems[f"{path}:{number}"] = f"its id {one.payload.id!r} is that of an earlier line"
        else:
            new.held[kind, one.payload.id] = one
