"""28 CFR 202.211(a)(1), (2), (5), 202.256: which entities are covered persons, every threshold at its edge."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ownership import entity, facts, opinion, owned, worlds

from sidecar.administration.covered import Coverage
from sidecar.administration.covered_explain import Explanation
from sidecar.attributes.countries import ASSIGNED, COUNTRIES_OF_CONCERN, UNITED_STATES

pytestmark = pytest.mark.unit
CONCERN, TERRITORIES = sorted(COUNTRIES_OF_CONCERN), sorted(UNITED_STATES)
CN = entity("cn", ("CN",), "CN")
PRC = entity("prc", (), None, government_of="CN")


def verdict(name, *entities, **people):
    found = Coverage(entities, people).entity(name)
    return found.value, found.basis


def test_202_601_the_countries_of_concern_are_six_with_hong_kong_and_macau():
    assert {"CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"} == COUNTRIES_OF_CONCERN
    assert COUNTRIES_OF_CONCERN <= ASSIGNED
    assert COUNTRIES_OF_CONCERN.isdisjoint({"TW", "KR", "BY", "SY", *UNITED_STATES})


class TestWhatItIs:
    @pytest.mark.parametrize("country", CONCERN)
    def test_202_211_a_1_organised_there(self, country):
        assert verdict("e", entity("e", (country,), "IE")) == ("yes", "entity_organised")
        assert verdict("e", entity("e", ("IE", country), "IE")) == ("yes", "entity_organised")

    @pytest.mark.parametrize("country", CONCERN)
    def test_202_211_a_1_principal_place_there(self, country):
        assert verdict("e", entity("e", ("IE",), country)) == ("yes", "entity_principal_place")

    @pytest.mark.parametrize("country", CONCERN)
    def test_202_209_its_government(self, country):
        assert verdict("e", entity("e", (), None, government_of=country, others=None)) == ("yes", "government")

    @pytest.mark.parametrize("country", ["TW", "KR", "IE", "SG", "GB"])
    def test_202_211_a_1_other_countries_are_not(self, country):
        assert verdict("e", entity("e", (country,), country)) == ("no", "foreign_not_covered")

    @pytest.mark.parametrize("country", ["IE", "TW"])
    def test_202_209_other_governments_need_no_owners(self, country):
        found = verdict("e", entity("e", (), None, government_of=country, others=None))
        assert found == ("no", "foreign_not_covered")

    @pytest.mark.parametrize("country", TERRITORIES)
    def test_202_256_organised_solely_under_us_law(self, country):
        for place in ("US", "CN", None):
            assert verdict("e", entity("e", (country,), place)) == ("no", "us_person_organised")
        assert verdict("e", entity("e", ("US", country) if country != "US" else ("US",))) == (
            "no",
            "us_person_organised",
        )

    def test_202_256_organised_in_the_us_and_elsewhere_is_foreign(self):
        assert verdict("e", entity("e", ("US", "CN"), "US")) == ("yes", "entity_organised")
        assert verdict("e", entity("e", ("US", "IE"), "US")) == ("no", "foreign_not_covered")

    def test_202_256_a_us_subsidiary_of_a_chinese_parent_is_a_us_person(self):
        assert verdict("us", CN, entity("us", ("US",), "US", ("cn", 100))) == ("no", "us_person_organised")

    def test_202_221_a_chinese_subsidiary_of_a_us_parent_is_foreign_and_covered(self):
        parent = entity("parent", ("US",), "US")
        assert verdict("sub", parent, entity("sub", ("CN",), "CN", ("parent", 100))) == ("yes", "entity_organised")

    def test_202_211_a_5_designation_overrides_everything(self):
        for one in (entity("e", ("US",), "US"), entity("e", (), None), owned("e"),
                    entity("e", (), None, government_of="IE")):  # fmt: skip
            designated = entity("e", one.organised_under, one.principal_place, designated=True,
                                government_of=one.government_of)  # fmt: skip
            assert verdict("e", designated) == ("yes", "designated")

    def test_202_211_a_5_what_a_designated_us_person_owns(self):
        designated = entity("us", ("US",), "US", designated=True)
        assert verdict("e", designated, owned("e", ("us", 50))) == ("yes", "entity_owned_50")


class TestFiftyPercent:
    @pytest.mark.parametrize("owner", [CN, PRC])
    @pytest.mark.parametrize(
        ("share", "found"),
        [
            ("49.999999999999", ("no", "foreign_not_covered")),
            ("49.9", ("no", "foreign_not_covered")),
            ("50", ("yes", "entity_owned_50")),
            ("50.0", ("yes", "entity_owned_50")),
            ("50.000000000001", ("yes", "entity_owned_50")),
            ("100", ("yes", "entity_owned_50")),
        ],
    )
    def test_202_211_a_1_fifty_percent_or_more_direct(self, owner, share, found):
        assert verdict("e", owner, owned("e", (owner.id, share))) == found

    def test_202_211_a_2_fifty_of_fifty_counts(self):
        assert verdict("c", CN, owned("b", ("cn", "50.0")), owned("c", ("b", "50.0"))) == ("yes", "entity_owned_50")

    def test_202_211_a_2_a_hundred_of_less_than_fifty_does_not(self):
        found = verdict("c", CN, owned("b", ("cn", "49.999999999999")), owned("c", ("b", 100)))
        assert found == ("no", "foreign_not_covered")

    def test_202_211_a_2_less_than_fifty_of_a_hundred_does_not(self):
        found = verdict("c", CN, owned("b", ("cn", 100)), owned("c", ("b", "49.999999999999")))
        assert found == ("no", "foreign_not_covered")

    @pytest.mark.parametrize(
        ("one", "other", "found"), [("25", "25", "yes"), ("25", "24.999999999999", "no"), ("0.1", "49.9", "yes")]
    )
    def test_202_211_a_1_in_the_aggregate(self, one, other, found):
        ru = entity("ru", ("RU",), "RU")
        assert verdict("e", CN, ru, owned("e", ("cn", one), ("ru", other)))[0] == found

    def test_202_211_a_1_directly_and_indirectly_in_the_aggregate(self):
        middle = owned("m", ("cn", 50))
        assert verdict("e", CN, middle, owned("e", ("cn", 25), ("m", 25)))[0] == "yes"
        assert verdict("e", CN, middle, owned("e", ("cn", 20), ("m", 25)))[0] == "no"

    def test_202_211_a_1_a_thousand_owners_of_a_tenth(self):
        owners = [entity(f"o{number}", ("CN",), "CN") for number in range(1000)]
        whole = owned("e", *((one.id, "0.1") for one in owners))
        assert verdict("e", *owners, whole)[0] == "yes"
        half = owned("e", *((one.id, "0.1") for one in owners[:500]))
        assert verdict("e", *owners, half)[0] == "yes"
        less = owned("e", *((one.id, "0.1") for one in owners[:499]))
        assert verdict("e", *owners, less)[0] == "no"

    def test_202_211_a_1_indirectly_through_a_us_person(self):
        us = entity("us", ("US",), "US", ("cn", 50))
        found = Coverage([CN, us, owned("e", ("us", 50))], {})
        assert (found.entity("us").value, found.entity("us").owners) == ("no", ("cn",))
        assert found.entity("e").value == "yes"
        us = entity("us", ("US",), "US", ("cn", "49.9"))
        assert verdict("e", CN, us, owned("e", ("us", 100)))[0] == "no"

    def test_202_211_a_2_persons_who_own(self):
        resident, employee = facts(residence="CN"), facts(counterparty="cn")
        assert verdict("e", CN, owned("e", ("p", 50)), p=resident)[0] == "yes"
        assert verdict("e", CN, owned("e", ("p", 50)), p=employee)[0] == "yes"
        assert verdict("e", CN, owned("e", ("p", "49.9")), p=resident)[0] == "no"
        assert verdict("e", CN, owned("e", ("p", 25), ("q", 25)), p=resident, q=employee)[0] == "yes"
        assert verdict("e", CN, owned("e", ("p", 100)), p=facts(designated=True, legal_status="us_citizen"))[0] == "yes"
        assert verdict("e", CN, owned("e", ("p", 100)), p=facts(residence="CN", legal_status="us_citizen"))[0] == "no"

    def test_202_256_an_owner_who_is_in_the_us_for_a_while_settles_nothing(self):
        assert verdict("e", owned("e", ("p", 50)), p=facts(residence="CN", present="yes", counterparty="e")) == (
            "unknown", "owners_unknown")  # fmt: skip

    def test_202_211_a_3_the_employee_of_an_entity_owns_the_next(self):
        people = {"p": facts(counterparty="a"), "q": facts(counterparty="b")}
        chain = [CN, owned("a", ("cn", 50)), owned("b", ("p", 50)), owned("c", ("q", 50))]
        assert [Coverage(chain, people).entity(name).value for name in "abc"] == ["yes"] * 3

    def test_rings_make_nobody_covered_and_end(self):
        ring = [owned("a", ("b", 100)), owned("b", ("c", 100)), owned("c", ("a", 100))]
        assert [Coverage(ring, {}).entity(name).value for name in "abc"] == ["unknown"] * 3
        pair = [owned("a", ("b", 50), ("cn", 25)), owned("b", ("a", 50), ("cn", 25)), CN]
        assert [Coverage(pair, {}).entity(name).value for name in "ab"] == ["unknown"] * 2
        fed = [owned("a", ("b", 50), ("cn", 50)), owned("b", ("a", 50)), CN]
        assert [Coverage(fed, {}).entity(name).value for name in "ab"] == ["yes"] * 2

    def test_a_ring_of_less_than_half_makes_nobody_unknown(self):
        pair = [owned("a", ("b", "49.9")), owned("b", ("a", "49.9"))]
        assert [Coverage(pair, {}).entity(name).value for name in "ab"] == ["no"] * 2

    def test_a_chain_of_many(self):
        chain = [CN, *(owned(f"e{number}", (f"e{number - 1}" if number else "cn", 50)) for number in range(5000))]
        assert verdict("e4999", *chain)[0] == "yes"
        lines = list(Explanation(Coverage(chain, {}), {one.id: one for one in chain}).entity("e999"))
        assert len(lines) == 1001
        assert "more than 1000" in lines[-1]


class TestNotKnown:
    @pytest.mark.parametrize(
        ("one", "basis"),
        [
            (entity("e", (), "IE"), "organised_unknown"),
            (entity("e", (), "US"), "organised_unknown"),
            (entity("e", (), None), "organised_unknown"),
            (entity("e", ("IE",), None), "principal_place_unknown"),
            (owned("e", others=None), "owners_unknown"),
            (owned("e", ("ie", "50"), others=None), "owners_unknown"),
            (owned("e", ("cn", "49.9"), ("ie", "50"), others=None), "owners_unknown"),
        ],
    )
    def test_what_is_not_known_and_matters(self, one, basis):
        assert verdict("e", one, CN, owned("ie")) == ("unknown", basis)

    @pytest.mark.parametrize(
        ("one", "found"),
        [
            (owned("e", ("ie", "50.000000000001"), others=None), "no"),
            (owned("e", ("cn", "49.9"), ("ie", "50.000000000001"), others=None), "no"),
            (owned("e", ("cn", "50"), others=None), "yes"),
            (entity("e", ("US",), None, others=None), "no"),
            (entity("e", ("CN",), None, others=None), "yes"),
            (owned("e", ("ie", 100)), "no"),
        ],
    )
    def test_what_is_not_known_and_does_not_matter(self, one, found):
        assert verdict("e", one, CN, owned("ie"))[0] == found

    def test_an_owner_of_whom_nothing_is_known(self):
        unknown = entity("u", (), None)
        assert verdict("e", unknown, owned("e", ("u", 50))) == ("unknown", "owners_unknown")
        assert verdict("e", unknown, owned("e", ("u", "49.9"))) == ("no", "foreign_not_covered")

    def test_where_it_is_organised_matters_though_its_owners_are_covered(self):
        found = Coverage([CN, entity("e", (), None, ("cn", 100))], {})
        assert (found.entity("e").value, found.entity("e").basis) == ("unknown", "organised_unknown")
        assert found.holder("e") == "yes"

    def test_a_us_person_passes_on_owners_that_nobody_knows(self):
        us = entity("us", ("US",), "US", others=None)
        assert verdict("us", us) == ("no", "us_person_organised")
        assert verdict("e", us, owned("e", ("us", 100))) == ("unknown", "owners_unknown")

    @pytest.mark.parametrize(
        "changes", [{"legal_status": None}, {"residence": None}, {"attested": False}, {"present": "stale"}]
    )
    def test_an_owner_among_persons_of_whom_too_little_is_known(self, changes):
        person = facts(**{"residence": "CN" if "attested" not in changes else "IE", "counterparty": "ie"} | changes)
        assert verdict("e", owned("ie"), owned("e", ("p", 50)), p=person)[0] == "unknown"


@settings(max_examples=200, deadline=None)
@given(worlds(), st.integers())
def test_it_is_the_fix_point_in_whatever_order(world, seed):
    entities, people = world
    shuffled = list(entities)
    random.Random(seed).shuffle(shuffled)
    one, other = Coverage(entities, people), Coverage(shuffled, dict(reversed(people.items())))
    certain, covered = opinion(entities, people, maybe=False)
    possible, may_be_covered = opinion(entities, people, maybe=True)
    for row in entities:
        value = "yes" if row.id in covered else "unknown" if row.id in may_be_covered else "no"
        assert one.entity(row.id).value == value
        assert one.entity(row.id) == other.entity(row.id)
    for name in (*people, *(row.id for row in entities)):
        assert one.holder(name) == ("yes" if name in certain else "unknown" if name in possible else "no")


RANK = {"no": 0, "unknown": 1, "yes": 2}


@settings(max_examples=150, deadline=None)
@given(worlds(), st.integers(0, 6))
def test_a_designation_more_makes_nobody_less_covered(world, chosen):
    entities, people = world
    more = [entity_ if number != chosen else _designated(entity_) for number, entity_ in enumerate(entities)]
    before, after = Coverage(entities, people), Coverage(more, people)
    for row in entities:
        assert RANK[before.entity(row.id).value] <= RANK[after.entity(row.id).value]


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_the_owners_named_are_reason_enough(world):
    entities, people = world
    coverage = Coverage(entities, people)
    for row in entities:
        verdict = coverage.entity(row.id)
        if verdict.basis == "entity_owned_50":
            shares = {owner.id: owner.share for owner in row.owners}
            assert sum(shares[name] for name in verdict.owners) >= 50
            assert {coverage.holder(name) for name in verdict.owners} == {"yes"}
        lines = list(Explanation(coverage, {one.id: one for one in entities}).entity(row.id))
        assert verdict.basis in lines[0]
        assert len(lines) < 100


def _designated(one):
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    return type(one)(**fields | {"designated": True})
