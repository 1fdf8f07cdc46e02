"""The text of a starter policy for a service: the rule, its test and its table, as `opa fmt` would write them.

What it does until its table is filled: every category that the service's reading methods reach and that is not known to
be harmless is cleared from answers to people. Everything else is the operator's rules, which hold for every service.
"""

from typing import Final

RULE: Final = """# What answers of @SERVICE@ hold back from people: each category of
# `data.data.@SLUG@.needs` that the caller's role and purpose do not need is cleared, and what `masks` names is masked. A
# file of this folder adds to the set `data.sidecar.services.answer`; every rule asks first whether the call is for this
# service. Annotations of scope package stand in one file of a package only, so there is none here.
package sidecar.services

# People see what their role and purpose need.
answer contains {
	"withheld": withheld,
	"masked": masked,
	"obligations": [],
} if {
	terms := data.data.@SLUG@
	input.action.service == terms.service
	call := data.sidecar.facts.call
	call.personnel == true
	call.reading == true
	purpose := input.context.purpose
	needed := {category |
		some category, need in terms.needs
		purpose in need.purposes
		some role in input.subject.person.roles
		role in need.roles
	}
	categories := input.resource.categories
	withheld := {category |
		some category, _ in terms.needs
		category in categories
		not needed[category]
	}
	masked := {category |
		some category, mask in terms.masks
		category in categories
		exempting := mask.unless_purposes
		exempt := purpose in exempting
		exempt == false
	}
}

# Open streams are decided again.
answer contains {
	"withheld": set(),
	"masked": set(),
	"obligations": [{"id": "recheck_seconds", "seconds": seconds}],
} if {
	terms := data.data.@SLUG@
	input.action.service == terms.service
	seconds := terms.recheck_seconds[input.action.method]
}
"""

TEST: Final = """package sidecar.services.@SLUG@_test

import data.sidecar.fixtures_test as fixtures

service := "@SERVICE@"

needs := {"@CATEGORY@": {"roles": ["support"], "purposes": ["user_support"]}}

# Somebody of support reads data of this service about one US subject.
reading(categories) := object.union(fixtures.support, {
	"action": {"name": "read", "service": service, "method": "@METHOD@"},
	"resource": {"categories": categories, "classes": ["protected"]},
})

# What the answer holds back under these needs and masks.
held_back(doc, terms, masks) := found if {
	found := data.sidecar.services.answer with input as doc with data.data.@SLUG@.needs as terms with data.data.@SLUG@.masks as masks
}

test_what_nobody_needs_is_withheld if {
	doc := reading(["@CATEGORY@"])
	found := held_back(doc, {"@CATEGORY@": {"roles": [], "purposes": []}}, {})
	every one in found {
		one.withheld == {"@CATEGORY@"}
	}
	found != set()
}

test_role_and_purpose_together_open_a_category if {
	doc := reading(["@CATEGORY@"])
	found := held_back(doc, needs, {})
	every one in found {
		one.withheld == set()
	}
	found != set()
}

test_neither_alone_does if {
	doc := reading(["@CATEGORY@"])
	every terms in [
		{"@CATEGORY@": {"roles": ["support"], "purposes": ["legal_process"]}},
		{"@CATEGORY@": {"roles": ["legal"], "purposes": ["user_support"]}},
	] {
		found := held_back(doc, terms, {})
		every one in found {
			one.withheld == {"@CATEGORY@"}
		}
		found != set()
	}
}

test_masks_hold_unless_the_purpose_lifts_them if {
	doc := reading(["@CATEGORY@"])
	found := held_back(doc, needs, {"@CATEGORY@": {"unless_purposes": ["legal_process"]}})
	some one in found
	one.masked == {"@CATEGORY@"}
	lifted := held_back(doc, needs, {"@CATEGORY@": {"unless_purposes": ["user_support"]}})
	every other in lifted {
		other.masked == set()
	}
}

test_open_streams_are_decided_again if {
	doc := reading(["@CATEGORY@"])
	answer := data.sidecar.services.answer with input as doc with data.data.@SLUG@.recheck_seconds as {"@METHOD@": 30}
	some one in answer
	one.obligations == [{"id": "recheck_seconds", "seconds": 30}]
}

test_other_services_are_left_alone if {
	doc := object.union(reading(["@CATEGORY@"]), {"action": {"service": "a.b.Other"}})
	found := held_back(doc, needs, {})
	every one in found {
		one.withheld == set()
	}
}

test_people_who_are_no_us_personnel_are_refused if {
	denied := fixtures.denied({
		"subject": fixtures.abroad,
		"action": {"name": "read", "service": service, "method": "@METHOD@"},
	})
	"not_us_personnel" in denied
}
"""


def filled(template: str, **words: str) -> str:
    """The template with each `@WORD@` replaced."""
    for word, value in words.items():
        template = template.replace(f"@{word.upper()}@", value)
    return template
