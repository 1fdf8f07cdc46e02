package sidecar.authorizations_test

import data.sidecar.fixtures_test as fixtures

claim(changes) := {"context": {"authorizations": [object.union(fixtures.authorization, changes)]}}

# Refused without an authorization: bulk, the requirements not met.
finances := object.union(
	fixtures.reaching(fixtures.covered, ["personal_financial"], {"personal_financial": 10001}, {}),
	{"context": {"purpose": "trust_and_safety"}, "subject": {"person": {"roles": ["trust_and_safety"]}}},
)

claimed(changes) := object.union(finances, claim(changes))

test_202_506_an_authorization_lifts_and_the_permit_names_it if {
	decision := fixtures.decide(claimed({}))
	decision.effect == "permit"
	decision.ttl_seconds == 0
	decision.obligations == []
	some reason in decision.reasons
	reason == {
		"code": "authorization",
		"message": "by authorization AU-1 exemption 202.506(a)(2)(viii)",
		"rule": "sidecar.covered_persons.authorized",
	}
}

test_202_501_to_511_each_exemption_lifts_every_reason_of_the_part if {
	every number in numbers.range(501, 511) {
		paragraph := concat(".", ["202", format_int(number, 10)])
		permitted := fixtures.decide(claimed({"paragraph": paragraph}))
		permitted.effect == "permit"
	}
	elsewhere := fixtures.decide(claimed({"paragraph": "202.512"}))
	elsewhere.effect == "deny"
}

test_every_kind_lifts_what_its_table_says if {
	every kind in ["general_licence", "specific_licence", "advisory_opinion"] {
		permitted := fixtures.decide(claimed({"kind": kind, "paragraph": "2026-4"}))
		permitted.effect == "permit"
	}
	strange := fixtures.decide(claimed({"kind": "promise"}))
	strange.effect == "deny"
}

omic := object.union(
	fixtures.reaching(fixtures.covered, ["human_genomic"], {"human_genomic": 101}, {}),
	{"context": {"purpose": "user_support"}},
)

test_202_303_a_licence_lifts_prohibitions_and_an_opinion_does_not if {
	licensed := fixtures.dsp(object.union(omic, claim({"kind": "specific_licence", "paragraph": "L-1"})))
	licensed == set()
	opined := fixtures.dsp(object.union(omic, claim({"kind": "advisory_opinion", "paragraph": "AO-1"})))
	opined == {"dsp_authorization_invalid", "dsp_bulk", "dsp_prohibited_omic", "dsp_security_requirements_unmet"}
}

test_every_reason_of_the_part_can_be_lifted if {
	every change in [
		{"subject": fixtures.unresolved},
		{"subject": {"engagement": {"type": "none"}}},
		{"subject": {"engagement": {"type": "brokerage"}}},
		{"subject": object.union(fixtures.foreign, {"engagement": {"type": "brokerage"}})},
		{"context": {"exposure": {"personal_financial": "unknown"}}},
		{"resource": {"flags": ["marketed_as_government"]}},
		{"resource": {"dataset": {"population": {"personal_financial": "unknown"}}}},
	] {
		lifted := fixtures.dsp(object.union(claimed({}), change))
		lifted == set()
		unclaimed := fixtures.dsp(object.union(finances, change))
		unclaimed != set()
	}
}

test_an_authorization_that_does_not_cover_is_named if {
	every changes in [
		{"persons": []},
		{"persons": ["bao", "operator"]},
		{"services": []},
		{"services": ["a.b.Other"]},
		{"categories": []},
		{"categories": ["id_contact", "covered_personal_identifiers"]},
		{"purposes": []},
		{"purposes": ["legal_process"]},
		{"expires": "2026-11-22T12:00:00Z"},
		{"paragraph": "202.401"},
		{"paragraph": ""},
		{"kind": "exception"},
	] {
		denied := fixtures.dsp(claimed(changes))
		denied == {"dsp_authorization_invalid", "dsp_bulk", "dsp_security_requirements_unmet"}
	}
}

test_it_names_every_sensitive_category_and_every_identifier_of_the_message if {
	change := {"resource": {"categories": ["behaviour", "id_contact", "personal_financial"], "listed_identifiers": ["d"]}}
	covered := fixtures.decide(object.union(claimed({"categories": ["id_contact", "personal_financial"]}), change))
	covered.effect == "permit"
	denied := fixtures.dsp(object.union(claimed({"categories": ["personal_financial"]}), change))
	"dsp_authorization_invalid" in denied
}

test_several_are_not_added_up if {
	first := object.union(fixtures.authorization, {"categories": ["personal_financial"]})
	second := object.union(fixtures.authorization, {"id": "AU-2", "categories": ["id_contact"]})
	change := {
		"resource": {"categories": ["id_contact", "personal_financial"], "listed_identifiers": ["d"]},
		"context": {"authorizations": [first, second]},
	}
	denied := fixtures.dsp(object.union(finances, change))
	"dsp_authorization_invalid" in denied
}

test_the_smallest_of_several_is_named if {
	second := object.union(fixtures.authorization, {"id": "AU-0"})
	change := {"context": {"authorizations": [fixtures.authorization, second]}}
	decision := fixtures.decide(object.union(finances, change))
	messages := {reason.message | some reason in decision.reasons; reason.code == "authorization"}
	messages == {"by authorization AU-0 exemption 202.506(a)(2)(viii)"}
}

test_one_that_was_not_needed_changes_nothing if {
	change := object.union(claimed({"persons": []}), {"context": {"exposure": {"personal_financial": 0}}})
	decision := fixtures.decide(change)
	decision.effect == "permit"
	codes := {reason.code | some reason in decision.reasons}
	codes == {"us_personnel"}
}

test_with_one_nothing_is_cleared_and_without_it_the_requirements_still_help if {
	attested := {"context": {"security_requirements": {"version": "2025-01"}}}
	whole := fixtures.decide(object.union(claimed({}), attested))
	whole.obligations == []
	cleared := fixtures.decide(object.union(claimed({"persons": []}), attested))
	cleared.effect == "permit"
	cleared.obligations == [{"id": "redact_fields", "categories": ["personal_financial"]}]
}

test_a_covered_service_must_be_named_itself if {
	place := {"subject": {"workload": {"operated_from": "CN"}}}
	person := fixtures.dsp(object.union(claimed({}), place))
	"dsp_authorization_invalid" in person
	behind := fixtures.dsp(object.union(claimed({"persons": ["spiffe://corp/ns/desk"]}), place))
	"dsp_authorization_invalid" in behind
	both := fixtures.dsp(object.union(claimed({"persons": ["spiffe://corp/ns/desk", "alice"]}), place))
	both == set()
	colleague := {"subject": {"person": {"covered_person": {"value": "no", "basis": "us_person_status"}}}}
	unjudged := fixtures.dsp(object.union(object.union(claimed({"persons": ["spiffe://corp/ns/desk"]}), place), colleague))
	unjudged == set()
	alone := object.union(finances, {"subject": object.union(fixtures.ranker, {"workload": {"operated_from": "RU"}})})
	named := fixtures.dsp(object.union(alone, claim({"persons": ["spiffe://corp/ns/ranker"]})))
	named == set()
	unnamed := fixtures.dsp(object.union(alone, claim({})))
	"dsp_authorization_invalid" in unnamed
}

test_a_service_whose_place_nobody_knows_is_named_itself_too if {
	doc := object.union(fixtures.support, object.union(claimed({"persons": ["spiffe://corp/ns/ranker"]}), {"subject": fixtures.ranker}))
	decision := data.sidecar.decision with input as doc with input.subject.workload.operated_from as null
	codes := {reason.code | some reason in decision.reasons}
	dsp := {code | some code in codes; startswith(code, "dsp_")}
	dsp == set()
	unclaimed := object.union(doc, {"context": {"authorizations": []}})
	refused := data.sidecar.decision with input as unclaimed with input.subject.workload.operated_from as null
	found := {reason.code | some reason in refused.reasons}
	"dsp_status_unknown" in found
}

test_a_person_does_not_stand_for_a_service_whose_place_nobody_knows if {
	doc := object.union(fixtures.support, claimed({}))
	known := data.sidecar.decision with input as doc
	known.effect == "permit"
	refused := data.sidecar.decision with input as doc with input.subject.workload.operated_from as null
	codes := {reason.code | some reason in refused.reasons}
	"dsp_authorization_invalid" in codes
	both := object.union(doc, claimed({"persons": ["alice", "spiffe://corp/ns/desk"]}))
	held := data.sidecar.decision with input as both with input.subject.workload.operated_from as null
	held.effect == "permit"
}

# -- the two regimes stay apart

stranger := {"person": {"id": "bao", "us_personnel": false, "location": {"country": "CN"}}}

grant := object.union(fixtures.grant, {"categories": ["personal_financial"], "max_records": 9})

test_an_exception_lifts_nothing_of_the_part if {
	change := object.union(finances, {"subject": stranger, "context": {"exceptions": [grant]}})
	denied := fixtures.denied(change)
	denied == {"dsp_bulk", "dsp_security_requirements_unmet", "not_us_personnel", "person_location"}
	every subject in [fixtures.covered, fixtures.unresolved] {
		every weight in [
			{"resource": {"flags": ["marketed_as_government"]}},
			{"subject": {"engagement": {"type": "brokerage"}}},
			{"context": {"exposure": {"personal_financial": "unknown"}}},
		] {
			mine := object.union(fixtures.grant, {"person": "alice"})
			held := object.union(finances, {"subject": subject, "context": {"exceptions": [mine]}})
			refused := fixtures.dsp(object.union(held, weight))
			refused != set()
		}
	}
}

test_an_authorization_lifts_nothing_of_the_operators if {
	change := object.union(claimed({"persons": ["bao"]}), {"subject": stranger})
	denied := fixtures.denied(change)
	denied == {"not_us_personnel", "person_location"}
	every lapse in [
		{"subject": {"person": {"status": "left"}}},
		{"subject": {"authentication": {"aal": 1}}},
		{"context": {"network": {"destination": {"country": "CN"}}}},
		{"resource": {"location": {"region": "elsewhere"}}},
		{"action": {"name": "export"}},
	] {
		decision := fixtures.decide(object.union(claimed({}), lapse))
		decision.effect == "deny"
		codes := {reason.code | some reason in decision.reasons; startswith(reason.code, "dsp_")}
		codes == set()
	}
}

test_with_both_both_are_named if {
	subject := object.union(stranger, {"person": {"id": "alice"}})
	mine := object.union(fixtures.grant, {"person": "alice"})
	change := object.union(claimed({}), {"subject": subject, "context": {"exceptions": [mine]}})
	decision := fixtures.decide(change)
	decision.effect == "permit"
	codes := {reason.code | some reason in decision.reasons}
	codes == {"authorization", "exception"}
}
