# METADATA
# title: Fixtures
# description: |
#   One call that is permitted, with every leaf known: a US support agent reads the profile of one US subject. Tests
#   change a part of it. What happens when a leaf is null is tried leaf by leaf at activation.
# scope: package
package sidecar.fixtures_test

counts := {category: 0 |
	some category in [
		"human_genomic", "human_epigenomic", "human_proteomic", "human_transcriptomic", "biometric_identifier",
		"precise_geolocation", "personal_health", "personal_financial", "covered_personal_identifiers", "combined",
		"government_related", "id_government", "id_financial_account", "id_device", "id_contact", "id_advertising",
		"id_account_auth", "id_network", "id_call_detail", "communication_content", "user_content", "behaviour",
		"coarse_location", "commerce_order", "aggregate", "public", "unclassified",
	]
}

ashburn := {"country": "US", "provider": "oci", "region": "us-ashburn-1"}

service := "sidecar.demo.profiles.v1.Profiles"

support := {
	"version": 1,
	"subject": {
		"kind": "personnel",
		"person": {
			"id": "alice",
			"us_personnel": true,
			"location": {"country": "US", "source": "badge", "as_of": "2026-11-22T11:30:00Z"},
			"legal_status": "us_citizen",
			"primary_residence": "US",
			"citizenships": ["US"],
			"covered_person": {"value": "no", "basis": "us_person_status", "as_of": "2026-11-22T11:30:00Z"},
			"roles": ["support"],
			"training": [{"id": "data_protection", "until": "2027-06-01T00:00:00Z"}],
			"vetted_until": "2027-06-01T00:00:00Z",
			"status": "active",
		},
		"engagement": {
			"type": "employment",
			"counterparty": "operator",
			"group": "operator",
			"agreement_ref": "E-1",
			"onward_clause_ref": "",
			"from": "2024-01-01T00:00:00Z",
			"until": "2030-01-01T00:00:00Z",
		},
		"authentication": {"aal": 2, "methods": ["otp"], "time": "2026-11-22T08:00:00Z"},
		"workload": {"id": "spiffe://corp/ns/desk", "operated_from": "US", "may": ["read", "list"]},
		"delegation": [],
		"source": "directory",
		"as_of": "2026-11-22T11:30:00Z",
	},
	"action": {"name": "read", "service": service, "method": "GetProfile"},
	"resource": {
		"type": "profile",
		"categories": ["behaviour", "id_contact", "id_government", "personal_financial", "public"],
		"classes": ["protected", "public"],
		"listed_identifiers": ["a", "d"],
		"computed": [],
		"subjects": {"us": 1, "non_us": 0, "unknown": 0, "own": 0, "pending": false},
		"flags": [],
		"dataset": {"id": "profiles", "population": counts},
		"location": ashburn,
	},
	"context": {
		"purpose": "user_support",
		"justification": "the user asked",
		"ticket": "HELP-1",
		"exceptions": [],
		"authorizations": [],
		"security_requirements": {
			"version": "2025-01",
			"attested_at": "2026-01-01T00:00:00Z",
			"valid_until": "2027-01-01T00:00:00Z",
		},
		"exposure": counts,
		"network": {"destination": ashburn},
		"time": "2026-11-22T12:00:00Z",
		"phase": "response",
	},
}

# A person who is no US personnel, abroad.
abroad := {"person": {"id": "bao", "us_personnel": false, "location": {"country": "SG"}}}

# A service that acts for nobody.
ranker := {"kind": "workload", "workload": {"id": "spiffe://corp/ns/ranker", "operated_from": "US", "may": ["read", "list"]}}

# A user of the platform.
user := {"kind": "data_subject"}

# A grant that names bao.
grant := {
	"id": "EX-1",
	"person": "bao",
	"scope": {
		"services": [service],
		"categories": ["behaviour", "id_contact", "id_government", "personal_financial"],
		"subjects": "us",
	},
	"justification": "incident",
	"ticket": "HELP-1",
	"not_before": "2026-11-22T10:00:00Z",
	"expires": "2026-11-22T20:00:00Z",
	"requested_by": "chen",
	"approvers": ["dora", "emil"],
	"max_records": 3,
}

decide(change) := decision if {
	doc := object.union(support, change)
	decision := data.sidecar.decision with input as doc
}

# The reason codes of a deny; of a permit, none.
denied(change) := {code |
	decision := decide(change)
	decision.effect == "deny"
	some reason in decision.reasons
	code := reason.code
}

# The rules named by a permit; of a deny, none.
permitted(change) := {rule |
	decision := decide(change)
	decision.effect == "permit"
	some reason in decision.reasons
	rule := reason.rule
}

# The rules that deny.
denying(change) := {rule |
	decision := decide(change)
	decision.effect == "deny"
	some reason in decision.reasons
	rule := reason.rule
}

obligations(change) := {obligation |
	decision := decide(change)
	decision.effect == "permit"
	some obligation in decision.obligations
}

# The reason codes of 28 CFR part 202 in a deny.
dsp(change) := {code |
	some code in denied(change)
	startswith(code, "dsp_")
}

# A US support agent who is a covered person, so that the operator's rules are silent: one on the list (202.211(a)(5)).
covered := {"person": {"covered_person": {"value": "yes", "basis": "designated"}}}

# A foreign person who is not covered.
foreign := {"person": {"covered_person": {"value": "no", "basis": "foreign_not_covered"}}}

unresolved := {"person": {"covered_person": {"value": "unknown", "basis": "residence_unknown"}}}

# A call that reaches these categories and nothing else, with so many persons of each so far and so many in the data set.
# The security requirements are not attested.
reaching(subject, categories, exposure, population) := {
	"subject": subject,
	"resource": {
		"categories": categories,
		"classes": ["protected"],
		"listed_identifiers": [],
		"dataset": {"population": population},
	},
	"context": {"exposure": exposure, "security_requirements": {"version": "none"}},
}

# A call of a covered person, or whoever `subject` is, about personal finances: neither bulk nor government-related.
finances(subject) := object.union(
	reaching(subject, ["personal_financial"], {}, {}),
	{"context": {"purpose": "trust_and_safety"}, "subject": {"person": {"roles": ["trust_and_safety"]}}},
)

engaged(subject, type) := object.union(subject, {"engagement": {"type": type}})

bulk := {"context": {"exposure": {"personal_financial": 10001}}}

# An exemption that covers a covered person's support calls.
authorization := {
	"id": "AU-1",
	"kind": "exemption",
	"paragraph": "202.506(a)(2)(viii)",
	"persons": ["alice"],
	"services": [service],
	"categories": ["id_contact", "id_government", "personal_financial", "personal_health", "human_genomic"],
	"purposes": ["user_support", "trust_and_safety"],
	"owner": "counsel",
	"expires": "2027-01-01T00:00:00Z",
}

subjects(us, non_us, unknown) := {"resource": {"subjects": {"us": us, "non_us": non_us, "unknown": unknown}}}
