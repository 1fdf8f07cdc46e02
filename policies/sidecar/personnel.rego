# METADATA
# title: Personnel
# description: |
#   A person at work is vetted, trained, engaged, in an allowed place, freshly known and strongly authenticated. Reasons
#   `personnel_ineligible`, `person_location`, `stale_directory`, `authentication_insufficient`. Public data needs no
#   person rule.
# scope: package
package sidecar.personnel

findings(call) := set() if {
	call.judged == false
} else := data.sidecar.facts.failing(checks) if {
	terms := data.data.personnel
	status := input.subject.person.status
	statuses := terms.status
	checks := {
		"sidecar.personnel.status": status in statuses,
		"sidecar.personnel.vetting": vetted(call.now),
		"sidecar.personnel.training": trained(call.now, terms.required_training),
		"sidecar.personnel.engagement": engaged(call.now, terms.engagements),
		"sidecar.personnel.directory": fresh(call.now, terms),
		"sidecar.personnel.authentication": authenticated(call.now, terms),
		"sidecar.personnel.location": located(call, terms.locations),
	}
}

vetted(now) if {
	until := input.subject.person.vetted_until
	until != null
	time.parse_rfc3339_ns(until) > now
} else := false

trained(now, courses) if {
	valid := {id |
		some training in input.subject.person.training
		time.parse_rfc3339_ns(training.until) > now
		id := training.id
	}
	every course in courses {
		course in valid
	}
} else := false

engaged(now, types) if {
	input.subject.engagement.type in types
	from := input.subject.engagement.from
	until := input.subject.engagement.until
	from != null
	until != null
	time.parse_rfc3339_ns(from) <= now
	time.parse_rfc3339_ns(until) > now
} else := false

fresh(now, terms) if {
	as_of := input.subject.as_of
	as_of != null
	age := now - time.parse_rfc3339_ns(as_of)
	age <= terms.max_directory_age_seconds * 1000000000
	age + (terms.max_clock_skew_seconds * 1000000000) >= 0
} else := false

authenticated(now, terms) if {
	aal := input.subject.authentication.aal
	is_number(aal)
	aal >= terms.min_aal
	at := input.subject.authentication.time
	at != null
	age := now - time.parse_rfc3339_ns(at)
	age <= terms.max_authentication_age_seconds * 1000000000
	age + (terms.max_clock_skew_seconds * 1000000000) >= 0
} else := false

# Protected data of US subjects opens from listed places only, other data also from any place that is known.
located(call, places) if {
	input.subject.person.location.country in places.us_subjects
} else := false if {
	call.at_stake == true
	call.strict == true
} else if {
	input.subject.person.location.country in places.other_subjects.countries
} else if {
	places.other_subjects.any_known == true
	input.subject.person.location.country != null
} else := false
