# The question of the guarded call, asked of OPA behind Envoy: may this person read profiles, for this purpose and ticket.
# Two rules permit, six refuse. The token is decoded, not verified: less than the sidecar does.
package envoy.authz

default allow := false

request := input.attributes.request.http

claims := io.jwt.decode(substring(request.headers.authorization, 7, -1))[1]

person := data.people[claims.sub]

purpose := request.headers["x-customhouse-purpose"]

ticket := request.headers["x-customhouse-ticket"]

read if startswith(input.parsed_path[1], "Get")

read if startswith(input.parsed_path[1], "List")

us_personnel if {
	person.status in {"citizen", "permanent_resident"}
	person.residence == "US"
}

allow if {
	permitted
	count(refused) == 0
}

permitted if {
	read
	"support" in person.roles
	purpose in {"user_support", "account_recovery"}
	regex.match(`^[A-Z]+-[0-9]+$`, ticket)
}

permitted if {
	"trust_and_safety" in person.roles
	purpose == "safety_investigation"
	ticket != ""
}

refused contains "us_personnel_only" if not us_personnel

refused contains "covered" if person.covered

refused contains "country" if person.residence in {"CN", "CU", "HK", "IR", "KP", "MO", "RU", "VE"}

refused contains "operated_from" if data.services[input.parsed_path[0]].operated_from != "US"

refused contains "training" if person.trained_days_ago > 365

refused contains "government_id" if {
	"government_id" in data.services[input.parsed_path[0]].classes
	purpose != "safety_investigation"
}
