"""Revoked tokens, people and workloads: `revoked.jsonl`, read again when it changes and asked on every call.

One JSON object a line: `{"jti": "…"}` or `{"sub": "…"}`, optionally with `iss` (then only tokens of that issuer are
meant), `revoked_at` and `reason`. A `sub` meets the subject of a token, the id taken from its `subject_claim`, every
actor in its `act` chain, and the id of the calling workload.

A list that cannot be read or understood refuses every call (UNAVAILABLE) until it is mended: the old list may lack
the very entry somebody is adding, and a call refused by mistake does less harm than a call that a revocation missed.
So write a new file beside it and rename it over the old one.
"""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from sidecar.errors import Code, IdentifyError
from sidecar.vocabulary import ReasonCode

POLL = 1.0
MAX_AGE = 60.0
MAX_BYTES = 16 * 1024 * 1024

Mark = tuple[str, str | None, str]
"""("jti" or "sub", issuer or None for any, value)."""


class RevokedFormatError(ValueError):
    """A line that is no revocation. Says which line and why."""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    jti: str | None = None
    sub: str | None = None
    iss: str | None = None
    revoked_at: str | None = None
    reason: str | None = None


_decode = msgspec.json.Decoder(_Line).decode


def marks_of(*, issuer: str, jti: str | None, subjects: tuple[str, ...]) -> frozenset[Mark]:
    """Everything a token can be revoked by."""
    marks: set[Mark] = set()
    for where in (None, issuer):
        if jti is not None:
            marks.add(("jti", where, jti))
        marks.update(("sub", where, subject) for subject in subjects)
    return frozenset(marks)


def parse_revoked(data: bytes) -> frozenset[Mark]:
    """The entries of a list; blank lines are allowed. RevokedFormatError names the first line that is none."""
    marks: set[Mark] = set()
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            entry = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RevokedFormatError(f"line {number}: {error}") from None
        if (entry.jti is None) == (entry.sub is None):
            raise RevokedFormatError(f'line {number}: needs exactly one of "jti" and "sub"')
        if entry.jti is not None:
            marks.add(("jti", entry.iss, entry.jti))
        if entry.sub is not None:
            marks.add(("sub", entry.iss, entry.sub))
    return frozenset(marks)


class Revocations:
    """The list in force.

    `load` reads the file once and may block. `run` polls it until cancelled; without it `check` refuses after
    `max_age` seconds, so that a poller that died is noticed. No path means no list: nothing is ever revoked.
    """

    def __init__(self, path: Path | None, *, clock: Callable[[], float], max_age: float = MAX_AGE, poll: float = POLL,
                 report: Callable[[str, str], None] = lambda _event, _detail: None) -> None:  # fmt: skip
        self._path, self._clock, self._report = path, clock, report
        self._max_age, self._poll = max_age, poll
        self._seen: tuple[int, ...] | None = None
        self.marks: frozenset[Mark] = frozenset()
        """The entries, never changed: while this is the same object, whoever was not revoked is not."""
        self._error: str | None = None if path is None else "never read"
        self.good_until = float("inf") if path is None else float("-inf")
        """Until when (unix seconds) the list may be relied on, unless it is read again."""

    @property
    def error(self) -> str | None:
        """What is wrong with the file, or None."""
        return self._error

    @property
    def size(self) -> int:
        """How many entries the list has."""
        return len(self.marks)

    def check(self, marks: frozenset[Mark], now: float) -> bool:
        """Whether one of these is revoked. IdentifyError (UNAVAILABLE) when the list cannot be relied on."""
        if now > self.good_until:
            detail = self._error or f"not read for more than {self._max_age:.0f} s"
            raise IdentifyError("callers cannot be identified at present", reason=ReasonCode.STALE_DIRECTORY,
                                code=Code.UNAVAILABLE, operator=f"{self._path}: {detail}. Every call is refused until "
                                "the list is whole; write it beside and rename it into place.")  # fmt: skip
        return not self.marks.isdisjoint(marks)

    def load(self) -> None:
        """Read the file if it has changed. A failure is kept in `error` and reported, not raised."""
        if self._path is None:
            return
        try:
            seen = _look(self._path)
            if seen != self._seen or self._error is not None:
                self.marks = parse_revoked(_read(self._path))
                self._report("revoked_loaded", f"{self._path}: {len(self.marks)} entries")
            self._seen, self._error, self.good_until = seen, None, self._clock() + self._max_age
        except (OSError, RevokedFormatError) as error:
            why = error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)
            known, self._error, self.good_until = self._error, why, float("-inf")
            if why != known:
                self._report("revoked_damaged", f"{self._path}: {why}")

    async def run(self) -> None:
        """Read the file again whenever it changes, until cancelled."""
        while self._path is not None:
            await asyncio.to_thread(self.load)
            await asyncio.sleep(self._poll)


def _look(path: Path) -> tuple[int, ...]:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # before opening: opening a pipe would wait for its writer
        raise RevokedFormatError("not a regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > MAX_BYTES:
            raise RevokedFormatError(f"more than {MAX_BYTES} bytes")
        return file.read(MAX_BYTES + 1)
