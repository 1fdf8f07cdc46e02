package sidecar.government_related_test

import data.sidecar.fixtures_test as fixtures

flagged(subject, categories, resource) := fixtures.dsp(object.union(
	fixtures.reaching(subject, categories, {}, {}),
	{"resource": resource},
))

test_202_222_a_1_precise_locations_in_a_listed_area_at_any_volume if {
	denied := flagged(fixtures.covered, ["precise_geolocation"], {"flags": ["in_listed_area"], "computed": ["government_related"]})
	denied == {"dsp_government_related", "dsp_security_requirements_unmet"}
	unclassified := flagged(fixtures.covered, ["unclassified"], {"flags": ["in_listed_area"], "computed": ["government_related"]})
	"dsp_government_related" in unclassified
}

test_202_222_a_1_other_data_in_a_listed_area_is_not if {
	silent := flagged(fixtures.covered, ["personal_health"], {"flags": ["in_listed_area"], "computed": ["government_related"]})
	silent == set()
}

test_202_222_a_2_sensitive_data_marketed_as_government_staffs_at_any_volume if {
	every category in ["personal_health", "precise_geolocation", "unclassified"] {
		denied := flagged(fixtures.covered, [category], {"flags": ["marketed_as_government"], "computed": ["government_related"]})
		"dsp_government_related" in denied
		"dsp_security_requirements_unmet" in denied
	}
}

test_202_222_a_2_data_that_is_not_sensitive_is_not if {
	silent := flagged(fixtures.covered, ["behaviour"], {"flags": ["marketed_as_government"], "computed": ["government_related"]})
	silent == set()
}

test_202_222_what_is_computed_for_the_call_counts_without_a_flag if {
	denied := flagged(fixtures.covered, ["precise_geolocation"], {"flags": [], "computed": ["government_related"]})
	denied == {"dsp_government_related", "dsp_security_requirements_unmet"}
}

test_202_301_brokered_to_a_covered_person if {
	broker := object.union(fixtures.covered, {"engagement": {"type": "brokerage"}})
	denied := flagged(broker, ["personal_health"], {"flags": ["marketed_as_government"]})
	denied == {"dsp_government_related", "dsp_prohibited_brokerage"}
}

test_202_302_brokered_to_another_foreign_person if {
	broker := object.union(fixtures.foreign, {"engagement": {"type": "brokerage"}})
	denied := flagged(broker, ["personal_health"], {"flags": ["marketed_as_government"]})
	denied == {"dsp_onward_terms_missing"}
	with_clause := object.union(broker, {"engagement": {"onward_clause_ref": "C-7"}})
	silent := flagged(with_clause, ["personal_health"], {"flags": ["marketed_as_government"]})
	silent == set()
}

test_of_us_persons_nothing_is_asked if {
	silent := flagged({}, ["precise_geolocation"], {"flags": ["in_listed_area"], "computed": ["government_related"]})
	silent == set()
}
