from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SeenData(_message.Message):
    __slots__ = ("categories", "listed")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedScalarFieldContainer[str]
    listed: _containers.RepeatedCompositeFieldContainer[SeenIdentifiers]
    def __init__(self, categories: _Optional[_Iterable[str]] = ..., listed: _Optional[_Iterable[_Union[SeenIdentifiers, _Mapping]]] = ...) -> None: ...

class SeenIdentifiers(_message.Message):
    __slots__ = ("letter", "count")
    LETTER_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    letter: str
    count: int
    def __init__(self, letter: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class SeenSubject(_message.Message):
    __slots__ = ("kind", "id", "seen", "devices")
    KIND_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    kind: str
    id: str
    seen: int
    devices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[str] = ..., id: _Optional[str] = ..., seen: _Optional[int] = ..., devices: _Optional[_Iterable[str]] = ...) -> None: ...

class ReserveRequest(_message.Message):
    __slots__ = ("call_id", "sequence", "group", "source", "seen", "items")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    sequence: int
    group: str
    source: str
    seen: _containers.RepeatedCompositeFieldContainer[SeenData]
    items: _containers.RepeatedCompositeFieldContainer[SeenSubject]
    def __init__(self, call_id: _Optional[str] = ..., sequence: _Optional[int] = ..., group: _Optional[str] = ..., source: _Optional[str] = ..., seen: _Optional[_Iterable[_Union[SeenData, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[SeenSubject, _Mapping]]] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("call_id", "sequences", "everything", "groups", "source", "seen", "items", "released_at")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    RELEASED_AT_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    sequences: _containers.RepeatedScalarFieldContainer[int]
    everything: bool
    groups: _containers.RepeatedScalarFieldContainer[str]
    source: str
    seen: _containers.RepeatedCompositeFieldContainer[SeenData]
    items: _containers.RepeatedCompositeFieldContainer[SeenSubject]
    released_at: float
    def __init__(self, call_id: _Optional[str] = ..., sequences: _Optional[_Iterable[int]] = ..., everything: _Optional[bool] = ..., groups: _Optional[_Iterable[str]] = ..., source: _Optional[str] = ..., seen: _Optional[_Iterable[_Union[SeenData, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[SeenSubject, _Mapping]]] = ..., released_at: _Optional[float] = ...) -> None: ...

class SettleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PeekRequest(_message.Message):
    __slots__ = ("group",)
    GROUP_FIELD_NUMBER: _ClassVar[int]
    group: str
    def __init__(self, group: _Optional[str] = ...) -> None: ...

class LedgerExposure(_message.Message):
    __slots__ = ("counts",)
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    counts: _containers.ScalarMap[str, int]
    def __init__(self, counts: _Optional[_Mapping[str, int]] = ...) -> None: ...
