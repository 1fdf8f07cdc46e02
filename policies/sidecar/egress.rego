# METADATA
# title: Egress
# description: |
#   Data of US subjects, and of subjects that count as such, is stored in and leaves for allowed places only. Reasons
#   `storage_not_allowed`, `destination_not_allowed`. In a migration window both are permitted, and the permit says
#   `migration_window`.
# scope: package
package sidecar.egress

findings(call) := set() if {
	call.at_stake == false
} else := data.sidecar.facts.failing(checks) if {
	regions := data.data.regions
	checks := {
		"sidecar.egress.storage": storage_allowed(call, regions),
		"sidecar.egress.destination": destination_allowed(call, regions),
	}
}

storage_allowed(call, regions) if {
	stored(regions.storage) == true
} else := window("storage", call.now) != ""

destination_allowed(call, regions) if {
	delivered(call, regions.destinations) == true
} else := window("destinations", call.now) != ""

# Why the permit holds although a place is not on the list. Counted.
notes(call) := set() if {
	data.data.regions.migration_windows == []
} else := set() if {
	call.at_stake == false
} else := set() if {
	stored(data.data.regions.storage) == true
	delivered(call, data.data.regions.destinations) == true
} else := {reason |
	some place in ["storage", "destinations"]
	name := window(place, call.now)
	name != ""
	reason := {
		"code": "migration_window",
		"message": concat(" ", [place, "allowed by migration window", name]),
		"rule": "sidecar.egress.migration_window",
	}
}

stored(places) if {
	place := input.resource.location
	places[place.provider][place.region] == place.country
} else := false

# Every class in the message must be free to go there; where data is handled as protected, protected data must be.
delivered(call, lists) if {
	call.strict == true
	leaves_for(lists.protected) == true
} else if {
	call.strict == false
	input.resource.classes != []
	every class in input.resource.classes {
		leaves_for(lists[class]) == true
	}
} else := false

leaves_for(list) if {
	input.context.network.destination.country in list.countries
} else if {
	list.any_known == true
	input.context.network.destination.country != null
} else := false

# The open window that allows the place of the data, or the empty name. The smallest name, so that it is always the same.
window(kind, now) := "" if {
	data.data.regions.migration_windows == []
} else := min(names) if {
	names := {name |
		some one in data.data.regions.migration_windows
		time.parse_rfc3339_ns(one.from) <= now
		time.parse_rfc3339_ns(one.until) > now
		inside(kind, one) == true
		name := one.id
	}
	names != set()
} else := ""

inside("storage", one) if {
	place := input.resource.location
	some listed in one.storage
	listed.provider == place.provider
	listed.region == place.region
} else := false

inside("destinations", one) if {
	input.context.network.destination.country in one.destinations
} else := false
