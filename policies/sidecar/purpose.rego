# METADATA
# title: Purpose
# description: |
#   A person says what for, in a closed code; the code says which categories, classes, actions and roles it serves, where
#   a ticket is needed and where approvals are. A field that is cleared from the answer needs no purpose. Reasons
#   `purpose_not_allowed`, `ticket_missing`, `approval_required`, `action_not_allowed`, `personnel_ineligible`,
#   `volume_limit`.
# scope: package
package sidecar.purpose

# `withheld`: categories that an obligation clears from the answer.
findings(call, withheld) := set() if {
	call.judged == false
} else := data.sidecar.facts.failing(checks) if {
	stated := input.context.purpose
	terms := data.data.purposes.purposes[stated]
	"personnel" in terms.recipients
	most := terms.max_subjects
	is_number(most)
	reached := reaching(withheld)

	# Per category that reaches the person, what it takes beside the purpose: nothing, ticket or approval.
	needs := object.filter(terms.categories, reached)
	sensitive := "approval" in needs
	traced := "ticket" in needs
	ticketless := [input.context.ticket == null, input.context.ticket == ""] != [false, false]
	action := input.action.name
	actions := terms.actions
	checks := {
		"sidecar.purpose.category": count(needs) == count(reached),
		"sidecar.purpose.class": unserved_classes(terms.classes) == set(),
		"sidecar.purpose.action": action in actions,
		"sidecar.purpose.role": held_roles(terms.roles) != set(),
		"sidecar.purpose.ticket": [true in [traced, sensitive], ticketless] != [true, true],
		"sidecar.purpose.approval": [sensitive, call.grant == ""] != [true, true],
		"sidecar.purpose.volume": call.named <= most,
	}
} else := {"sidecar.purpose.stated"}

# Categories that no obligation clears from the answer.
reaching(withheld) := {category | some category in input.resource.categories} - withheld

unserved_classes(served) := {class |
	some class in input.resource.classes
	hit := class in served
	hit == false
}

held_roles(roles) := {role |
	some role in input.subject.person.roles
	role in roles
}

# Whether a grant stands in for approvals in this call.
approved(call, withheld) if {
	call.judged == true
	call.grant != ""
	stated := input.context.purpose
	terms := data.data.purposes.purposes[stated]
	needs := object.filter(terms.categories, reaching(withheld))
	"approval" in needs
} else := false

# For the operator: what exactly the stated purpose does not serve.
advice(withheld) := {text |
	stated := input.context.purpose
	served := data.data.purposes.purposes[stated].categories
	some category in reaching(withheld)
	not served[category]
	text := concat(" ", ["the purpose does not serve category", category])
}
