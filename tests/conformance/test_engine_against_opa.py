"""The embedded engine against OPA itself: what loads must answer alike, and where OPA fails nothing may be permitted.

Differences that are allowed, and why, stand in docs/adr/0002-embedded-engine.md: the embedded engine may fail (which
refuses the call) where OPA goes on, and it may notice that something is undefined before a failing built-in does.
"""

import collections
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import engine_rego
import pytest
import yaml
from engine_cases import ACCEPTED, DATA, ERROR, UNDEFINED, Accepted

from sidecar.decision import _engine

pytestmark = pytest.mark.conformance

OPA = Path(".tools/bin/opa")
OPA_VERSION = "v1.22.2"
MODULES = int(os.environ.get("ENGINE_FUZZ_MODULES", "80"))


def missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


class Opa:
    """A running OPA server: policies in, answers out."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def put(self, path: str, body: str, kind: str = "text/plain") -> bool:
        return self._ask("PUT", path, body, kind)[0] < 300

    def remove(self, name: str) -> None:
        self._ask("DELETE", f"/v1/policies/{name}", "", "text/plain")

    def answer(self, path: str, document: object) -> Any:
        status, body = self._ask(
            "POST", f"/v1/data/{path}?strict-builtin-errors=true", json.dumps({"input": document}), "application/json"
        )
        return ERROR if status != 200 else json.loads(body).get("result", UNDEFINED)

    def _ask(self, method: str, path: str, body: str, kind: str) -> tuple[int, bytes]:
        self.connection.request(method, path, body.encode(), {"Content-Type": kind})
        response = self.connection.getresponse()
        return response.status, response.read()


@pytest.fixture(scope="module")
def opa():
    if not OPA.exists():
        missing(f"the Open Policy Agent is not at {OPA}: run `make tools` (needs Go)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [OPA, "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error", "--disable-telemetry"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            running = Opa(port)
            for _ in range(200):
                try:
                    running.answer("none", {})
                    break
                except OSError:
                    running.connection.close()
                    time.sleep(0.05)
            yield running
        finally:
            running.connection.close()
            server.kill()


def answer(engine: _engine.Engine, document: object) -> Any:
    try:
        return engine.evaluate(document)
    except _engine.Undefined:
        return UNDEFINED
    except _engine.EvaluationError:
        return ERROR


def same(ours: Any, theirs: Any) -> bool:
    """Equal, where lists that were sets may come in another order if their elements are of several types."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return sorted(map(json.dumps, ours)) == sorted(map(json.dumps, theirs))
    return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_the_table_says_what_opa_says(opa: Opa, case: Accepted) -> None:
    opa.remove("u")
    assert opa.put("/v1/data/base", json.dumps(DATA["base"]), "application/json")
    assert opa.put("/v1/policies/t", "package t\n" + case.source)
    for document, want in case.want:
        assert opa.answer("t/p", document) == want, document


@pytest.mark.parametrize("seed", [1, 2])
def test_generated_policies_are_answered_alike(opa: Opa, seed: int) -> None:
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
            engine = _engine.Engine([("u.rego", other), ("t.rego", source)], data, "data.t.entry", 5.0, leaves)
        except _engine.LoadError:
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


def cases() -> list[dict[str, Any]]:
    go = shutil.which("go")
    if go is None:
        missing("Go is not on PATH: OPA's conformance cases come with its Go module")
    cache = subprocess.run([str(go), "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    folder = Path(cache, f"github.com/open-policy-agent/opa@{OPA_VERSION}", "v1/test/cases/testdata/v1")
    if not folder.is_dir():
        missing("OPA's conformance cases are not in the Go module cache: run `make tools`")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("**/*.yaml")):
        found += yaml.load(path.read_text(), loader).get("cases") or []
    return found


def test_every_conformance_case_that_loads_agrees() -> None:
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for case in cases():
        query = re.fullmatch(r"\s*(data(?:\.\w+)+)\s*=\s*(\w+)\s*", case["query"])
        modules = [(f"{n}.rego", str(text)) for n, text in enumerate(case.get("modules") or [])]
        document = case.get("input")
        # Here there is always an input document; cases about its absence do not apply.
        unread = document is not None or not any("input" in text for _, text in modules)
        if query is None or "input_term" in case or not unread:
            counts["does not apply"] += 1
            continue
        try:
            engine = _engine.Engine(modules, json.dumps(case.get("data") or {}).encode(), query[1], 5.0)
            ours = answer(engine, document if document is not None else {})
        except _engine.LoadError:
            counts["refused at load"] += 1
            continue
        except (TypeError, ValueError):
            counts["refused as input"] += 1
            continue
        fails = "want_error" in case or "want_error_code" in case
        want = ERROR if fails else case["want_result"][0][query[2]] if case.get("want_result") else UNDEFINED
        if same(ours, want):
            counts["agree"] += 1
        elif ours == ERROR:
            counts["fails closed"] += 1
        else:
            wrong.append(f"{case['note']}: ours {ours!r}, OPA {want!r}")
    assert wrong == []
    assert counts["agree"] > 200, counts
    assert counts["fails closed"] < 20, counts
