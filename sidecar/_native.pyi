# The compiled part of the embedded engine (`native/`, Rust): regorus behind a loader that keeps it equal to OPA.
# What each name promises stands in its documentation string, which `help()` shows.

from collections.abc import Sequence
from typing import Self, TypedDict

# `line` and `column` count from 1; 0 means the whole file.
class Problem(TypedDict):
    file: str
    line: int
    column: int
    code: str
    message: str

class EngineError(Exception): ...

# The text has one line for each problem: `file:line:column: code: what to do`.
class LoadError(EngineError):
    problems: list[Problem]

class EvaluationError(EngineError): ...
class DeadlineExceeded(EvaluationError): ...  # noqa: N818 - the name says what happened
class MemoryExceeded(EvaluationError): ...  # noqa: N818 - the name says what happened
class Undefined(EvaluationError): ...  # noqa: N818 - the word of the language

class Engine:
    def __new__(
        cls,
        modules: Sequence[tuple[str, str]],
        data: bytes,
        entrypoint: str = "data.sidecar.decision",
        deadline_seconds: float = 0.05,
        nullable: Sequence[str] = (),
        coverage: bool = False,
        memory_bytes: int = 67108864,
    ) -> Self: ...
    def evaluate(self, document: object) -> object: ...
    def evaluate_json(self, document: bytes) -> bytes: ...
    def run_tests(
        self, prefix: str = "", deadline_seconds: float = 1.0
    ) -> list[tuple[str, str, bool, str | None, int]]: ...
    def covered(self) -> list[tuple[str, list[int], list[int]]]: ...
    def clear_covered(self) -> None: ...

def outline(modules: Sequence[tuple[str, str]]) -> bytes: ...
def builtins_accepted() -> list[str]: ...
def capabilities() -> bytes: ...
