"""`variants` of a described type: what a property means, and what may not be written."""

import pytest
from pipeline_rig import SERVICE, describer

from sidecar.attributes import entities
from sidecar.errors import ConfigurationError

TYPES = """
types:
  record:
    service: {service}
    categories: [user_content]
    subject: person
    actions: {{look: read}}
    variants: {variants}
  old: {{service: {service}, categories: [user_content], subject: person}}
"""
ARCHIVED = "{property: resource.status, equals: archived, type: old}"


def parsed(*variants):
    return entities.parse(TYPES.format(service=SERVICE, variants=f"[{', '.join(variants)}]"), "resources.yaml")


def meant(found, action="look", resource=None, of_action=None):
    return found.variant("record", action, {"resource": resource or {}, "action": of_action or {}})


def test_the_first_that_holds_counts():
    found = entities.Entities(
        parsed("{property: action.soft, equals: true, of: delete, action: look}", ARCHIVED,
               "{property: resource.version, equals: 2, type: old, action: write}"), describer()
    )  # fmt: skip
    assert meant(found) == ("record", "look")
    assert meant(found, resource={"status": "archived", "version": 2}) == ("old", "look")
    assert meant(found, resource={"version": 2}) == ("old", "write")
    assert meant(found, "delete", of_action={"soft": True}) == ("record", "look")
    assert meant(found, "write", of_action={"soft": True}) == ("record", "write")
    assert found.variant("unheard_of", "look", {}) == ("unheard_of", "look")
    assert found.of(*meant(found, resource={"status": "archived"}, action="read")).resource_type == "old"


@pytest.mark.parametrize("said", [1, "true", None, [True], {"soft": True}, 1.0])
def test_a_truth_value_is_no_number_and_no_text(said):
    found = entities.Entities(parsed("{property: action.soft, equals: true, action: look}"), describer())
    assert meant(found, "delete", of_action={"soft": said}) == ("record", "delete")


@pytest.mark.parametrize(("written", "where"), [
    ("{property: status, equals: x, type: old}", "property"), ("{property: subject.role, equals: x, type: old}", "property"),
    ("{property: resource., equals: x, type: old}", "property"), ("{property: resource.a, type: old}", "equals"),
    ("{property: resource.a, equals: [1], type: old}", "equals"), ("{property: resource.a, equals: x}", "variants.0"),
    ("{property: resource.a, equals: x, type: older}", "type"), ("{property: resource.a, equals: x, action: peek}", "action"),
    ("{property: resource.a, equals: x, type: old, action: look}", "action"),
    ("{property: resource.a, equals: x, type: old, when: never}", "variants.0"), ("7", "variants.0"),
])  # fmt: skip
def test_what_may_not_be_written_is_named(written, where):
    with pytest.raises(ConfigurationError) as caught:
        parsed(written)
    assert where in str(caught.value) and "record" in str(caught.value)


def test_variants_are_a_list():
    with pytest.raises(ConfigurationError, match="list"):
        entities.parse(TYPES.format(service=SERVICE, variants="{}"), "resources.yaml")
