"""What answers from a bundle, and what makes such an answerer: the ports of activation and of the call path.

Two engines implement both, `embedded` and `opa`. OPA is the reference: where they differ, the embedded one is wrong
and must refuse the bundle.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sidecar.decision.bundle import Bundle
from sidecar.vocabulary import AccessRequest, Decision

Evaluate = Callable[[bytes], bytes]
"""From the canonical input document to the decision document, blocking; raises EvaluationError or ValueError without
an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """One `test_…` rule: `error` says why it has no value; None when it is plainly true or false."""

    __test__ = False

    package: str
    name: str
    passed: bool
    error: str | None = None
    seconds: float = 0.0


class Engine(Protocol):
    """Answers from one bundle for as long as it lives.

    * What it answers depends on the bundle and the document only.
    * No well-formed answer in time is DecideError (`policy_error`), never a permit. Nothing is asked twice.
    """

    @property
    def name(self) -> str:
        """`embedded` or `opa`: the engine's word in records."""

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        """Decide on the canonical bytes, which are what is recorded."""

    async def close(self) -> None:
        """No question comes any more; those under way may still be answered. Idempotent."""


class EngineMaker(Protocol):
    """Loads bundles. Every method blocks and is called off the event loop; ConfigurationError for what does not load."""

    @property
    def name(self) -> str:
        """As the engines'."""

    def run_tests(self, bundle: Bundle) -> tuple[TestResult, ...]:
        """Run every test rule of the bundle, with time to spare."""

    def trial(self, bundle: Bundle) -> AbstractContextManager[Evaluate]:
        """The bundle without its tests, loaded for trying, with a deadline that a busy machine does not reach."""

    def make(self, bundle: Bundle) -> Engine:
        """The bundle without its tests, ready to answer within the deadline of the settings."""
