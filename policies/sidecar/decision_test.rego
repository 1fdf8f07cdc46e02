package sidecar.decision_test

import data.sidecar.fixtures_test as fixtures

test_a_permit_names_its_rule if {
	decision := fixtures.decide({})
	decision == {
		"effect": "permit",
		"reasons": [{"code": "us_personnel", "message": "US personnel", "rule": "sidecar.residency.us_personnel"}],
		"obligations": [
			{"id": "redact_fields", "categories": ["id_government", "personal_financial"]},
			{"id": "mask_fields", "categories": ["id_contact"]},
		],
		"advice": [],
		"ttl_seconds": 30,
	}
}

test_a_deny_has_no_obligations if {
	decision := fixtures.decide({"context": {"purpose": "curiosity"}})
	decision.effect == "deny"
	decision.obligations == []
	decision.ttl_seconds == 30
}

test_denials_are_listed_across_packages if {
	change := {
		"subject": {"person": {"us_personnel": false, "status": "left"}},
		"resource": {"location": {"region": "elsewhere"}},
		"context": {"purpose": "curiosity"},
	}
	denied := fixtures.denied(change)
	denied == {"not_us_personnel", "personnel_ineligible", "purpose_not_allowed", "storage_not_allowed"}
}

test_what_cannot_be_worked_out_is_denied if {
	doc := fixtures.support
	decision := data.sidecar.decision with input as doc with data.data.personnel as {"source": "emptied"}
	decision.effect == "deny"
	decision.reasons[0].code == "policy_error"
	decision.ttl_seconds == 0
}

test_the_first_reason_is_the_one_that_matters_most if {
	decision := fixtures.decide({"subject": fixtures.abroad})
	codes := [code | some reason in decision.reasons; code := reason.code]
	codes == ["not_us_personnel", "person_location"]
}

test_a_rule_without_a_reason_denies if {
	doc := object.union(fixtures.support, {"context": {"purpose": "curiosity"}})
	decision := data.sidecar.decision with input as doc with data.data.reasons.denying as {}
	decision.effect == "deny"
	decision.reasons[0].code == "policy_error"
	decision.reasons[0].rule == "sidecar.purpose.stated"
}
