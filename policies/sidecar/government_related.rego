# METADATA
# title: Government-related data
# description: |
#   28 CFR 202.222, whatever the volume: precise geolocation within a listed area, and sensitive data that is marketed as
#   that of government staff. Reason `dsp_government_related`.
# scope: package
package sidecar.government_related

# `kinds`: what is at stake, of data.dsp.bulk.thresholds; never empty.
findings(kinds) := data.sidecar.facts.failing(checks) if {
	flags := input.resource.flags
	listed := "in_listed_area" in flags
	located := (kinds & {"precise_geolocation", "unclassified"}) != set()
	marketed := "marketed_as_government" in flags
	categories := input.resource.computed
	computed := "government_related" in categories
	checks := {
		"sidecar.government_related.area": [listed, located] != [true, true],
		"sidecar.government_related.marketed": marketed == false,
		# A data set's flags are judged above, with what the call reaches of it. Without flags it is this call's data.
		"sidecar.government_related.computed": [computed, flags] != [true, []],
	}
}
