package sidecar.purpose_test

import data.sidecar.fixtures_test as fixtures

only(change, rule) if {
	denying := fixtures.denying(change)
	denying == {rule}
}

test_a_purpose_is_stated_and_known if {
	only({"context": {"purpose": ""}}, "sidecar.purpose.stated")
	only({"context": {"purpose": "curiosity"}}, "sidecar.purpose.stated")
}

test_purposes_of_services_and_users_are_not_for_people if {
	only({"context": {"purpose": "service_operation"}}, "sidecar.purpose.stated")
	only({"context": {"purpose": "own_data_access"}}, "sidecar.purpose.stated")
	only({"context": {"purpose": "global_interoperability"}}, "sidecar.purpose.stated")
}

test_categories if {
	only({"resource": {"categories": ["behaviour", "personal_health"]}}, "sidecar.purpose.category")
	decision := fixtures.decide({"resource": {"categories": ["behaviour", "personal_health"]}})
	decision.advice == ["the purpose does not serve category personal_health"]
}

test_classes if {
	only({"resource": {"classes": ["protected", "metrics"]}}, "sidecar.purpose.class")
}

test_actions if {
	only({"action": {"name": "export"}, "resource": {"categories": ["behaviour"]}}, "sidecar.purpose.action")
	only({"action": {"name": "admin"}, "resource": {"categories": ["behaviour"]}}, "sidecar.purpose.action")
	only({"action": {"name": "delete"}, "resource": {"categories": ["behaviour"]}}, "sidecar.purpose.action")
}

test_roles if {
	only({"subject": {"person": {"roles": []}}}, "sidecar.purpose.role")
	only({"subject": {"person": {"roles": ["analyst"]}}}, "sidecar.purpose.role")
}

test_tickets if {
	only({"context": {"ticket": ""}}, "sidecar.purpose.ticket")
	permitted := fixtures.permitted({"context": {"ticket": ""}, "resource": {"categories": ["behaviour", "public"]}})
	permitted == {"sidecar.residency.us_personnel"}
}

test_a_withheld_category_needs_no_ticket if {
	permitted := fixtures.permitted({"context": {"ticket": ""}, "resource": {"categories": ["behaviour", "id_government"]}})
	permitted == {"sidecar.residency.us_personnel"}
}

legal := {"subject": {"person": {"roles": ["legal"]}}, "context": {"purpose": "legal_process"}}

test_approvals if {
	only(legal, "sidecar.purpose.approval")
	denied := fixtures.denied(legal)
	denied == {"approval_required"}
	permitted := fixtures.permitted(object.union(legal, {"resource": {"categories": ["id_contact"]}}))
	permitted == {"sidecar.residency.us_personnel"}
}

test_a_grant_is_an_approval if {
	granted := object.union(legal, {"context": {"exceptions": [object.union(fixtures.grant, {"person": "alice"})]}})
	permitted := fixtures.permitted(granted)
	permitted == {"sidecar.residency.us_personnel", "sidecar.exceptions.valid"}
	decision := fixtures.decide(granted)
	decision.ttl_seconds == 0
	{"id": "limit_records", "max": 3} in decision.obligations
}

test_a_ticket_goes_with_an_approval if {
	ticketless := object.union(legal, {"context": {"ticket": ""}})
	denied := fixtures.denied(ticketless)
	denied == {"approval_required", "ticket_missing"}
}

test_volume if {
	only(fixtures.subjects(201, 0, 0), "sidecar.purpose.volume")
	permitted := fixtures.permitted(fixtures.subjects(200, 0, 0))
	permitted == {"sidecar.residency.us_personnel"}
}

test_the_rules_are_for_people if {
	denied := fixtures.denied({"subject": fixtures.ranker, "context": {"purpose": "curiosity"}})
	denied == set()
}

test_the_list_is_well_formed if {
	purposes := data.data.purposes.purposes
	every purpose in purposes {
		purpose.recipients != []
		is_number(purpose.max_subjects)
		every need in purpose.categories {
			need in ["nothing", "ticket", "approval"]
		}
		every action in purpose.actions {
			action in data.data.actions.known
		}
		every recipient in purpose.recipients {
			recipient in ["personnel", "workload", "data_subject"]
		}
	}
}
