package sidecar.description_test

import data.sidecar.fixtures_test as fixtures

test_a_described_method_passes if {
	denied := fixtures.denied({})
	denied == set()
}

test_an_unknown_action_is_not_described if {
	denied := fixtures.denied({"action": {"name": "peek"}})
	"undescribed_method" in denied
}

test_unclassified_fields_are_cleared_where_the_service_says_so if {
	obligations := fixtures.obligations({"resource": {"categories": ["public", "unclassified"]}})
	{"id": "redact_fields", "categories": ["unclassified"]} in obligations
}

test_unclassified_fields_are_refused_elsewhere if {
	change := {"action": {"service": "a.b.Other"}, "resource": {"categories": ["public", "unclassified"]}}
	denied := fixtures.denied(change)
	"unclassified_data" in denied
}

test_unclassified_fields_cannot_be_cleared_from_a_request_to_write if {
	change := {"action": {"name": "write"}, "resource": {"categories": ["public", "unclassified"]}}
	denied := fixtures.denied(change)
	"unclassified_data" in denied
}

test_no_category_is_unclassified if {
	denying := fixtures.denying({"resource": {"categories": []}})
	"sidecar.description.no_category" in denying
}
