"""What the engine works out without the values in between is what those would have given, also where one is missing."""

import calendar
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar import _native

pytestmark = pytest.mark.unit


def engines(source: str) -> tuple[_native.Engine, _native.Engine]:
    """The plan of a module, and the interpreter."""
    modules = [("t.rego", f"package t\n\n{source}\n")]
    plan, interpreter = (
        _native.Engine(modules, b"{}", "data.t.p", 5.0, interpreted=interpreted) for interpreted in (False, True)
    )
    assert plan.planned
    return plan, interpreter


def told(engine: _native.Engine, document: object) -> Any:
    try:
        return json.loads(engine.evaluate_json(json.dumps(document).encode()))
    except _native.Undefined:
        return "undefined"
    except _native.EvaluationError:
        return "error"


# What may stand for `a` and `b`: missing, false, equal to what is asked for, and of another kind.
STATES = [{}, {"v": True}, {"v": False}, {"v": None}, {"v": 1}, {"v": "x"}, {"v": []}, {"v": [True, False]}]
ASKED = {
    "an array equals": 'p := ["is", x] if x := [input.a.v, input.b.v] == [true, false]',
    "an array is equalled": 'p := ["is", x] if x := [true, false] == [input.a.v, input.b.v]',
    "an array differs": "p := [x | x := [input.a.v, input.b.v] != [true, false]]",
    "an array holds": "p if [input.a.v, input.b.v] == [true, false]",
    "an array does not hold": "p if {\n  hit := [input.a.v, input.b.v] == [true, false]\n  not hit\n}",
    "an array of another length": "p := [x | x := [input.a.v, input.b.v] == [true]]",
    "arrays in arrays": "p := [x | x := [[input.a.v], [input.b.v]] == [[true], [1]]]",
    "an array that has no value": "p := [x | x := [input.a.v, time.parse_rfc3339_ns(input.b.v)] == [true, 0]]",
    "an element of an array": "p := x if {\n  a := input.a.v\n  b := input.b.v\n  x := true in [a, b]\n}",
    "a missing element": "p := x if {\n  a := input.a.v\n  b := input.b.v\n  x := a in [b, 1]\n}",
    "no element": "p if {\n  a := input.a.v\n  b := input.b.v\n  hit := a in [b, null]\n  not hit\n}",
    "an object": 'p := {"z": input.a.v, "b": input.b.v, "a": 1}',
    "an object that has no value": 'p := [x | x := {"z": input.a.v, "b": time.parse_rfc3339_ns(input.b.v), "a": 1}]',
    "an object with a computed key": 'p := {"z": x} if x := {input.b.v: input.a.v}',
    "an object in an object": 'p := x.b.c if x := {"b": {"c": input.a.v, "a": 0}, "a": input.b.v}',
}


@pytest.mark.parametrize("source", ASKED.values(), ids=ASKED)
def test_arrays_and_objects_written_down_mean_the_same_unmade(source: str) -> None:
    plan, interpreter = engines(source)
    seen = set()
    for a, b in itertools.product(STATES, repeat=2):
        document = {"a": a, "b": b}
        found = told(plan, document)
        assert found == told(interpreter, document), document
        seen.add(json.dumps(found))
    assert len(seen) > 1


SETS = """p := [
	sort([x | some x in (a | b)]), sort([x | some x in (a & b)]), sort([x | some x in (a - b)]),
	array.concat(input.a, input.b), array.concat(array.concat([], input.a), [1]), [a | b == b, a - b == a],
] if {
	a := {x | some x in input.a}
	b := {x | some x in input.b}
}
"""


@given(*[st.lists(st.none() | st.integers(0, 3), max_size=3)] * 2)
@settings(max_examples=100, deadline=None)
def test_joining_with_nothing_gives_what_is_joined(a: list[int | None], b: list[int | None]) -> None:
    document = {"a": a, "b": b}
    found = [told(one, document) for one in _JOINING]
    assert found[0] == found[1]
    assert found[0][3] == a + b


_JOINING = engines(SETS)


@pytest.mark.parametrize("wrong", [{"a": [], "b": 1}, {"a": 1, "b": []}, {"a": [], "b": None}, {"a": "", "b": []}])
def test_joining_nothing_with_what_is_no_array_is_still_an_error(wrong: dict[str, object]) -> None:
    for engine in engines("p := array.concat(input.a, input.b)"):
        assert told(engine, wrong) == "error"


CALLS = """p := [x | some a in input.l; x := outer(a, 1)]

outer(a, n) := [inner(a, n), inner([a, n], inner(n, a)), many(a)]

inner(x, y) := [x, y, z] if {
	z := [w | some w in [x, y]]
}

many(1) := "one"

many(2) := "two"

many(x) := ["else", inner(x, x)] if {
	x > 2
} else := input.missing if {
	x < 0
} else := "zero" if x == 0
"""


def test_arguments_stay_those_of_their_call() -> None:
    plan, interpreter = engines(CALLS)
    for numbers in itertools.product([-1, 0, 1, 2, 3], repeat=3):
        document = {"l": list(numbers)}
        assert told(plan, document) == told(interpreter, document)
    assert told(plan, {"l": [3]}) == [
        [[3, 1, [3, 1]], [[3, 1], [1, 3, [1, 3]], [[3, 1], [1, 3, [1, 3]]]], ["else", [3, 3, [3, 3]]]]
    ]


_INSTANT = engines("p := time.parse_rfc3339_ns(input.t)")[0]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.datetimes(min_value=datetime(1680, 1, 1), max_value=datetime(2260, 1, 1)))  # noqa: DTZ001 - made aware below
@example(datetime(2000, 2, 29))  # noqa: DTZ001
@example(datetime(1900, 2, 28, 23, 59, 59))  # noqa: DTZ001
@example(datetime(2199, 12, 31, 23, 59, 59))  # noqa: DTZ001
@example(datetime(1699, 12, 31, 23, 59, 59))  # noqa: DTZ001
@settings(max_examples=500, deadline=None)
def test_an_instant_is_its_nanoseconds_in_whichever_way_it_is_written(when: datetime) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    wanted = (when - _EPOCH) // timedelta(microseconds=1) * 1000
    plain = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    for written in (plain, plain.replace("Z", "+00:00"), plain.replace("Z", ".000Z")):
        assert told(_INSTANT, {"t": written}) == wanted, written


def test_every_day_of_some_years_is_read_and_no_other() -> None:
    for year in (1700, 1900, 1999, 2000, 2024, 2100, 2199):
        for month, day in itertools.product(range(14), range(33)):
            exists = 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]
            found = told(_INSTANT, {"t": f"{year}-{month:02}-{day:02}T12:00:00Z"})
            assert isinstance(found, int) == exists, (year, month, day)


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T24:00:00Z", "2026-01-31T10:60:00Z", "2026-01-31T10:00:60Z", "2026-01-31 10:00:00Z", "2026-01-31T10:00:00z",
     "2026-1-31T10:00:000Z", "+026-01-31T10:00:00Z", "2026-01-31T10:00:0٣Z", "2026-01-31T10:00:00", "2026-01-31T10:00:00Z ",
     "2026-01-31T1a:00:00Z", "", "3000-01-01T00:00:00Z", None, 7],
)  # fmt: skip
def test_what_is_no_instant_is_an_error(text: object) -> None:
    assert told(_INSTANT, {"t": text}) == "error"
