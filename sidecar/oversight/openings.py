"""Takes openings over from the log's database to the key database, after the commit, so that ingest never waits.

A record's openings came sealed under its epoch's key, which came sealed to the store. They are opened, compared with
the references in the record's body, put under one key for each subject, and removed from where they were in transit.

What a crash means: the key database moves its cursor in the commit that takes the openings over, and openings below the
cursor are never taken over again. So a crash before that commit repeats the step, a crash after it only leaves rows to
remove, and a subject who was erased in between does not come back.
"""

from collections.abc import Callable, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.oversight.ingest import RefusedError
from sidecar.oversight.keys import KEY_SIZE, KeyVault, OpenedRecord
from sidecar.oversight.storage import Discovery, Sealed, Storage
from sidecar.record import (
    EPOCH_KEY_INFO,
    Leaf,
    RecordFormatError,
    openings_aad,
    parse_leaf,
    parse_openings,
    subject_ref,
)

SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
MOST_EPOCH_KEYS = 8
"""Different record keys of one epoch. One is normal; a bound keeps an Open from filling the disk."""
_KNOWN_EPOCHS = 1024


class EpochKeys:
    """Sealed epoch keys: checks them when they come and opens them when they are needed."""

    def __init__(self, storage: Storage, sealing_keys: Sequence[X25519PrivateKey]) -> None:
        """`sealing_keys`: the current one first, then retired ones to which old epochs may still be sealed."""
        self._storage, self._sealing_keys = storage, sealing_keys
        self._opened: dict[tuple[str, int, str], list[AESGCM]] = {}

    def add(self, producer: str, slot: int, epoch: str, sealed: bytes) -> None:
        """Keep an epoch's sealed key. RefusedError(bad_batch) if it does not open: no opening under it ever would."""
        key = self._open(sealed)
        if key is None:
            raise RefusedError("bad_batch", "sealed_epoch_key does not open with this store's sealing key")
        known = self._storage.epoch_keys(producer, slot, epoch)
        # Sealing is randomised: the same key may come in other bytes each time.
        if key in [self._open(one) for one in known]:
            return
        if len(known) >= MOST_EPOCH_KEYS:
            raise RefusedError("bad_batch", f"an epoch has at most {MOST_EPOCH_KEYS} record keys")
        self._storage.add_epoch_key(producer, slot, epoch, sealed)
        self._opened.pop((producer, slot, epoch), None)

    def of(self, producer: str, slot: int, epoch: str) -> list[AESGCM]:
        """The epoch's record keys."""
        name = (producer, slot, epoch)
        if name not in self._opened:
            keys = [self._open(sealed) for sealed in self._storage.epoch_keys(producer, slot, epoch)]
            if len(self._opened) >= _KNOWN_EPOCHS:
                self._opened.clear()
            self._opened[name] = [AESGCM(key) for key in keys if key is not None]
        return self._opened[name]

    def _open(self, sealed: bytes) -> bytes | None:
        for private in self._sealing_keys:
            try:
                key = SUITE.decrypt(sealed, private, EPOCH_KEY_INFO)
            except InvalidTag:
                continue
            return key if len(key) == KEY_SIZE else None
        return None


class _Ref(msgspec.Struct, frozen=True):
    ref: str


class _Named(msgspec.Struct, frozen=True):
    """Where a body names data subjects: `subjects` of a decision, `details.subject_refs` of the store's own records."""

    subjects: list[_Ref] = []
    details: dict[str, object] = {}


_named = msgspec.json.Decoder(_Named)


def subject_refs(body: bytes) -> list[str]:
    """The references in a body, in order. RecordFormatError if it cannot be read."""
    try:
        named = _named.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordFormatError(f"body: {error}") from None
    refs = named.details.get("subject_refs")
    return [one.ref for one in named.subjects] + ([str(one) for one in refs] if isinstance(refs, list) else [])


class Opener:
    """Moves openings. One thread at a time."""

    def __init__(self, storage: Storage, vault: KeyVault, keys: EpochKeys, timestamp: Callable[[], str]) -> None:
        self._storage, self._vault, self._keys, self._timestamp = storage, vault, keys, timestamp
        self._cleared = False

    def step(self, limit: int = 1024) -> int:
        """Take over up to `limit` records' openings; return of how many. 0: nothing is in transit."""
        cursor = self._vault.cursor()
        if not self._cleared:
            self._storage.drop_sealed(cursor)
            self._cleared = True
        rows = self._storage.sealed_from(cursor, limit)
        if not rows:
            return 0
        opened: list[OpenedRecord] = []
        failures: list[Discovery] = []
        for row in rows:
            leaf = parse_leaf(row.leaf)
            try:
                opened.append(OpenedRecord(index=row.index, openings=tuple(self._opened(row, leaf))))
            except RecordFormatError as error:
                failures.append(
                    Discovery(kind="bad_openings", stream=row.stream, seq=leaf.seq, index=row.index,
                              detail=str(error)[:200], since=self._timestamp())
                )  # fmt: skip
        end = rows[-1].index + 1
        if failures:
            self._storage.discover(failures)
        self._vault.take_over(opened, end)
        self._storage.drop_sealed(end)
        return len(rows)

    def _opened(self, row: Sealed, leaf: Leaf) -> list[tuple[bytes, bytes]]:
        plain = self._decrypt(row, leaf)
        openings = parse_openings(plain)
        refs = subject_refs(row.body)
        if refs != [subject_ref(salt, name) for salt, name in openings]:
            raise RecordFormatError("the openings are not those of the body's subjects")
        return openings

    def _decrypt(self, row: Sealed, leaf: Leaf) -> bytes:
        aad = openings_aad(leaf.producer, leaf.slot, leaf.epoch, leaf.seq)
        for key in self._keys.of(leaf.producer, leaf.slot, leaf.epoch):
            try:
                return key.decrypt(row.nonce, row.sealed, aad)
            except InvalidTag:
                continue
        raise RecordFormatError("the openings do not open under the epoch's key")
