"""The overlay: what protos that cannot be edited would say if they could, in YAML and in the same words.

An overlay adds; where an annotation already speaks it may only make it *stricter*, which means exactly this:

* a category or a listed identifier where there is none; `unclassified` instead of any category; any other category
  instead of `public` or `aggregate`; `precise_geolocation` instead of `coarse_location`; a smaller precision;
* the class `protected` instead of any other;
* a subject id or country where there is none; a country that may no longer clear; a record more; a method's
  categories in addition; a method's subject somewhere instead of `none`.

Anything else that differs is refused, and so is every unknown key and element, with the nearest known one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sidecar.attributes.annotations import PERSON
from sidecar.attributes.descriptors import Descriptors
from sidecar.attributes.words import (
    IMPERSONAL,
    PROTECTED,
    UNCLASSIFIED,
    DataWords,
    FieldWords,
    MethodWords,
    Words,
    data_words,
    method_words,
    nearest,
)
from sidecar.attributes.yaml_file import contents, loaded, mapping, text
from sidecar.errors import ConfigurationError

_DATA = ("category", "class", "listed_identifier", "precision_m")
_METHOD = ("action", "resource", "categories", "subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """A checked file, not yet laid over anything. `methods` and `fields` hold the words as written."""

    where: str
    methods: Mapping[str, Mapping[str, Any]]
    fields: Mapping[str, Mapping[str, Any]]
    records: tuple[str, ...]

    def over(self, said: Words, descriptors: Descriptors) -> Words:
        """The annotations with this overlay on top. ConfigurationError for unknown elements and anything laxer."""
        fields, methods = dict(said.fields), dict(said.methods)
        for name, written in self.fields.items():
            where = f"{self.where}: fields.{name}"
            _known(name, descriptors.fields, "field", where)
            fields[name] = _field(fields.get(name, FieldWords()), written, where)
        for name, written in self.methods.items():
            where = f"{self.where}: methods.{name}"
            _known(name, descriptors.methods, "method", where)
            methods[name] = _method(methods.get(name), written, where)
        for name in self.records:
            _known(name, descriptors.messages, "message", f"{self.where}: records")
        return Words(fields=fields, records=said.records | set(self.records), methods=methods)


def load(path: Path) -> Overlay:
    """The overlay in a file. ConfigurationError names file, key, value and fix."""
    return parse(contents(path, "the overlay"), str(path))


def parse(written: str, where: str) -> Overlay:
    """The overlay in a YAML text, which `where` names in errors."""
    top = mapping(loaded(written, where), ("methods", "fields", "records"), where)
    methods = {
        name: mapping(said, _METHOD, f"{where}: methods.{name}")
        for name, said in _elements(top, "methods", where).items()
    }
    fields = {
        name: mapping(said, (*_DATA, "subject_id", "subject_country"), f"{where}: fields.{name}")
        for name, said in _elements(top, "fields", where).items()
    }
    records = _texts(top.get("records", []), f"{where}: records")
    return Overlay(where=where, methods=methods, fields=fields, records=records)


def _elements(top: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = top.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError("a mapping of full names is expected", where=f"{where}: {key}", value=value)
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigurationError("a list of names is expected", where=where, value=value)
    return tuple(value)


def _known(name: str, elements: Mapping[str, object], what: str, where: str) -> None:
    if name not in elements:
        raise ConfigurationError(
            f"no such {what} in the descriptors", where=where, value=name, fix=_close(name, elements)
        )


def _close(name: str, elements: Mapping[str, object]) -> str:
    return nearest(name, elements) or "Give the full name, with its package."


def _field(before: FieldWords, written: Mapping[str, Any], where: str) -> FieldWords:
    if not written:
        raise ConfigurationError("nothing is said about this field", where=where, fix="Say something, or remove it.")
    after = before
    if any(key in written for key in _DATA):
        after = replace(after, data=_data(before.data, written, where))
    if "subject_id" in written:
        kind = text(mapping(written["subject_id"], ("kind",), f"{where}.subject_id"), "kind", where) or PERSON
        if before.subject not in (None, kind):
            raise _laxer("another kind of subject", where, kind, str(before.subject))
        after = replace(after, subject=kind)
    if "subject_country" in written:
        clears = mapping(written["subject_country"], ("authoritative",), f"{where}.subject_country").get(
            "authoritative", False
        )
        if not isinstance(clears, bool):
            raise ConfigurationError("true or false is expected", where=f"{where}.subject_country", value=clears)
        if clears and before.country is False:
            raise _laxer("a country that may clear", where, "authoritative", "not authoritative")
        after = replace(after, country=clears)
    return after


def _data(before: DataWords | None, written: Mapping[str, Any], where: str) -> DataWords:
    precision = written.get("precision_m", before.precision_m if before else 0)
    if not isinstance(precision, int) or isinstance(precision, bool) or precision < 0:
        raise ConfigurationError("a number of metres is expected", where=f"{where}.precision_m", value=precision)
    category = text(written, "category", where) or (before.category if before else "")
    class_ = text(written, "class", where)
    letter = text(written, "listed_identifier", where)
    if before is None:
        return data_words(category, class_, letter, precision, where)
    moved = category != before.category
    after = data_words(
        category, class_ or (PROTECTED if category == UNCLASSIFIED else before.class_), letter or before.letter,
        precision, where,
    )  # fmt: skip
    if moved and not _stricter(before.category, category):
        raise _laxer("this category", where, category, before.category)
    if after.class_ not in (before.class_, PROTECTED):
        raise _laxer("this class", where, after.class_, before.class_)
    if before.letter and after.letter != before.letter:
        raise _laxer("another letter", where, after.letter, before.letter)
    if before.precision_m and not 0 < after.precision_m <= before.precision_m:
        raise _laxer("a coarser precision", where, str(after.precision_m), str(before.precision_m))
    return after


def _stricter(before: str, after: str) -> bool:
    if after == UNCLASSIFIED:
        return True
    if before in IMPERSONAL:
        return after not in IMPERSONAL
    return (before, after) == ("coarse_location", "precise_geolocation")


def _method(before: MethodWords | None, written: Mapping[str, Any], where: str) -> MethodWords:
    added = _texts(written.get("categories", []), f"{where}.categories")
    said = {key: text(written, key, where) for key in ("action", "resource", "subject")}
    if before is None:
        return method_words(said["action"], said["resource"], added, said["subject"], where)
    for key, old in (("action", before.action), ("resource", before.resource)):
        if said[key] not in ("", old):
            raise _laxer(f"another {key}", where, said[key], old)
    subject = said["subject"] or before.subject
    if before.subject not in (subject, "none"):
        raise _laxer("the subjects elsewhere", where, subject, before.subject)
    categories = tuple(dict.fromkeys((*before.categories, *added)))
    return method_words(before.action, before.resource, categories, subject, where)


def _laxer(what: str, where: str, value: str, annotated: str) -> ConfigurationError:
    return ConfigurationError(
        f"an overlay may only be stricter than the annotation, which says {annotated!r}: it cannot say {what}",
        where=where, value=value, fix="Change the annotation itself.",
    )  # fmt: skip
