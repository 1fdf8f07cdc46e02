"""The compiled part of the embedded engine (`engine/`, Rust): regorus behind a loader that keeps it equal to OPA."""

from collections.abc import Sequence
from typing import TypedDict

class Problem(TypedDict):
    """One reason why a bundle does not load. `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int
    column: int
    code: str
    message: str

class EngineError(Exception):
    """The engine did not do what was asked."""

class LoadError(EngineError):
    """The bundle must not run here. The text has one line for each problem: `file:line:column: code: what to do`."""

    problems: list[Problem]

class EvaluationError(EngineError):
    """No answer: a conflict between rules, a failed built-in function, an answer that is no JSON."""

class DeadlineExceeded(EvaluationError):  # noqa: N818 - the name says what happened
    """No answer in time. The next evaluation is not affected."""

class Undefined(EvaluationError):  # noqa: N818 - the word of the language
    """The entrypoint has no value for this input."""

class Engine:
    """Policies and data, compiled and immutable. Every method may be called from several threads at once."""

    def __new__(
        cls,
        modules: Sequence[tuple[str, str]],
        data: bytes,
        entrypoint: str = "data.sidecar.decision",
        deadline_seconds: float = 0.05,
        nullable: Sequence[str] = (),
    ) -> Engine:
        """Compile modules (name, source) with a data document (a JSON object).

        `entrypoint` names a rule with one value. `nullable` lists the leaves of the input that may be null, as
        `input.a.b`, with `*` for any key or index. Raises LoadError with every problem found, ValueError for a
        deadline that is not a positive number of seconds.
        """

    def evaluate(self, input: object) -> object:
        """The value of the entrypoint; sets become sorted lists.

        The input is made of None, bool, int, str, list, tuple and dict with text keys. Raises TypeError for other
        types, ValueError for integers over 64 bits or more than 64 levels, and EvaluationError.
        """

    def evaluate_json(self, input: bytes) -> bytes:
        """The same from JSON to JSON. Raises ValueError for bytes that are no such document, and EvaluationError."""

    def run_tests(
        self, prefix: str = "", deadline_seconds: float = 1.0
    ) -> list[tuple[str, str, bool, str | None, int]]:
        """Run every `test_…` rule of the packages that start with `prefix`.

        Returns (package, name, passed, error, microseconds); a test passes when it is true.
        """
