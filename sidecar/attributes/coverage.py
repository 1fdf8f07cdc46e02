"""Words about covered persons (28 CFR 202.211): which legal statuses there are, and on what a verdict rests.

The lists are closed: a directory row with another legal status is refused, and policies may compare a basis.
"""

from typing import Literal

US_STATUSES = frozenset({"us_citizen", "us_national", "us_permanent_resident", "refugee", "asylee"})
"""Legal statuses that make a US person wherever they are (28 CFR 202.256); others are one only by presence."""
FOREIGN = "foreign"
LEGAL_STATUSES = US_STATUSES | {FOREIGN}
"""What `legal_status` may say. `foreign` is everybody else, on whatever visa; null is not known."""

PersonBasis = Literal[
    "designated", "counterparty_covered", "employed_by_covered", "resident_of_concern",
    "us_person_status", "us_person_present", "foreign_not_covered", "counterparty_foreign",
    "counterparty_unknown", "engagement_unknown", "employer_unknown", "residence_unknown", "residence_unattested",
    "legal_status_unknown", "presence_unattested", "presence_contradicted",
]  # fmt: skip
"""On what a person's verdict rests: four for `yes`, four for `no`, the rest for `unknown`.

designated             202.211(a)(5), any person wherever located
counterparty_covered   a vendor, investment or brokerage agreement with a covered person: the access is that person's
employed_by_covered    202.211(a)(3), employee or contractor of a covered entity or of a country of concern
resident_of_concern    202.211(a)(4), primarily resident in a country of concern
us_person_status       202.256, citizen, national, permanent resident, refugee or asylee
us_person_present      202.256, in the United States
foreign_not_covered    a foreign person, or not known to be a US person, of whom none of the above is true
counterparty_foreign   a US person, but the data is or may be brokered to a foreign entity, which is not covered (202.302)
counterparty_unknown   it is not known who the counterparty is, or whether it is covered
engagement_unknown     the counterparty is or may be covered, and the kind of agreement with it is not known
employer_unknown       a foreign person whose employer is not known, or not known to be uncovered
residence_unknown      a foreign person whose primary residence is not known
residence_unattested   the same: it was attested too long ago
legal_status_unknown   covered if foreign, and whether they are is not known
presence_unattested    covered unless in the United States, where they were last seen too long ago
presence_contradicted  not covered only because in the United States, which the token contradicts
"""

EntityBasis = Literal[
    "designated", "government", "entity_organised", "entity_principal_place", "entity_owned_50",
    "us_person_organised", "foreign_not_covered",
    "organised_unknown", "principal_place_unknown", "owners_unknown",
]  # fmt: skip
"""On what an entity's verdict rests: five for `yes`, two for `no`, three for `unknown`.

designated               202.211(a)(5)
government               202.209, 202.601: the government of a country of concern, or a part of it
entity_organised         202.211(a)(1), organised or chartered there
entity_principal_place   202.211(a)(1), principal place of business there
entity_owned_50          202.211(a)(1) and (2), half or more, directly or not, one by one or together
us_person_organised      202.256, organised solely under the laws of the United States, whoever owns it
foreign_not_covered      a foreign entity of which none of the above is true
organised_unknown        it is not known where it is organised
principal_place_unknown  a foreign entity whose principal place of business is not known
owners_unknown           half or more is or may be held by covered persons, once what is not known counts, and what
                         entities hold in one another
"""

OF_A_US_PERSON: frozenset[str] = frozenset({"us_person_status", "us_person_present", "us_person_organised"})
"""Bases of a `no` that rests on being a US person. Any other `no` is of a foreign person (28 CFR 202.302)."""
WITHOUT_PRESENCE: frozenset[str] = frozenset({"us_person_status", "foreign_not_covered"})
"""Bases of a person's `no` that holds wherever they are."""
