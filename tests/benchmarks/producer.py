"""Records as a busy sidecar writes them: a decision that names one data subject and an outcome for each call.

Chained, committed to and signed as the store demands, made from templates so that making them holds nothing back.
"""

import datetime as dt
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.decision.folder import load_folder
from sidecar.oversight.ingest import Header
from sidecar.oversight.journal import uuid7
from sidecar.oversight.openings import SUITE
from sidecar.oversight.wire import encode_header
from sidecar.record import (
    EPOCH_KEY_INFO,
    MAX_BATCH,
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
from sidecar.vocabulary import canonical
from tests.benchmarks.deployment import POLICIES

PEOPLE = 5000
_DECISION = (
    '{"v":1,"call_id":"%s","type":"decision","phase":"response","service":"sidecar.demo.profiles.v1.Profiles",'
    '"method":"GetProfile","door":"proxy","trace":{"trace_id":"%s","span_id":"%s","from":"caller"},'
    '"policy":{"revision":"sha256:%s","signers":[]},"directory":"%s","index":"%s","input":%s,'
    '"decision":{"effect":"%s","reasons":[{"code":"%s","message":"a sentence about the rule","rule":"sidecar.rule"}],'
    '"obligations":[{"id":"redact_fields","categories":["id_government"]}],"advice":[],"ttl_seconds":60},'
    '"subjects":[{"class":"us","ref":"%s","period":"2026-11-03"}],"obligations":[{"id":"redact_fields","met":true}],'
    '"level":"committed","engine":"embedded","eval_us":61,"part":1,"parts":1}'
)
_OUTCOME = (
    '{"v":1,"call_id":"%s","type":"outcome","status":"OK","messages":{"in":1,"out":1},'
    '"released":{"us":{"records":1,"by_category":{"id_contact":1,"public":1}},"non_us":{"records":0,"by_category":{}},'
    '"unknown":{"records":0,"by_category":{}}},"dropped":0,"redacted":{"id_government":1},"bytes_out":180,'
    '"duration_ms":1.25,"complete":true}'
)
_START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
_DENIED = 20
"""One decision in so many is a deny."""
REASONS = ("permitted", "not_us_personnel")


@dataclass(slots=True)
class Made:
    """A batch as it is sent, and of some of its records what they can be found by."""

    message: pb.AppendRequest
    count: int
    call_id: str
    trace: str
    time: str


@dataclass(slots=True)
class Producer:
    """One epoch of one producer. A millisecond passes from call to call."""

    name: str = "bench"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    epoch: str = field(default_factory=lambda: uuid7(_START, secrets.token_bytes(10)))
    epoch_key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _seq: int = 0
    _prev: str | None = None

    def open(self, store_key: object) -> pb.AppendRequest:
        """The request before the first batch."""
        sealed = SUITE.encrypt(self.epoch_key, store_key, EPOCH_KEY_INFO)
        return pb.AppendRequest(
            open=pb.Open(producer=self.name, slot=0, epoch=self.epoch, sealed_epoch_key=sealed, receipts_from=0)
        )

    def batches(self, records: int) -> Iterator[Made]:
        """An `open`, then so many records, or a few less, in full batches."""
        begun = encode_body(EventBody(type="open", details={}))
        yield self._signed(
            [self._item("open", f"{_START:%Y-%m-%dT%H:%M:%S.000000Z}", None, begun, bytes(32))], "", "", ""
        )
        people = [f"colleague-{number:04d}" for number in range(PEOPLE)]
        question = canonical(load_folder(POLICIES).corpus[0]).decode()
        questions = [question.replace('"alice"', f'"{name}"', 1) for name in people]
        subjects = [(secrets.token_bytes(32), secrets.token_bytes(32)) for _ in range(PEOPLE)]
        refs = [(subject_ref(*pair), encode_openings([pair])) for pair in subjects]
        cipher, hashes = AESGCM(self.epoch_key), [secrets.token_hex(32) for _ in range(3)]
        for batch in range(records // MAX_BATCH):
            items: list[pb.Item] = []
            random, call, stamp, trace = os.urandom(76 * MAX_BATCH), "", "", ""
            for place in range(MAX_BATCH):
                part = random[76 * place : 76 * place + 76]
                number = (batch * MAX_BATCH + place) // 2
                if place % 2:
                    items.append(self._item("outcome", stamp, call, (_OUTCOME % call).encode(), part[:32]))
                    continue
                at = _START + dt.timedelta(milliseconds=number)
                stamp, trace = at.isoformat(timespec="microseconds")[:26] + "Z", part[44:60].hex()
                call = uuid7(at, part[32:42])
                denied, (ref, opening) = number % _DENIED == 0, refs[number % PEOPLE]
                effect, reason = ("deny", REASONS[1]) if denied else ("permit", REASONS[0])
                body = _DECISION % (
                    call,
                    trace,
                    part[60:68].hex(),
                    *hashes,
                    questions[(number * 7) % PEOPLE],
                    effect,
                    reason,
                    ref,
                )
                nonce = part[64:76]
                aad = openings_aad(self.name, 0, self.epoch, self._seq)
                sealed = cipher.encrypt(nonce, opening, aad)
                items.append(self._item("decision", stamp, call, body.encode(), part[:32], nonce, sealed))
            yield self._signed(items, call, trace, stamp)

    def _item(
        self, kind: RecordType, stamp: str, call: str | None, body: bytes, salt: bytes, nonce: bytes = b"",
        sealed: bytes = b"",
    ) -> pb.Item:  # fmt: skip
        leaf = encode_leaf(
            Leaf(type=kind, producer=self.name, slot=0, epoch=self.epoch, seq=self._seq, prev=self._prev, time=stamp,
                 call_id=call, body=encode_digest(body_digest(salt, body)))
        )  # fmt: skip
        self._seq += 1
        self._prev = encode_digest(leaf_digest(leaf))
        return pb.Item(leaf=leaf, salt=salt, body=body, nonce=nonce, sealed_openings=sealed)

    def _signed(self, items: list[pb.Item], call: str, trace: str, stamp: str) -> Made:
        root = root_hash([leaf_hash(item.leaf) for item in items])
        header = encode_header(
            Header(raw=b"", producer=self.name, slot=0, epoch=self.epoch, first_seq=self._seq - len(items),
                   count=len(items), root=root, clock=stamp)
        )  # fmt: skip
        signature = self.key.sign(batch_message(header))
        message = pb.AppendRequest(batch=pb.Batch(header=header, signature=signature, items=items))
        return Made(message, len(items), call, trace, stamp)
