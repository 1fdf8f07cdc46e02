"""From a bundle that was read to one that answers: its tests, its denials without knowledge, generated documents.

Everything here blocks and is for another thread than the event loop's. Either a whole `Activated` comes out, or
ConfigurationError, and whoever asked keeps what it has.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from sidecar._native import DeadlineExceeded, EvaluationError, MemoryExceeded
from sidecar.decision import guard
from sidecar.decision.bundle import Bundle
from sidecar.decision.document import parse_decision
from sidecar.decision.engines import Engine, EngineMaker, Evaluate
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, canonical

GENERATED: Final = 500
"""How many generated documents a policy is tried on."""
_SEED: Final = 202
_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """A bundle that has loaded, passed its own tests and kept its denials without knowledge."""

    engine: Engine
    bundle: Bundle
    tests_passed: int
    documents_tried: int

    @property
    def revision(self) -> str:
        """The policy revision that stands in every record."""
        return self.bundle.revision


def activate(bundle: Bundle, where: str, maker: EngineMaker) -> Activated:
    """Load, compile, run the bundle's own tests, and try it with leaves unknown; only then may it answer.

    Raises ConfigurationError naming `where` and what does not load, which tests fail, which unknown leaf would turn a
    deny into a permit, which document gets no decision or gets it too late, or (of a `maker` that stands for two engines)
    on which one they differ.
    """
    with _naming(where):
        if not bundle.tests:
            raise ConfigurationError(
                "the bundle has no tests", fix="Add a file ending in _test.rego beside each policy"
            )
        passed = _run_tests(bundle, maker)
        documents = guard.each_generated(_SEED, GENERATED, bundle.corpus)
        with maker.trial(bundle) as evaluate:
            tried = guard.check_null_leaves(evaluate, bundle.corpus, where=where)
            tried += _check_answers(evaluate, documents)
        return Activated(engine=maker.make(bundle), bundle=bundle, tests_passed=passed, documents_tried=tried)


def resume(bundle: Bundle, where: str, maker: EngineMaker, *, tests_passed: int, documents_tried: int) -> Activated:
    """Compile a bundle of which the caller has proof that exactly this code has activated exactly these files before."""
    with _naming(where):
        engine = maker.make(bundle)
    return Activated(engine=engine, bundle=bundle, tests_passed=tests_passed, documents_tried=documents_tried)


def _check_answers(evaluate: Evaluate, documents: Iterable[AccessRequest]) -> int:
    """Try generated documents: where there is an answer it is a decision document, and it comes in time.

    Where `evaluate` stands for two engines, each of them is held against the other here. No answer refuses the call.
    """
    tried = 0
    for tried, document in enumerate(documents, 1):  # noqa: B007 - counted
        data = canonical(document)
        try:
            parse_decision(msgspec.json.decode(evaluate(data)))
        except DeadlineExceeded:
            raise ConfigurationError(
                "a decision takes too long", value=data.decode(), fix="Index the tables it searches"
            ) from None
        except MemoryExceeded as error:
            raise ConfigurationError(
                f"a decision takes too much memory: {error}", value=data.decode(), fix="Make smaller values"
            ) from None
        except DecideError as error:
            raise ConfigurationError(error.operator, value=data.decode(), fix="Mend the rule") from None
        except (EvaluationError, ValueError):
            continue
    return tried


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Engines know the bundle, not where it came from."""
    try:
        yield
    except ConfigurationError as error:
        if error.where:
            raise
        raise ConfigurationError(error.what, where=where, value=error.value, fix=error.fix) from None


def _run_tests(bundle: Bundle, maker: EngineMaker) -> int:
    results = maker.run_tests(bundle)
    failed = [
        f"{one.package}.{one.name}" + (f" ({one.error})" if one.error else "") for one in results if not one.passed
    ]
    if failed:
        more = [f"and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []
        raise ConfigurationError(
            f"the bundle's own tests fail (engine {maker.name}): " + ", ".join(failed[:_SHOWN] + more),
            fix="Run `sidecar policy test` on the bundle and mend policy or test",
        )
    if not results:
        raise ConfigurationError("the bundle's test files hold no test", fix="Name rules test_… in packages …_test")
    return len(results)
