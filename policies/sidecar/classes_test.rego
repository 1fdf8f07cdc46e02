package sidecar.classes_test

import data.sidecar.fixtures_test as fixtures

# A person abroad meets data of one class of 60 US subjects, as the lane asks for it.
lane(class, categories, purpose, role) := {
	"subject": object.union(fixtures.abroad, {"person": {"roles": [role]}}),
	"resource": {
		"categories": categories,
		"classes": [class],
		"listed_identifiers": [],
		"subjects": {"us": 60},
	},
	"context": {"purpose": purpose},
}

closed(change) := "class_not_allowed" in codes if codes := fixtures.denied(change)

public := lane("public", ["public", "user_content"], "user_support", "support")

test_public_data_needs_no_person_rule if {
	change := object.union(public, {"subject": {"person": {"status": "left", "training": []}}, "context": {"purpose": "none"}})
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.residency.open_class"}
}

test_public_is_a_lane_for_reading if {
	closed(object.union(public, {"action": {"name": "write"}})) == true
}

test_a_protected_field_closes_the_public_lane if {
	change := object.union(public, {"resource": {"categories": ["public", "id_contact"]}})
	denied := fixtures.denied(change)
	"not_us_personnel" in denied
	beside := object.union(public, {"resource": {"classes": ["protected", "public"]}})
	both := fixtures.denied(beside)
	"not_us_personnel" in both
}

test_no_class_and_an_unknown_class_are_protected if {
	every classes in [[], ["friendly"], ["public", "friendly"]] {
		denied := fixtures.denied(object.union(public, {"resource": {"classes": classes}}))
		"not_us_personnel" in denied
	}
}

metrics := lane("metrics", ["aggregate"], "business_metrics", "analyst")

test_metrics_open_over_enough_subjects if {
	permitted := fixtures.permitted(metrics)
	permitted == {"sidecar.residency.open_class"}
	exactly := object.union(metrics, {"resource": {"subjects": {"us": 50}}})
	enough := fixtures.permitted(exactly)
	enough == {"sidecar.residency.open_class"}
}

test_metrics_close_below_with_identifiers_for_writing_and_for_other_purposes if {
	every change in [
		{"resource": {"subjects": {"us": 49}}},
		{"resource": {"listed_identifiers": ["d"]}},
		{"resource": {"categories": ["aggregate", "behaviour"]}},
		{"action": {"name": "write"}},
		{"context": {"purpose": "user_support"}},
	] {
		denied := fixtures.denied(object.union(metrics, change))
		"not_us_personnel" in denied
	}
}

test_closed_metrics_say_so if {
	closed(object.union(metrics, {"resource": {"subjects": {"us": 49}}})) == true
	closed(metrics) == false
}

interoperability := object.union(
	lane("interoperability", ["communication_content"], "global_interoperability", "none"),
	{"subject": object.union(fixtures.ranker, {"workload": {"operated_from": "SG"}})},
)

test_interoperability_opens_to_a_service if {
	permitted := fixtures.permitted(interoperability)
	permitted == {"sidecar.residency.registered_service"}
}

test_interoperability_closes_to_a_person_and_to_other_purposes if {
	closed(lane("interoperability", ["communication_content"], "global_interoperability", "engineer")) == true
	closed(object.union(interoperability, {"context": {"purpose": "service_operation"}})) == true
	closed(object.union(interoperability, {"resource": {"categories": ["id_government"]}})) == true
}

commerce := object.union(
	lane("commerce", ["commerce_order"], "commerce_fulfilment", "commerce"),
	{"subject": {"engagement": {"counterparty": "shipper"}}, "resource": {"subjects": {"us": 1}}},
)

terms := object.union(data.data.classes.lanes, {"commerce": {"counterparties": ["shipper"], "workloads": ["spiffe://corp/ns/ship"]}})

test_commerce_opens_to_a_listed_entity_for_one_order if {
	doc := object.union(fixtures.support, commerce)
	lanes := terms
	decision := data.sidecar.decision with input as doc with data.data.classes.lanes as lanes
	decision.effect == "permit"
}

test_commerce_opens_to_a_listed_service if {
	workload := {"id": "spiffe://corp/ns/ship", "operated_from": "SG"}
	subject := object.union(fixtures.ranker, {"workload": workload})
	doc := object.union(fixtures.support, object.union(commerce, {"subject": subject}))
	lanes := terms
	opened := data.sidecar.decision with input as doc with data.data.classes.lanes as lanes
	opened.effect == "permit"
	closed_to_it := data.sidecar.decision with input as doc
	closed_to_it.effect == "deny"
}

test_commerce_closes_to_others_and_for_sets_of_orders if {
	closed(commerce) == true
	lanes := terms
	every change in [
		{"subject": {"engagement": {"counterparty": "other"}}},
		{"resource": {"subjects": {"us": 2}}},
		{"context": {"purpose": "user_support"}},
	] {
		doc := object.union(fixtures.support, object.union(commerce, change))
		decision := data.sidecar.decision with input as doc with data.data.classes.lanes as lanes
		codes := {code | some reason in decision.reasons; code := reason.code}
		"class_not_allowed" in codes
	}
}

test_only_the_closed_lanes_are_named if {
	change := object.union(metrics, {"resource": {"classes": ["public", "metrics"], "subjects": {"us": 49}}})
	denying := fixtures.denying(change)
	"sidecar.classes.metrics" in denying
	named := {rule | some rule in denying; startswith(rule, "sidecar.classes.")}
	named == {"sidecar.classes.metrics"}
}

test_a_list_of_services_is_not_for_people_nor_the_other_way_round if {
	workload := {"id": "spiffe://corp/ns/ship", "operated_from": "SG"}
	person := {"subject": {"engagement": {"counterparty": "other"}, "workload": workload}}
	service := {"subject": {"kind": "workload", "workload": {"operated_from": "SG"}, "engagement": {"counterparty": "shipper"}}}
	lanes := terms
	every change in [person, service] {
		doc := object.union(fixtures.support, object.union(commerce, change))
		decision := data.sidecar.decision with input as doc with data.data.classes.lanes as lanes
		decision.effect == "deny"
	}
}
