"""28 CFR 202.211(a)(3)-(5), 202.256: which people are covered persons, and on what each verdict rests."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ownership import facts

from sidecar.administration.covered_explain import _ENTITY, _PERSON
from sidecar.administration.covered_people import access, holds_as_covered
from sidecar.attributes.countries import COUNTRIES_OF_CONCERN
from sidecar.attributes.coverage import OF_A_US_PERSON, US_STATUSES, WITHOUT_PRESENCE, EntityBasis, PersonBasis

pytestmark = pytest.mark.unit


def verdict(employer="no", **changes):
    found = access(facts(counterparty="firm", **changes), employer)
    return found.value, found.basis


class TestForeignPersons:
    @pytest.mark.parametrize("country", sorted(COUNTRIES_OF_CONCERN))
    def test_202_211_a_4_primarily_resident_there(self, country):
        assert verdict(residence=country) == ("yes", "resident_of_concern")

    @pytest.mark.parametrize("country", ["IE", "TW", "KR", "SG", "US"])
    def test_202_211_a_4_resident_elsewhere(self, country):
        assert verdict(residence=country) == ("no", "foreign_not_covered")

    @pytest.mark.parametrize("engagement", ["employment", "none", None])
    def test_202_211_a_3_employee_or_contractor_of_a_covered_entity(self, engagement):
        assert verdict("yes", engagement=engagement) == ("yes", "employed_by_covered")

    def test_202_211_a_3_comes_before_residence(self):
        assert verdict("yes", residence="CN") == ("yes", "employed_by_covered")

    def test_202_211_a_4_a_residence_of_concern_lasts_until_another_is_attested(self):
        assert verdict(residence="CN", attested=False) == ("yes", "resident_of_concern")

    def test_what_is_not_known_and_matters(self):
        assert verdict("unknown") == ("unknown", "employer_unknown")
        assert verdict(residence=None) == ("unknown", "residence_unknown")
        assert verdict(attested=False) == ("unknown", "residence_unattested")
        assert verdict(legal_status=None, residence="CN") == ("unknown", "legal_status_unknown")
        assert verdict("yes", legal_status=None) == ("unknown", "legal_status_unknown")

    def test_what_is_not_known_and_does_not_matter(self):
        assert verdict(legal_status=None) == ("no", "foreign_not_covered")
        assert verdict("unknown", residence="CN") == ("yes", "resident_of_concern")


class TestUsPersons:
    @pytest.mark.parametrize("status", sorted(US_STATUSES))
    def test_202_256_by_legal_status_wherever_they_are(self, status):
        for residence in ("CN", None, "US"):
            for present in ("yes", "stale", "no"):
                found = verdict("yes", legal_status=status, residence=residence, present=present)
                assert found == ("no", "us_person_status")

    def test_202_256_the_statuses(self):
        assert {"us_citizen", "us_national", "us_permanent_resident", "refugee", "asylee"} == US_STATUSES

    @pytest.mark.parametrize("employer", ["no", "unknown", "yes"])
    @pytest.mark.parametrize("residence", ["CN", "IE", None])
    def test_202_256_anybody_in_the_united_states(self, employer, residence):
        assert verdict(employer, residence=residence, present="yes") == ("no", "us_person_present")
        assert verdict(employer, residence=residence, present="yes", legal_status=None) == ("no", "us_person_present")

    def test_202_256_a_sighting_too_long_ago_is_no_presence(self):
        assert verdict(residence="CN", present="stale") == ("unknown", "presence_unattested")
        assert verdict("yes", present="stale") == ("unknown", "presence_unattested")
        assert verdict(residence=None, present="stale") == ("unknown", "residence_unknown")
        assert verdict(present="stale") == ("no", "foreign_not_covered")


class TestDesignated:
    @pytest.mark.parametrize("status", [None, "foreign", *sorted(US_STATUSES)])
    @pytest.mark.parametrize("present", ["yes", "stale", "no"])
    def test_202_211_a_5_any_person_wherever_located(self, status, present):
        found = verdict("yes", designated=True, legal_status=status, present=present, engagement="vendor")
        assert found == ("yes", "designated")


class TestCounterparties:
    @pytest.mark.parametrize("engagement", ["vendor", "investment", "brokerage"])
    @pytest.mark.parametrize("status", [None, "foreign", *sorted(US_STATUSES)])
    @pytest.mark.parametrize("present", ["yes", "stale", "no"])
    def test_202_401_what_a_covered_counterparty_s_people_reach_it_reaches(self, engagement, status, present):
        found = verdict("yes", engagement=engagement, legal_status=status, present=present)
        assert found == ("yes", "counterparty_covered")

    @pytest.mark.parametrize("engagement", ["vendor", "investment", "brokerage"])
    def test_a_counterparty_that_may_be_covered(self, engagement):
        assert verdict("unknown", engagement=engagement, legal_status="us_citizen") == (
            "unknown",
            "counterparty_unknown",
        )
        assert verdict("unknown", engagement=engagement, present="yes") == ("unknown", "counterparty_unknown")
        assert verdict("unknown", engagement=engagement, residence="CN") == ("yes", "resident_of_concern")
        assert verdict("unknown", engagement=engagement) == ("unknown", "employer_unknown")

    @pytest.mark.parametrize("engagement", ["vendor", "investment", "brokerage"])
    def test_a_counterparty_that_is_not_covered(self, engagement):
        assert verdict(engagement=engagement, legal_status="us_citizen") == ("no", "us_person_status")
        assert verdict(engagement=engagement) == ("no", "foreign_not_covered")

    def test_nobody_named(self):
        nobody = {"counterparty": None, "legal_status": "us_citizen"}
        assert access(facts(**nobody, engagement="vendor"), "unknown").basis == "counterparty_unknown"
        for engagement in ("employment", "none", None):
            assert access(facts(**nobody, engagement=engagement), "unknown").basis == "us_person_status"
        assert access(facts(counterparty=None), "unknown").basis == "employer_unknown"

    @pytest.mark.parametrize("employer", ["yes", "unknown"])
    def test_an_agreement_of_unknown_kind_with_a_counterparty_that_is_or_may_be_covered(self, employer):
        for changes in ({"legal_status": "us_citizen"}, {"present": "yes"}):
            assert verdict(employer, engagement=None, **changes) == ("unknown", "engagement_unknown")
        assert verdict(engagement=None, legal_status="us_citizen") == ("no", "us_person_status")

    @pytest.mark.parametrize("engagement", ["employment", "none"])
    def test_202_211_a_3_us_persons_whom_a_covered_entity_employs_are_not_covered(self, engagement):
        assert verdict("yes", engagement=engagement, legal_status="us_citizen") == ("no", "us_person_status")


class TestOwnership:
    def test_access_through_a_covered_counterparty_makes_no_covered_owner(self):
        person = facts(engagement="vendor", counterparty="firm", legal_status="us_citizen")
        assert access(person, "yes").value == "yes"
        assert not holds_as_covered(person, employer_covered=True, maybe=True)

    def test_presence_leaves_an_owner_open(self):
        person = facts(residence="CN", present="yes")
        assert not holds_as_covered(person, employer_covered=False, maybe=False)
        assert holds_as_covered(person, employer_covered=False, maybe=True)


PEOPLE = st.builds(
    facts, designated=st.booleans(), legal_status=st.sampled_from([None, "foreign", *US_STATUSES]),
    residence=st.sampled_from([None, "IE", "CN"]), attested=st.booleans(), present=st.sampled_from(["yes", "stale", "no"]),
    engagement=st.sampled_from([None, "employment", "vendor", "investment", "brokerage", "none"]),
    counterparty=st.sampled_from([None, "firm"]),
)  # fmt: skip
RANK = {"no": 0, "unknown": 1, "yes": 2}


@given(PEOPLE)
def test_a_more_covered_employer_makes_nobody_less_covered(person):
    ranks = [RANK[access(person, employer).value] for employer in ("no", "unknown", "yes")]
    assert ranks == sorted(ranks)


@given(PEOPLE, st.booleans(), st.booleans())
def test_ownership_only_grows(person, employed, maybe):
    if holds_as_covered(person, employer_covered=employed, maybe=maybe):
        assert holds_as_covered(person, employer_covered=employed, maybe=True)
        assert holds_as_covered(person, employer_covered=True, maybe=maybe)


@given(PEOPLE, st.sampled_from(["no", "unknown", "yes"]))
def test_a_basis_says_who_is_a_us_person(person, employer):
    found = access(person, employer)
    if found.basis in OF_A_US_PERSON:
        assert found.value == "no"
        assert person.legal_status in US_STATUSES or person.present == "yes"
    if found.basis in WITHOUT_PRESENCE:
        elsewhere = facts(**{name: getattr(person, name) for name in person.__slots__} | {"present": "no"})
        assert access(elsewhere, employer) == found


def test_every_basis_is_explained():
    assert set(_PERSON) == set(get_args(PersonBasis))
    assert set(_ENTITY) == set(get_args(EntityBasis))
