"""Period keys: the HMAC keys under which data subjects become pseudonyms.

The store's key service issues them to registered producers over mTLS, two periods ahead. They are kept sealed on disk
(AES-256-GCM under a key derived from the producer's own Ed25519 key), so that a sidecar starts and goes on while the key
service cannot be reached. Without a key for now nothing is recorded, so nothing is permitted.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import grpc
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.api.v1.oversight_pb2_grpc import KeyServiceStub
from sidecar.errors import IntegrityError

KEY_SIZE = 32
AHEAD = 2
REFRESH = timedelta(days=1)
_NONCE_SIZE = 12
_INFO = b"customhouse/period-keys/v1"
_FIRST_RETRY, _LAST_RETRY = 1.0, 300.0


class PeriodKey(NamedTuple):
    """A period's key: valid from `start` inclusive to `until` exclusive (aware, UTC); `key` is 32 bytes."""

    period: str
    start: datetime
    until: datetime
    key: bytes


class PeriodKeyError(ValueError):
    """An answer of the key service that cannot be used. Says why."""


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    period: str
    start: datetime
    until: datetime
    key: bytes


class PeriodKeys:
    """The keys known here. `load` reads the sealed file, `run` keeps them fresh; `current` costs next to nothing.

    `channel` makes a channel to the key service; `now` is the wall clock; `jitter` gives numbers from 0 to 1.
    Gauges: `last_error`, `fetched_at`.
    """

    def __init__(self, *, producer: str, private_key: Ed25519PrivateKey, file: Path,
                 channel: Callable[[], grpc.aio.Channel], now: Callable[[], datetime],
                 jitter: Callable[[], float], timeout: float = 5.0) -> None:  # fmt: skip
        self.last_error = ""
        self.fetched_at: datetime | None = None
        self._producer = producer
        self._file = file
        self._channel = channel
        self._now = now
        self._jitter = jitter
        self._timeout = timeout
        seed = private_key.private_bytes_raw()
        self._seal = AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(seed))
        self._keys: tuple[PeriodKey, ...] = ()
        self._current: PeriodKey | None = None

    def current(self, now: datetime) -> PeriodKey | None:
        """The key of the period that `now` falls in; None when there is none: refuse."""
        key = self._current
        if key is not None and key.start <= now < key.until:
            return key
        self._current = key = next((one for one in self._keys if one.start <= now < one.until), None)
        return key

    def load(self) -> None:
        """Read the sealed file, if there is one. IntegrityError when it was not sealed with this producer's key."""
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return
        try:
            plain = self._seal.decrypt(data[:_NONCE_SIZE], data[_NONCE_SIZE:], self._producer.encode())
            entries = msgspec.json.decode(plain, type=list[_Sealed])
        except (InvalidTag, ValueError, msgspec.DecodeError):
            raise IntegrityError(
                "the period keys do not open with this producer's key",
                where=f"{self._file}, offset 0",
                fix="Restore the file or the producer's key; or delete the file while the key service can be reached",
            ) from None
        self._keys = tuple(PeriodKey(one.period, one.start, one.until, one.key) for one in entries)

    async def refresh(self) -> None:
        """Fetch once and seal what came. grpc.aio.AioRpcError, PeriodKeyError or OSError when that fails."""
        channel = self._channel()
        try:
            stub = KeyServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            answer = await stub.GetPeriodKeys(
                wire.GetPeriodKeysRequest(producer=self._producer), timeout=self._timeout, wait_for_ready=False
            )
        finally:
            await channel.close()
        keys = self._merge(_checked(answer.keys))
        if keys != self._keys:
            await asyncio.to_thread(self._store, keys)
            self._keys = keys
        self.fetched_at = self._now()
        self.last_error = ""

    async def run(self) -> None:
        """Refresh at once, then daily, and sooner while fewer than two periods lie ahead. Runs until cancelled."""
        retry = _FIRST_RETRY
        while True:
            try:
                await self.refresh()
            except (grpc.aio.AioRpcError, PeriodKeyError, OSError) as error:
                detail = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                self.last_error = f"period keys cannot be fetched: {detail}"
                limit = _LAST_RETRY if self.current(self._now()) else _FIRST_RETRY * 5
                wait = retry = min(retry * 2, limit)
            else:
                retry = _FIRST_RETRY
                wait = (REFRESH if self._ahead() >= AHEAD else REFRESH / 24).total_seconds()
            await asyncio.sleep(wait * (0.5 + self._jitter() / 2))

    def _ahead(self) -> int:
        now = self._now()
        return sum(one.start > now for one in self._keys)

    def _merge(self, fetched: Sequence[PeriodKey]) -> tuple[PeriodKey, ...]:
        """Known and fetched keys in order, without periods that are over for a day.

        A period whose key changed would split its subjects in two: PeriodKeyError, and the known keys stay.
        """
        keys = {one.period: one for one in self._keys}
        for one in fetched:
            if keys.setdefault(one.period, one) != one:
                raise PeriodKeyError(f"the key service changed the key or the bounds of period {one.period!r}")
        oldest = self._now() - REFRESH
        return tuple(sorted((one for one in keys.values() if one.until > oldest), key=lambda one: one.start))

    def _store(self, keys: Sequence[PeriodKey]) -> None:
        plain = msgspec.json.encode([_Sealed(*one) for one in keys])
        nonce = os.urandom(_NONCE_SIZE)
        data = nonce + self._seal.encrypt(nonce, plain, self._producer.encode())
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=self._file.name, dir=self._file.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(self._file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _checked(answer: Sequence[wire.PeriodKey]) -> list[PeriodKey]:
    """The keys of an answer; PeriodKeyError unless each is whole and no two overlap."""
    keys = []
    for one in answer:
        try:
            start, until = (datetime.fromisoformat(text).astimezone(UTC) for text in (getattr(one, "from"), one.until))
        except ValueError:
            raise PeriodKeyError(f"period {one.period!r} has no RFC 3339 bounds") from None
        if not one.period or len(one.key) != KEY_SIZE or start >= until:
            raise PeriodKeyError(
                f"period {one.period!r} has no name, no key of {KEY_SIZE} bytes, or ends before it starts"
            )
        keys.append(PeriodKey(one.period, start, until, one.key))
    keys.sort(key=lambda one: one.start)
    for earlier, later in pairwise(keys):
        if later.start < earlier.until:
            raise PeriodKeyError(f"periods {earlier.period!r} and {later.period!r} overlap")
    return keys
