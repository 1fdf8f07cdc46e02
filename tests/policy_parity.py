"""The shipped policies on generated inputs: both engines, equal documents, and what the inputs made the policies say."""

import collections
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reference_opa import ReferenceOpa, running

from sidecar import _native
from sidecar.decision.bundle import ENTRYPOINT, Bundle
from sidecar.decision.folder import load_folder
from sidecar.decision.guard import nullable_leaves
from sidecar.decision.variants import Variants
from sidecar.vocabulary import canonical

INPUTS = 6_000
SEED = 28_202
FILE = Path("tests/conformance/policy_parity.md")
POLICIES = Path("policies")
_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Parity:
    """`effects`, `obligations`: how often each; `rules`: policy package -> rule -> the number of inputs on which it stood among the reasons."""

    inputs: int
    effects: dict[str, int]
    obligations: dict[str, int]
    rules: dict[str, dict[str, int]]
    differing: list[str]


def inputs(bundle: Bundle, count: int) -> list[bytes]:
    """So many input documents, no two the same."""
    found: dict[bytes, None] = {}
    for request in Variants(SEED, bundle.corpus, words(bundle)):
        found[canonical(request)] = None
        if len(found) == count:
            return list(found)
    raise AssertionError("unreachable")


def words(bundle: Bundle) -> list[str]:
    """The short texts in the policies' data: codes, names, places."""
    return sorted({text for text in _texts(json.loads(bundle.data)) if len(text) < 40})


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from itertools.chain.from_iterable(map(_texts, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(_texts, value))


def compare(opa: ReferenceOpa, documents: Sequence[bytes], bundle: Bundle) -> Parity:
    """Ask both engines about every document; OPA has the bundle."""
    engine = _native.Engine(bundle.modules, bundle.data, ENTRYPOINT, 10.0, nullable_leaves())
    effects: collections.Counter[str] = collections.Counter()
    obligations: collections.Counter[str] = collections.Counter()
    rules: collections.defaultdict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    differing = []
    opa.batch(ENTRYPOINT)
    for start in range(0, len(documents), _BATCH):
        batch = documents[start : start + _BATCH]
        for document, theirs in zip(batch, opa.answers([json.loads(one) for one in batch]), strict=True):
            ours: Any = json.loads(engine.evaluate_json(document))
            if ours != theirs:
                differing.append(f"{document.decode()}\nours {ours}\nOPA {theirs}")
            effects[ours["effect"]] += 1
            obligations.update({one["id"] for one in ours["obligations"]})
            for name in {reason["rule"] for reason in ours["reasons"]}:
                rules[name.rpartition(".")[0]][name.rpartition(".")[2]] += 1
    return Parity(
        inputs=len(documents), effects=dict(effects), obligations=dict(obligations),
        rules={package: dict(seen) for package, seen in rules.items()}, differing=differing,
    )  # fmt: skip


def table(parity: Parity) -> str:
    """The committed figures."""
    lines = [
        "# The shipped policies in both engines",
        "",
        "Written by `python -m tests.engine_tables --write parity`; `tests/conformance/test_policy_parity.py` compares it.",
        "",
        f"* {parity.inputs:,} different input documents, generated from the vocabulary's types and `policies/schemas/corpus.json`",
        f"* {parity.effects.get('permit', 0):,} permits, {parity.effects.get('deny', 0):,} denies",
        f"* obligations: {', '.join(f'{name} {count:,}' for name, count in sorted(parity.obligations.items()))}",
        f"* {parity.inputs - len(parity.differing):,} equal decision documents, {len(parity.differing):,} different",
        "",
        "Each decision evaluates every policy. A rule counts where it stood among the reasons of the decision.",
        "",
        "| policy | rules seen | reasons |",
        "|---|---|---|",
    ]
    for package, seen in sorted(parity.rules.items()):
        shown = ", ".join(f"{name} {count:,}" for name, count in sorted(seen.items()))
        lines.append(f"| `{package}` | {len(seen)} | {shown} |")
    return "\n".join(lines) + "\n"


def measure(program: Path) -> Parity:
    """Everything above on what is shipped."""
    bundle = load_folder(POLICIES)
    with running(program, "--bundle", str(POLICIES)) as opa:
        return compare(opa, inputs(bundle, INPUTS), bundle)
