"""Requests for exceptions as files: drafts in the folder of grants, as `sidecar exception request` writes them.

A draft means nothing until two approvers have signed it (`sidecar exception approve`), offline and with keys that no
sidecar has. What has become of one is read off the folder, so it survives restarts and is the same for every worker:

| file | status |
|---|---|
| NAME.draft, NAME.part | pending; `denied` with a NAME.revoked beside it; `expired` after its window |
| NAME.json | approved while it is in force or will be; gone after it; `failed` when it does not hold |
| NAME.cancelled | cancelled: a draft that was taken back |
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from sidecar.exceptions import files, jws
from sidecar.exceptions.grant import TYPE, GrantPayload, checked
from sidecar.exceptions.jws import MAX_OBJECT, SignedObjectError
from sidecar.exceptions.store import REVOKED, Listed

State = Literal["pending", "approved", "denied", "expired", "cancelled", "failed", "gone"]
_DRAFT, _PART, _CANCELLED, _GRANT = ".draft", ".part", ".cancelled", ".json"
_NAME = re.compile(r"EX-[0-9a-z-]{16,64}", re.ASCII)
_MODE = 0o644
_MOST_FILES = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. `signers`: how many say to have signed; `file`: where it stands."""

    state: State
    payload: GrantPayload
    signers: int
    file: Path

    @property
    def id(self) -> str:
        """Of the request, and of the grant that it may become."""
        return self.payload.id


class Grants(Protocol):
    """The grants that were read."""

    def listing(self) -> list[Listed]:
        """One row for each file of the folder, as of the last look."""


class Drafts:
    """The folder. Everything here blocks: call it in a thread."""

    def __init__(self, folder: Path, grants: Grants, *, max_window: float, clock: Callable[[], float]) -> None:
        """`clock` gives unix seconds."""
        self._folder, self._grants, self._max_window, self._clock = folder, grants, max_window, clock

    def writable(self) -> bool:
        """Whether drafts can be put there at all."""
        return os.access(self._folder, os.W_OK | os.X_OK)

    def of(self, name: str) -> Request | None:
        """The request of this id; None when there is none."""
        if not _NAME.fullmatch(name):
            return None
        for suffix in (_GRANT, _CANCELLED, _PART, _DRAFT):  # what was signed all the same is in force
            path = self._folder / f"{name}{suffix}"
            with contextlib.suppress(OSError, SignedObjectError):
                return self._read(path)
        return None

    def pending(self) -> Iterator[Request]:
        """Those that wait for approvers. OverflowError when there are more files than are looked at."""
        with contextlib.suppress(OSError), os.scandir(self._folder) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_FILES:
                    raise OverflowError("the folder of grants is full")
                if entry.name.endswith((_DRAFT, _PART)) and not entry.name.startswith("."):
                    with contextlib.suppress(OSError, SignedObjectError):
                        found = self._read(Path(entry.path))
                        if found.state == "pending":
                            yield found

    def check(self, payload: Mapping[str, object]) -> GrantPayload:
        """The payload, if it could ever be approved. SignedObjectError."""
        typed = jws.decode(msgspec.json.encode(payload), GrantPayload, "request")
        held = checked(typed, (), max_window=self._max_window)
        if self._clock() >= held.expires:
            raise SignedObjectError("its window is over")
        return typed

    def write(self, payload: GrantPayload) -> None:
        """Put a draft there, whole or not at all. OSError; FileExistsError when somebody was faster."""
        document = {"typ": TYPE, "payload": msgspec.to_builtins(payload)}
        path = self._folder / f"{payload.id}{_DRAFT}"
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=f".{path.name}.")
        with contextlib.ExitStack() as stack:
            stack.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
                file.flush()
                os.fchmod(file.fileno(), _MODE)
                os.fsync(file.fileno())
            os.link(name, path)

    def cancel(self, request: Request) -> None:
        """Take a pending request back. OSError when it is not there any more."""
        request.file.rename(self._folder / f"{request.id}{_CANCELLED}")

    def _read(self, path: Path) -> Request:
        data = files.read(path, MAX_OBJECT)
        try:
            draft = msgspec.json.decode(data, type=_Draft)
        except msgspec.DecodeError:
            said, _, names = jws.unverified(data)
            payload, signers = jws.decode(msgspec.json.encode(said), GrantPayload, "payload"), len(names)
        else:
            payload, signers = draft.payload, 0
        if payload.id != path.stem:
            raise SignedObjectError("its file has another name")
        return Request(state=self._state(path, payload), payload=payload, signers=signers, file=path)

    def _state(self, path: Path, payload: GrantPayload) -> State:
        if path.suffix == _CANCELLED:
            return "cancelled"
        if path.suffix == _GRANT:
            states = {one.file: one.state for one in self._grants.listing()}
            return _OF_GRANT.get(states.get(path.name, ""), "pending")
        if (self._folder / f"{payload.id}{REVOKED}").exists():
            return "denied"
        return "expired" if self._clock() >= jws.instant(payload.expires, "expires") else "pending"


class _Draft(msgspec.Struct, forbid_unknown_fields=True):
    typ: Literal["customhouse-exception+json"]
    payload: GrantPayload


_OF_GRANT: Mapping[str, State] = {
    "in_force": "approved", "not_yet": "approved", "expired": "gone", "revoked": "gone", "damaged": "failed",
}  # fmt: skip
