package sidecar.personnel_test

import data.sidecar.fixtures_test as fixtures

only(change, rule) if {
	denying := fixtures.denying({"subject": change})
	denying == {rule}
}

test_status if only({"person": {"status": "suspended"}}, "sidecar.personnel.status")

test_vetting_lapses if {
	only({"person": {"vetted_until": "2026-11-22T11:59:00Z"}}, "sidecar.personnel.vetting")
	only({"person": {"vetted_until": "2026-11-22T12:00:00Z"}}, "sidecar.personnel.vetting")
	permitted := fixtures.permitted({"subject": {"person": {"vetted_until": "2026-11-22T12:01:00Z"}}})
	permitted == {"sidecar.residency.us_personnel"}
}

test_zones_are_understood if {
	only({"person": {"vetted_until": "2026-11-22T13:30:00+02:00"}}, "sidecar.personnel.vetting")
	permitted := fixtures.permitted({"subject": {"person": {"vetted_until": "2026-11-22T11:30:00-02:00"}}})
	permitted == {"sidecar.residency.us_personnel"}
}

test_training if {
	only({"person": {"training": []}}, "sidecar.personnel.training")
	only({"person": {"training": [{"id": "data_protection", "until": "2026-11-22T12:00:00Z"}]}}, "sidecar.personnel.training")
	only({"person": {"training": [{"id": "first_aid", "until": "2027-06-01T00:00:00Z"}]}}, "sidecar.personnel.training")
}

test_engagement if {
	only({"engagement": {"type": "none"}}, "sidecar.personnel.engagement")
	only({"engagement": {"type": "brokerage"}}, "sidecar.personnel.engagement")
	only({"engagement": {"until": "2026-11-22T12:00:00Z"}}, "sidecar.personnel.engagement")
	only({"engagement": {"from": "2026-11-22T12:01:00Z"}}, "sidecar.personnel.engagement")
	permitted := fixtures.permitted({"subject": {"engagement": {"type": "vendor", "from": "2026-11-22T12:00:00Z"}}})
	permitted == {"sidecar.residency.us_personnel"}
}

test_directory if {
	only({"as_of": "2026-11-22T10:59:59Z"}, "sidecar.personnel.directory")
	only({"as_of": "2026-11-22T12:02:01Z"}, "sidecar.personnel.directory")
	every at in ["2026-11-22T11:00:00Z", "2026-11-22T12:00:30Z", "2026-11-22T12:02:00Z"] {
		permitted := fixtures.permitted({"subject": {"as_of": at}})
		permitted == {"sidecar.residency.us_personnel"}
	}
}

test_authentication if {
	only({"authentication": {"aal": 1}}, "sidecar.personnel.authentication")
	only({"authentication": {"time": "2026-11-21T23:59:00Z"}}, "sidecar.personnel.authentication")
	only({"authentication": {"time": "2026-11-22T12:05:00Z"}}, "sidecar.personnel.authentication")
	every at in ["2026-11-22T00:00:00Z", "2026-11-22T12:02:00Z"] {
		permitted := fixtures.permitted({"subject": {"authentication": {"aal": 3, "time": at}}})
		permitted == {"sidecar.residency.us_personnel"}
	}
}

test_location if {
	only({"person": {"location": {"country": "SG"}}}, "sidecar.personnel.location")
	every country in ["US", "PR", "GU", "VI", "AS", "MP", "UM"] {
		permitted := fixtures.permitted({"subject": {"person": {"location": {"country": country}}}})
		permitted == {"sidecar.residency.us_personnel"}
	}
}

test_location_for_other_subjects if {
	change := object.union(fixtures.subjects(0, 1, 0), {"subject": {"person": {"location": {"country": "SG"}}}})
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.residency.us_personnel"}
}

test_location_lists_for_other_subjects if {
	change := object.union(fixtures.subjects(0, 1, 0), {"subject": {"person": {"location": {"country": "SG"}}}})
	doc := object.union(fixtures.support, change)
	closed := {"any_known": false, "countries": ["IE"]}
	refused := data.sidecar.decision with input as doc with data.data.personnel.locations.other_subjects as closed
	refused.reasons[0].rule == "sidecar.personnel.location"
	open := {"any_known": false, "countries": ["IE", "SG"]}
	allowed := data.sidecar.decision with input as doc with data.data.personnel.locations.other_subjects as open
	allowed.effect == "permit"
}

test_every_rule_that_denies_is_listed if {
	denying := fixtures.denying({"subject": {"as_of": "2026-11-22T09:00:00Z", "person": {"status": "left", "training": []}}})
	denying == {"sidecar.personnel.status", "sidecar.personnel.training", "sidecar.personnel.directory"}
}

test_the_rules_are_for_people if {
	change := {"subject": object.union(fixtures.ranker, {"person": {"status": "left"}, "as_of": "2020-01-01T00:00:00Z"})}
	denied := fixtures.denied(change)
	denied == set()
}
