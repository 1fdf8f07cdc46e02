"""What the benchmarks make of what they saw: refusals are no answers, and a target is judged only where both were seen."""

from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Value

from tests.benchmarks import rivals, rivals_cerbos, rivals_opa
from tests.benchmarks.h2load import LoadError, Seen

pytestmark = pytest.mark.unit


def seen(*rates: float) -> list[Seen]:
    return [Seen(rate=one, p50=1.0, p99=2.0) for one in rates]


def test_a_ratio_is_the_median_of_its_rounds_and_is_judged() -> None:
    found = rivals.ratio("g", "w", 1, seen(200, 300, 90), seen(100, 100, 100), 1.5)
    assert (found.figure, found.reached, found.target) == (2.0, True, "≥ 1.5 ×")
    assert rivals.ratio("g", "w", 1, seen(149), seen(100), 1.5).reached is False


def test_a_ratio_to_a_server_that_did_not_answer_is_not_judged() -> None:
    found = rivals.ratio("g", "w", 1, seen(200, 200), seen(100, 0), 1.5)
    assert (found.figure, found.reached) == (2.0, None)
    assert rivals.ratio("g", "w", 1, seen(200), seen(0), 1.5).figure == 0.0


def test_our_own_lost_round_counts_as_no_rate() -> None:
    assert rivals.ratio("g", "w", 1, seen(0, 0, 300), seen(100, 100, 100), 1.0).reached is False


def test_refusals_and_lost_rounds_are_told() -> None:
    told = rivals.Refusals()
    told.add("a", 1, 0.25)
    told.add("b", 1, rivals.BROKEN_OFF / 2)
    told.fail("c", 1)
    assert told.note("a", 1) == "25% refused"
    assert told.note("b", 1) == ""
    assert told.note("c", 1) == "rounds without a good answer: 1"
    assert told.note("a", 32) == ""


def test_opas_plugin_is_judged_by_way_of_the_plain_proxy_and_its_engine_is_not_judged() -> None:
    at = {rivals_opa.PLAIN: seen(1972), rivals_opa.ENGINE: seen(500)}
    judged, shown = rivals_opa.against("g", "ours", 1, seen(1.6 * 1078), at, 1.5)
    assert judged.figure == pytest.approx(1.6) and judged.reached is True
    assert rivals_opa.BY_WAY in judged.note
    assert shown.reached is None and not shown.target


def test_a_plugin_that_was_measured_is_judged_by_what_it_did() -> None:
    at = {rivals_opa.PLAIN: seen(1), rivals_opa.PLUGIN: seen(1000)}
    (judged,) = rivals_opa.against("g", "ours", 32, seen(900), at, 1.0)
    assert judged.figure == pytest.approx(0.9) and judged.reached is False


def test_what_cerbos_is_asked_has_every_attribute_and_resource() -> None:
    ids = [str(one) for one in range(1, 51)]
    framed = rivals_cerbos._asking(Path("s"), rivals_cerbos.PRINCIPAL, ids).body
    assert framed[:5] == b"\0" + (len(framed) - 5).to_bytes(4, "big")
    parts = list(rivals_cerbos._fields(framed[5:]))
    (who,) = [part for number, part in parts if number == 3]
    asked = [dict(rivals_cerbos._fields(part)) for number, part in parts if number == 4]
    attributes = [dict(rivals_cerbos._fields(part)) for number, part in rivals_cerbos._fields(who) if number == 4]
    assert {one[1].decode() for one in attributes} == set(rivals_cerbos.PRINCIPAL)
    assert Value.FromString({one[1]: one[2] for one in attributes}[b"suspended"]).bool_value is False
    assert [dict(rivals_cerbos._fields(one[2]))[3].decode() for one in asked] == ids


def test_effects_are_read_from_what_cerbos_answers() -> None:
    def result(effect: int) -> bytes:
        pair = rivals_cerbos._part(1, b"read") + bytes([2 << 3, effect])
        return rivals_cerbos._part(2, rivals_cerbos._part(1, b"x" * 200) + rivals_cerbos._part(2, pair))

    assert rivals_cerbos._effects(rivals_cerbos._part(1, b"bench") + result(1) + result(2)) == [1, 2]
    with pytest.raises(LoadError):
        rivals_cerbos._effects(b"\x0d\0\0\0\0")
