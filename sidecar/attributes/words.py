"""What is said about an API, whether in annotations or in an overlay: the same words, typed and checked.

Every check here is of one word by itself; what must hold between the words of one message is in `coherence`.
Category codes are the CFR's terms (28 CFR 202.204-249); the letter of a listed identifier is its paragraph in 202.234.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from sidecar.errors import ConfigurationError
from sidecar.vocabulary import ACTIONS, ANNOTATED_CATEGORIES, CLASSES, COMPUTED_CATEGORIES

SubjectMode = Literal["request_field", "answer", "caller", "none"]
SUBJECT_MODES: tuple[SubjectMode, ...] = ("request_field", "answer", "caller", "none")
UNCLASSIFIED = "unclassified"
PROTECTED = "protected"
IMPERSONAL = frozenset({"public", "aggregate"})
"""Categories that, outside any named subject, are about nobody (28 CFR 202.249(b)(1), (2))."""
LETTERS: Mapping[str, str] = {
    "id_government": "a", "id_financial_account": "b", "id_device": "c", "id_contact": "d", "id_advertising": "e",
    "id_account_auth": "f", "id_network": "g", "id_call_detail": "h",
}  # fmt: skip
PRECISE_METRES = 1000
"""Within so many metres a location is precise (28 CFR 202.242)."""
_UNLISTED = frozenset(
    {"communication_content", "user_content", "behaviour", "coarse_location", "commerce_order", "aggregate"}
)
"""Categories outside 28 CFR 202.249(a), which stay in an answer that is cleared of everything sensitive."""
_LOCATIONS = frozenset({"precise_geolocation", "coarse_location"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataWords:
    """What kind of data a field holds. `letter` is "" when the field is no listed identifier."""

    category: str
    class_: str = PROTECTED
    letter: str = ""
    precision_m: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldWords:
    """All that is said about one field. `subject`: the kind of id it holds; `country`: whether it is authoritative."""

    data: DataWords | None = None
    subject: str | None = None
    country: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodWords:
    """What calling a method means."""

    action: str
    resource: str
    categories: tuple[str, ...] = ()
    subject: SubjectMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Everything that is said: fields and records by full name, methods by "package.Service/Method"."""

    fields: Mapping[str, FieldWords]
    records: frozenset[str]
    methods: Mapping[str, MethodWords]


def nearest(value: object, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or all of them when they are few."""
    words = sorted(known)
    close = get_close_matches(str(value), words, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(words)}." if 0 < len(words) <= 40 else ""


def data_words(category: str, class_: str, letter: str, precision_m: int, where: str) -> DataWords:
    """Checked words about a field's data. An identifier's category implies its letter; no class means protected."""
    if not category:
        raise ConfigurationError("data has no category", where=where, fix="Name one, such as id_contact.")
    _known_category(category, where)
    if class_ and class_ not in CLASSES:
        raise ConfigurationError("unknown class", where=where, value=class_, fix=nearest(class_, CLASSES))
    if category == UNCLASSIFIED and class_ not in ("", PROTECTED):
        raise ConfigurationError("unclassified data is protected", where=where, value=class_, fix="Remove the class.")
    implied = LETTERS.get(category, "")
    if letter and (len(letter) != 1 or letter not in "abcdefgh"):
        raise ConfigurationError(
            "unknown listed identifier", where=where, value=letter,
            fix='Give the letter "a" to "h" of 28 CFR 202.234.',
        )  # fmt: skip
    if letter and implied and letter != implied:
        raise ConfigurationError(
            f"{category} is listed under another letter", where=where, value=letter, fix=f"Say {implied!r} or nothing."
        )
    if letter and category in _UNLISTED:
        fit = next(name for name, own in LETTERS.items() if own == letter)
        raise ConfigurationError(
            f"a listed identifier is not {category}", where=where, value=letter,
            fix=f"Say {fit}, which is cleared wherever listed identifiers must not leave.",
        )  # fmt: skip
    _check_precision(category, precision_m, where)
    return DataWords(category=category, class_=class_ or PROTECTED, letter=letter or implied, precision_m=precision_m)


def method_words(action: str, resource: str, categories: Iterable[str], subject: str, where: str) -> MethodWords:
    """Checked words about a method."""
    if action not in ACTIONS:
        raise ConfigurationError("unknown action", where=where, value=action, fix=nearest(action, ACTIONS))
    if not resource:
        raise ConfigurationError("the type of resource is missing", where=where, fix="Name it, such as profile.")
    listed = tuple(categories)
    for category in listed:
        _known_category(category, where)
    for mode in SUBJECT_MODES:
        if subject == mode:
            return MethodWords(action=action, resource=resource, categories=listed, subject=mode)
    raise ConfigurationError(
        "the method does not say where its data subjects are named", where=where, value=subject,
        fix="Say REQUEST_FIELD, ANSWER, CALLER or NONE (in an overlay: request_field, answer, caller, none).",
    )  # fmt: skip


def _known_category(category: str, where: str) -> None:
    if category in COMPUTED_CATEGORIES:
        raise ConfigurationError(
            "this category is computed per subject and never annotated", where=where, value=category,
            fix="Name the categories and listed identifiers of the fields themselves.",
        )  # fmt: skip
    if category not in ANNOTATED_CATEGORIES:
        raise ConfigurationError(
            "unknown category", where=where, value=category, fix=nearest(category, ANNOTATED_CATEGORIES)
        )


def _check_precision(category: str, precision_m: int, where: str) -> None:
    if precision_m and category not in _LOCATIONS:
        raise ConfigurationError(
            "only a location has a precision", where=where, value=precision_m, fix="Remove precision_m."
        )
    if category == "coarse_location" and 0 < precision_m <= PRECISE_METRES:
        raise ConfigurationError(
            f"a location within {PRECISE_METRES} m is precise_geolocation (28 CFR 202.242)", where=where,
            value=precision_m, fix="Change the category.",
        )  # fmt: skip
