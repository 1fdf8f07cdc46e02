# METADATA
# title: Residency
# description: |
#   The mission: protected data of US subjects reaches only US personnel, services operated from allowed places, and
#   the subjects themselves. Who is unknown is not US personnel; whose data is unknown is a US subject's. Reasons
#   `unidentified_person`, `unidentified_workload`, `not_us_personnel`, `subjects_unknown`, `class_not_allowed`,
#   `action_not_allowed`, `not_own_record`.
# scope: package
package sidecar.residency

findings(call) := data.sidecar.facts.failing(checks) if {
	call.personnel == true
	checks := {
		"sidecar.residency.person": [input.subject.person.id == null, input.subject.person.id == ""] == [false, false],
		"sidecar.residency.us_subjects": [call.exposed, call.us] != [true, true],
		"sidecar.residency.unknown_subjects": [call.exposed, call.unknown] != [true, true],
		"sidecar.residency.mixed": [call.exposed, call.us, call.non_us] != [true, true, true],
	}
} else := data.sidecar.facts.failing(checks) if {
	call.workload == true
	action := input.action.name
	allowed := input.subject.workload.may
	checks := {
		"sidecar.residency.service": [input.subject.workload.id == null, input.subject.workload.id == ""] == [false, false],
		"sidecar.residency.may": action in allowed,
		"sidecar.residency.operated_from": call.exposed == false,
		"sidecar.residency.unknown_subjects": [call.exposed, call.unknown] != [true, true],
		"sidecar.residency.mixed": [call.exposed, call.us, call.non_us] != [true, true, true],
	}
} else := data.sidecar.facts.failing(checks) if {
	call.data_subject == true
	action := input.action.name
	allowed := data.data.actions.own
	checks := {
		"sidecar.residency.own": own(call),
		"sidecar.residency.own_action": action in allowed,
	}
} else := {"sidecar.residency.kind"}

# May see protected data of US subjects. A data subject may, but only their own (`sidecar.residency.own`).
cleared(base) if {
	base.personnel == true
	input.subject.person.us_personnel == true
} else if {
	base.workload == true
	input.subject.workload.operated_from in data.data.regions.operated_from
} else := base.data_subject

own(call) if {
	call.named > 0
	input.resource.subjects.own == call.named
	input.resource.subjects.pending == false
} else if {
	call.awaiting == true
	input.resource.subjects.own == call.named
} else := call.empty

# The rule that permits, once no rule denies.
permit(call) := "sidecar.residency.us_personnel" if {
	call.personnel == true
	call.cleared == true
} else := "sidecar.residency.registered_service" if {
	call.workload == true
	call.exposed == false
} else := "sidecar.residency.own_record" if {
	call.data_subject == true
} else := "sidecar.residency.drop" if {
	call.personnel == true
	call.drop == true
} else := "sidecar.residency.open_class" if {
	call.personnel == true
	call.guarded == true
	call.strict == false
} else := "sidecar.residency.pending" if {
	call.personnel == true
	call.guarded == false
	call.awaiting == true
} else := "sidecar.residency.other_subjects" if {
	call.personnel == true
	call.guarded == false
}
