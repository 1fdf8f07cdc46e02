# METADATA
# title: Exceptions
# description: |
#   A verified grant that names this person, signed by two approvers who are neither the person nor the requester, for at
#   most a day. It lifts the operator's reasons marked here and no other: never a reason of 28 CFR part 202. Reason
#   `exception_invalid`.
# scope: package
package sidecar.exceptions

# Part of the closed list of reasons, not an operator's choice.
waivable := {
	"action_not_allowed",
	"class_not_allowed",
	"destination_not_allowed",
	"not_us_personnel",
	"person_location",
	"storage_not_allowed",
	"subjects_unknown",
	"volume_limit",
}

# The grant that holds for this call, by name, or the empty name. One is used: that with the smallest name.
used(facts) := "" if {
	input.context.exceptions == []
} else := min(names) if {
	facts.personnel == true
	terms := data.data.exceptions
	names := {name |
		some grant in input.context.exceptions
		grant.person == input.subject.person.id
		grant.ticket == input.context.ticket
		input.action.service in grant.scope.services
		in_time(grant.not_before, grant.expires, facts.now, terms.max_seconds) == true
		approved(grant.approvers, grant.requested_by, grant.person, terms.min_approvers) == true
		covers_subjects(facts, terms.covers[grant.scope.subjects]) == true
		covers_categories(grant.scope.categories) == true
		name := grant.id
	}
	names != set()
} else := ""

# How many records the grant releases: a set of one number, or of none.
limits(name) := {most |
	some grant in input.context.exceptions
	grant.id == name
	most := grant.max_records
	is_number(most)
}

# The document tells time to the minute, rounded down; the sidecar has held the grant against the exact instant.
in_time(not_before, expires, now, longest) if {
	from := time.parse_rfc3339_ns(not_before)
	until := time.parse_rfc3339_ns(expires)
	from < now + 60000000000
	until > now
	until - from <= longest * 1000000000
} else := false

approved(approvers, requested_by, person, fewest) if {
	distinct := {approver | some approver in approvers}
	count(distinct) >= fewest
	distinct & {requested_by, person} == set()
} else := false

covers_subjects(facts, covered) if {
	us := "us" in covered
	unknown := "unknown" in covered
	[facts.us, us] != [true, false]
	[facts.unknown, unknown] != [true, false]
} else := false

# Every category of the message that is not known to be harmless.
covers_categories(listed) if {
	harmless := data.data.categories.harmless
	every category in input.resource.categories {
		true in [category in listed, category in harmless]
	}
} else := false
