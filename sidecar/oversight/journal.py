"""The store as a producer: its own records (who looked at what, what was erased) go the way of everybody's.

It has a key and a slot, opens a new epoch at each start that names the last record of the one before, and its batches
pass the same checks and the same sequencer as a sidecar's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.oversight.ingest import NONCE_SIZE, Header, RefusedError
from sidecar.oversight.keys import KEY_SIZE
from sidecar.oversight.openings import SUITE, EpochKeys
from sidecar.oversight.periods import rfc3339
from sidecar.oversight.producers import STORE
from sidecar.oversight.storage import Head, Item, Places, Storage
from sidecar.record import (
    EPOCH_KEY_INFO,
    SALT_SIZE,
    EventBody,
    Leaf,
    RecordType,
    batch_message,
    body_digest,
    encode_body,
    encode_digest,
    encode_leaf,
    encode_openings,
    leaf_digest,
    openings_aad,
    subject_ref,
)
from sidecar.tlog.merkle import leaf_hash, root_hash

Details = dict[str, str | int | bool | list[str] | None]
SLOT = 0
_DELAYS = (0.01, 0.05, 0.2)


class Append(Protocol):
    """Checks and commits a batch, as for any producer."""

    def __call__(self, header: Header, signature: bytes, items: Sequence[Item], /) -> Awaitable[Places]:
        """Return where the records stand, once they are durable; raise RefusedError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What the journal takes from outside: the clock, secret randomness, and how a header is written for the wire."""

    now: Callable[[], datetime]
    random: Callable[[int], bytes]
    encode_header: Callable[[Header], bytes]


class Journal:
    """Writes the store's own records, one batch each, in turn."""

    def __init__(
        self, append: Append, private_key: Ed25519PrivateKey, sealing_key: X25519PublicKey, outside: Outside
    ) -> None:
        self._append, self._private, self._sealing, self._outside = append, private_key, sealing_key, outside
        self._turn = asyncio.Lock()
        self._epoch = ""
        self._cipher: AESGCM | None = None
        self._seq = 0
        self._prev: str | None = None
        self._unanswered: tuple[Header, Item] | None = None

    async def open(self, storage: Storage, keys: EpochKeys, about: Details | None = None) -> None:
        """Begin an epoch: its `open` record names the last record of the newest epoch before it.

        `about` says under which rules the store keeps records; it stands there too.
        """
        last = _latest(storage)
        self._epoch = uuid7(self._outside.now(), self._outside.random(10))
        key = self._outside.random(KEY_SIZE)
        self._cipher = AESGCM(key)
        keys.add(STORE, SLOT, self._epoch, SUITE.encrypt(key, self._sealing, EPOCH_KEY_INFO))
        details: Details = {"previous_epoch": None, "previous_seq": None, "previous_hash": None}
        if last is not None and last.last_digest is not None:
            self._prev = encode_digest(last.last_digest)
            details = {"previous_epoch": last.epoch, "previous_seq": last.last_seq, "previous_hash": self._prev}
        await self.write("open", {**(about or {}), **details})

    async def close(self) -> None:
        """End the epoch: nothing more will come under it."""
        await self.write("close", {})

    async def write(self, type_: RecordType, details: Details, openings: Sequence[bytes] = ()) -> Places:
        """Write a record and return when it is durable. Raises RefusedError(unavailable) when it cannot be.

        `openings`: pseudonyms of data subjects whom the record is about. They stand in `details.subject_refs` under
        fresh salts, and are sealed beside the body like those of any record.
        """
        # Shielded: a reviewer who hangs up must not leave a record half-sent and its seq in doubt.
        return await asyncio.shield(asyncio.ensure_future(self._write(type_, details, openings)))

    async def _write(self, type_: RecordType, details: Details, openings: Sequence[bytes]) -> Places:
        async with self._turn:
            if self._unanswered is not None:
                await self._send(*self._unanswered)
            salts = [self._outside.random(SALT_SIZE) for _ in openings]
            if openings:
                refs = [subject_ref(salt, name) for salt, name in zip(salts, openings, strict=True)]
                details = details | {"subject_refs": refs}
            item = self._item(type_, details, list(zip(salts, openings, strict=True)))
            return await self._send(self._header(item), item)

    async def _send(self, header: Header, item: Item) -> Places:
        """Append, a few times if need be.

        Without an answer the record may be stored or not: it stays the next one to be sent, because other bytes under
        its seq would be an equivocation of the store's own.
        """
        self._unanswered = (header, item)
        places = await self._insist(header, self._private.sign(batch_message(header.raw)), item)
        self._unanswered = None
        self._seq += 1
        self._prev = encode_digest(leaf_digest(item.leaf))
        return places

    async def _insist(self, header: Header, signature: bytes, item: Item) -> Places:
        for delay in _DELAYS:
            try:
                return await self._append(header, signature, [item])
            except RefusedError as error:
                if not error.retry:
                    raise
            await asyncio.sleep(delay)
        return await self._append(header, signature, [item])

    def _item(self, type_: RecordType, details: Details, openings: list[tuple[bytes, bytes]]) -> Item:
        body = encode_body(EventBody(type=type_, details=details))
        salt = self._outside.random(SALT_SIZE)
        leaf = Leaf(type=type_, producer=STORE, slot=SLOT, epoch=self._epoch, seq=self._seq, prev=self._prev,
                    time=rfc3339(self._outside.now()), call_id=None,
                    body=encode_digest(body_digest(salt, body)))  # fmt: skip
        nonce = sealed = b""
        if openings and self._cipher is not None:
            nonce = self._outside.random(NONCE_SIZE)
            aad = openings_aad(STORE, SLOT, self._epoch, self._seq)
            sealed = self._cipher.encrypt(nonce, encode_openings(openings), aad)
        return Item(leaf=encode_leaf(leaf), salt=salt, body=body, nonce=nonce, sealed=sealed)

    def _header(self, item: Item) -> Header:
        root = root_hash([leaf_hash(item.leaf)])
        header = Header(raw=b"", producer=STORE, slot=SLOT, epoch=self._epoch, first_seq=self._seq, count=1, root=root,
                        clock=rfc3339(self._outside.now()))  # fmt: skip
        return Header(raw=self._outside.encode_header(header), producer=STORE, slot=SLOT, epoch=self._epoch,
                      first_seq=self._seq, count=1, root=root, clock=header.clock)  # fmt: skip


def uuid7(now: datetime, random: bytes) -> str:
    """A UUIDv7 (RFC 9562 section 5.7) from a time and 10 random bytes, in lower-case text."""
    value = (int(now.timestamp() * 1000) & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    return str(UUID(int=value & ~(0xF << 76) & ~(3 << 62) | 7 << 76 | 2 << 62))


def _latest(storage: Storage) -> Head | None:
    """The newest epoch that has a record."""
    own = [head for head in storage.heads().values() if (head.producer, head.slot) == (STORE, SLOT)]
    return max(own, key=lambda head: head.epoch, default=None)
