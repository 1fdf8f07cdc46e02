# METADATA
# title: Covered persons
# description: |
#   28 CFR part 202 for covered persons (202.211), for those of whom nobody knows whether they are, and for other foreign
#   persons to whom data is brokered. Of anybody else it is silent, and of data outside 202.249(a). Nothing here is lifted
#   by an exception: only an authorization lifts, and it lifts nothing of the operator's. Reasons `dsp_status_unknown`,
#   `dsp_prohibited_omic`, `dsp_prohibited_brokerage`, `dsp_onward_terms_missing`, `dsp_security_requirements_unmet`,
#   `dsp_authorization_invalid`; with them those of `sidecar.bulk` and `sidecar.government_related`.
# scope: package
package sidecar.covered_persons

# `findings`: the names of the rules that deny. `withheld`: categories that must be cleared from the answer for the permit
# to hold; `dropped`: so must the records of US and unknown subjects. `reasons`: what the permit rests on. `counted`:
# exposure counts, so that the decision is not remembered. The first branch is almost everybody, asked at once because
# each rule has its price: no covered person, no broker, and no service in a country of concern.
verdict := {"findings": set(), "withheld": set(), "dropped": false, "reasons": [], "advice": [], "counted": false} if {
	input.subject.person.covered_person.value == "no"
	input.subject.engagement.type in data.data.dsp.parties.restricted
	place := input.subject.workload.operated_from
	is_string(place)
	not data.data.dsp.countries.of_concern[place]
} else := judged(call, who, kinds) if {
	call := data.sidecar.facts.call
	who := standing(call)
	who != "silent"
	kinds := stake
	kinds != set()
} else := {"findings": set(), "withheld": set(), "dropped": false, "reasons": [], "advice": [], "counted": true} if {
	listed == true
	standing(data.sidecar.facts.call) != "silent"
} else := {"findings": set(), "withheld": set(), "dropped": false, "reasons": [], "advice": [], "counted": false}

# Who is judged, of the others. A service operated from a country of concern is a covered access, whoever stands behind
# it. Who is foreign and not covered is judged as a broker unless the agreement is known to be another.
standing(call) := "silent" if {
	call.at_stake == false
} else := "covered" if {
	data.data.dsp.countries.of_concern[input.subject.workload.operated_from]
} else := "unresolved" if {
	input.subject.workload.operated_from == null
} else := "silent" if {
	call.personnel == false
} else := "covered" if {
	input.subject.person.covered_person.value == "yes"
} else := "unresolved" if {
	input.subject.person.covered_person.value != "no"
} else := "silent" if {
	input.subject.person.covered_person.basis in data.data.dsp.parties.us_person
} else := "foreign"

# The kinds of sensitive personal data that the call reaches (202.249(a)), as data.dsp.bulk.thresholds names them. A
# listed identifier that is none by itself is one once a course of dealing links it (202.232(b)(2)): unless the ledger
# knows that nothing is linked yet.
stake := (annotated | computed) | linked if {
	limits := data.data.dsp.bulk.thresholds
	annotated := {category |
		some category in input.resource.categories
		limits[category]
	}
	computed := {"covered_personal_identifiers"} & {one | some one in input.resource.computed}
	held := [data.sidecar.bulk.exposure("covered_personal_identifiers"), data.sidecar.bulk.exposure("combined")]
	linked := {"covered_personal_identifiers" |
		listed == true
		held != [0, 0]
	}
}

default listed := false

listed if {
	input.resource.listed_identifiers != []
}

listed if {
	some category in input.resource.categories
	data.data.dsp.mitigation.identifiers[category]
}

judged(call, who, kinds) := settled(call, who, kinds, broken) if {
	broken := denials(who, kinds)
}

denials(who, kinds) := brokered(kinds) if {
	who == "foreign"
} else := union({bulk, related, own}) if {
	bulk := data.sidecar.bulk.findings(kinds)
	related := data.sidecar.government_related.findings(kinds)
	weight := (bulk - unknown_volume) | related
	type := input.subject.engagement.type
	parties := data.data.dsp.parties
	brokers := parties.brokerage
	brokerage := type in brokers
	restricts := parties.restricted
	restricted := type in restricts
	weighty := weight != set()
	checks := {
		"sidecar.covered_persons.status": who == "covered",
		# 202.210(b)(1): without an agreement there is no transaction, and nothing that could be restricted.
		"sidecar.covered_persons.agreement": true in [brokerage, restricted],
		"sidecar.covered_persons.omic": data.sidecar.bulk.omic(kinds) == false,
		"sidecar.covered_persons.brokerage": [weighty, brokerage] != [true, true],
		"sidecar.covered_persons.requirements": [weighty, restricted] != [true, true],
	}
	own := data.sidecar.facts.failing(checks)
}

unknown_volume := {"sidecar.bulk.exposure_unknown", "sidecar.bulk.population_unknown"}

# 202.302: to a foreign person who is not covered. What nobody has counted weighs as bulk.
brokered(kinds) := {"sidecar.covered_persons.onward_terms"} if {
	weight := data.sidecar.bulk.findings(kinds) | data.sidecar.government_related.findings(kinds)
	weight != set()
	clause := input.subject.engagement.onward_clause_ref
	on_file := [clause == null, clause == ""] == [false, false]
	on_file == false
} else := set()

settled(call, who, kinds, broken) := {
	"findings": set(),
	"withheld": set(),
	"dropped": false,
	"reasons": [],
	"advice": warnings(who, kinds),
	"counted": true,
} if {
	broken == set()
} else := {
	"findings": set(),
	"withheld": set(),
	"dropped": false,
	"reasons": [authorized(min(names))],
	"advice": [],
	"counted": true,
} if {
	names := authorizations(call, broken)
	names != set()
} else := {
	"findings": set(),
	"withheld": clearable,
	"dropped": false,
	"reasons": [],
	"advice": [],
	"counted": true,
} if {
	broken - mitigable == set()
	mitigated(call) == true
} else := {
	"findings": set(),
	"withheld": set(),
	"dropped": true,
	"reasons": [{
		"code": "records_dropped",
		"message": "records of US and unknown subjects are dropped (28 CFR part 202)",
		"rule": "sidecar.covered_persons.dropped",
	}],
	"advice": reports(broken),
	"counted": true,
} if {
	call.mixed == true
} else := {
	"findings": (broken | invalid),
	"withheld": set(),
	"dropped": false,
	"reasons": [],
	"advice": reports(broken),
	"counted": true,
} if {
	invalid := {name | input.context.authorizations != []; name := "sidecar.covered_persons.authorization"}
}

# 202.1104: a rejected transaction of prohibited brokerage is reported within 14 days. A colleague's call is none.
reports(broken) := [code | "sidecar.covered_persons.brokerage" in broken; code := "report_202_1104"]

warnings(who, kinds) := [] if {
	who == "foreign"
} else := data.sidecar.bulk.advice(kinds)

# 202.401(a): what the security requirements may mitigate. Never 'omic data in bulk (202.303), never brokerage (202.301),
# and never what is not known.
mitigable := {
	"sidecar.bulk.exposure",
	"sidecar.bulk.population",
	"sidecar.covered_persons.requirements",
	"sidecar.government_related.area",
	"sidecar.government_related.computed",
	"sidecar.government_related.marketed",
}

# The requirements are attested for the service, and clearing leaves an answer that holds nothing of 202.249(a) and no
# listed identifier. Masking would not do: a truncated number is still listed (202.234(a)). What is written, deleted or
# exported cannot be cleared.
mitigated(call) if {
	call.reading == true
	input.action.service in data.data.dsp.mitigation.services
	attested(call.now) == true
	letters := {letter |
		some category in clearable
		letter := data.data.dsp.mitigation.identifiers[category]
	}
	remaining := {letter | some letter in input.resource.listed_identifiers} - letters
	remaining == set()
} else := false

attested(now) if {
	input.context.security_requirements.version in data.data.dsp.mitigation.versions
	from := input.context.security_requirements.attested_at
	until := input.context.security_requirements.valid_until
	from != null
	until != null
	time.parse_rfc3339_ns(from) <= now
	time.parse_rfc3339_ns(until) > now
} else := false

# Every category of the message that is sensitive, or a listed identifier, or that nobody has classified.
clearable := {category |
	some category in input.resource.categories
	sensitive[category]
}

sensitive := object.union(data.data.dsp.bulk.thresholds, data.data.dsp.mitigation.identifiers)

# The authorizations that hold here and lift all of it. Several are not added up: a transaction is authorized or it is not.
authorizations(call, broken) := set() if {
	input.context.authorizations == []
} else := {name |
	codes := {code | some rule in broken; code := data.data.reasons.denying[rule].code}
	some one in input.context.authorizations
	names_party(call, one) == true
	input.action.service in one.services
	input.context.purpose in one.purposes
	clearable - {category | some category in one.categories} == set()
	time.parse_rfc3339_ns(one.expires) > call.now
	codes - {code | some code in lifted(one)} == set()
	name := one.id
}

# Whether an authorization names everybody of whom the part asks here: a service by its own id, where it is covered or
# nobody knows where it is operated; the person behind it, unless that person alone would not be judged.
names_party(call, one) if {
	names_service(one) == true
	names_person(call, one) == true
} else := false

names_service(one) if {
	uncovered_place == true
} else if {
	input.subject.workload.id in one.persons
} else := false

names_person(call, one) if {
	call.personnel == false
} else if {
	uncovered_place == false
	input.subject.person.covered_person.value == "no"
} else if {
	input.subject.person.id in one.persons
} else := false

default uncovered_place := false

uncovered_place if {
	place := input.subject.workload.operated_from
	is_string(place)
	not data.data.dsp.countries.of_concern[place]
}

lifted(one) := data.data.dsp.authorizations.lifts[one.kind][section] if {
	parts := split(one.paragraph, "(")
	section := parts[0]
	data.data.dsp.authorizations.lifts[one.kind][section]
} else := data.data.dsp.authorizations.lifts[one.kind].any if {
	data.data.dsp.authorizations.lifts[one.kind].any
} else := []

authorized(name) := {
	"code": "authorization",
	"message": concat(" ", texts),
	"rule": "sidecar.covered_persons.authorized",
} if {
	found := {text |
		some one in input.context.authorizations
		one.id == name
		text := concat(" ", ["by authorization", name, one.kind, one.paragraph])
	}
	texts := [min(found)]
}
