"""The embedded engine against OPA itself: what loads must answer alike, and where OPA fails nothing may be permitted.

Differences that are allowed, and why, stand in docs/adr/0002-embedded-engine.md: the embedded engine may fail (which
refuses the call) where OPA goes on, and it may notice that something is undefined before a failing built-in does.
"""

import collections
import json
import os
import random
from typing import Any

import engine_rego
import pytest
from engine_cases import ACCEPTED, DATA, Accepted
from opa_cases import same
from reference_opa import ERROR, UNDEFINED, ReferenceOpa

from sidecar import _native

MODULES = int(os.environ.get("ENGINE_FUZZ_MODULES", "80"))


def answer(engine: _native.Engine, document: object) -> Any:
    try:
        return engine.evaluate(document)
    except _native.Undefined:
        return UNDEFINED
    except _native.EvaluationError:
        return ERROR


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_the_table_says_what_opa_says(opa: ReferenceOpa, case: Accepted) -> None:
    opa.remove("u")
    assert opa.put("/v1/data/base", json.dumps(DATA["base"]), "application/json")
    assert opa.put("/v1/policies/t", "package t\n" + case.source)
    for document, want in case.want:
        assert opa.answer("t/p", document) == want, document


@pytest.mark.parametrize("seed", [1, 2])
def test_generated_policies_are_answered_alike(opa: ReferenceOpa, seed: int) -> None:
    rng = random.Random(seed)
    opa.put("/v1/data/base", json.dumps(engine_rego.DATA["base"]), "application/json")
    data = json.dumps(engine_rego.DATA).encode()
    counts: collections.Counter[str] = collections.Counter()
    for _ in range(MODULES * 60):
        if counts["loaded"] >= MODULES:
            break
        nullable = rng.sample(engine_rego.LEAVES, rng.choice([0, 0, 1, 2]))
        other, source = engine_rego.other_package(rng), engine_rego.module(rng)
        leaves = [f"input.{leaf}" for leaf in nullable]
        try:
            engine = _native.Engine([("u.rego", other), ("t.rego", source)], data, "data.t.entry", 5.0, leaves)
        except _native.LoadError:
            continue
        opa.remove("t")
        # What OPA's type checker refuses needs no agreement.
        if not (opa.put("/v1/policies/u", other) and opa.put("/v1/policies/t", source)):
            continue
        counts["loaded"] += 1
        for _ in range(8):
            document = engine_rego.document(rng, nullable)
            ours, theirs = answer(engine, document), opa.answer("t/entry", document)
            counts["value" if theirs not in (UNDEFINED, ERROR) else str(theirs)] += 1
            alike = ours == ERROR or same(ours, theirs) or (theirs == ERROR and ours == UNDEFINED)
            # A failing built-in beside an undefined one empties a set or an object instead of failing the call.
            alike = alike or (theirs == ERROR and ours in ([], {}))
            assert alike, f"{other}\n{source}\n{json.dumps(document)}\nours {ours!r}, OPA {theirs!r}"
    assert counts["loaded"] >= MODULES, counts
    assert counts["value"] > counts["loaded"], counts
