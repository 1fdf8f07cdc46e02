# METADATA
# title: Description
# description: Nothing is judged that nobody described. Reasons `undescribed_method` and `unclassified_data`.
# scope: package
package sidecar.description

findings(call) := data.sidecar.facts.failing(checks) if {
	action := input.action.name
	known := data.data.actions.known
	known_action := action in known
	uncategorised := [input.resource.categories == [], call.empty] == [true, false]
	categories := input.resource.categories
	unclassified := "unclassified" in categories
	checks := {
		"sidecar.description.method": [known_action, input.action.service != null, input.action.method != null] == [true, true, true],
		"sidecar.description.no_category": uncategorised == false,
		"sidecar.description.unclassified": unclassified == redacts(call),
	}
}

# The service's settings may clear unclassified fields instead of refusing. Only answers can be cleared.
redacts(call) if {
	"unclassified" in input.resource.categories
	call.reading == true
	input.action.service in data.data.services.redact_unclassified
} else := false
