"""Types of things that decision APIs are asked about, and HTTP routes: what `describe.resources` says of them.

```yaml
types:
  profile:                                   # AuthZEN `resource.type`, and `Entity.type` of the Check API
    service: sidecar.demo.profiles.v1.Profiles  # as which service it is recorded and judged
    message: sidecar.demo.profiles.v1.Profile   # what it holds is what this message holds …
    categories: [id_contact]                 # … and these besides; one of the two at least, or `personal: false`
    subject: user_id                         # kind of data subject whose id the entity's id is; none: about nobody
    actions: {can_view: read}                # words of the caller's for actions; the closed ones are known anyhow
    variants:                                # the first that holds: what a caller may also say by another word
      - {property: resource.status, equals: archived, type: archived_profile}
      - {property: action.soft, equals: true, of: delete, action: write}
routes:
  - {http: "GET /v1/profiles/{user_id}", rpc: sidecar.demo.profiles.v1.Profiles/GetProfile}
```

What an entity holds is the operator's word, never the caller's. A type that nobody described is refused. A variant gives
a caller nothing that it could not have by naming the other type or action itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.attributes.datasets import NOTHING_KNOWN, Datasets
from sidecar.attributes.described import Described, computed
from sidecar.attributes.reach import ESCAPED, Reach, method_reach, ordered_categories, ordered_classes, reach_of
from sidecar.attributes.resource import Describer
from sidecar.attributes.words import nearest
from sidecar.attributes.yaml_file import contents, loaded, mapping, text
from sidecar.errors import ConfigurationError, DescribeError
from sidecar.vocabulary import ACTIONS, ANNOTATED_CATEGORIES, Action, Place, ReasonCode

_TYPE_KEYS = ("service", "message", "categories", "subject", "actions", "personal", "variants")
_VARIANT_KEYS = ("property", "equals", "of", "type", "action")
_PROPERTIES = ("resource", "action")
_ROUTE_KEYS = ("http", "rpc")
NOBODY = "none"
METHOD = "entity/"
"""Before a type's name, what stands for the method in documents and records: no method of protobuf is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of `routes`, as written."""

    http: str
    rpc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One line of `variants`, as written. `type`, `action`: in whose place; None leaves it. `of`: for this action only."""

    entity: str
    property: str
    equals: str | bool | int
    of: str | None = None
    type: str | None = None
    action: str | None = None

    def holds(self, action: str, properties: Mapping[str, Mapping[str, Any]]) -> bool:
        """Whether the caller has said so. Numbers and truth values are different things."""
        said = properties.get(self.entity, {}).get(self.property)
        return type(said) is type(self.equals) and said == self.equals and self.of in (None, action)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntityType:
    """One entry of `types`, as written. `subject` is None for what is about nobody."""

    name: str
    service: str
    message: str | None
    categories: tuple[str, ...]
    subject: str | None
    actions: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The file, checked but for the names that only the descriptors know."""

    where: str
    types: Mapping[str, EntityType]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EntityDescription(Described):
    """What an action on an entity of a type reaches. `subject`: the kind of its data subject, None for nobody."""

    subject: str | None


class Entities:
    """The types of a sidecar, described."""

    def __init__(
        self, resources: Resources, describer: Describer, *, datasets: Datasets | None = None,
        location: Place | None = None,
    ) -> None:  # fmt: skip
        """ConfigurationError for a message that the descriptors do not have."""
        self._types = resources.types
        self._made: dict[tuple[str, str], EntityDescription] = {}
        for one in resources.types.values():
            reach = _reach(one, describer, resources.where)
            where = NOTHING_KNOWN if datasets is None else datasets.of(one.service, one.name)
            for action in ACTIONS:
                self._made[one.name, action] = EntityDescription(
                    action=Action(name=action, service=one.service, method=f"{METHOD}{one.name}"),
                    resource_type=one.name, reach=reach, dataset=where, location=location or Place(),
                    categories=ordered_categories(reach.categories), classes=ordered_classes(reach.classes),
                    listed_identifiers=reach.letters, computed=computed(reach, where), subject=one.subject,
                )  # fmt: skip

    def names(self) -> tuple[str, ...]:
        """The types."""
        return tuple(self._types)

    def actions(self, type_: str) -> tuple[str, ...]:
        """The words that a caller may use for actions on this type."""
        found = self._types.get(type_)
        return () if found is None else tuple(dict.fromkeys((*found.actions, *ACTIONS)))

    def variant(
        self, type_: str, action: str, properties: Mapping[str, Mapping[str, Any]]
    ) -> tuple[str, str]:  # fmt: skip
        """Type and action as meant, given the properties of `resource` and `action`."""
        found = self._types.get(type_)
        for one in () if found is None else found.variants:
            if one.holds(action, properties):
                return one.type or type_, one.action or action
        return type_, action

    def of(self, type_: str, action: str) -> EntityDescription:
        """The description. DescribeError `undescribed_method` for a type or an action that nobody described."""
        found = self._types.get(type_)
        if found is None:
            raise _undescribed("resource type", type_, self._types)
        word = found.actions.get(action, action)
        made = self._made.get((type_, word))
        if made is None:
            raise _undescribed("action", action, (*found.actions, *ACTIONS))
        return made


def load(path: Path) -> Resources:
    """The file. ConfigurationError names file, key, value and fix."""
    return parse(contents(path, "the resources"), str(path))


def parse(written: str, where: str) -> Resources:
    """The resources in a YAML text, which `where` names in errors."""
    top = mapping(loaded(written, where), ("types", "routes"), where)
    types, routes = top.get("types", {}), top.get("routes", [])
    if not isinstance(types, dict) or not isinstance(routes, list):
        raise ConfigurationError("`types` is a mapping and `routes` a list", where=where)
    found = {name: _type(name, written, f"{where}: types.{name}") for name, written in types.items()}
    for one in found.values():
        _check_variants(one, found, where)
    return Resources(
        where=where,
        types=found,
        routes=tuple(_route(written, f"{where}: routes.{number}") for number, written in enumerate(routes)),
    )


def _type(name: str, written: object, where: str) -> EntityType:
    said = mapping(written, _TYPE_KEYS, where)
    if not name:
        raise ConfigurationError("a type needs a name", where=where)
    service, subject = text(said, "service", where, required=True), text(said, "subject", where, required=True)
    categories, actions = said.get("categories", []), said.get("actions", {})
    if not isinstance(categories, list) or not isinstance(actions, dict):
        raise ConfigurationError("categories is a list and actions a mapping", where=where)
    for one in categories:
        if one not in ANNOTATED_CATEGORIES:
            raise ConfigurationError("no such category", where=where, value=one, fix=nearest(one, ANNOTATED_CATEGORIES))
    for word, action in actions.items():
        if action not in ACTIONS:
            raise ConfigurationError("not an action", where=f"{where}.actions.{word}", value=action,
                                     fix=nearest(action, ACTIONS))  # fmt: skip
        if word in ACTIONS and word != action:
            raise ConfigurationError("an action's own word may not mean another", where=f"{where}.actions",
                                     value=word, fix="Choose another word.")  # fmt: skip
    message = said.get("message")
    personal = said.get("personal", True)
    if personal is not True and (personal is not False or message or categories or subject != NOBODY):
        raise ConfigurationError("`personal: false` stands alone, with subject none", where=where)
    if personal and message is None and not categories:
        raise ConfigurationError("nothing says what it holds", where=where,
                                 fix="Name its message or its categories, or say `personal: false`.")  # fmt: skip
    return EntityType(
        name=name, service=service, message=None if message is None else text(said, "message", where, required=True),
        categories=tuple(categories), subject=None if subject == NOBODY else subject, actions=actions,
        variants=_variants(said.get("variants", []), f"{where}.variants"),
    )  # fmt: skip


def _variants(written: object, where: str) -> tuple[Variant, ...]:
    if not isinstance(written, list):
        raise ConfigurationError("variants is a list", where=where, value=written)
    found = []
    for number, one in enumerate(written):
        place = f"{where}.{number}"
        said = mapping(one, _VARIANT_KEYS, place)
        entity, _, name = text(said, "property", place, required=True).partition(".")
        if entity not in _PROPERTIES or not name:
            raise ConfigurationError("is no property", where=f"{place}.property", value=said["property"],
                                     fix="Write resource.NAME or action.NAME.")  # fmt: skip
        if not isinstance(said.get("equals"), str | bool | int):
            raise ConfigurationError("is no text, truth value or integer", where=f"{place}.equals",
                                     value=said.get("equals"))  # fmt: skip
        words = {key: text(said, key, place, required=True) for key in ("of", "type", "action") if key in said}
        if not words.keys() & {"type", "action"}:
            raise ConfigurationError("says nothing", where=place, fix="Give the type or the action that is meant.")
        found.append(Variant(entity=entity, property=name, equals=said["equals"], **words))
    return tuple(found)


def _check_variants(one: EntityType, types: Mapping[str, EntityType], where: str) -> None:
    for number, variant in enumerate(one.variants):
        place = f"{where}: types.{one.name}.variants.{number}"
        if variant.type is not None and variant.type not in types:
            raise ConfigurationError("no such type", where=f"{place}.type", value=variant.type,
                                     fix=nearest(variant.type, types))  # fmt: skip
        known = (*types[variant.type or one.name].actions, *ACTIONS)
        if variant.action is not None and variant.action not in known:
            raise ConfigurationError("no such action", where=f"{place}.action", value=variant.action,
                                     fix=nearest(variant.action, known))  # fmt: skip


def _route(written: object, where: str) -> Route:
    said = mapping(written, _ROUTE_KEYS, where)
    return Route(http=text(said, "http", where, required=True), rpc=text(said, "rpc", where, required=True))


def _reach(one: EntityType, describer: Describer, where: str) -> Reach:
    reach = method_reach(one.categories)
    if one.message is not None:
        if one.message not in describer.descriptors.messages:
            raise ConfigurationError(
                "no such message in the descriptors", where=f"{where}: types.{one.name}.message", value=one.message,
                fix=nearest(one.message, describer.descriptors.messages) or "Give the full name, with its package.",
            )  # fmt: skip
        reach |= reach_of(describer.plans.of(one.message))
    return reach if reach.categories or one.subject is None else reach | ESCAPED


def _undescribed(what: str, name: str, known: Iterable[str]) -> DescribeError:
    return DescribeError(
        f"nothing says what this {what} is", reason=ReasonCode.UNDESCRIBED_METHOD,
        operator=f"{what} {name[:80]!r} is not in describe.resources. {nearest(name, known)}",
    )  # fmt: skip
