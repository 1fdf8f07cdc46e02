"""One error class per stage of a call, and the errors of the command line.

A *deny* is a value (`vocabulary.Decision`), never an exception. What is raised here is a stage that could not do
its work; the pipeline turns it into a refusal, records it and counts it under `stage` and `reason`.
"""

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """gRPC status codes (grpc/grpc doc/statuscodes.md), by number, so that the core needs no grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StageError(Exception):
    """A stage refused or failed.

    `message` goes to the caller: it never holds rule text, another person's data or a path of the host.
    `operator` goes to the operator's log: what happened here and what to do about it.
    `reason` is one of `vocabulary.ReasonCode`, or None where the table of stages names only a status.
    """

    stage: ClassVar[str] = ""
    default: ClassVar[Code] = Code.UNAVAILABLE

    def __init__(
        self, message: str, *, reason: str | None = None, code: Code | None = None, operator: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.code = self.default if code is None else code
        self.operator = operator or message


class InterceptError(StageError):
    """Stage 1: the frame, message or method cannot be understood."""

    stage = "intercept"
    default = Code.INVALID_ARGUMENT


class IdentifyError(StageError):
    """Stage 2: nobody, or nobody we may believe, is calling."""

    stage = "identify"
    default = Code.UNAUTHENTICATED


class DescribeError(StageError):
    """Stage 3: nothing says what this method reaches."""

    stage = "describe"
    default = Code.PERMISSION_DENIED


class DecideError(StageError):
    """Stage 4: Indeterminate. The engine gave no well-formed answer in time."""

    stage = "decide"
    default = Code.UNAVAILABLE


class Superseded(DecideError):  # noqa: N818 - the name says what happened
    """The engine answers by another bundle than the one asked: `revision` is what it says it has.

    Where that one is about to be in force here, the question may be asked once more.
    """

    def __init__(self, revision: str, wanted: str) -> None:
        super().__init__(
            "the policy gave no decision",
            reason="policy_error",
            operator=f"OPA answers by {revision or 'a bundle without revision'}, not by {wanted}: its answer does not "
            "count. Give it the bundle that is in force here",
        )
        self.revision = revision


class RecordError(StageError):
    """Stage 5: the record is not durable, so nothing is forwarded and nothing released."""

    stage = "record"
    default = Code.UNAVAILABLE


class ForwardError(StageError):
    """Stage 6: the upstream cannot be reached."""

    stage = "forward"
    default = Code.UNAVAILABLE


class EnforceError(StageError):
    """Stage 7: an obligation is unknown here or could not be met."""

    stage = "enforce"
    default = Code.PERMISSION_DENIED


class ConfigurationError(Exception):
    """A file, key or value that a person has to mend. Exit code 2.

    `where` is the file and key, `value` what stands there (never a secret), `fix` what to do.
    """

    def __init__(self, what: str, *, where: str = "", value: object = None, fix: str = "") -> None:
        self.what, self.where, self.value, self.fix = what, where, value, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [f"{self.where}: " if self.where else "", self.what]
        if self.value is not None:
            parts.append(f" (found {self.value!r})")
        if self.fix:
            parts.append(f". {self.fix}")
        return "".join(parts)


class IntegrityError(Exception):
    """Stored bytes are not what was written: a spool, index, snapshot or log is damaged.

    `where` names the file and offset; `fix` what an operator does next. Never repaired silently.
    """

    def __init__(self, what: str, *, where: str, fix: str) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(f"{where}: {what}. {fix}")
