package sidecar.residency_test

import data.sidecar.fixtures_test as fixtures

test_us_personnel_reach_us_subjects if {
	permitted := fixtures.permitted({})
	permitted == {"sidecar.residency.us_personnel"}
}

test_us_personnel_reach_unknown_subjects if {
	change := fixtures.subjects(0, 0, 4)
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.residency.us_personnel"}
}

test_others_do_not_reach_us_subjects if {
	denying := fixtures.denying({"subject": fixtures.abroad})
	denying == {"sidecar.residency.us_subjects", "sidecar.personnel.location"}
}

test_others_reach_other_subjects if {
	change := object.union(fixtures.subjects(0, 2, 0), {"subject": fixtures.abroad})
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.residency.other_subjects"}
}

test_unknown_subjects_count_as_us if {
	change := object.union(fixtures.subjects(0, 0, 1), {"subject": fixtures.abroad})
	denying := fixtures.denying(change)
	denying == {"sidecar.residency.unknown_subjects", "sidecar.personnel.location"}
}

test_aggregates_of_nobody_are_nobodys if {
	change := {"resource": {"categories": ["aggregate"], "classes": ["metrics"], "subjects": {"us": 0}}}
	doc := object.union(change, {
		"subject": object.union(fixtures.abroad, {"person": {"roles": ["analyst"]}}),
		"context": {"purpose": "business_metrics"},
	})
	permitted := fixtures.permitted(doc)
	permitted == {"sidecar.residency.other_subjects"}
}

test_data_of_nobody_in_particular_counts_as_us if {
	change := object.union(fixtures.subjects(0, 0, 0), {"subject": fixtures.abroad})
	denied := fixtures.denied(change)
	denied == {"subjects_unknown", "person_location"}
}

test_an_answer_without_data_is_permitted if {
	change := {
		"subject": fixtures.abroad,
		"resource": {"categories": [], "classes": [], "subjects": {"us": 0}},
	}
	every phase in ["request", "response"] {
		permitted := fixtures.permitted(object.union(change, {"context": {"phase": phase}}))
		permitted == {"sidecar.residency.other_subjects"}
	}
}

mixed(action, phase) := {
	"subject": fixtures.abroad,
	"action": {"name": action},
	"resource": {"categories": ["behaviour"], "subjects": {"us": 2, "non_us": 3, "unknown": 1}},
	"context": {"phase": phase},
}

test_mixed_answers_are_dropped_where_the_service_says_so if {
	every action in ["read", "list", "search"] {
		obligations := fixtures.obligations(mixed(action, "response"))
		{"id": "drop_records", "subjects": "us"} in obligations
		{"id": "drop_records", "subjects": "unknown"} in obligations
		permitted := fixtures.permitted(mixed(action, "response"))
		permitted == {"sidecar.residency.drop"}
	}
}

test_who_is_barred_for_want_of_knowledge_is_refused_not_spared if {
	known := object.union(fixtures.support, mixed("list", "response"))
	permitted := data.sidecar.decision with input as known
	permitted.effect == "permit"
	refused := data.sidecar.decision with input as known with input.subject.person.us_personnel as null
	refused.effect == "deny"
	elsewhere := object.union(fixtures.ranker, {"workload": {"operated_from": "SG"}})
	service := object.union(fixtures.support, object.union(fixtures.subjects(1, 1, 0), {"subject": elsewhere}))
	dropped := data.sidecar.decision with input as service
	dropped.effect == "permit"
	unplaced := data.sidecar.decision with input as service with input.subject.workload.operated_from as null
	unplaced.effect == "deny"
}

# What no class opens is dropped only where it is known that none does.
test_a_lane_that_is_closed_for_want_of_knowledge_is_refused_not_spared if {
	elsewhere := object.union(fixtures.ranker, {"workload": {"operated_from": "SG"}})
	lane := {"resource": {"categories": ["communication_content"], "classes": ["interoperability"]}}
	call := object.union(fixtures.support, object.union(object.union(fixtures.subjects(1, 1, 0), {"subject": elsewhere}), lane))
	dropped := data.sidecar.decision with input as call with input.context.purpose as "curiosity"
	{"id": "drop_records", "subjects": "us"} in dropped.obligations
	refused := data.sidecar.decision with input as call with input.context.purpose as null
	refused.effect == "deny"
	order := object.union(mixed("read", "response"), {"resource": {"categories": ["commerce_order"], "classes": ["commerce"]}})
	person := object.union(fixtures.support, order)
	known := data.sidecar.facts.call with input as person with input.subject.engagement.counterparty as "nobody"
	known.drop == true
	unknown := data.sidecar.facts.call with input as person with input.subject.engagement.counterparty as null
	unknown.drop == false
	unasked := data.sidecar.facts.call with input as person with input.context.purpose as null
	unasked.drop == false
}

test_what_has_no_class_is_protected_and_dropped_whatever_the_purpose if {
	person := object.union(fixtures.support, object.union(mixed("read", "response"), {"resource": {"classes": []}}))
	known := data.sidecar.facts.call with input as person with input.context.purpose as null
	known.drop == true
}

test_mixed_requests_and_writes_are_refused if {
	every change in [mixed("read", "request"), mixed("write", "response"), mixed("write", "request")] {
		denied := fixtures.denied(change)
		denied == {"not_us_personnel", "subjects_unknown", "person_location"}
	}
}

test_mixed_answers_are_refused_elsewhere if {
	change := object.union(mixed("list", "response"), {"action": {"service": "a.b.Other"}})
	denied := fixtures.denied(change)
	{"not_us_personnel", "subjects_unknown"} & denied == {"not_us_personnel", "subjects_unknown"}
}

test_a_batch_of_us_and_others_names_mixing if {
	change := object.union(mixed("write", "response"), {"resource": {"subjects": {"unknown": 0}}})
	denying := fixtures.denying(change)
	"sidecar.residency.mixed" in denying
}

test_a_batch_without_others_is_not_dropped if {
	change := object.union(mixed("list", "response"), {"resource": {"subjects": {"non_us": 0}}})
	denied := fixtures.denied(change)
	denied == {"not_us_personnel", "subjects_unknown", "person_location"}
}

pending(action, phase) := {
	"subject": fixtures.abroad,
	"action": {"name": action},
	"resource": {"categories": ["behaviour"], "subjects": {"us": 0, "pending": true}},
	"context": {"phase": phase},
}

test_reading_may_proceed_while_subjects_are_pending if {
	every action in ["read", "list", "search"] {
		permitted := fixtures.permitted(pending(action, "request"))
		permitted == {"sidecar.residency.pending"}
	}
}

test_nothing_else_may if {
	every change in [pending("write", "request"), pending("read", "response")] {
		denied := fixtures.denied(change)
		denied == {"subjects_unknown", "person_location"}
	}
}

test_pending_hides_no_us_subject if {
	change := object.union(pending("read", "request"), {"resource": {"subjects": {"us": 1}}})
	denied := fixtures.denied(change)
	denied == {"not_us_personnel", "person_location"}
}

test_a_person_has_an_id if {
	denied := fixtures.denied({"subject": {"person": {"id": ""}}})
	denied == {"unidentified_person"}
}

test_somebody_calls if {
	denied := fixtures.denied({"subject": {"kind": "robot"}})
	denied == {"unidentified_person"}
}

test_a_service_acts_within_its_registration if {
	permitted := fixtures.permitted({"subject": fixtures.ranker})
	permitted == {"sidecar.residency.registered_service"}
}

test_a_service_does_only_what_it_may if {
	denied := fixtures.denied({"subject": fixtures.ranker, "action": {"name": "write"}})
	denied == {"action_not_allowed"}
}

test_a_service_operated_elsewhere_reaches_no_us_subject if {
	elsewhere := object.union(fixtures.ranker, {"workload": {"operated_from": "SG"}})
	denying := fixtures.denying({"subject": elsewhere})
	denying == {"sidecar.residency.operated_from"}
	change := object.union(fixtures.subjects(0, 1, 0), {"subject": elsewhere})
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.residency.registered_service"}
}

test_unknown_subjects_count_as_us_for_a_service if {
	elsewhere := object.union(fixtures.ranker, {"workload": {"operated_from": "SG"}})
	denying := fixtures.denying(object.union(fixtures.subjects(0, 0, 1), {"subject": elsewhere}))
	denying == {"sidecar.residency.operated_from", "sidecar.residency.unknown_subjects"}
}

test_a_service_operated_elsewhere_gets_the_rest_of_a_mixed_answer if {
	elsewhere := object.union(fixtures.ranker, {"workload": {"operated_from": "SG"}})
	change := object.union(fixtures.subjects(1, 1, 0), {"subject": elsewhere})
	obligations := fixtures.obligations(change)
	{"id": "drop_records", "subjects": "us"} in obligations
}

test_a_service_has_an_id if {
	nameless := object.union(fixtures.ranker, {"workload": {"id": ""}})
	denied := fixtures.denied({"subject": nameless})
	denied == {"unidentified_workload"}
}

own(us, non_us, unknown, mine) := {
	"subject": fixtures.user,
	"resource": {"subjects": {"us": us, "non_us": non_us, "unknown": unknown, "own": mine}},
}

test_a_data_subject_reaches_their_own_records if {
	every change in [own(1, 0, 0, 1), own(0, 1, 0, 1), own(0, 0, 1, 1), own(3, 0, 0, 3)] {
		permitted := fixtures.permitted(change)
		permitted == {"sidecar.residency.own_record"}
	}
}

test_a_data_subject_reaches_nothing_else if {
	every change in [own(1, 0, 0, 0), own(2, 0, 0, 1), own(1, 1, 0, 1), own(0, 0, 0, 0), own(1, 0, 0, 2)] {
		denied := fixtures.denied(change)
		denied == {"not_own_record"}
	}
}

test_a_data_subject_may_ask_while_subjects_are_pending if {
	waiting := {"resource": {"subjects": {"pending": true}}, "context": {"phase": "request"}}
	asked := object.union(own(0, 0, 0, 0), waiting)
	permitted := fixtures.permitted(asked)
	permitted == {"sidecar.residency.own_record"}
	answered := object.union(own(1, 0, 0, 1), {"resource": {"subjects": {"pending": true}}})
	every change in [
		object.union(asked, {"action": {"name": "write"}}),
		object.union(own(1, 0, 0, 0), waiting),
		answered,
	] {
		denied := fixtures.denied(change)
		denied == {"not_own_record"}
	}
}

test_a_data_subject_administers_nothing if {
	change := object.union(own(1, 0, 0, 1), {"action": {"name": "admin"}})
	denied := fixtures.denied(change)
	denied == {"action_not_allowed"}
}
