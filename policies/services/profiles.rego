# METADATA
# title: Profiles
# description: |
#   The demonstration service. A file of this folder adds to one set, `data.sidecar.services.answer`: objects with
#   `withheld` and `masked` (categories cleared from or masked in answers) and `obligations`. Every other name in the
#   file begins with the service's, and every rule asks first whether the call is for this service.
# scope: package
package sidecar.services

# People see what their role and purpose need.
answer contains {
	"withheld": withheld,
	"masked": masked,
	"obligations": profiles_durability(withheld, terms.acknowledged),
} if {
	terms := data.data.profiles
	input.action.service == terms.service
	call := data.sidecar.facts.call
	call.personnel == true
	call.reading == true
	purpose := input.context.purpose
	needed := {category |
		some category, need in terms.needs
		purpose in need.purposes
		some role in input.subject.person.roles
		role in need.roles
	}
	categories := input.resource.categories
	withheld := {category |
		some category, _ in terms.needs
		category in categories
		not needed[category]
	}
	masked := {category |
		some category, mask in terms.masks
		category in categories
		exempting := mask.unless_purposes
		exempt := purpose in exempting
		exempt == false
	}
}

# Open streams are decided again.
answer contains {
	"withheld": set(),
	"masked": set(),
	"obligations": [{"id": "recheck_seconds", "seconds": seconds}],
} if {
	terms := data.data.profiles
	input.action.service == terms.service
	seconds := terms.recheck_seconds[input.action.method]
}

# The record of the most sensitive accesses reaches the store before anything is released.
profiles_durability(withheld, acknowledged) := [{"id": "require_durability", "level": "acknowledged"}] if {
	some category in input.resource.categories
	input.context.purpose in acknowledged[category]
	not withheld[category]
} else := []
