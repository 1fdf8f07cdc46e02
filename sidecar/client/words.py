"""What a caller says to the decision API, and hears: plain frozen data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Category = str
"""One of the categories of data of the policy's vocabulary, such as id_contact."""


@dataclass(frozen=True, slots=True)
class Token:
    """A person's bearer token, without "Bearer"."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AssertedPerson:
    """A person of the directory whose token the caller does not have; the workload must be registered with `asserts`."""

    person: str


Subject = Token | AssertedPerson | None
"""On whose behalf; None: the calling workload acts alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The circumstances, as the caller claims them. Empty: not claimed."""

    purpose: str = ""
    justification: str = ""
    ticket: str = ""
    exception: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class MethodCall:
    """A call of a described gRPC method, "/package.Service/Method", with its request message as bytes.

    `checked`: every answer is asked about (`release`) before it is released. No message: the opening of a stream.
    """

    method: str
    message: bytes | None
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Entity:
    """An action on things of a described type. No ids: some of the type.

    `checked`: whatever shows in the answer is asked about (`show`) before it is released.
    """

    type: str
    action: str
    ids: Sequence[str] = ()
    checked: bool = False


Question = MethodCall | Entity


@dataclass(frozen=True, slots=True)
class RedactFields:
    """Clear every field of these categories, or named by full path."""

    categories: tuple[Category, ...] = ()
    fields: tuple[str, ...] = ()
    name = "redact_fields"


@dataclass(frozen=True, slots=True)
class MaskFields:
    """Leave only the last four characters of every such field."""

    categories: tuple[Category, ...] = ()
    fields: tuple[str, ...] = ()
    name = "mask_fields"


@dataclass(frozen=True, slots=True)
class DropRecords:
    """Remove every record of a data subject of this class. `ids`: those of the question that are of it."""

    subjects: Literal["us", "unknown"]
    ids: tuple[str, ...] = ()
    name = "drop_records"


@dataclass(frozen=True, slots=True)
class LimitRecords:
    """Release at most so many records in the whole call."""

    most: int
    name = "limit_records"


Obligation = RedactFields | MaskFields | DropRecords | LimitRecords
OBLIGATIONS = frozenset({RedactFields.name, MaskFields.name, DropRecords.name, LimitRecords.name})
"""All there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """It may be done, if all `obligations` are met, until `expires_at` (unix seconds of the sidecar's clock).

    `forward`: of a method, the request message to send on, and `metadata` to send with it. `release`: of an answer, what
    of it may be released; None where nothing may. How it ended has to be reported until `report_by`.
    """

    call_id: str
    obligations: tuple[Obligation, ...]
    forward: bytes | None
    release: bytes | None
    metadata: Mapping[str, str]
    expires_at: float
    report_by: float

    def __bool__(self) -> bool:
        """A permit is true, a denial is not."""
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """It may not be done. `reasons`: codes of the sidecar's, weightiest first; of the client's own, see `why`.

    `why`: "policy" (a deny), "indeterminate" (not decided or recorded), "obligation" (one the caller did not say it
    meets), "expired" (the permit has ended meanwhile), "unintelligible" (an answer that this client cannot read),
    "unreachable" (no answer), "misuse" (the sidecar could not understand the request). `code` is a gRPC status code; `retry_after` seconds, where asking again may help.
    """

    why: Literal["policy", "indeterminate", "obligation", "expired", "unintelligible", "unreachable", "misuse"]
    message: str
    code: int
    reasons: tuple[str, ...] = ()
    call_id: str = ""
    retry_after: float | None = None

    def __bool__(self) -> bool:
        """A permit is true, a denial is not."""
        return False


class DeniedError(Exception):
    """Raised where a permit was needed. `denied` says why."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(f"{denied.why}: {denied.message}")
        self.denied = denied


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Records that left, and in how many of them data of each category did."""

    records: int = 0
    by_category: Mapping[Category, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a permitted call ended. `code` is a gRPC status code; `met`: each obligation by name."""

    code: int = 0
    messages_in: int = 0
    messages_out: int = 0
    us: Released = field(default_factory=Released)
    non_us: Released = field(default_factory=Released)
    unknown: Released = field(default_factory=Released)
    dropped: int = 0
    redacted: Mapping[Category, int] = field(default_factory=dict)
    bytes_out: int = 0
    met: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What became of a report: recorded, or why not (a gRPC status code and a message)."""

    call_id: str
    recorded: bool
    code: int = 0
    message: str = ""
