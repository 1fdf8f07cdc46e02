"""Types of things that decision APIs are asked about: what they hold is the operator's word, and nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_rig import SERVICE, describer

from sidecar.attributes import entities
from sidecar.attributes.entities import Entities
from sidecar.errors import Code, ConfigurationError, DescribeError
from sidecar.vocabulary import ACTIONS, SubjectCounts

pytestmark = pytest.mark.unit
PROFILE = "sidecar.demo.profiles.v1.Profile"
TYPES = f"""
types:
  profile: {{service: {SERVICE}, message: {PROFILE}, subject: person, actions: {{can_view: read, can_purge: delete}}}}
  ticket: {{service: desk.Tickets, categories: [id_contact, behaviour], subject: person}}
  both: {{service: {SERVICE}, message: {PROFILE}, categories: [precise_geolocation], subject: person}}
  empty: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.ListProfilesRequest, subject: person}}
  banner: {{service: {SERVICE}, personal: false, subject: none}}
routes:
  - {{http: "GET /v1/profiles/{{user_id}}", rpc: {SERVICE}/GetProfile}}
"""


def made(text: str = TYPES) -> Entities:
    return Entities(entities.parse(text, "resources.yaml"), describer())


def test_a_type_reaches_what_its_message_holds():
    found = made().of("profile", "read")
    assert {"personal_financial", "id_contact", "id_government", "behaviour", "public"} <= set(found.categories)
    assert set(found.listed_identifiers) == {"a", "d", "f", "g"}
    assert (found.action.name, found.action.service, found.action.method) == ("read", SERVICE, "entity/profile")
    assert (found.resource_type, found.subject) == ("profile", "person")
    resource = found.resource(SubjectCounts(us=1))
    assert (resource.type, resource.subjects.us, resource.categories) == ("profile", 1, found.categories)


def test_a_type_reaches_the_categories_it_names_besides():
    assert set(made().of("ticket", "read").categories) == {"id_contact", "behaviour"}
    both = made().of("both", "read")
    assert {"precise_geolocation", "id_government"} <= set(both.categories)


def test_a_message_that_holds_nothing_described_about_somebody_is_unclassified():
    assert made().of("empty", "read").categories == ("unclassified",)


def test_what_is_not_personal_reaches_nothing_and_concerns_nobody():
    found = made().of("banner", "read")
    assert (found.categories, found.subject) == ((), None)


@pytest.mark.parametrize(("word", "action"), [("can_view", "read"), ("can_purge", "delete"), ("list", "list")])
def test_a_caller_may_use_the_types_own_words_for_actions(word, action):
    assert made().of("profile", word).action.name == action


def test_every_closed_action_is_known_for_every_type():
    found = made()
    assert found.names() == ("profile", "ticket", "both", "empty", "banner")
    assert found.actions("profile") == ("can_view", "can_purge", *ACTIONS)
    assert found.actions("nothing") == ()
    assert {found.of("ticket", one).action.name for one in ACTIONS} == set(ACTIONS)


@pytest.mark.parametrize(
    ("type_", "action"),
    [
        ("profiles", "read"),
        ("", "read"),
        ("profile", "peek"),
        ("profile", ""),
        ("ticket", "can_view"),
        ("PROFILE", "read"),
    ],
)
def test_what_nobody_described_is_refused(type_, action):
    with pytest.raises(DescribeError) as caught:
        made().of(type_, action)
    assert (caught.value.code, caught.value.reason) == (Code.PERMISSION_DENIED, "undescribed_method")
    assert type_ not in caught.value.message or not type_, "the caller is not told what there is"


@given(st.text(), st.text())
def test_no_name_at_all_finds_another_type(type_, action):
    found = made()
    try:
        description = found.of(type_, action)
    except DescribeError:
        return
    assert description.resource_type == type_
    assert action in found.actions(type_)


GOOD = f"service: {SERVICE}, message: {PROFILE}, subject: person"
BAD = {
    "no YAML": ("types: [", "valid YAML"),
    "no mapping": ("[]", "mapping is expected"),
    "types are a list": ("types: []", "mapping"),
    "an unknown key above": ("kinds: {}", "unknown key"),
    "an unknown key": ("types: {a: {" + GOOD + ", cat: 1}}", "unknown key"),
    "a key given twice": ("types: {a: {" + GOOD + "}, a: {" + GOOD + "}}", "stands twice"),
    "no service": (f"types: {{a: {{message: {PROFILE}, subject: person}}}}", "text is expected"),
    "no subject": (f"types: {{a: {{service: x, message: {PROFILE}}}}}", "text is expected"),
    "nothing held": ("types: {a: {service: x, subject: person}}", "nothing says what it holds"),
    "no such message": ("types: {a: {service: x, message: a.B, subject: person}}", "no such message"),
    "no such category": ("types: {a: {service: x, categories: [id_contacts], subject: person}}", "no such category"),
    "a computed category": ("types: {a: {service: x, categories: [combined], subject: person}}", "no such category"),
    "a category that is a number": ("types: {a: {service: x, categories: [5], subject: person}}", "no such category"),
    "a category that is a list": ("types: {a: {service: x, categories: [[a]], subject: person}}", "no such category"),
    "an action of no closed list": ("types: {a: {" + GOOD + ", actions: {see: view}}}", "not an action"),
    "an action that is a number": ("types: {a: {" + GOOD + ", actions: {see: 5}}}", "not an action"),
    "a word that is a number": ("types: {a: {" + GOOD + ", actions: {5: read}}}", "no text"),
    "read meaning delete": ("types: {a: {" + GOOD + ", actions: {read: delete}}}", "may not mean another"),
    "personal and not": ("types: {a: {" + GOOD + ", personal: false}}", "stands alone"),
    "not personal but somebody's": ("types: {a: {service: x, personal: false, subject: person}}", "stands alone"),
    "personal is a word": ("types: {a: {" + GOOD + ', personal: "no"}}', "stands alone"),
    "a type named by a number": ("types: {5: {" + GOOD + "}}", "no text"),
    "a type without a name": ('types: {"": {' + GOOD + "}}", "needs a name"),
    "a type that is text": ("types: {a: profile}", "mapping is expected"),
    "a route without rpc": ('routes: [{http: "GET /"}]', "text is expected"),
    "routes are a mapping": ("routes: {}", "list"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_right_stops_the_process_and_says_where(name):
    text, why = BAD[name]
    with pytest.raises(ConfigurationError) as caught:
        made(text)
    assert why in str(caught.value)
    assert "resources.yaml" in caught.value.where


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing\.yaml"):
        entities.load(tmp_path / "missing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"types: \xff")
    with pytest.raises(ConfigurationError, match=r"latin\.yaml"):
        entities.load(tmp_path / "latin.yaml")
    (tmp_path / "good.yaml").write_text(TYPES)
    assert entities.load(tmp_path / "good.yaml").routes[0].rpc == f"{SERVICE}/GetProfile"
