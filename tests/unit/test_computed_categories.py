"""28 CFR 202.205(g), 202.212, 202.234: what is computed of one subject's data, by rule, by message type, by message."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trial_api import compile_text, describer, new, trial

from sidecar.attributes.holdings import LOOSE, Holding, subject_holdings
from sidecar.errors import ConfigurationError
from sidecar.identifiers import SENSITIVE, computed
from sidecar.vocabulary import ANNOTATED_CATEGORIES

IDENTIFIERS = ("covered_personal_identifiers",)
BOTH = ("covered_personal_identifiers", "combined")
COMBINED = ("combined",)
LETTERS = "abcdefgh"

# -- the rule ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", LETTERS)
def test_212_c_1_a_lone_identifier_is_none(letter):
    assert computed(frozenset(), [(letter, 1)]) == ()
    assert computed(frozenset({"behaviour", "public", "communication_content"}), [(letter, 1)]) == ()


@pytest.mark.parametrize("one", LETTERS)
@pytest.mark.parametrize("other", LETTERS)
def test_212_a_1_b_1_two_listed_identifiers_are_unless_both_are_contact_data(one, other):
    letters = [(one, 2)] if one == other else [(one, 1), (other, 1)]
    assert computed(frozenset(), letters) == (() if one == other == "d" else IDENTIFIERS)


@pytest.mark.parametrize("count", [2, 3, 100])
def test_212_b_1_contact_data_linked_only_to_contact_data_is_none(count):
    assert computed(frozenset(), [("d", count)]) == ()
    assert computed(frozenset(), [("d", count), ("e", 1)]) == IDENTIFIERS


@pytest.mark.parametrize("letters", ["fg", "gh", "fh", "fgh"])
def test_212_b_2_network_identifiers_linked_to_one_another_count_since_no_data_says_what_for(letters):
    assert computed(frozenset(), [(letter, 1) for letter in letters]) == IDENTIFIERS


@pytest.mark.parametrize("letter", LETTERS)
@pytest.mark.parametrize("category", sorted(SENSITIVE))
def test_212_a_2_one_identifier_linked_to_sensitive_data_is_both(letter, category):
    assert computed(frozenset({category}), [(letter, 1)]) == BOTH
    assert computed(frozenset({category}), [(letter, 0)]) == ()


@pytest.mark.parametrize("category", sorted(set(ANNOTATED_CATEGORIES) - SENSITIVE - {"commerce_order"}))
def test_249_b_other_data_links_nothing(category):
    assert computed(frozenset({category}), [("a", 1)]) == ()
    assert computed(frozenset({category, "personal_health"}), []) == ()


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ({"personal_health"}, ()),
        ({"personal_health", "precise_geolocation"}, COMBINED),
        ({"personal_health", "personal_financial"}, COMBINED),
        ({"human_genomic", "biometric_identifier"}, COMBINED),
        # 205(a): the 'omic categories are one type of data
        ({"human_genomic", "human_proteomic", "human_epigenomic", "human_transcriptomic"}, ()),
        ({"human_genomic", "human_proteomic", "personal_health"}, COMBINED),
        # 240: orders weigh as finances
        ({"commerce_order"}, ()),
        ({"commerce_order", "personal_financial"}, ()),
        ({"commerce_order", "personal_health"}, COMBINED),
    ],
)
def test_205_g_two_types_of_data_are_combined(categories, expected):
    assert computed(frozenset(categories), []) == expected


def test_205_g_covered_personal_identifiers_are_a_type_too():
    assert computed(frozenset({"personal_health"}), [("a", 1), ("c", 1)]) == BOTH
    assert computed(frozenset(), [("a", 1), ("c", 1)]) == IDENTIFIERS


@given(
    st.frozensets(st.sampled_from(ANNOTATED_CATEGORIES)),
    st.dictionaries(st.sampled_from(LETTERS), st.integers(1, 3)),
    st.frozensets(st.sampled_from(ANNOTATED_CATEGORIES)),
    st.dictionaries(st.sampled_from(LETTERS), st.integers(1, 3)),
)
def test_knowing_more_of_somebody_never_takes_anything_away(categories, letters, more, further):
    sum_of = {letter: letters.get(letter, 0) + further.get(letter, 0) for letter in letters | further}
    assert set(computed(categories, letters.items())) <= set(computed(categories | more, sum_of.items()))


# -- what a message type can show --------------------------------------------------------------------------------------

ACCESS = 'rpc A(M) returns (M) { option (sidecar.api.v1.access) = {action: "read" resource: "m" subject: CALLER}; }'


def described(messages, access=ACCESS):
    text = messages.replace("(D)", "(sidecar.api.v1.data)").replace("(S)", "(sidecar.api.v1.subject_id)")
    head = 'import "google/protobuf/wrappers.proto";\nimport "google/protobuf/timestamp.proto";\nimport "google/protobuf/struct.proto";\n'
    with TemporaryDirectory() as folder:
        return describer(compile_text(Path(folder), f"{head}{text}\nservice S {{ {access} }}"))


def of_type(messages):
    return described(messages).method("/t.S/A").computed


DEVICE = 'message Device { string serial = 1 [(D) = {category: "id_device"}]; }'
GOVERNMENT = '[(D) = {category: "id_government"}]'


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (f"message M {{ string a = 1 {GOVERNMENT}; }}", ()),
        (f"message M {{ repeated string a = 1 {GOVERNMENT}; }}", IDENTIFIERS),
        # one identifier, however the runtime wraps it
        (f"message M {{ google.protobuf.StringValue a = 1 {GOVERNMENT}; }}", ()),
        (f"message M {{ google.protobuf.Timestamp a = 1 {GOVERNMENT}; }}", ()),
        (f"message M {{ repeated google.protobuf.StringValue a = 1 {GOVERNMENT}; }}", IDENTIFIERS),
        (f"message M {{ google.protobuf.Struct a = 1 {GOVERNMENT}; }}", IDENTIFIERS),
        # a message is what its fields are
        (f"message M {{ P a = 1 {GOVERNMENT}; }} message P {{ string number = 1; }}", ()),
        (f"message M {{ P a = 1 {GOVERNMENT}; }} message P {{ string number = 1; string other = 2; }}", IDENTIFIERS),
        (
            'message M { P a = 1 [(D) = {category: "id_contact"}]; } message P { string street = 1; string town = 2; }',
            (),
        ),
        # the same type twice in one record, side by side, in a list, in a map, in itself
        (f"message M {{ Device a = 1; }} {DEVICE}", ()),
        (f"message M {{ Device a = 1; Device b = 2; }} {DEVICE}", IDENTIFIERS),
        (f"message M {{ repeated Device a = 1; }} {DEVICE}", IDENTIFIERS),
        (f'message M {{ map<string, Device> a = 1 [(D) = {{category: "behaviour"}}]; }} {DEVICE}', IDENTIFIERS),
        (f"message M {{ Old a = 1; repeated Old b = 2; }} message Old {{ Device c = 1; }} {DEVICE}", IDENTIFIERS),
        (f"message M {{ string a = 1 {GOVERNMENT}; M parent = 2; }}", IDENTIFIERS),
        # a record of its own each: one identifier of each subject
        (
            f"message M {{ repeated R a = 1; }} message R {{ string id = 1 [(S) = {{}}]; string b = 2 {GOVERNMENT}; }}",
            (),
        ),
        (f"message M {{ map<string, Device> a = 1 [(S) = {{}}]; }} {DEVICE}", ()),
        (
            f"message M {{ repeated R a = 1; }} message R {{ string id = 1 [(S) = {{}}]; repeated Device b = 2; }} {DEVICE}",
            IDENTIFIERS,
        ),
        (
            f"message M {{ R a = 1; }} message R {{ string id = 1 [(S) = {{}}]; string b = 2 {GOVERNMENT}; Device c = 3; }} {DEVICE}",
            IDENTIFIERS,
        ),
    ],
)
def test_what_may_be_known_of_one_subject(messages, expected):
    assert of_type(messages) == expected


def test_an_identifier_that_only_the_method_names_may_be_several():
    access = (
        'rpc A(M) returns (M) { option (sidecar.api.v1.access) = {action: "delete" resource: "m" '
        'subject: CALLER categories: ["%s"]}; }'
    )
    for category, letters, expected in [("id_device", ("c",), IDENTIFIERS), ("id_contact", ("d",), ())]:
        found = described('message M { string a = 1 [(D) = {category: "behaviour"}]; }', access % category)
        assert found.method("/t.S/A").listed_identifiers == letters
        assert found.method("/t.S/A").computed == expected


@pytest.mark.parametrize(
    "category", ["behaviour", "user_content", "communication_content", "coarse_location", "aggregate"]
)
def test_234_a_listed_identifier_stands_in_a_field_that_is_cleared_with_it(category):
    with pytest.raises(ConfigurationError, match="a listed identifier is not") as caught:
        described(f'message M {{ string a = 1 [(D) = {{category: "{category}" listed_identifier: "g"}}]; }}')
    assert "id_network" in str(caught.value)


# -- what a message holds ----------------------------------------------------------------------------------------------


def holdings(method, message):
    return subject_holdings(trial().method(f"/trial.v1.Trials/{method}").answer.parse(message.SerializeToString()))


def test_each_subject_has_what_stands_in_its_own_record():
    book = new("Book")()
    one = book.profiles.add(user_id="us-1", email="a@x", steps=3)
    one.guardian.user_id, one.guardian.email = "us-2", "b@x"
    book.profiles.add(user_id="us-3", card="4111")
    book.next_page = "2"
    assert holdings("List", book) == {
        ("person", "us-1"): Holding(frozenset({"id_contact", "personal_health"}), (("d", 1),)),
        ("person", "us-2"): Holding(frozenset({"id_contact"}), (("d", 1),)),
        ("person", "us-3"): Holding(frozenset({"id_financial_account"}), (("b", 1),)),
        LOOSE: Holding(frozenset({"public"}), ()),
    }


def test_identifiers_count_by_what_they_are():
    book = new("Book")()
    one = book.profiles.add(user_id="us-1", email="a@x", phones=["1", "2", "1"])
    one.devices.add(serial="s-1")
    one.devices.add(serial="s-2")
    one.born.seconds = 7
    book.profiles.add(user_id="us-1", email="a@x").devices.add(serial="s-1")
    found = holdings("List", book)["person", "us-1"]
    assert found.letters == (("c", 2), ("d", 4))
    assert found.categories == {"id_contact", "id_device"}


def test_all_whom_a_record_names_hold_it():
    book = new("Book")()
    book.letters.add(sender_id=1, copied=["us-9"], body="hello").recipient_id.value = 2
    held = Holding(frozenset({"communication_content"}), ())
    assert holdings("List", book) == {("account", "1"): held, ("account", "2"): held, ("person", "us-9"): held}


def test_entries_by_subject():
    book = new("Book")()
    book.by_owner["us-1"].serial = "s-1"
    book.by_owner["us-1"].model = "m"
    book.notes[7] = "text"
    book.by_id["us-2"].user_id = "us-3"
    book.by_id["us-2"].email = "a@x"
    book.extras["us-4"].Pack(new("Device")(serial="s-4"))
    book.extras["us-5"].type_url = "type.googleapis.com/no.such.Type"
    contact = Holding(frozenset({"id_contact"}), (("d", 1),))
    assert holdings("List", book) == {
        ("person", "us-1"): Holding(frozenset({"id_device", "unclassified"}), (("c", 1),)),
        ("account", "7"): Holding(frozenset({"user_content"}), ()),
        ("person", "us-2"): contact,
        ("person", "us-3"): contact,
        ("person", "us-4"): Holding(frozenset({"id_device"}), (("c", 1),)),
        ("person", "us-5"): Holding(frozenset({"unclassified"}), ()),
        LOOSE: Holding(frozenset({"unclassified"}), ()),
    }


def test_what_is_nobodys_is_loose():
    email = new("Email")(email="a@x", handle="h")
    assert holdings("GetEmail", email) == {LOOSE: Holding(frozenset({"id_contact", "public"}), (("d", 1),))}
    assert holdings("GetEmail", new("Email")()) == {}
    book = new("Book")()
    book.profiles.add(email="a@x")
    book.more.add().Pack(new("Profile")(user_id="us-1", steps=1))
    assert holdings("List", book) == {
        LOOSE: Holding(frozenset({"id_contact"}), (("d", 1),)),
        ("person", "us-1"): Holding(frozenset({"personal_health"}), ()),
    }


def test_what_cannot_be_read_is_unclassified():
    data = new("Email")(email="a@x").SerializeToString() + b"\xfa\x3f\x05extra"
    found = subject_holdings(trial().method("/trial.v1.Trials/GetEmail").answer.parse(data))
    assert found == {LOOSE: Holding(frozenset({"id_contact", "unclassified"}), (("d", 1),))}


def test_a_value_of_many_values_is_several_identifiers():
    found = described(f"message M {{ string id = 1 [(S) = {{}}]; google.protobuf.Struct a = 2 {GOVERNMENT}; }}")
    plan = found.method("/t.S/A").answer
    message = plan.plan.new()
    message.id = "us-1"
    message.a.update({"passport": "1", "licence": "2"})
    held = subject_holdings(plan.parse(message.SerializeToString()))["person", "us-1"]
    assert held.letters == (("a", 2),)
    assert computed(held.categories, held.letters) == IDENTIFIERS


def test_a_message_shows_no_more_than_its_type():
    book = new("Book")()
    one = book.profiles.add(user_id="us-1", email="a@x", card="4", steps=1)
    one.devices.add(serial="s")
    method = trial().method("/trial.v1.Trials/List")
    for held in holdings("List", book).values():
        assert held.categories <= set(method.categories)
        assert {letter for letter, _ in held.letters} <= set(method.listed_identifiers)
        assert set(computed(held.categories, held.letters)) <= set(method.computed)
