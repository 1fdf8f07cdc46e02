"""Activation checks of a whole policy: not knowing must not help.

`null < 3` and `null < "2026"` are true in Rego, so a rule that forgets to ask whether a leaf is known may permit
because it is not. The loader refuses the shapes in which that happens; here the loaded policy itself is tried. Each
document of a corpus is decided, then decided again with one leaf after the other unknown (null): a deny may not become
a permit. Documents that are permitted are tried with each leaf wrong as well: where the wrong value is refused, the
unknown one must be.

`generated_inputs` are documents of every shape (`variants`), for what else activation asks of a policy.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import inspect

from sidecar import _native
from sidecar.decision.variants import Variants
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import (
    AccessRequest,
    Action,
    Authentication,
    Environment,
    Location,
    Person,
    Resource,
    Subject,
    SubjectCounts,
    Workload,
    canonical,
)

Evaluate = Callable[[bytes], bytes]
"""From the canonical input document to the decision document; raises EvaluationError or ValueError without an answer."""

_Step = str | int
_WRONG: Final[dict[type, object]] = {str: "", int: 0, bool: False}
_encode = msgspec.json.Encoder().encode


def nullable_leaves() -> tuple[str, ...]:
    """Every leaf of the input document that may be null: `input.a.b`, `*` for any index or category.

    Taken from the vocabulary, not from a bundle, which could claim that nothing is ever unknown.
    """
    return tuple(f"input.{leaf}" for leaf in _leaves(inspect.type_info(AccessRequest), ""))


def _leaves(kind: inspect.Type, path: str) -> Iterator[str]:
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from _leaves(field.type, f"{path}.{field.encode_name}" if path else field.encode_name)
    elif isinstance(kind, inspect.VarTupleType):
        yield from _leaves(kind.item_type, f"{path}.*")
    elif isinstance(kind, inspect.DictType):
        yield from _leaves(kind.value_type, f"{path}.*")
    elif isinstance(kind, inspect.UnionType):
        if any(isinstance(one, inspect.NoneType) for one in kind.types):
            yield path
        for one in kind.types:
            yield from _leaves(one, path)


def check_null_leaves(evaluate: Evaluate, corpus: Sequence[AccessRequest], *, where: str) -> int:
    """Try every document (or a neutral few, when there are none); return how many evaluations that took.

    Raises ConfigurationError for the first leaf whose absence turns a deny into a permit, for a decision that takes
    longer than the engine's deadline, and for a corpus without a single deny, which would prove nothing.
    """
    spent, denials = 0, 0
    leaves = nullable_leaves()
    for number, request in enumerate(corpus or _neutral()):
        document = msgspec.json.decode(canonical(request))
        permitted = _permits(evaluate, document, where)
        spent += 1
        denials += not permitted
        for steps in _known_leaves(document, leaves):
            refused = not permitted
            if permitted:
                refused = not _permits(evaluate, _with(document, steps, _wrong(document, steps)), where)
                spent += 1
            if refused:
                spent += 1
                if _permits(evaluate, _with(document, steps, None), where):
                    raise _helped(where, number, steps)
    if not denials:
        raise ConfigurationError(
            "no document of the corpus is denied", where=where, fix="Add calls that the policy refuses for one reason"
        )
    return spent


def generated_inputs(
    seed: int, count: int, corpus: Sequence[AccessRequest], words: Sequence[str] = ()
) -> tuple[AccessRequest, ...]:
    """So many documents in the neighbourhood of the corpus (or of a neutral few): permits and denies, edges and unknowns.

    `words`: texts that the policies know, for leaves of free text. Equal arguments give equal documents.
    """
    return tuple(each_generated(seed, count, corpus, words))


def each_generated(
    seed: int, count: int, corpus: Sequence[AccessRequest], words: Sequence[str] = ()
) -> Iterator[AccessRequest]:
    """The same one after the other: all of them at once take memory that a process does not get rid of again."""
    return itertools.islice(Variants(seed, corpus or _neutral(), words), count)


def _helped(where: str, number: int, steps: tuple[_Step, ...]) -> ConfigurationError:
    leaf = ".".join(str(step) for step in steps)
    return ConfigurationError(
        f"a deny becomes a permit when input.{leaf} is unknown", where=where, value=f"document {number} of the corpus",
        fix="Compare the leaf only after is_string, is_number or is_boolean, and write the rule so that it permits",
    )  # fmt: skip


def _permits(evaluate: Evaluate, document: object, where: str) -> bool:
    try:
        decision = msgspec.json.decode(evaluate(_encode(document)))
    except _native.DeadlineExceeded:
        # Neither a permit nor a deny: going on would prove nothing.
        raise ConfigurationError(
            "a decision on a document of the corpus takes too long", where=where, fix="Index the tables it searches"
        ) from None
    except _native.MemoryExceeded as error:
        raise ConfigurationError(
            "a decision on a document of the corpus takes too much memory", where=where, value=str(error),
            fix="Bound what the rule builds",
        ) from None  # fmt: skip
    except (_native.EvaluationError, ValueError):
        return False
    return isinstance(decision, dict) and decision.get("effect") == "permit"


def _known_leaves(document: object, leaves: Sequence[str]) -> Iterator[tuple[_Step, ...]]:
    """Paths of the leaves that may be null and are not."""
    for leaf in leaves:
        yield from _expand(document, tuple(leaf.split(".")[1:]), ())


def _expand(value: object, rest: tuple[str, ...], taken: tuple[_Step, ...]) -> Iterator[tuple[_Step, ...]]:
    if not rest:
        if value is not None:
            yield taken
    elif isinstance(value, dict):
        for key in value if rest[0] == "*" else (rest[0],):
            yield from _expand(value[key], rest[1:], (*taken, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _expand(one, rest[1:], (*taken, index))


def _wrong(document: object, steps: tuple[_Step, ...]) -> object:
    value = document
    for step in steps:
        value = value[step]  # type: ignore[index]
    return _WRONG[type(value)]


def _with(document: object, steps: tuple[_Step, ...], leaf: object) -> object:
    changed = copy.deepcopy(document)
    value = changed
    for step in steps[:-1]:
        value = value[step]  # type: ignore[index]
    value[steps[-1]] = leaf  # type: ignore[index]
    return changed


def _neutral() -> tuple[AccessRequest, ...]:
    """Calls that every policy has an opinion on, for bundles that bring none of their own."""
    subjects = (
        Subject(),
        Subject(kind="data_subject"),
        Subject(kind="workload", workload=Workload(id="spiffe://corp/ns/a", operated_from="SG", may=("read",))),
        Subject(
            kind="personnel",
            person=Person(id="a", us_personnel=False, location=Location(country="SG"), status="active"),
            authentication=Authentication(aal=1),
        ),
    )
    resource = Resource(categories=("id_contact",), classes=("protected",), subjects=SubjectCounts(us=1))
    context = Environment(time="2026-01-01T00:00:00Z", phase="response", purpose="none", ticket="T-1")
    action = Action(name="read", service="a.b.C", method="D")
    return tuple(
        AccessRequest(subject=subject, action=action, resource=resource, context=context) for subject in subjects
    )
