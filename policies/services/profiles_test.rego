package sidecar.services.profiles_test

import data.sidecar.fixtures_test as fixtures

test_support_sees_neither_government_ids_nor_finances if {
	obligations := fixtures.obligations({})
	{"id": "redact_fields", "categories": ["id_government", "personal_financial"]} in obligations
	{"id": "mask_fields", "categories": ["id_contact"]} in obligations
}

trust := {
	"subject": {"person": {"roles": ["trust_and_safety"]}},
	"resource": {"categories": ["id_contact", "personal_financial"]},
	"context": {"purpose": "trust_and_safety"},
}

test_trust_and_safety_sees_contacts_and_finances if {
	obligations := fixtures.obligations(trust)
	obligations == set()
}

test_the_role_alone_does_not if {
	obligations := fixtures.obligations(object.union(trust, {
		"subject": {"person": {"roles": ["support", "trust_and_safety"]}},
		"context": {"purpose": "user_support"},
	}))
	obligations == {
		{"id": "redact_fields", "categories": ["personal_financial"]},
		{"id": "mask_fields", "categories": ["id_contact"]},
	}
}

test_the_purpose_alone_does_not if {
	doc := object.union(fixtures.support, trust)
	needs := {"personal_financial": {"roles": ["legal"], "purposes": ["trust_and_safety"]}}
	decision := data.sidecar.decision with input as doc with data.data.profiles.needs as needs
	decision.obligations == [{"id": "redact_fields", "categories": ["personal_financial"]}]
}

test_nothing_is_withheld_from_services_and_users if {
	served := fixtures.obligations({"subject": fixtures.ranker})
	served == set()
	own := fixtures.obligations({"subject": fixtures.user, "resource": {"subjects": {"own": 1}}})
	own == set()
}

test_writing_is_not_redacted if {
	denied := fixtures.denied({"action": {"name": "write"}})
	denied == {"purpose_not_allowed"}
	obligations := fixtures.obligations({"action": {"name": "write"}, "resource": {"categories": ["id_contact"]}})
	obligations == set()
}

test_open_streams_are_decided_again if {
	stream := fixtures.obligations({"action": {"name": "list", "method": "ListMessages"}, "resource": {"categories": ["user_content"]}})
	stream == {{"id": "recheck_seconds", "seconds": 30}}
	unary := fixtures.obligations({"action": {"method": "GetProfile"}, "resource": {"categories": ["user_content"]}})
	unary == set()
}

test_government_ids_for_legal_process_reach_the_store_first if {
	obligations := fixtures.obligations({
		"subject": {"person": {"roles": ["legal"]}},
		"context": {"purpose": "legal_process", "exceptions": [object.union(fixtures.grant, {"person": "alice"})]},
	})
	{"id": "require_durability", "level": "acknowledged"} in obligations
}

test_other_services_are_left_alone if {
	obligations := fixtures.obligations({
		"action": {"service": "a.b.Other", "method": "ListMessages"},
		"resource": {"categories": ["behaviour", "id_contact"]},
	})
	obligations == set()
}
