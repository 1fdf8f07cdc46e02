import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_REQUEST: _ClassVar[Phase]
    PHASE_RESPONSE: _ClassVar[Phase]

class Answers(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ANSWERS_UNSPECIFIED: _ClassVar[Answers]
    ANSWERS_UNSEEN: _ClassVar[Answers]
    ANSWERS_CHECKED: _ClassVar[Answers]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_PERMIT: _ClassVar[Decision]
    DECISION_DENY: _ClassVar[Decision]
    DECISION_INDETERMINATE: _ClassVar[Decision]

class SubjectClass(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBJECT_CLASS_UNSPECIFIED: _ClassVar[SubjectClass]
    SUBJECT_CLASS_US: _ClassVar[SubjectClass]
    SUBJECT_CLASS_UNKNOWN: _ClassVar[SubjectClass]
PHASE_UNSPECIFIED: Phase
PHASE_REQUEST: Phase
PHASE_RESPONSE: Phase
ANSWERS_UNSPECIFIED: Answers
ANSWERS_UNSEEN: Answers
ANSWERS_CHECKED: Answers
DECISION_UNSPECIFIED: Decision
DECISION_PERMIT: Decision
DECISION_DENY: Decision
DECISION_INDETERMINATE: Decision
SUBJECT_CLASS_UNSPECIFIED: SubjectClass
SUBJECT_CLASS_US: SubjectClass
SUBJECT_CLASS_UNKNOWN: SubjectClass

class Subject(_message.Message):
    __slots__ = ("token", "asserted_person")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ASSERTED_PERSON_FIELD_NUMBER: _ClassVar[int]
    token: str
    asserted_person: str
    def __init__(self, token: _Optional[str] = ..., asserted_person: _Optional[str] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("purpose", "justification", "ticket", "exception", "traceparent")
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    JUSTIFICATION_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    purpose: str
    justification: str
    ticket: str
    exception: str
    traceparent: str
    def __init__(self, purpose: _Optional[str] = ..., justification: _Optional[str] = ..., ticket: _Optional[str] = ..., exception: _Optional[str] = ..., traceparent: _Optional[str] = ...) -> None: ...

class MethodCall(_message.Message):
    __slots__ = ("method", "message")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    method: str
    message: bytes
    def __init__(self, method: _Optional[str] = ..., message: _Optional[bytes] = ...) -> None: ...

class Entity(_message.Message):
    __slots__ = ("type", "action", "ids")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    type: str
    action: str
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, type: _Optional[str] = ..., action: _Optional[str] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("call", "entity", "phase", "answers", "call_id")
    CALL_FIELD_NUMBER: _ClassVar[int]
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    call: MethodCall
    entity: Entity
    phase: Phase
    answers: Answers
    call_id: str
    def __init__(self, call: _Optional[_Union[MethodCall, _Mapping]] = ..., entity: _Optional[_Union[Entity, _Mapping]] = ..., phase: _Optional[_Union[Phase, str]] = ..., answers: _Optional[_Union[Answers, str]] = ..., call_id: _Optional[str] = ...) -> None: ...

class CheckRequest(_message.Message):
    __slots__ = ("subject", "context", "question")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    context: Context
    question: Question
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., question: _Optional[_Union[Question, _Mapping]] = ...) -> None: ...

class CheckResponse(_message.Message):
    __slots__ = ("decision", "call_id", "reasons", "code", "message", "policy_revision", "retry_after", "obligations", "forward", "release", "withheld", "metadata", "expires_at", "report_by")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DECISION_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    POLICY_REVISION_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    OBLIGATIONS_FIELD_NUMBER: _ClassVar[int]
    FORWARD_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REPORT_BY_FIELD_NUMBER: _ClassVar[int]
    decision: Decision
    call_id: str
    reasons: _containers.RepeatedScalarFieldContainer[str]
    code: int
    message: str
    policy_revision: str
    retry_after: _duration_pb2.Duration
    obligations: _containers.RepeatedCompositeFieldContainer[Obligation]
    forward: bytes
    release: bytes
    withheld: bool
    metadata: _containers.ScalarMap[str, str]
    expires_at: _timestamp_pb2.Timestamp
    report_by: _timestamp_pb2.Timestamp
    def __init__(self, decision: _Optional[_Union[Decision, str]] = ..., call_id: _Optional[str] = ..., reasons: _Optional[_Iterable[str]] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., policy_revision: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., obligations: _Optional[_Iterable[_Union[Obligation, _Mapping]]] = ..., forward: _Optional[bytes] = ..., release: _Optional[bytes] = ..., withheld: _Optional[bool] = ..., metadata: _Optional[_Mapping[str, str]] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., report_by: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Obligation(_message.Message):
    __slots__ = ("redact_fields", "mask_fields", "drop_records", "limit_records")
    REDACT_FIELDS_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELDS_FIELD_NUMBER: _ClassVar[int]
    DROP_RECORDS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_RECORDS_FIELD_NUMBER: _ClassVar[int]
    redact_fields: RedactFields
    mask_fields: MaskFields
    drop_records: DropRecords
    limit_records: LimitRecords
    def __init__(self, redact_fields: _Optional[_Union[RedactFields, _Mapping]] = ..., mask_fields: _Optional[_Union[MaskFields, _Mapping]] = ..., drop_records: _Optional[_Union[DropRecords, _Mapping]] = ..., limit_records: _Optional[_Union[LimitRecords, _Mapping]] = ...) -> None: ...

class RedactFields(_message.Message):
    __slots__ = ("categories", "fields")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedScalarFieldContainer[str]
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, categories: _Optional[_Iterable[str]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class MaskFields(_message.Message):
    __slots__ = ("categories", "fields")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    categories: _containers.RepeatedScalarFieldContainer[str]
    fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, categories: _Optional[_Iterable[str]] = ..., fields: _Optional[_Iterable[str]] = ...) -> None: ...

class DropRecords(_message.Message):
    __slots__ = ("subjects", "ids")
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    subjects: SubjectClass
    ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, subjects: _Optional[_Union[SubjectClass, str]] = ..., ids: _Optional[_Iterable[str]] = ...) -> None: ...

class LimitRecords(_message.Message):
    __slots__ = ("max",)
    MAX_FIELD_NUMBER: _ClassVar[int]
    max: int
    def __init__(self, max: _Optional[int] = ...) -> None: ...

class BatchCheckRequest(_message.Message):
    __slots__ = ("subject", "context", "items")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    subject: Subject
    context: Context
    items: _containers.RepeatedCompositeFieldContainer[BatchItem]
    def __init__(self, subject: _Optional[_Union[Subject, _Mapping]] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., items: _Optional[_Iterable[_Union[BatchItem, _Mapping]]] = ...) -> None: ...

class BatchItem(_message.Message):
    __slots__ = ("id", "question")
    ID_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    question: Question
    def __init__(self, id: _Optional[str] = ..., question: _Optional[_Union[Question, _Mapping]] = ...) -> None: ...

class BatchCheckResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchResult, _Mapping]]] = ...) -> None: ...

class BatchResult(_message.Message):
    __slots__ = ("id", "response")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: CheckResponse
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[CheckResponse, _Mapping]] = ...) -> None: ...

class CheckStreamRequest(_message.Message):
    __slots__ = ("id", "check", "report")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    id: str
    check: CheckRequest
    report: Outcome
    def __init__(self, id: _Optional[str] = ..., check: _Optional[_Union[CheckRequest, _Mapping]] = ..., report: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class CheckStreamResponse(_message.Message):
    __slots__ = ("id", "check", "reported")
    ID_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    REPORTED_FIELD_NUMBER: _ClassVar[int]
    id: str
    check: CheckResponse
    reported: Reported
    def __init__(self, id: _Optional[str] = ..., check: _Optional[_Union[CheckResponse, _Mapping]] = ..., reported: _Optional[_Union[Reported, _Mapping]] = ...) -> None: ...

class ReportOutcomeRequest(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class ReportOutcomeResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[Reported]
    def __init__(self, results: _Optional[_Iterable[_Union[Reported, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("call_id", "code", "messages_in", "messages_out", "us", "non_us", "unknown", "dropped", "redacted", "bytes_out", "met")
    class RedactedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class MetEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bool
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bool] = ...) -> None: ...
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_IN_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_OUT_FIELD_NUMBER: _ClassVar[int]
    US_FIELD_NUMBER: _ClassVar[int]
    NON_US_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    REDACTED_FIELD_NUMBER: _ClassVar[int]
    BYTES_OUT_FIELD_NUMBER: _ClassVar[int]
    MET_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    code: int
    messages_in: int
    messages_out: int
    us: Released
    non_us: Released
    unknown: Released
    dropped: int
    redacted: _containers.ScalarMap[str, int]
    bytes_out: int
    met: _containers.ScalarMap[str, bool]
    def __init__(self, call_id: _Optional[str] = ..., code: _Optional[int] = ..., messages_in: _Optional[int] = ..., messages_out: _Optional[int] = ..., us: _Optional[_Union[Released, _Mapping]] = ..., non_us: _Optional[_Union[Released, _Mapping]] = ..., unknown: _Optional[_Union[Released, _Mapping]] = ..., dropped: _Optional[int] = ..., redacted: _Optional[_Mapping[str, int]] = ..., bytes_out: _Optional[int] = ..., met: _Optional[_Mapping[str, bool]] = ...) -> None: ...

class Released(_message.Message):
    __slots__ = ("records", "by_category")
    class ByCategoryEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    BY_CATEGORY_FIELD_NUMBER: _ClassVar[int]
    records: int
    by_category: _containers.ScalarMap[str, int]
    def __init__(self, records: _Optional[int] = ..., by_category: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Reported(_message.Message):
    __slots__ = ("call_id", "code", "message")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    code: int
    message: str
    def __init__(self, call_id: _Optional[str] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...
