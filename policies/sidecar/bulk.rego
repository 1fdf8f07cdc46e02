# METADATA
# title: Bulk
# description: |
#   28 CFR 202.205: how many US persons (devices, for precise geolocation) a counterparty group has reached within twelve
#   months, this call included (`context.exposure`), and how many the grant reaches (`resource.dataset.population`): access
#   is the ability (202.201). Either above the number is bulk. A count that nobody knows is no small one. Reasons
#   `dsp_bulk`, `dsp_status_unknown`.
# scope: package
package sidecar.bulk

# The names of the rules that deny. `kinds`: what is at stake, of data.dsp.bulk.thresholds.
findings(kinds) := data.sidecar.facts.failing(checks) if {
	exposed := exposures(kinds)
	reached := populations(kinds)
	checks := {
		"sidecar.bulk.exposure_unknown": unknown(exposed) == false,
		"sidecar.bulk.population_unknown": unknown(reached) == false,
		"sidecar.bulk.exposure": exceeding(exposed) == set(),
		"sidecar.bulk.population": exceeding(reached) == set(),
	}
}

# 28 CFR 202.303: bulk human 'omic data among it.
omic(kinds) if {
	own := kinds & {kind | some kind in data.data.dsp.bulk.omic.categories}
	own != set()
	all := [singles_exposed(own), singles_reached(own), omic_exposed(own), omic_reached(own)]
	exceeding(union({one | some one in all})) != set()
} else := false

# For the operator: what is near its number, and not above it.
advice(kinds) := array.concat([code | near != set(); code := "dsp_bulk_near"], [text | some text in near]) if {
	percent := data.data.dsp.bulk.warn_at_percent
	sources := {"exposure": exposures(kinds), "population": populations(kinds)}
	near := {text |
		some source, measures in sources
		some measure in (measures - exceeding(measures))
		number := measure.number
		is_number(number)
		number > 0
		number * 100 >= measure.limit * percent
		text := concat(" ", ["near the bulk number:", source, "of", measure.kind])
	}
}

# Measures: objects with `kind`, `number` (-1: nobody knows) and `limit`.

exposures(kinds) := union({singles_exposed(kinds), omic_exposed(kinds), combined_exposed(kinds)})

populations(kinds) := union({singles_reached(kinds), omic_reached(kinds), combined_reached(kinds)})

unknown(measures) if {
	some measure in measures
	measure.number == -1
} else := false

exceeding(measures) := {measure |
	some measure in measures
	over(measure.number, measure.limit) == true
}

over(number, limit) if {
	is_number(number)
	number > limit
} else if {
	data.data.dsp.bulk.limit_is_bulk == true
	number == limit
} else := false

exposure(category) := number if {
	number := input.context.exposure[category]
	is_number(number)
} else := -1

population(category) := number if {
	number := input.resource.dataset.population[category]
	is_number(number)
} else := -1

singles_exposed(kinds) := {measure |
	some kind in kinds
	limit := data.data.dsp.bulk.thresholds[kind]
	number := exposure(kind)
	measure := {"kind": kind, "number": number, "limit": limit}
}

singles_reached(kinds) := {measure |
	some kind in kinds
	limit := data.data.dsp.bulk.thresholds[kind]
	number := population(kind)
	measure := {"kind": kind, "number": number, "limit": limit}
}

# 202.205(a): the 'omic categories are one type of data. Who is in two of them counts twice: it errs towards bulk.
omic_exposed(kinds) := {measure |
	own := kinds & {kind | some kind in data.data.dsp.bulk.omic.categories}
	own != set()
	numbers := [number | some kind in data.data.dsp.bulk.omic.categories; number := exposure(kind)]
	measure := {"kind": "human_omic", "number": total(numbers), "limit": data.data.dsp.bulk.omic.threshold}
}

omic_reached(kinds) := {measure |
	own := kinds & {kind | some kind in data.data.dsp.bulk.omic.categories}
	own != set()
	numbers := [number | some kind in own; number := population(kind)]
	measure := {"kind": "human_omic", "number": total(numbers), "limit": data.data.dsp.bulk.omic.threshold}
}

total(numbers) := -1 if {
	-1 in numbers
} else := sum(numbers)

# 202.205(g): of the types of data that the group holds, the lowest number counts, for any of them.
combined_exposed(kinds) := set() if {
	exposure("combined") == 0
} else := {{"kind": "combined", "number": -1, "limit": 0}} if {
	exposure("combined") == -1
} else := {measure} if {
	held := {kind: number |
		some kind, _ in data.data.dsp.bulk.thresholds
		number := exposure(kind)
		number > 0
	}
	measure := combined(held, exposure("combined"), kinds)
}

combined_reached(kinds) := set() if {
	computed := input.resource.computed
	joined := "combined" in computed
	joined == false
} else := set() if {
	population("combined") == 0
} else := {{"kind": "combined", "number": -1, "limit": 0}} if {
	population("combined") == -1
} else := {measure} if {
	held := {kind: number |
		some kind in kinds
		number := population(kind)
		number > 0
	}
	measure := combined(held, population("combined"), kinds)
}

combined(held, own, kinds) := {"kind": "combined", "number": number, "limit": limit} if {
	types := {kind | some kind, _ in held}
	limit := min({one |
		some kind in any_of(types, kinds)
		one := data.data.dsp.bulk.thresholds[kind]
	})
	number := max({own} | {one |
		data.data.dsp.bulk.any_type_suffices == true
		some one in held
	})
}

any_of(types, kinds) := kinds if {
	types == set()
} else := types
