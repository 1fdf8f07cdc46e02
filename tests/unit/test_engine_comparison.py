"""Generated documents, and two engines asked about them: a bundle on which they differ is not activated."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sidecar import _native
from sidecar.decision import guard
from sidecar.decision.activation import GENERATED, activate
from sidecar.decision.bundle import Bundle
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.engines import Evaluate
from sidecar.decision.folder import load_folder
from sidecar.decision.variants import Variants
from sidecar.decision.verified import VerifiedMaker
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import CATEGORIES, AccessRequest, canonical

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return load_folder(POLICIES)


@pytest.fixture(scope="module")
def documents(shipped: Bundle) -> tuple[AccessRequest, ...]:
    return guard.generated_inputs(7, 400, shipped.corpus)


def evaluate(bundle: Bundle) -> Evaluate:
    return _native.Engine(
        bundle.modules, bundle.data, "data.sidecar.decision", 10.0, guard.nullable_leaves()
    ).evaluate_json


def test_equal_arguments_give_equal_documents(shipped: Bundle, documents: tuple[AccessRequest, ...]):
    assert guard.generated_inputs(7, 400, shipped.corpus) == documents
    assert guard.generated_inputs(8, 400, shipped.corpus) != documents
    assert len(guard.generated_inputs(7, 3, ())) == 3


def test_documents_are_total_and_of_the_vocabulary(documents: tuple[AccessRequest, ...]):
    for request in documents:
        document = canonical(request)
        assert msgspec.json.decode(document, type=AccessRequest) == request
        assert set(request.context.exposure) == set(request.resource.dataset.population) == set(CATEGORIES)


def test_every_leaf_that_may_be_null_is_null_somewhere_and_somewhere_not(shipped: Bundle):
    seen: dict[str, set[bool]] = {leaf: set() for leaf in guard.nullable_leaves()}
    for request in guard.generated_inputs(1, 3_000, shipped.corpus):
        document = msgspec.json.decode(canonical(request))
        for leaf, found in seen.items():
            found.update(one is None for one in _at(document, leaf.split(".")[1:]))
    assert [leaf for leaf, found in seen.items() if found != {True, False}] == []


def _at(value: object, rest: list[str]) -> Iterator[object]:
    if not rest:
        yield value
    elif rest[0] == "*":
        for one in value.values() if isinstance(value, dict) else value:  # type: ignore[union-attr, attr-defined]
            yield from _at(one, rest[1:])
    else:
        yield from _at(value[rest[0]], rest[1:])  # type: ignore[index]


def test_words_of_the_policies_reach_leaves_of_free_text(shipped: Bundle):
    purposes = {
        request.context.purpose for request in guard.generated_inputs(1, 2_000, shipped.corpus, ("a_new_purpose",))
    }
    assert {"a_new_purpose", None, ""} <= purposes


def test_a_stream_of_variants_never_ends_and_varies(shipped: Bundle):
    stream = iter(Variants(1, shipped.corpus[:1]))
    assert len({canonical(next(stream)) for _ in range(300)}) > 200


Bend = Callable[[dict[str, object], dict[str, object]], None]


def _permits_minors_of_the_request(document: dict[str, object], decision: dict[str, object]) -> None:
    if document["resource"]["subjects"]["unknown"]:  # type: ignore[index]
        decision["effect"] = "permit"


def _other_lifetime(document: dict[str, object], decision: dict[str, object]) -> None:
    if document["context"]["phase"] == "request":  # type: ignore[index]
        decision["ttl_seconds"] = 1


def _no_answer(document: dict[str, object], decision: dict[str, object]) -> None:
    if document["subject"]["kind"] == "workload":  # type: ignore[index]
        raise _native.EvaluationError("failed")


def bent(bundle: Bundle, bend: Bend) -> Evaluate:
    straight = evaluate(bundle)

    def answer(document: bytes) -> bytes:
        decision = json.loads(straight(document))
        bend(json.loads(document), decision)
        return json.dumps(decision).encode()

    return answer


class _BentMaker(EmbeddedMaker):
    """A second engine that is wrong on few documents, none of them in the bundle's tests."""

    def __init__(self, bend: Bend) -> None:
        super().__init__(5.0)
        self._bend = bend

    @contextlib.contextmanager
    def trial(self, bundle: Bundle) -> Iterator[Evaluate]:
        yield bent(bundle, self._bend)


class _Nobody:
    async def differ(self, found: object) -> None:
        raise AssertionError(found)

    def unchecked(self, why: str, detail: str) -> None:
        raise AssertionError(why, detail)


def verified(second: EmbeddedMaker) -> VerifiedMaker:
    return VerifiedMaker(EmbeddedMaker(5.0), second, sample=1.0, refuse=True, draw=lambda: 0.0, told=_Nobody())


def test_a_bundle_on_which_the_engines_agree_is_activated(shipped: Bundle):
    assert activate(shipped, "here", verified(EmbeddedMaker(5.0))).documents_tried > GENERATED


@pytest.mark.parametrize("bend", [_permits_minors_of_the_request, _other_lifetime, _no_answer])
def test_a_bundle_on_which_the_engines_differ_is_not_activated(shipped: Bundle, bend: Bend):
    with pytest.raises(ConfigurationError, match="the engines differ on input") as refused:
        activate(shipped, "here", verified(_BentMaker(bend)))
    assert refused.value.where == "here"
