from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AppendRequest(_message.Message):
    __slots__ = ("open", "batch")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    open: Open
    batch: Batch
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("producer", "slot", "epoch", "sealed_epoch_key", "receipts_from")
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEALED_EPOCH_KEY_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FROM_FIELD_NUMBER: _ClassVar[int]
    producer: str
    slot: int
    epoch: str
    sealed_epoch_key: bytes
    receipts_from: int
    def __init__(self, producer: _Optional[str] = ..., slot: _Optional[int] = ..., epoch: _Optional[str] = ..., sealed_epoch_key: _Optional[bytes] = ..., receipts_from: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("header", "signature", "items")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    signature: bytes
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, header: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class BatchHeader(_message.Message):
    __slots__ = ("producer", "slot", "epoch", "first_seq", "count", "root", "clock")
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    producer: str
    slot: int
    epoch: str
    first_seq: int
    count: int
    root: bytes
    clock: str
    def __init__(self, producer: _Optional[str] = ..., slot: _Optional[int] = ..., epoch: _Optional[str] = ..., first_seq: _Optional[int] = ..., count: _Optional[int] = ..., root: _Optional[bytes] = ..., clock: _Optional[str] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("leaf", "salt", "body", "nonce", "sealed_openings")
    LEAF_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    SEALED_OPENINGS_FIELD_NUMBER: _ClassVar[int]
    leaf: bytes
    salt: bytes
    body: bytes
    nonce: bytes
    sealed_openings: bytes
    def __init__(self, leaf: _Optional[bytes] = ..., salt: _Optional[bytes] = ..., body: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., sealed_openings: _Optional[bytes] = ...) -> None: ...

class AppendResponse(_message.Message):
    __slots__ = ("accepted", "receipt", "rejected")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    receipt: Receipt
    rejected: Rejected
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("epoch", "slot", "first_seq", "count", "first_index")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    slot: int
    first_seq: int
    count: int
    first_index: int
    def __init__(self, epoch: _Optional[str] = ..., slot: _Optional[int] = ..., first_seq: _Optional[int] = ..., count: _Optional[int] = ..., first_index: _Optional[int] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("ranges", "promise", "signature")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    promise: bytes
    signature: bytes
    def __init__(self, ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., promise: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Promise(_message.Message):
    __slots__ = ("ranges", "merge_by", "origin")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    MERGE_BY_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    merge_by: str
    origin: str
    def __init__(self, ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., merge_by: _Optional[str] = ..., origin: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("range", "checkpoint", "proof")
    RANGE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    range: Range
    checkpoint: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, range: _Optional[_Union[Range, _Mapping]] = ..., checkpoint: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("code", "message", "first_seq", "retry")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    first_seq: int
    retry: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., first_seq: _Optional[int] = ..., retry: _Optional[bool] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("person", "reason", "effect", "since", "until", "trace", "producer", "call_id", "subject", "subject_kind", "type", "cursor", "limit", "service", "category", "seen")
    PERSON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_KIND_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    person: str
    reason: str
    effect: str
    since: str
    until: str
    trace: str
    producer: str
    call_id: str
    subject: str
    subject_kind: str
    type: str
    cursor: str
    limit: int
    service: str
    category: str
    seen: str
    def __init__(self, person: _Optional[str] = ..., reason: _Optional[str] = ..., effect: _Optional[str] = ..., since: _Optional[str] = ..., until: _Optional[str] = ..., trace: _Optional[str] = ..., producer: _Optional[str] = ..., call_id: _Optional[str] = ..., subject: _Optional[str] = ..., subject_kind: _Optional[str] = ..., type: _Optional[str] = ..., cursor: _Optional[str] = ..., limit: _Optional[int] = ..., service: _Optional[str] = ..., category: _Optional[str] = ..., seen: _Optional[str] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("records", "next_cursor", "searched_to", "published")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    NEXT_CURSOR_FIELD_NUMBER: _ClassVar[int]
    SEARCHED_TO_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[StoredRecord]
    next_cursor: str
    searched_to: int
    published: int
    def __init__(self, records: _Optional[_Iterable[_Union[StoredRecord, _Mapping]]] = ..., next_cursor: _Optional[str] = ..., searched_to: _Optional[int] = ..., published: _Optional[int] = ...) -> None: ...

class StoredRecord(_message.Message):
    __slots__ = ("index", "leaf", "salt", "body", "attested", "standing")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LEAF_FIELD_NUMBER: _ClassVar[int]
    SALT_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    ATTESTED_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    index: int
    leaf: bytes
    salt: bytes
    body: bytes
    attested: bool
    standing: str
    def __init__(self, index: _Optional[int] = ..., leaf: _Optional[bytes] = ..., salt: _Optional[bytes] = ..., body: _Optional[bytes] = ..., attested: _Optional[bool] = ..., standing: _Optional[str] = ...) -> None: ...

class ProveRequest(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class ProveResponse(_message.Message):
    __slots__ = ("record", "proof")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    record: StoredRecord
    proof: str
    def __init__(self, record: _Optional[_Union[StoredRecord, _Mapping]] = ..., proof: _Optional[str] = ...) -> None: ...

class ProveConsistencyRequest(_message.Message):
    __slots__ = ("old_size", "new_size")
    OLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    NEW_SIZE_FIELD_NUMBER: _ClassVar[int]
    old_size: int
    new_size: int
    def __init__(self, old_size: _Optional[int] = ..., new_size: _Optional[int] = ...) -> None: ...

class ProveConsistencyResponse(_message.Message):
    __slots__ = ("hashes",)
    HASHES_FIELD_NUMBER: _ClassVar[int]
    hashes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, hashes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class GetCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCheckpointResponse(_message.Message):
    __slots__ = ("checkpoint",)
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    checkpoint: bytes
    def __init__(self, checkpoint: _Optional[bytes] = ...) -> None: ...

class GetCompletenessRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetCompletenessResponse(_message.Message):
    __slots__ = ("findings", "tree_size", "committed")
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    TREE_SIZE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    tree_size: int
    committed: int
    def __init__(self, findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ..., tree_size: _Optional[int] = ..., committed: _Optional[int] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("kind", "producer", "slot", "epoch", "first_seq", "count", "since")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    producer: str
    slot: int
    epoch: str
    first_seq: int
    count: int
    since: str
    def __init__(self, kind: _Optional[str] = ..., producer: _Optional[str] = ..., slot: _Optional[int] = ..., epoch: _Optional[str] = ..., first_seq: _Optional[int] = ..., count: _Optional[int] = ..., since: _Optional[str] = ...) -> None: ...

class GetPeriodKeysRequest(_message.Message):
    __slots__ = ("producer",)
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    producer: str
    def __init__(self, producer: _Optional[str] = ...) -> None: ...

class GetPeriodKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[PeriodKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[PeriodKey, _Mapping]]] = ...) -> None: ...

class PeriodKey(_message.Message):
    __slots__ = ("period", "until", "key")
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    FROM_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    period: str
    until: str
    key: bytes
    def __init__(self, period: _Optional[str] = ..., until: _Optional[str] = ..., key: _Optional[bytes] = ..., **kwargs) -> None: ...

class GetSealingKeyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetSealingKeyResponse(_message.Message):
    __slots__ = ("public_key",)
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    def __init__(self, public_key: _Optional[bytes] = ...) -> None: ...
