"""How evaluations share the limit on memory: threads beside each other, bundles with much data, loads in between."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sidecar import _native

pytestmark = pytest.mark.unit

MIB = 1 << 20
BOMB = """package t

p := count(s) if {
  input.on
  l := numbers.range(1, 10000)
  s := {[a, b] | some a in l; some b in l}
} else := 0
"""
INNOCENT = "package t\n\np := [y | some x in input.l; y := [x, x]]\n"


def load(source: str, data: object = None, memory: int = 16 * MIB) -> _native.Engine:
    return _native.Engine([("t.rego", source)], json.dumps(data or {}).encode(), "data.t.p", 60.0, memory_bytes=memory)


def test_more_memory_than_the_budget_is_an_error_of_its_own_and_the_next_call_is_whole() -> None:
    engine = load(BOMB)
    for _ in range(3):
        with pytest.raises(_native.MemoryExceeded, match="more than its 16 MiB"):
            engine.evaluate({"on": True})
        assert engine.evaluate({"on": False}) == 0


def test_the_data_of_a_bundle_counts_against_no_evaluation() -> None:
    table = {f"key{number}": {"number": number, "text": "x" * 60} for number in range(60_000)}
    engine = load("package t\n\np := data.table[input.key].number\n", {"table": table}, MIB)
    assert engine.evaluate({"key": "key31"}) == 31
    assert load(BOMB, memory=MIB).evaluate({"on": False}) == 0


def test_a_bomb_in_one_thread_refuses_nobody_in_another() -> None:
    bomb, innocent = load(BOMB), load(INNOCENT)
    stop = threading.Event()

    def explode() -> int:
        refused = 0
        while not stop.is_set():
            with pytest.raises(_native.MemoryExceeded):
                bomb.evaluate({"on": True})
            refused += 1
        return refused

    def ask(number: int) -> bool:
        asked = {"l": [number] * 200}
        return all(innocent.evaluate(asked) == [[number, number]] * 200 for _ in range(150))

    with ThreadPoolExecutor(4) as pool:
        exploding = pool.submit(explode)
        try:
            assert all(pool.map(ask, range(3)))
        finally:
            stop.set()
        assert exploding.result() >= 1


def test_bundles_that_load_beside_an_evaluation_do_not_use_up_its_budget() -> None:
    engine = load(INNOCENT, memory=MIB)
    table = {f"key{number}": "x" * 100 for number in range(20_000)}
    stop, loaded = threading.Event(), []

    def fill() -> None:
        while not stop.is_set() and len(loaded) < 20:
            loaded.append(load("package t\n\np := data.table[input.key]\n", {"table": table}, MIB))

    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(fill)
        try:
            while not loaded:
                assert engine.evaluate({"l": [1]}) == [[1, 1]]
            for _ in range(300):
                assert engine.evaluate({"l": list(range(200))}) == [[x, x] for x in range(200)]
        finally:
            stop.set()
        filling.result()
    assert loaded[0].evaluate({"key": "key3"}) == "x" * 100


def test_an_error_about_a_value_does_not_hold_the_value() -> None:
    engine = load('package t\n\np := concat("", [input.text, startswith(input.l, "a")])\n')
    with pytest.raises(_native.EvaluationError) as caught:
        engine.evaluate({"text": "a", "l": ["a secret"]})
    assert "argument 1 is of the wrong type" in str(caught.value)
    assert "secret" not in str(caught.value)
