package sidecar.facts_test

import data.sidecar.fixtures_test as fixtures

call(change) := facts if {
	doc := object.union(fixtures.support, change)
	facts := data.sidecar.facts.call with input as doc
}

test_what_is_at_stake if {
	us := call({})
	[us.guarded, us.strict, us.cleared, us.barred, us.drop, us.at_stake] == [true, true, true, false, false, true]
	abroad := call({"subject": fixtures.abroad})
	[abroad.guarded, abroad.cleared, abroad.barred, abroad.exposed] == [true, false, true, true]
	other := call(fixtures.subjects(0, 1, 0))
	[other.guarded, other.at_stake] == [false, false]
}

test_checks_that_fail_are_named if {
	failing := data.sidecar.facts.failing({"a": true, "b": false, "c": false})
	failing == {"b", "c"}
	none := data.sidecar.facts.failing({"a": true})
	none == set()
}
