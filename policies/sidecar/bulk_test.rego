package sidecar.bulk_test

import data.sidecar.fixtures_test as fixtures

single := {
	"human_genomic": 100,
	"human_epigenomic": 1000,
	"human_proteomic": 1000,
	"human_transcriptomic": 1000,
	"biometric_identifier": 1000,
	"precise_geolocation": 1000,
	"personal_health": 10000,
	"personal_financial": 10000,
	"commerce_order": 10000,
}

exposed(category, number) := fixtures.dsp(fixtures.reaching(fixtures.covered, [category], {category: number}, {}))

reached(category, number) := fixtures.dsp(fixtures.reaching(fixtures.covered, [category], {}, {category: number}))

# With the other reading of 202.205: at the number is bulk.
switched(change) := {reason.code |
	doc := object.union(fixtures.support, change)
	decision := data.sidecar.decision with input as doc with data.data.dsp.bulk.limit_is_bulk as true
	some reason in decision.reasons
	startswith(reason.code, "dsp_")
}

test_202_205_the_numbers_are_those_of_the_regulation if {
	every category, number in single {
		data.data.dsp.bulk.thresholds[category] == number
	}
	data.data.dsp.bulk.thresholds.covered_personal_identifiers == 100000
	data.data.dsp.bulk.thresholds.unclassified == 100
}

test_202_205_a_to_e_one_below_and_at_the_number_is_not_bulk if {
	every category, number in single {
		below := exposed(category, number - 1)
		below == set()
		at := exposed(category, number)
		at == set()
		below_reached := reached(category, number - 1)
		below_reached == set()
		at_reached := reached(category, number)
		at_reached == set()
	}
}

test_202_205_a_to_e_one_more_is_bulk if {
	every category, number in single {
		more := exposed(category, number + 1)
		"dsp_bulk" in more
		"dsp_security_requirements_unmet" in more
		more_reached := reached(category, number + 1)
		"dsp_bulk" in more_reached
	}
}

test_202_205_a_to_e_with_the_switch_the_number_is_bulk if {
	every category, number in single {
		below := switched(fixtures.reaching(fixtures.covered, [category], {category: number - 1}, {}))
		below == set()
		at := switched(fixtures.reaching(fixtures.covered, [category], {category: number}, {}))
		"dsp_bulk" in at
		at_reached := switched(fixtures.reaching(fixtures.covered, [category], {}, {category: number}))
		"dsp_bulk" in at_reached
	}
}

identifiers(exposure, population) := object.union(
	fixtures.reaching(fixtures.covered, ["id_contact", "id_device"], exposure, population),
	{"resource": {"listed_identifiers": ["c", "d"], "computed": ["covered_personal_identifiers"]}},
)

test_202_205_f_covered_personal_identifiers_at_the_edge if {
	every number in [99999, 100000] {
		exposure := fixtures.dsp(identifiers({"covered_personal_identifiers": number}, {}))
		exposure == set()
		population := fixtures.dsp(identifiers({}, {"covered_personal_identifiers": number}))
		population == set()
	}
	more := fixtures.dsp(identifiers({"covered_personal_identifiers": 100001}, {}))
	more == {"dsp_bulk", "dsp_security_requirements_unmet"}
	reach := fixtures.dsp(identifiers({}, {"covered_personal_identifiers": 100001}))
	reach == {"dsp_bulk", "dsp_security_requirements_unmet"}
	below := switched(identifiers({"covered_personal_identifiers": 99999}, {}))
	below == set()
	at := switched(identifiers({"covered_personal_identifiers": 100000}, {}))
	at == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

test_202_205_unclassified_weighs_as_the_lowest_number if {
	at := exposed("unclassified", 100)
	at == set()
	more := exposed("unclassified", 101)
	"dsp_bulk" in more
}

# -- 202.205(a): the 'omic categories are one type of data

omics(change) := fixtures.dsp(fixtures.reaching(fixtures.covered, ["human_epigenomic", "human_proteomic"], change, change))

test_202_205_a_omic_categories_add_up if {
	below := omics({"human_epigenomic": 600, "human_proteomic": 400})
	below == set()
	more := omics({"human_epigenomic": 600, "human_proteomic": 401})
	more == {"dsp_bulk", "dsp_prohibited_omic", "dsp_security_requirements_unmet"}
	elsewhere := exposed("human_proteomic", 1)
	elsewhere == set()
	joined := fixtures.dsp(fixtures.reaching(
		fixtures.covered, ["human_proteomic"],
		{"human_proteomic": 1, "human_transcriptomic": 1000}, {},
	))
	"dsp_bulk" in joined
}

# -- 202.205(g): combined data

both(exposure, population) := object.union(
	fixtures.reaching(fixtures.covered, ["personal_health", "precise_geolocation"], exposure, population),
	{"resource": {"computed": ["combined"]}},
)

test_202_205_g_the_lowest_number_of_the_types_combined if {
	every source in [1, 2] {
		every number in [999, 1000] {
			counts := {"combined": number, "personal_health": number, "precise_geolocation": number}
			at := fixtures.dsp(object.union(both({}, {}), placed(source, counts)))
			at == set()
		}
		counts := {"combined": 1001, "personal_health": 1001, "precise_geolocation": 1000}
		more := fixtures.dsp(object.union(both({}, {}), placed(source, counts)))
		more == {"dsp_bulk", "dsp_security_requirements_unmet"}
		switch := switched(object.union(both({}, {}), placed(source, {
			"combined": 1000, "personal_health": 1000, "precise_geolocation": 1000,
		})))
		switch == {"dsp_bulk", "dsp_security_requirements_unmet"}
	}
}

placed(source, counts) := {"context": {"exposure": counts}} if {
	source == 1
} else := {"resource": {"dataset": {"population": counts}}}

test_202_205_g_one_type_past_the_lowest_number_suffices if {
	counts := {"combined": 1, "personal_health": 1001, "precise_geolocation": 1}
	more := fixtures.dsp(both(counts, {}))
	"dsp_bulk" in more
	doc := object.union(fixtures.support, both(counts, {}))
	decision := data.sidecar.decision with input as doc with data.data.dsp.bulk.any_type_suffices as false
	codes := {reason.code | some reason in decision.reasons}
	hit := "dsp_bulk" in codes
	hit == false
}

test_202_205_g_types_that_are_combined_in_nobody_are_counted_apart if {
	counts := {"combined": 0, "personal_health": 10000, "precise_geolocation": 1000}
	apart := fixtures.dsp(both(counts, {}))
	apart == set()
	reachable := fixtures.dsp(both({}, counts))
	reachable == set()
}

test_202_205_g_what_a_group_holds_from_other_services_is_combined_too if {
	joined := fixtures.dsp(fixtures.reaching(
		fixtures.covered, ["personal_health"],
		{"personal_health": 101, "human_genomic": 1, "combined": 1}, {},
	))
	joined == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

test_202_205_g_a_count_of_combined_data_alone_is_judged_by_what_the_call_reaches if {
	alone := fixtures.dsp(both({"combined": 1001}, {"combined": 1001}))
	alone == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

# -- what nobody knows

test_202_205_without_a_ledger_the_status_is_unknown if {
	change := fixtures.reaching(fixtures.covered, ["personal_health"], {"personal_health": "unknown"}, {})
	denied := fixtures.dsp(change)
	denied == {"dsp_status_unknown"}
	combined := fixtures.dsp(fixtures.reaching(fixtures.covered, ["personal_health"], {"combined": "unknown"}, {}))
	combined == {"dsp_status_unknown"}
	omic := fixtures.dsp(fixtures.reaching(fixtures.covered, ["human_genomic"], {"human_genomic": 50, "human_proteomic": "unknown"}, {}))
	omic == {"dsp_status_unknown"}
}

test_202_201_without_a_population_the_status_is_unknown if {
	denied := fixtures.dsp(fixtures.reaching(fixtures.covered, ["personal_health"], {}, {"personal_health": "unknown"}))
	denied == {"dsp_status_unknown"}
	combined := fixtures.dsp(both({}, {"combined": "unknown"}))
	combined == {"dsp_status_unknown"}
}

test_202_201_what_is_unknown_does_not_hide_what_is_bulk if {
	denied := fixtures.dsp(fixtures.reaching(
		fixtures.covered, ["personal_health"],
		{"personal_health": "unknown"}, {"personal_health": 10001},
	))
	denied == {"dsp_bulk", "dsp_security_requirements_unmet", "dsp_status_unknown"}
}

# -- 80 %

contacts(exposure, population) := object.union(
	fixtures.reaching(fixtures.covered, ["personal_financial"], exposure, population),
	{"subject": {"person": {"roles": ["trust_and_safety"]}}, "context": {"purpose": "trust_and_safety"}},
)

test_near_a_number_the_permit_warns if {
	every change in [
		contacts({"personal_financial": 8000}, {}), contacts({"personal_financial": 10000}, {}),
		contacts({}, {"personal_financial": 8000}),
	] {
		decision := fixtures.decide(change)
		decision.effect == "permit"
		"dsp_bulk_near" in decision.advice
		count(decision.advice) == 2
	}
	exposure := fixtures.decide(contacts({"personal_financial": 8000}, {}))
	exposure.advice == ["dsp_bulk_near", "near the bulk number: exposure of personal_financial"]
	below := fixtures.decide(contacts({"personal_financial": 7999}, {"personal_financial": 7999}))
	below.effect == "permit"
	below.advice == []
}
