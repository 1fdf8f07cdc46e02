package sidecar.covered_persons_test

import data.sidecar.fixtures_test as fixtures

reach := {"resource": {"dataset": {"population": {"personal_financial": 10001}}}}

related := {"resource": {"flags": ["marketed_as_government"], "computed": ["government_related"]}}

attested := {"context": {"security_requirements": {"version": "2025-01"}}}

agreements := ["employment", "vendor", "investment"]

# -- row 1: public data and data outside 202.249(a)

test_202_249_b_of_public_data_and_data_outside_it_is_silent if {
	every subject in [fixtures.covered, fixtures.unresolved] {
		every category in ["public", "aggregate", "user_content", "communication_content", "behaviour", "coarse_location"] {
			every type in ["employment", "brokerage", "none"] {
				unknown := {kind: "unknown" | some kind, _ in fixtures.counts}
				change := fixtures.reaching(fixtures.engaged(subject, type), [category], unknown, unknown)
				silent := fixtures.dsp(change)
				silent == set()
			}
		}
	}
}

# -- row 2: not covered, resolved, no broker

test_202_211_of_persons_who_are_not_covered_it_is_silent if {
	every subject in [{}, fixtures.foreign] {
		every type in agreements {
			every weight in [fixtures.bulk, reach, related] {
				silent := fixtures.dsp(object.union(fixtures.finances(fixtures.engaged(subject, type)), weight))
				silent == set()
			}
		}
	}
}

test_202_256_of_us_persons_it_is_silent_whatever_the_agreement if {
	every basis in ["us_person_status", "us_person_present"] {
		every type in ["brokerage", "none"] {
			person := {"person": {"covered_person": {"value": "no", "basis": basis}}}
			silent := fixtures.dsp(object.union(fixtures.finances(fixtures.engaged(person, type)), fixtures.bulk))
			silent == set()
		}
	}
}

# -- row 3: foreign, not covered, brokerage

test_202_302_brokerage_with_foreign_persons_needs_a_clause_against_onward_transfer if {
	every weight in [fixtures.bulk, reach, related] {
		change := object.union(fixtures.finances(fixtures.engaged(fixtures.foreign, "brokerage")), weight)
		every clause in [""] {
			denied := fixtures.dsp(object.union(change, {"subject": {"engagement": {"onward_clause_ref": clause}}}))
			denied == {"dsp_onward_terms_missing"}
		}
		silent := fixtures.dsp(object.union(change, {"subject": {"engagement": {"onward_clause_ref": "MSA-7, 4.2"}}}))
		silent == set()
	}
}

test_202_302_brokerage_below_the_numbers_needs_none if {
	silent := fixtures.dsp(fixtures.finances(fixtures.engaged(fixtures.foreign, "brokerage")))
	silent == set()
}

test_202_302_what_nobody_counted_weighs_as_bulk if {
	every unknown in [
		{"context": {"exposure": {"personal_financial": "unknown"}}},
		{"resource": {"dataset": {"population": {"personal_financial": "unknown"}}}},
	] {
		denied := fixtures.dsp(object.union(fixtures.finances(fixtures.engaged(fixtures.foreign, "brokerage")), unknown))
		denied == {"dsp_onward_terms_missing"}
	}
}

test_202_302_an_agreement_that_nobody_knows_weighs_as_brokerage if {
	every type in ["", "none", "friendship"] {
		denied := fixtures.dsp(object.union(fixtures.finances(fixtures.engaged(fixtures.foreign, type)), fixtures.bulk))
		denied == {"dsp_onward_terms_missing"}
	}
}

test_202_302_a_basis_that_is_no_us_persons_is_a_foreign_persons if {
	every basis in ["", "foreign_not_covered", "none"] {
		person := {"person": {"covered_person": {"value": "no", "basis": basis}}}
		denied := fixtures.dsp(object.union(fixtures.finances(fixtures.engaged(person, "brokerage")), fixtures.bulk))
		denied == {"dsp_onward_terms_missing"}
	}
}

# -- row 4: covered, neither fixtures.bulk nor government-related

test_202_401_below_the_numbers_a_covered_person_is_permitted_and_counted if {
	every type in ["employment", "vendor"] {
		decision := fixtures.decide(fixtures.finances(fixtures.engaged(fixtures.covered, type)))
		decision.effect == "permit"
		decision.ttl_seconds == 0
		decision.obligations == []
		decision.advice == []
	}
	silent := fixtures.dsp(fixtures.finances(fixtures.engaged(fixtures.covered, "investment")))
	silent == set()
}

test_202_211_every_basis_covers if {
	every basis in ["designated", "counterparty_covered", "employed_by_covered", "resident_of_concern", ""] {
		person := {"person": {"covered_person": {"value": "yes", "basis": basis}}}
		denied := fixtures.dsp(object.union(fixtures.finances(person), fixtures.bulk))
		denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
	}
}

# -- row 5: covered, fixtures.bulk 'omic data

omic(subject, counts) := fixtures.reaching(subject, ["human_genomic"], counts, {})

test_202_303_bulk_omic_data_is_closed_whatever_the_agreement_and_the_requirements if {
	every type in ["employment", "vendor", "investment"] {
		change := object.union(omic(fixtures.engaged(fixtures.covered, type), {"human_genomic": 101}), attested)
		denied := fixtures.dsp(change)
		denied == {"dsp_bulk", "dsp_prohibited_omic", "dsp_security_requirements_unmet"}
	}
	brokered := fixtures.dsp(object.union(omic(fixtures.engaged(fixtures.covered, "brokerage"), {"human_genomic": 101}), attested))
	brokered == {"dsp_bulk", "dsp_prohibited_brokerage", "dsp_prohibited_omic"}
}

test_202_303_omic_data_in_a_bulk_data_set_is_closed if {
	change := fixtures.reaching(fixtures.covered, ["human_proteomic"], {}, {"human_proteomic": 1001})
	denied := fixtures.dsp(object.union(change, attested))
	"dsp_prohibited_omic" in denied
}

test_202_303_omic_data_that_is_not_bulk_is_not_closed if {
	silent := fixtures.dsp(omic(fixtures.covered, {"human_genomic": 100}))
	silent == set()
}

# -- row 6: covered, brokerage

test_202_301_brokerage_with_covered_persons_is_prohibited if {
	broker := fixtures.finances(fixtures.engaged(fixtures.covered, "brokerage"))
	every weight in [fixtures.bulk, reach] {
		decision := fixtures.decide(object.union(object.union(broker, weight), attested))
		decision.effect == "deny"
		"report_202_1104" in decision.advice
		denied := fixtures.dsp(object.union(object.union(broker, weight), attested))
		denied == {"dsp_bulk", "dsp_prohibited_brokerage"}
	}
	denied := fixtures.dsp(object.union(broker, related))
	denied == {"dsp_government_related", "dsp_prohibited_brokerage"}
	with_clause := object.union(broker, {"subject": {"engagement": {"onward_clause_ref": "C-7"}}})
	still := fixtures.dsp(object.union(with_clause, fixtures.bulk))
	"dsp_prohibited_brokerage" in still
}

test_202_301_brokerage_below_the_numbers_is_not if {
	decision := fixtures.decide(fixtures.finances(fixtures.engaged(fixtures.covered, "brokerage")))
	codes := {reason.code | some reason in decision.reasons}
	codes == {"personnel_ineligible"}
	decision.advice == []
}

test_202_1104_a_refused_employee_is_no_report if {
	decision := fixtures.decide(object.union(fixtures.finances(fixtures.covered), fixtures.bulk))
	decision.effect == "deny"
	decision.advice == []
}

# -- row 7: covered, restricted agreements

test_202_401_without_the_requirements_it_is_refused if {
	every type in agreements {
		every weight in [fixtures.bulk, reach] {
			denied := fixtures.dsp(object.union(fixtures.finances(fixtures.engaged(fixtures.covered, type)), weight))
			denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
		}
		denied := fixtures.dsp(object.union(fixtures.finances(fixtures.engaged(fixtures.covered, type)), related))
		denied == {"dsp_government_related", "dsp_security_requirements_unmet"}
	}
}

# What stays is neither sensitive nor a listed identifier.
mixed(subject) := object.union(
	fixtures.reaching(
		subject, ["behaviour", "id_contact", "id_government", "personal_financial", "public"],
		{"personal_financial": 10001}, {},
	),
	{"resource": {
		"classes": ["protected", "public"], "listed_identifiers": ["a", "d"],
		"computed": ["covered_personal_identifiers", "combined"],
	}},
)

test_202_401_with_the_requirements_everything_sensitive_is_cleared if {
	every type in ["employment", "vendor"] {
		every weight in [{}, related, {"resource": {"flags": ["in_listed_area"]}}] {
			change := object.union(object.union(mixed(fixtures.engaged(fixtures.covered, type)), attested), weight)
			decision := fixtures.decide(change)
			decision.effect == "permit"
			decision.obligations == [{"id": "redact_fields", "categories": ["id_contact", "id_government", "personal_financial"]}]
			decision.ttl_seconds == 0
		}
	}
}

test_202_401_c_2_requirements_that_are_not_in_force_are_not_met if {
	every requirements in [
		{"version": "none"},
		{"version": "2024-01"},
		{"version": "2025-01", "attested_at": "2026-11-22T12:00:01Z"},
		{"version": "2025-01", "valid_until": "2026-11-22T12:00:00Z"},
	] {
		change := object.union(mixed(fixtures.covered), {"context": {"security_requirements": requirements}})
		denied := fixtures.dsp(change)
		denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
	}
}

test_202_401_what_is_written_deleted_or_exported_cannot_be_cleared if {
	every action in ["write", "delete", "export", "admin"] {
		change := object.union(object.union(mixed(fixtures.covered), attested), {"action": {"name": action}})
		denied := fixtures.dsp(change)
		denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
	}
}

test_202_401_a_service_that_is_not_on_the_list_refuses if {
	change := object.union(object.union(mixed(fixtures.covered), attested), {"action": {"service": "a.b.Other"}})
	denied := fixtures.dsp(change)
	denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

test_202_234_a_listed_identifier_that_would_stay_refuses if {
	change := object.union(object.union(mixed(fixtures.covered), attested), {"resource": {"listed_identifiers": ["a", "d", "g"]}})
	denied := fixtures.dsp(change)
	denied == {"dsp_bulk", "dsp_security_requirements_unmet"}
}

test_202_401_requirements_do_not_help_brokers if {
	change := object.union(object.union(mixed(fixtures.engaged(fixtures.covered, "brokerage")), attested), {})
	denied := fixtures.dsp(change)
	denied == {"dsp_bulk", "dsp_prohibited_brokerage"}
}

test_202_401_requirements_do_not_help_where_nobody_counts if {
	change := object.union(object.union(mixed(fixtures.covered), attested), {"context": {"exposure": {"combined": "unknown"}}})
	denied := fixtures.dsp(change)
	denied == {"dsp_bulk", "dsp_security_requirements_unmet", "dsp_status_unknown"}
}

# -- row 9: unresolved, or nothing counted, or no agreement

test_202_211_an_unresolved_person_is_refused_anything_sensitive if {
	every type in ["employment", "vendor", "investment", "brokerage"] {
		denied := fixtures.dsp(fixtures.finances(fixtures.engaged(fixtures.unresolved, type)))
		denied == {"dsp_status_unknown"}
	}
	weighed := fixtures.dsp(object.union(fixtures.finances(fixtures.unresolved), fixtures.bulk))
	weighed == {"dsp_bulk", "dsp_security_requirements_unmet", "dsp_status_unknown"}
	cleared := fixtures.dsp(object.union(mixed(fixtures.unresolved), attested))
	"dsp_status_unknown" in cleared
	strange := fixtures.dsp(fixtures.finances({"person": {"covered_person": {"value": "perhaps"}}}))
	strange == {"dsp_status_unknown"}
}

test_202_210_without_an_agreement_a_covered_person_is_refused if {
	every subject in [fixtures.covered, fixtures.unresolved] {
		every type in ["", "none", "friendship"] {
			denied := fixtures.dsp(fixtures.finances(fixtures.engaged(subject, type)))
			denied == {"dsp_status_unknown"}
		}
	}
}
