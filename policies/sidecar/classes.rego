# METADATA
# title: Classes
# description: |
#   Lanes for data that is not protected. A class opens only while its conditions hold and while every category in the
#   message belongs to a lane the message names; everything else is handled as protected (`strict`). Reason
#   `class_not_allowed`. A class never switches 28 CFR part 202 off.
# scope: package
package sidecar.classes

# Protected, or to be handled so. False only where every class in the message is open.
strict(base) if {
	"protected" in input.resource.classes
} else := false if {
	base.empty == true
	input.resource.classes == []
} else := false if {
	input.resource.classes != []
	lanes := data.data.classes.lanes
	every class in input.resource.classes {
		open(class, base) == true
	}
	covered := {category |
		some class in input.resource.classes
		some category in lanes[class].categories
	}
	every category in input.resource.categories {
		category in covered
	}
} else := true

# The lanes that a caller without access to protected data needed, and that are closed. Beside protected data no lane
# would have helped.
findings(call) := set() if {
	call.exposed == false
} else := set() if {
	"protected" in input.resource.classes
} else := {name |
	some class in input.resource.classes
	data.data.classes.lanes[class]
	opened := open(class, call)
	opened != true
	name := concat(".", ["sidecar.classes", class])
}

# Public at the time of the call: reading it.
open("public", base) := base.reading

# Aggregates without identifiers: reading them. One that names subjects names enough of them; of one that names nobody
# the annotation says that each cell holds enough.
open("metrics", base) if {
	terms := data.data.classes.lanes.metrics
	base.reading == true
	input.resource.listed_identifiers == []
	input.context.purpose in terms.purposes
	fewest := terms.min_subjects
	is_number(fewest)
	enough := base.named >= fewest
	nobody := base.named == 0
	true in [enough, nobody]
} else := false

# What keeps the platform one: to a service, never to a person.
open("interoperability", base) if {
	base.workload == true
	input.context.purpose in data.data.classes.lanes.interoperability.purposes
} else := false

# One order, to an entity on the list.
open("commerce", base) if {
	terms := data.data.classes.lanes.commerce
	input.context.purpose in terms.purposes
	most := terms.max_subjects
	is_number(most)
	base.named <= most
	listed_entity(base, terms) == true
} else := false

listed_entity(base, terms) if {
	base.personnel == true
	input.subject.engagement.counterparty in terms.counterparties
} else if {
	base.workload == true
	input.subject.workload.id in terms.workloads
} else := false
