package sidecar.covered_persons_reach_test

import data.sidecar.fixtures_test as fixtures

# -- services and data subjects

abroad(country) := {"workload": {"operated_from": country}}

test_202_211_a_service_operated_from_a_country_of_concern_is_covered_whoever_stands_behind_it if {
	every country in ["CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"] {
		person := fixtures.dsp(object.union(fixtures.finances(abroad(country)), fixtures.bulk))
		person == {"dsp_bulk", "dsp_security_requirements_unmet"}
		service := object.union(fixtures.ranker, object.union(abroad(country), {"engagement": {"type": "none"}}))
		denied := fixtures.dsp(fixtures.reaching(service, ["personal_financial"], {}, {}))
		denied == {"dsp_status_unknown"}
		user := object.union(fixtures.user, object.union(abroad(country), {"engagement": {"type": "none"}}))
		own := object.union(fixtures.reaching(user, ["personal_financial"], {}, {}), {"resource": {"subjects": {"own": 1}}})
		refused := fixtures.dsp(own)
		refused == {"dsp_status_unknown"}
	}
}

test_202_601_taiwan_and_south_korea_are_not_of_concern if {
	every country in ["TW", "KR", "SG", "US"] {
		silent := fixtures.dsp(object.union(fixtures.finances(abroad(country)), fixtures.bulk))
		silent == set()
	}
}

test_where_a_service_is_operated_must_be_known if {
	every subject in [{}, fixtures.ranker, fixtures.user] {
		doc := object.union(fixtures.support, fixtures.reaching(subject, ["personal_financial"], {}, {}))
		decision := data.sidecar.decision with input as doc with input.subject.workload.operated_from as null
		codes := {reason.code | some reason in decision.reasons}
		"dsp_status_unknown" in codes
	}
}

test_of_other_services_and_of_data_subjects_it_is_silent if {
	unknown := {kind: "unknown" | some kind, _ in fixtures.counts}
	nobody := object.union(fixtures.unresolved, {"engagement": {"type": "none"}})
	every kind in [fixtures.ranker, fixtures.user] {
		subject := object.union(nobody, kind)
		silent := fixtures.dsp(fixtures.reaching(subject, ["personal_financial"], unknown, unknown))
		silent == set()
	}
}

# -- listed identifiers: 202.212, 202.232(b)(2)

listed(subject, category, letter, exposure) := object.union(
	fixtures.reaching(subject, [category], exposure, {}),
	{"resource": {"listed_identifiers": [letter]}},
)

test_202_212_b_1_c_1_an_identifier_linked_to_nothing_is_outside if {
	every subject in [fixtures.covered, fixtures.unresolved] {
		every pair in [["id_contact", "d"], ["id_government", "a"], ["id_account_auth", "f"]] {
			decision := fixtures.decide(listed(subject, pair[0], pair[1], {}))
			codes := {reason.code | some reason in decision.reasons; startswith(reason.code, "dsp_")}
			codes == set()
			decision.ttl_seconds == 0
		}
	}
}

test_202_232_b_2_an_identifier_that_earlier_calls_link_is_not if {
	every category in ["covered_personal_identifiers", "combined"] {
		denied := fixtures.dsp(listed(fixtures.unresolved, "id_contact", "d", {category: 1}))
		denied == {"dsp_status_unknown"}
	}
	bulk_by_course := fixtures.dsp(listed(fixtures.covered, "id_contact", "d", {"covered_personal_identifiers": 100001}))
	bulk_by_course == {"dsp_bulk", "dsp_security_requirements_unmet"}
	unlisted := fixtures.dsp(fixtures.reaching(fixtures.covered, ["id_contact"], {"covered_personal_identifiers": 100001}, {}))
	unlisted == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

test_202_232_b_2_without_a_ledger_nobody_knows_what_links_it if {
	every subject in [fixtures.covered, fixtures.unresolved] {
		denied := fixtures.dsp(listed(subject, "id_contact", "d", {"covered_personal_identifiers": "unknown"}))
		"dsp_status_unknown" in denied
	}
}

test_202_212_a_linked_identifiers_are_at_stake if {
	change := object.union(
		fixtures.reaching(fixtures.unresolved, ["id_government", "id_contact"], {}, {}),
		{"resource": {"listed_identifiers": ["a", "d"], "computed": ["covered_personal_identifiers"]}},
	)
	denied := fixtures.dsp(change)
	denied == {"dsp_status_unknown"}
}

# -- whose data

test_202_206_of_data_about_nobody_in_the_us_it_is_silent if {
	silent := fixtures.dsp(object.union(object.union(fixtures.finances(fixtures.covered), fixtures.bulk), fixtures.subjects(0, 2, 0)))
	silent == set()
	unknown := fixtures.dsp(object.union(object.union(fixtures.finances(fixtures.covered), fixtures.bulk), fixtures.subjects(0, 0, 1)))
	unknown == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

test_from_a_mixed_answer_the_records_are_dropped_where_the_service_says_so if {
	change := object.union(object.union(fixtures.finances(fixtures.engaged(fixtures.covered, "vendor")), fixtures.bulk), fixtures.subjects(1, 2, 1))
	decision := fixtures.decide(change)
	decision.effect == "permit"
	decision.ttl_seconds == 0
	drops := {obligation.subjects | some obligation in decision.obligations; obligation.id == "drop_records"}
	drops == {"us", "unknown"}
	codes := {reason.code | some reason in decision.reasons}
	codes == {"us_personnel", "records_dropped"}
	every other in [
		{"action": {"name": "write"}}, {"action": {"service": "a.b.Other"}},
		{"context": {"phase": "request"}}, {"resource": {"subjects": {"pending": true}}},
	] {
		denied := fixtures.dsp(object.union(change, other))
		denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
	}
}

test_before_the_answer_is_known_nothing_is_judged if {
	pending := {"action": {"name": "list"}, "resource": {"subjects": {"us": 0, "pending": true}}, "context": {"phase": "request"}}
	waiting := fixtures.dsp(object.union(object.union(fixtures.finances(fixtures.covered), fixtures.bulk), pending))
	waiting == set()
	writing := object.union(pending, {"action": {"name": "write"}})
	denied := fixtures.dsp(object.union(object.union(fixtures.finances(fixtures.covered), fixtures.bulk), writing))
	denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

test_a_class_switches_nothing_off if {
	every class in ["public", "metrics", "interoperability", "commerce"] {
		change := object.union(object.union(fixtures.finances(fixtures.covered), fixtures.bulk), {"resource": {"classes": [class]}})
		denied := fixtures.dsp(change)
		denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
	}
}

test_where_exposure_counts_a_refusal_is_not_remembered_either if {
	decision := fixtures.decide(object.union(fixtures.finances(fixtures.covered), fixtures.bulk))
	decision.ttl_seconds == 0
	silent := fixtures.decide(fixtures.finances({}))
	silent.ttl_seconds == 30
}
