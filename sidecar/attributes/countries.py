"""ISO 3166-1 alpha-2 codes, which of them are in the United States, and which are of concern."""

from typing import Literal

UNITED_STATES = frozenset({"US", "PR", "GU", "VI", "AS", "MP", "UM"})
"""28 CFR 202.255: territories and possessions included."""
COUNTRIES_OF_CONCERN = frozenset({"CN", "HK", "MO", "CU", "IR", "KP", "RU", "VE"})
"""28 CFR 202.601 (text of 2025-04-08 as corrected, 90 FR 16466): China, which is with Hong Kong and Macau (202.208), Cuba, Iran, North
Korea, Russia and Venezuela. Taiwan and South Korea are not."""
ASSIGNED = frozenset(
    (  # noqa: SIM905 - 249 quoted codes would be harder to check against the standard
        "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
        "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO "
        "FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE "
        "JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO "
        "MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW "
        "PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM "
        "TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
    ).split()
)
"""Officially assigned codes. Anything else, such as ZZ or USA, names no country and clears nobody."""


def country_class(value: str) -> Literal["us", "non_us", "unknown"]:
    """The class that a country names; `unknown` when the value is no assigned code."""
    code = value.strip().upper()
    if code in UNITED_STATES:
        return "us"
    return "non_us" if code in ASSIGNED else "unknown"
