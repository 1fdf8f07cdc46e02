package sidecar.egress_test

import data.sidecar.fixtures_test as fixtures

frankfurt := {"country": "DE", "provider": "oci", "region": "eu-frankfurt-1"}

stored(place) := {"resource": {"location": place}}

leaving(place) := {"context": {"network": {"destination": place}}}

only(change, rule) if {
	denying := fixtures.denying(change)
	denying == {rule}
}

test_storage if {
	only(stored(frankfurt), "sidecar.egress.storage")
	only(stored({"region": "us-luke-1"}), "sidecar.egress.storage")
	only(stored({"provider": "other"}), "sidecar.egress.storage")
	only(stored({"country": "DE"}), "sidecar.egress.storage")
	every region in ["us-ashburn-1", "us-phoenix-1", "us-chicago-1", "us-sanjose-1"] {
		permitted := fixtures.permitted(stored({"region": region}))
		permitted == {"sidecar.residency.us_personnel"}
	}
}

test_destination if {
	only(leaving(frankfurt), "sidecar.egress.destination")
	permitted := fixtures.permitted(leaving({"country": "PR"}))
	permitted == {"sidecar.residency.us_personnel"}
}

test_places_are_judged_for_us_subjects if {
	change := object.union(fixtures.subjects(0, 1, 0), object.union(stored(frankfurt), leaving(frankfurt)))
	permitted := fixtures.permitted(change)
	permitted == {"sidecar.residency.us_personnel"}
}

test_unknown_subjects_count_as_us if {
	denying := fixtures.denying(object.union(fixtures.subjects(0, 0, 1), stored(frankfurt)))
	denying == {"sidecar.egress.storage"}
}

test_places_are_judged_for_every_kind_of_caller if {
	served := fixtures.denied(object.union(stored(frankfurt), {"subject": fixtures.ranker}))
	served == {"storage_not_allowed"}
	own := {"subject": fixtures.user, "resource": {"subjects": {"own": 1}}}
	denied := fixtures.denied(object.union(own, leaving(frankfurt)))
	denied == {"destination_not_allowed"}
}

test_public_data_leaves_for_any_known_place if {
	public := {"resource": {"classes": ["public"], "categories": ["public"]}}
	permitted := fixtures.permitted(object.union(public, leaving(frankfurt)))
	permitted == {"sidecar.residency.us_personnel"}
	listed := data.data.regions.destinations
	elsewhere := object.union(listed, {"public": {"any_known": false, "countries": ["US"]}})
	doc := object.union(fixtures.support, object.union(public, leaving(frankfurt)))
	decision := data.sidecar.decision with input as doc with data.data.regions.destinations as elsewhere
	decision.effect == "deny"
}

window := {
	"id": "2026-move",
	"from": "2026-11-22T00:00:00Z",
	"until": "2026-11-23T00:00:00Z",
	"storage": [{"provider": "oci", "region": "eu-frankfurt-1"}],
	"destinations": ["DE"],
}

during(windows, change) := decision if {
	doc := object.union(fixtures.support, change)
	decision := data.sidecar.decision with input as doc with data.data.regions.migration_windows as windows
}

test_a_migration_window_permits_and_says_so if {
	every change in [stored(frankfurt), leaving(frankfurt)] {
		decision := during([window], change)
		decision.effect == "permit"
		codes := [code | some reason in decision.reasons; code := reason.code]
		codes == ["us_personnel", "migration_window"]
	}
}

test_a_migration_window_is_not_mentioned_where_it_is_not_needed if {
	decision := during([window], {})
	codes := [code | some reason in decision.reasons; code := reason.code]
	codes == ["us_personnel"]
}

test_a_migration_window_ends_and_has_places if {
	closed := object.union(window, {"until": "2026-11-22T12:00:00Z"})
	later := object.union(window, {"from": "2026-11-22T12:01:00Z"})
	paris := object.union(window, {"storage": [{"provider": "oci", "region": "eu-paris-1"}]})
	every one in [closed, later, paris] {
		decision := during([one], stored(frankfurt))
		decision.effect == "deny"
	}
}

test_a_migration_window_opens_on_time_and_for_its_provider if {
	now := object.union(window, {"from": "2026-11-22T12:00:00Z"})
	opened := during([now], stored(frankfurt))
	opened.effect == "permit"
	elsewhere := object.union(window, {"storage": [{"provider": "other", "region": "eu-frankfurt-1"}]})
	refused := during([elsewhere], stored(frankfurt))
	refused.effect == "deny"
}

test_a_class_leaves_for_its_own_places if {
	public := {"resource": {"classes": ["public"], "categories": ["public"]}}
	doc := object.union(fixtures.support, public)
	listed := data.data.regions.destinations
	abroad_only := object.union(listed, {"public": {"any_known": false, "countries": ["DE"]}})
	decision := data.sidecar.decision with input as doc with data.data.regions.destinations as abroad_only
	decision.effect == "deny"
}

test_what_is_handled_as_protected_leaves_as_protected if {
	closed := {"resource": {"classes": ["public"], "categories": ["public", "id_contact"]}}
	only(object.union(closed, leaving(frankfurt)), "sidecar.egress.destination")
}

test_a_migration_window_is_not_mentioned_for_other_subjects if {
	decision := during([window], object.union(fixtures.subjects(0, 1, 0), stored(frankfurt)))
	codes := [code | some reason in decision.reasons; code := reason.code]
	codes == ["us_personnel"]
}
