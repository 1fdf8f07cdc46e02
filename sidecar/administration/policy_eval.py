"""Ask a bundle one question: the decision document for an input document, or the value of any other rule."""

from dataclasses import dataclass
from typing import Final

import msgspec

from sidecar import _native
from sidecar.decision.bundle import ENTRYPOINT, Bundle
from sidecar.decision.document import parse_decision
from sidecar.decision.guard import nullable_leaves
from sidecar.decision.strict_json import Json
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, canonical

_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """`value` is what the rule gave; `problem` why that is nothing that a sidecar could act on, else empty."""

    revision: str
    entrypoint: str
    value: Json
    problem: str = ""


def evaluate(bundle: Bundle, request: AccessRequest, where: str, entrypoint: str = ENTRYPOINT) -> Evaluated:
    """Evaluate one rule with one value. The decision document is checked as the sidecar checks it.

    ConfigurationError when the bundle does not load with this entrypoint.
    """
    rule = entrypoint if entrypoint.startswith("data.") else f"data.{entrypoint}"
    try:
        engine = _native.Engine(bundle.modules, bundle.data, rule, _SECONDS, nullable_leaves())
    except _native.LoadError as error:
        first = str(error).splitlines()[0]
        _place, named, what = first.partition(": entrypoint: ")
        if named and rule != ENTRYPOINT:
            raise ConfigurationError(what, where="--entrypoint") from None
        raise ConfigurationError(
            f"the policies do not load: {first}", where=where,
            fix="Run `sidecar policy check` and mend what it names",
        ) from None  # fmt: skip
    value: Json = None
    try:
        value = msgspec.json.decode(engine.evaluate_json(canonical(request)))
        if rule == ENTRYPOINT:
            parse_decision(value)
    except _native.EvaluationError as error:
        return Evaluated(revision=bundle.revision, entrypoint=rule, value=value, problem=str(error))
    except DecideError as error:
        return Evaluated(revision=bundle.revision, entrypoint=rule, value=value, problem=error.operator)
    return Evaluated(revision=bundle.revision, entrypoint=rule, value=value)
