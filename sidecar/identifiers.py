"""Covered personal identifiers and combined data: worked out per subject, never annotated.

28 CFR 202.212 (covered personal identifiers), 202.205(g) (combined data), 202.234 (the listed identifiers, by letter).
What is known of one subject are the categories of their data and the listed identifiers among them; the same rule
answers for a message type, for one record and for everything that one party has received.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from sidecar.vocabulary import ANNOTATED_CATEGORIES, COMPUTED_CATEGORIES

SENSITIVE = frozenset(ANNOTATED_CATEGORIES[:8])
"""Sensitive personal data by itself (28 CFR 202.249(a)), without the computed categories."""
_WEIGHED = SENSITIVE | {"commerce_order"}
"""An order is taken to show purchases (202.240) unless its fields are annotated as something else."""
CONTACT = "d"
"""Demographic or contact data (28 CFR 202.234(d)), which linked only to other contact data is not covered."""


def computed(categories: AbstractSet[str], letters: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """The computed categories of one subject's data, in the order of the vocabulary.

    `categories`: those of the data; others than SENSITIVE and `commerce_order` weigh nothing. `letters`: (letter of 202.234, how many
    distinct identifiers of it). Never `government_related`, which depends on places and parties (202.222).
    """
    held = [(letter, count) for letter, count in letters if count > 0]
    sensitive = categories & _WEIGHED
    linked = _linked(held)
    joined = bool(held and sensitive)
    found = set()
    if linked or joined:
        found.add("covered_personal_identifiers")
    if joined or len(_types(sensitive)) + linked > 1:
        found.add("combined")
    return tuple(one for one in COMPUTED_CATEGORIES if one in found)


def _linked(held: list[tuple[str, int]]) -> bool:
    """202.212(a)(1), (b)(1): two listed identifiers of one subject, unless all are contact data.

    The exception of (b)(2) depends on what a telecommunications service needs them for, which no data says: identifiers
    of the letters e to h linked to one another count.
    """
    return sum(count for _, count in held) > 1 and any(letter != CONTACT for letter, _ in held)


def _types(sensitive: AbstractSet[str]) -> set[str]:
    """202.205(a)-(e): the 'omic categories are one type of data, and so are finances and orders."""
    types = {"omic" if one.startswith("human_") else one for one in sensitive}
    return types - {"commerce_order"} if "personal_financial" in types else types
