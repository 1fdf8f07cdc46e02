# METADATA
# title: Decision
# description: |
#   The only entrypoint, `data.sidecar.decision`. Each package of rules answers `findings` with the names of its rules
#   that deny; one that cannot be worked out leaves all of it undefined, which ends in the last branch. Deny overrides
#   permit, all denying rules are listed, every permit names its rule, and what no rule permits is denied. The verdict of
#   28 CFR part 202 (`sidecar.covered_persons`) stands beside the operator's rules: neither lifts the other.
#
#   These policies judge calls that pass the sidecar. They cannot see database consoles, dumps, backups, replicas, log
#   files, shared screens or what a person does with an answer they were allowed to read.
# entrypoint: true
package sidecar

decision := {
	"effect": "permit",
	"reasons": array.concat([permit_reason(rule)], array.concat(grant_reason(grant), notes(call, dsp))),
	"obligations": array.concat(obligations, limits(grant)),
	"advice": dsp.advice,
	"ttl_seconds": lifetime(grant, dsp),
} if {
	dsp := data.sidecar.covered_persons.verdict
	findings == set()
	call := data.sidecar.facts.call
	rule := data.sidecar.residency.permit(call)
	grant := approval(call)
} else := {
	"effect": "permit",
	"reasons": array.concat(grant_reason(grant), notes(call, dsp)),
	"obligations": array.concat(obligations, limits(grant)),
	"advice": dsp.advice,
	"ttl_seconds": lifetime(grant, dsp),
} if {
	dsp := data.sidecar.covered_persons.verdict
	findings != set()
	liftable == true
	call := data.sidecar.facts.call
	grant := call.grant
	grant != ""
} else := {
	"effect": "deny",
	"reasons": [deny_reason(pair[1]) | some pair in ranked],
	"obligations": [],
	"advice": array.concat(dsp.advice, [text | some text in data.sidecar.purpose.advice(withheld)]),
	"ttl_seconds": lifetime("", dsp),
} if {
	dsp := data.sidecar.covered_persons.verdict
	findings != set()
	ranked := sort([[rank(name), name] | some name in (findings | invalid_exception)])
} else := {
	"effect": "deny",
	"reasons": [{
		"code": "policy_error",
		"message": "a rule could not be worked out, or none permits this",
		"rule": "sidecar.decision.default",
	}],
	"obligations": [],
	"advice": [],
	"ttl_seconds": 0,
}

# The names of all rules that deny.
findings := (((((residency | description) | classes) | personnel) | purpose) | egress) | data.sidecar.covered_persons.verdict.findings if {
	call := data.sidecar.facts.call
	residency := data.sidecar.residency.findings(call)
	description := data.sidecar.description.findings(call)
	classes := data.sidecar.classes.findings(call)
	personnel := data.sidecar.personnel.findings(call)
	purpose := data.sidecar.purpose.findings(call, withheld)
	egress := data.sidecar.egress.findings(call)
}

# Whether a grant may lift every finding.
default liftable := false

liftable if {
	codes := {code |
		some name in findings
		reason := deny_reason(name)
		code := reason.code
	}
	codes - data.sidecar.exceptions.waivable == set()
}

# A grant was claimed that would have lifted every finding, had it held.
default invalid_exception := set()

invalid_exception := {"sidecar.exceptions.valid"} if {
	unclaimed := input.context.exceptions == []
	unclaimed == false
	liftable == true
	data.sidecar.facts.call.grant == ""
}

# The grant that stands in for approvals where nothing had to be lifted.
approval(call) := "" if {
	call.grant == ""
} else := call.grant if {
	data.sidecar.purpose.approved(call, withheld) == true
} else := ""

# Where exposure counts, no answer is remembered: each call adds to it.
lifetime(grant, dsp) := data.data.caching.ttl_seconds if {
	grant == ""
	dsp.counted == false
} else := data.data.caching.exception_ttl_seconds if {
	dsp.counted == false
} else := 0

permit_reason(rule) := {
	"code": entry.code,
	"message": entry.message,
	"rule": rule,
} if {
	entry := data.data.reasons.permitting[rule]
}

deny_reason(rule) := {
	"code": entry.code,
	"message": entry.message,
	"rule": rule,
} if {
	entry := data.data.reasons.denying[rule]
} else := {
	"code": "policy_error",
	"message": "a rule without a reason denies",
	"rule": rule,
}

# The order in which reasons are given.
rank(rule) := data.data.reasons.denying[rule].rank if {
	data.data.reasons.denying[rule].rank
} else := 0

grant_reason(grant) := [] if {
	grant == ""
} else := [{
	"code": "exception",
	"message": concat(" ", ["by exception", grant]),
	"rule": "sidecar.exceptions.valid",
}]

notes(call, dsp) := array.concat(dsp.reasons, [reason | some reason in data.sidecar.egress.notes(call)])

# Categories cleared from the answer.
withheld := ({category |
	some answer in data.sidecar.services.answer
	some category in answer.withheld
} | {category |
	some category in ["unclassified"]
	category in input.resource.categories
	data.sidecar.description.redacts(data.sidecar.facts.call) == true
}) | data.sidecar.covered_persons.verdict.withheld

obligations := array.concat(array.concat(redact, mask), array.concat(drop, services)) if {
	cleared := [category | some category in withheld]
	redact := [{"id": "redact_fields", "categories": cleared} | cleared != []]
	masked := {category |
		some answer in data.sidecar.services.answer
		some category in answer.masked
	}
	hidden := [category | some category in (masked - withheld)]
	mask := [{"id": "mask_fields", "categories": hidden} | hidden != []]
	drop := [{"id": "drop_records", "subjects": class} |
		true in [data.sidecar.facts.call.drop, data.sidecar.covered_persons.verdict.dropped]
		some class in ["us", "unknown"]
	]
	services := [obligation |
		some answer in data.sidecar.services.answer
		some obligation in answer.obligations
	]
}

limits(grant) := [] if {
	grant == ""
} else := [{"id": "limit_records", "max": most} | some most in data.sidecar.exceptions.limits(grant)]
