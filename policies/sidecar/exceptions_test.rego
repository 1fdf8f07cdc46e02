package sidecar.exceptions_test

import data.sidecar.fixtures_test as fixtures

claim(changes) := {
	"subject": fixtures.abroad,
	"context": {"exceptions": [object.union(fixtures.grant, changes)]},
}

test_a_grant_lifts_what_an_exception_may_lift if {
	permitted := fixtures.permitted(claim({}))
	permitted == {"sidecar.exceptions.valid"}
	decision := fixtures.decide(claim({}))
	decision.reasons[0].message == "by exception EX-1"
	decision.ttl_seconds == 0
	{"id": "limit_records", "max": 3} in decision.obligations
}

test_every_reason_that_may_be_lifted_is if {
	places := {"country": "SG", "provider": "oci", "region": "ap-singapore-1"}
	change := object.union(claim({}), {
		"action": {"name": "delete"},
		"resource": {
			"categories": ["behaviour", "public"], "location": places,
			"subjects": {"us": 300, "unknown": 2},
		},
		"context": {"network": {"destination": places}},
	})
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.exceptions.valid"}
	ungranted := fixtures.denied(object.union(change, {"context": {"exceptions": []}}))
	ungranted == {
		"not_us_personnel", "person_location", "subjects_unknown", "action_not_allowed", "volume_limit",
		"storage_not_allowed", "destination_not_allowed",
	}
}

test_nothing_else_is_lifted if {
	every change in [
		{"subject": {"person": {"status": "left"}}},
		{"subject": {"authentication": {"aal": 1}}},
		{"subject": {"as_of": "2026-11-20T00:00:00Z"}},
		{"context": {"purpose": "curiosity"}},
		{"action": {"name": "peek"}},
	] {
		decision := fixtures.decide(object.union(claim({}), change))
		decision.effect == "deny"
	}
}

test_a_grant_that_does_not_hold_is_named if {
	every changes in [
		{"person": "alice"},
		{"ticket": "HELP-2"},
		{"scope": {"services": []}},
		{"scope": {"services": ["a.b.Other"]}},
		{"scope": {"categories": ["behaviour"]}},
		{"scope": {"subjects": "unknown"}},
		{"scope": {"subjects": "everyone"}},
		{"not_before": "2026-11-22T12:01:00Z"},
		{"expires": "2026-11-22T12:00:00Z"},
		{"expires": "2026-11-23T10:00:01Z"},
		{"approvers": []},
		{"approvers": ["dora"]},
		{"approvers": ["dora", "dora"]},
		{"approvers": ["dora", "chen"]},
		{"approvers": ["dora", "bao"]},
		{"approvers": ["dora", "emil", "bao"]},
	] {
		denied := fixtures.denied(claim(changes))
		denied == {"exception_invalid", "not_us_personnel", "person_location"}
	}
}

test_a_claim_is_not_blamed_for_what_it_could_not_lift if {
	change := object.union(claim({"ticket": "HELP-2"}), {"subject": {"person": {"status": "left"}}})
	denied := fixtures.denied(change)
	denied == {"personnel_ineligible", "not_us_personnel", "person_location"}
}

test_a_claim_that_was_not_needed_changes_nothing if {
	change := object.union(claim({"person": "alice"}), {"subject": fixtures.support.subject})
	decision := fixtures.decide(change)
	decision.effect == "permit"
	decision.ttl_seconds == 30
}

test_a_grant_is_for_people if {
	elsewhere := object.union(fixtures.ranker, {"workload": {"operated_from": "SG"}})
	change := object.union(claim({}), {"subject": elsewhere})
	denied := fixtures.denied(change)
	"class_not_allowed" in denied
}

test_with_a_grant_a_mixed_answer_is_whole if {
	change := object.union(claim({}), fixtures.subjects(2, 1, 0))
	obligations := fixtures.obligations(change)
	dropped := {obligation | some obligation in obligations; obligation.id == "drop_records"}
	dropped == set()
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.exceptions.valid"}
}

test_the_smallest_of_several_grants_is_used if {
	second := object.union(fixtures.grant, {"id": "EX-0"})
	change := {"subject": fixtures.abroad, "context": {"exceptions": [fixtures.grant, second]}}
	decision := fixtures.decide(change)
	decision.reasons[0].message == "by exception EX-0"
}

test_a_grant_holds_from_its_first_minute_and_for_a_whole_day if {
	every changes in [
		{"not_before": "2026-11-22T12:00:00Z"},
		{"not_before": "2026-11-22T10:00:00Z", "expires": "2026-11-23T10:00:00Z"},
	] {
		permitted := fixtures.permitted(claim(changes))
		permitted == {"sidecar.exceptions.valid"}
	}
}

test_the_limit_is_that_of_the_grant_that_is_used if {
	second := object.union(fixtures.grant, {"id": "EX-0", "max_records": 7})
	change := {"subject": fixtures.abroad, "context": {"exceptions": [fixtures.grant, second]}}
	obligations := fixtures.obligations(change)
	limits := {most | some obligation in obligations; obligation.id == "limit_records"; most := obligation.max}
	limits == {7}
}

test_a_grant_names_the_class_of_subjects if {
	unknown := fixtures.subjects(0, 0, 1)
	every class in ["us", "unknown"] {
		permitted := fixtures.permitted(object.union(claim({"scope": {"subjects": class}}), unknown))
		permitted == {"sidecar.exceptions.valid"}
	}
	denied := fixtures.denied(object.union(claim({"scope": {"subjects": "non_us"}}), unknown))
	"exception_invalid" in denied
}
