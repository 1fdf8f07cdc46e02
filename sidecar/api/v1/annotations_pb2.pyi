from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
DATA_FIELD_NUMBER: _ClassVar[int]
data: _descriptor.FieldDescriptor
SUBJECT_ID_FIELD_NUMBER: _ClassVar[int]
subject_id: _descriptor.FieldDescriptor
SUBJECT_COUNTRY_FIELD_NUMBER: _ClassVar[int]
subject_country: _descriptor.FieldDescriptor
RECORD_FIELD_NUMBER: _ClassVar[int]
record: _descriptor.FieldDescriptor
ACCESS_FIELD_NUMBER: _ClassVar[int]
access: _descriptor.FieldDescriptor

class Data(_message.Message):
    __slots__ = ("category", "listed_identifier", "precision_m")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    LISTED_IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    PRECISION_M_FIELD_NUMBER: _ClassVar[int]
    category: str
    listed_identifier: str
    precision_m: int
    def __init__(self, category: _Optional[str] = ..., listed_identifier: _Optional[str] = ..., precision_m: _Optional[int] = ..., **kwargs) -> None: ...

class SubjectId(_message.Message):
    __slots__ = ("kind",)
    KIND_FIELD_NUMBER: _ClassVar[int]
    kind: str
    def __init__(self, kind: _Optional[str] = ...) -> None: ...

class SubjectCountry(_message.Message):
    __slots__ = ("authoritative",)
    AUTHORITATIVE_FIELD_NUMBER: _ClassVar[int]
    authoritative: bool
    def __init__(self, authoritative: _Optional[bool] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Access(_message.Message):
    __slots__ = ("action", "resource", "categories", "subject")
    class Subject(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SUBJECT_UNSPECIFIED: _ClassVar[Access.Subject]
        REQUEST_FIELD: _ClassVar[Access.Subject]
        ANSWER: _ClassVar[Access.Subject]
        CALLER: _ClassVar[Access.Subject]
        NONE: _ClassVar[Access.Subject]
    SUBJECT_UNSPECIFIED: Access.Subject
    REQUEST_FIELD: Access.Subject
    ANSWER: Access.Subject
    CALLER: Access.Subject
    NONE: Access.Subject
    ACTION_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    action: str
    resource: str
    categories: _containers.RepeatedScalarFieldContainer[str]
    subject: Access.Subject
    def __init__(self, action: _Optional[str] = ..., resource: _Optional[str] = ..., categories: _Optional[_Iterable[str]] = ..., subject: _Optional[_Union[Access.Subject, str]] = ...) -> None: ...
