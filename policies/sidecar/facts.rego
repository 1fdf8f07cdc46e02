# METADATA
# title: Facts
# description: |
#   What the rules share, worked out once for a call: who asks, whose data is at stake, what time it is. Nothing here
#   permits or denies. Conjunction is written `[a, b] == [true, true]` and disjunction `true in [a, b]`: both are false,
#   never undefined, so that a fact is always known.
# scope: package
package sidecar.facts

call := {
	"awaiting": base.awaiting,
	"barred": barred,
	"cleared": cleared,
	"data_subject": base.data_subject,
	"drop": drop,
	"empty": base.empty,
	"exposed": exposed,
	"at_stake": at_stake,
	"guarded": guarded,
	"judged": judged,
	"mixed": mixed,
	"named": base.named,
	"non_us": non_us,
	"now": base.now,
	"personnel": base.personnel,
	"reading": base.reading,
	"strict": strict,
	"unknown": unknown,
	"us": us,
	"grant": grant,
	"workload": base.workload,
} if {
	subjects := input.resource.subjects
	us := subjects.us > 0
	non_us := subjects.non_us > 0

	# Unknown counts as US: subjects of unknown class, subjects that a call which alters something would only show in
	# its answer, and data of which nothing says whose it is.
	unknown_named := subjects.unknown > 0
	stalled := subjects.pending != base.awaiting
	unattributed := attributed(base) == false
	unknown := true in [unknown_named, stalled, unattributed]
	guarded := true in [us, unknown]

	# Protected data of US subjects is at stake and the caller may not see it.
	strict := data.sidecar.classes.strict(base)
	cleared := data.sidecar.residency.cleared(base)
	barred := [guarded, strict, cleared] == [true, true, false]
	grant := data.sidecar.exceptions.used({"now": base.now, "personnel": base.personnel, "us": us, "unknown": unknown})

	# The service chose to drop what is barred from a mixed answer. Something must remain, else the call is denied; a
	# person with a grant for those records gets them instead. Who is barred because something is not known is refused:
	# what is dropped is at stake no more, so that not knowing would spare the call its other rules.
	service := input.action.service
	droppers := data.data.services.drop_mixed
	droppable := service in droppers
	answer := input.context.phase == "response"
	ungranted := grant == ""
	mixed := [droppable, answer, base.reading, non_us, subjects.pending] == [true, true, true, true, false]
	drop := dropping([barred, mixed, ungranted], base)
	exposed := [barred, drop] == [true, false]
	at_stake := [guarded, drop] == [true, false]

	# Public data needs no person rule; the destination is judged all the same.
	classes := input.resource.classes
	impersonal := [strict, classes] == [false, ["public"]]
	judged := [base.personnel, impersonal] == [true, false]
}

base := {
	"awaiting": awaiting,
	"data_subject": data_subject,
	"empty": empty,
	"named": named,
	"now": now,
	"personnel": personnel,
	"reading": reading,
	"workload": workload,
} if {
	kind := input.subject.kind
	personnel := kind == "personnel"
	workload := kind == "workload"
	data_subject := kind == "data_subject"

	# The only clock: context.time, minute resolution. What is no RFC 3339 instant is an error, which refuses.
	now := time.parse_rfc3339_ns(input.context.time)
	action := input.action.name
	readers := data.data.actions.reading
	reading := action in readers
	subjects := input.resource.subjects
	named := (subjects.us + subjects.non_us) + subjects.unknown

	# The subjects show in the answer, and nothing leaves before the response phase has decided about them.
	phase := input.context.phase
	awaiting := [subjects.pending, phase, reading] == [true, "request", true]

	# A message that holds no data: no category and no subject. A field that nobody described has a category,
	# `unclassified`.
	empty := [input.resource.categories, input.resource.classes, named, subjects.pending] == [[], [], 0, false]
}

dropping(wanted, facts) := false if {
	wanted != [true, true, true]
} else := [known_caller(facts), known_lanes(facts)] == [true, true]

# Whether it is known that the caller may not see protected data of US subjects, or may.
known_caller(facts) if {
	facts.personnel == true
	is_boolean(input.subject.person.us_personnel)
} else if {
	facts.workload == true
	is_string(input.subject.workload.operated_from)
} else := false

# Whether all is known on which it depends that the message is to be handled as protected.
known_lanes(facts) if {
	"protected" in input.resource.classes
} else if {
	input.resource.classes == []
} else if {
	is_string(input.context.purpose)
	facts.workload == true
} else if {
	is_string(input.context.purpose)
	is_string(input.subject.engagement.counterparty)
} else := false

# Whether it is known whose data this is, or that it is nobody's.
attributed(facts) if {
	facts.named > 0
} else if {
	facts.awaiting == true
} else if {
	facts.empty == true
} else if {
	harmless := data.data.categories.harmless
	input.resource.categories != []
	every category in input.resource.categories {
		category in harmless
	}
} else := false

# The names of the checks that do not hold.
failing(checks) := set() if {
	broken := false in checks
	broken == false
} else := {name |
	some name, ok in checks
	ok != true
}
