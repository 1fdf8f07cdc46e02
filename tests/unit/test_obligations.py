import pytest
from trial_api import CLASSIFIER, FULFILS, classes_of, new, trial

from sidecar.attributes.messages import MalformedMessageError
from sidecar.enforcement.obligations import Duties, Release, admitted
from sidecar.errors import EnforceError
from sidecar.vocabulary import (
    DropRecords,
    LimitRecords,
    MaskFields,
    RecheckSeconds,
    RedactFields,
    RequireDurability,
    UnknownObligation,
)

UNKNOWN_FIELD = b"\xfa\x3f\x05extra"
DROP_US = Duties(drop=frozenset({"us"}))


def method(name):
    return trial().method(f"/trial.v1.{name}")


def run(name, message, duties=Duties.none(), *, covered=False, state=None, classes=None, decided=frozenset(), raw=b""):
    """The released message (None: nothing may leave) and the release; `raw` is appended to the message's bytes."""
    plan = method(name).answer
    parsed = plan.parse(message.SerializePartialToString() + raw)
    state = Release() if state is None else state
    out = duties.apply(parsed, classes_of(parsed) if classes is None else classes, covered, state, decided=decided)
    return (None if out is None else plan.plan.new.FromString(out)), state, out is parsed.data


def us(**more):
    return new("Profile")(user_id="us-1", email="someone@example.com", **more)


def fr(**more):
    return new("Profile")(user_id="fr-1", email="quelquun@example.fr", **more)


def pack(message):
    packed = new("Profile")().extra
    packed.type_url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
    packed.value = message.SerializeToString()
    return packed


# -- merging ---------------------------------------------------------------------------------------------------------


def test_duties_of_one_permit():
    duties = Duties.of(
        [
            RedactFields(categories=("id_contact",), fields=("trial.v1.Profile.bio",)),
            MaskFields(categories=("id_device",)),
            DropRecords(subjects="us"),
            DropRecords(subjects="unknown"),
            LimitRecords(max=9),
            LimitRecords(max=3),
            RequireDurability(level="acknowledged"),
            RequireDurability(level="written"),
            RecheckSeconds(seconds=30),
            RecheckSeconds(seconds=60),
        ],
        FULFILS,
    )
    assert duties == Duties(
        redact=frozenset({"id_contact", "trial.v1.Profile.bio"}),
        mask=frozenset({"id_device"}),
        drop=frozenset({"us", "unknown"}),
        limit=3,
        durability="acknowledged",
        recheck=30,
    )
    assert duties.content


def test_duties_of_two_permits_are_kept_together():
    one, other = Duties(limit=5, durability="written"), Duties(redact=frozenset({"public"}), limit=0)
    assert one.and_(other) == other.and_(one) == Duties(redact=frozenset({"public"}), limit=0, durability="written")
    assert one.and_(None) is one
    assert one.and_(Duties.none()) is one
    assert Duties.none().and_(one) is one


@pytest.mark.parametrize(
    ("duties", "content"),
    [
        (Duties.none(), False),
        (Duties(durability="committed", recheck=1), False),
        (Duties(limit=0), True),
        (Duties(drop=frozenset({"us"})), True),
        (Duties(mask=frozenset({"public"})), True),
    ],
)
def test_only_some_duties_change_answers(duties, content):
    assert duties.content is content


@pytest.mark.parametrize(
    "obligation",
    [
        UnknownObligation(name="watermark"),
        RedactFields(),
        MaskFields(),
        RedactFields(categories=("id_contcat",)),
        MaskFields(categories=("combined",)),
        LimitRecords(max=-1),
        RecheckSeconds(seconds=0),
    ],
)
def test_what_cannot_be_done_refuses_the_call(obligation):
    with pytest.raises(EnforceError) as caught:
        Duties.of([obligation], FULFILS | {"watermark"})
    assert caught.value.reason == "obligation_unfulfillable"


def test_a_door_that_cannot_fulfil_refuses_the_call():
    with pytest.raises(EnforceError, match="cannot be met here") as caught:
        Duties.of([DropRecords(subjects="us")], frozenset({"require_durability"}))
    assert "drop_records" in caught.value.operator


# -- untouched -------------------------------------------------------------------------------------------------------


def test_a_message_without_duties_leaves_as_the_same_object():
    out, state, same = run("Trials/Get", us(bio="x", phones=["1"]))
    assert same
    assert out.bio == "x"
    assert state.by_class().us.records == 1
    assert state.by_class().us.by_category == {"id_contact": 1, "user_content": 1}
    assert state.subjects == {("person", "us-1")}


def test_the_count_of_an_untouched_message_reaches_maps_and_any_values():
    book = new("Book")(profiles=[us()], more=[pack(us()), pack(us())], notes={7: "a", 0: "b"})
    book.by_id["us-2"].user_id = "fr-2"
    book.by_owner[""].serial = "s"
    book.plain["x"].serial = "s"
    for key, value in {
        "fr-1": pack(fr()),
        "fr-2": pack(new("Email")(handle="h")),
        "fr-3": new("Profile")().extra,
    }.items():
        book.extras[key].CopyFrom(value)
    unresolved = pack(us())
    unresolved.type_url = "nowhere"
    out, state, _ = run("Trials/List", book, decided=frozenset({"public"}))
    figures = state.by_class()
    assert out == book
    assert (figures.us.records, figures.non_us.records, figures.unknown.records) == (5, 3, 1)
    assert figures.us.by_category == {"id_contact": 3, "user_content": 1}
    assert figures.non_us.by_category == {"id_contact": 1, "public": 1}
    assert figures.unknown.by_category == {"behaviour": 1, "id_device": 1, "user_content": 1}
    book.extras["fr-9"].CopyFrom(unresolved)
    book.more.append(unresolved)
    figures = run("Trials/List", book, covered=True)[1].by_class()
    assert figures.non_us.by_category == {"id_contact": 1, "public": 1, "unclassified": 1}
    assert figures.unknown.by_category == {"behaviour": 1, "id_device": 1, "user_content": 1, "unclassified": 1}


def test_duties_that_find_nothing_leave_the_same_object():
    book = new("Book")(profiles=[fr()], next_page="2")
    assert run("Trials/List", book, Duties(redact=frozenset({"human_genomic"}), drop=frozenset({"us"})))[2]


def test_fields_in_another_order_say_the_same_in_the_usual_one():
    data = us().SerializeToString()
    email = data.index(b"\x1a")
    parsed = method("Trials/Get").answer.parse(data[email:] + data[:email])
    assert DROP_US.apply(parsed, {("person", "us-1"): "non_us"}, False, Release()) == data


# -- redact and mask -------------------------------------------------------------------------------------------------


def test_redact_by_category_clears_whole_fields_at_every_depth():
    guardian = fr(phones=["1", "2"])
    message = us(guardian=guardian, phones=["3"])
    message.born.seconds = 5
    message.labels["a"] = "b"
    message.card = "4111"
    out, state, same = run(
        "Trials/Get", message, Duties(redact=frozenset({"id_contact", "behaviour", "id_financial_account"}))
    )
    assert not same
    assert out == new("Profile")(user_id="us-1", guardian=new("Profile")(user_id="fr-1"))
    assert state.redacted == {"id_contact": 5, "behaviour": 1, "id_financial_account": 1}
    assert state.by_class().us.by_category == {}
    assert state.by_class().us.records == state.by_class().non_us.records == 1


def test_redact_by_path_clears_messages_and_counts_what_they_held():
    message = us(devices=[new("Device")(serial="s", model="m")], places=[new("Place")(town="t", latitude=-0.0)])
    out, state, _ = run(
        "Trials/Get", message, Duties(redact=frozenset({"trial.v1.Profile.devices", "trial.v1.Profile.places"}))
    )
    assert not out.devices
    assert not out.places
    assert state.redacted == {"id_device": 1, "unclassified": 1, "coarse_location": 1, "precise_geolocation": 1}


def test_a_redacted_subject_id_does_not_change_whose_record_it_was():
    _, state, _ = run("Trials/Get", us(), Duties(redact=frozenset({"trial.v1.Profile.user_id"})))
    assert state.by_class().us.records == 1
    assert state.by_class().unknown.records == 0
    assert state.redacted == {"unclassified": 1}


def test_records_in_a_redacted_field_are_neither_dropped_nor_released():
    _, state, _ = run("Trials/List", new("Book")(friends=[us(), fr()]), Duties(redact=frozenset({"behaviour"})))
    assert state.records == state.dropped == 0
    assert state.redacted == {"behaviour": 1, "id_contact": 1}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("someone@example.com", "***************.com"),
        ("12345678", "****5678"),
        ("1234567", "*******"),
        ("abc", "***"),
        ("名前名前名前名前", "****名前名前"),
    ],
)
def test_mask_leaves_four_characters_if_as_many_are_hidden(text, masked):
    message = us()
    message.email = text
    out, state, _ = run("Trials/Get", message, Duties(mask=frozenset({"trial.v1.Profile.email"})))
    assert out.email == masked
    assert state.redacted == {"id_contact": 1}
    assert state.by_class().us.by_category == {"id_contact": 1}


def test_mask_clears_what_is_no_text():
    message = us(phones=["+15550100123", "1"], face=b"abc", steps=7)
    message.labels["who"] = "what"
    message.nickname.value = "a nickname"
    message.born.seconds = 3
    out, state, _ = run(
        "Trials/Get", message,
        Duties(mask=frozenset({
            "id_contact", "biometric_identifier", "personal_health", "behaviour", "user_content",
        })),
    )  # fmt: skip
    assert list(out.phones) == ["********0123", "*"]
    assert (out.face, out.steps, dict(out.labels)) == (b"", 0, {})
    assert out.nickname.value == "******name"
    assert out.born.seconds == 0
    assert state.redacted == {
        "id_contact": 3,
        "biometric_identifier": 1,
        "personal_health": 1,
        "behaviour": 1,
        "user_content": 1,
    }


def test_mask_of_a_message_by_path_clears_it():
    message = us()
    message.nickname.value = "a nickname"
    out, _, _ = run("Trials/Get", message, Duties(mask=frozenset({"trial.v1.Profile.nickname"})))
    assert not out.HasField("nickname")


def test_redact_wins_over_mask():
    out, state, _ = run(
        "Trials/Get", us(), Duties(mask=frozenset({"id_contact"}), redact=frozenset({"trial.v1.Profile.email"}))
    )
    assert out.email == ""
    assert state.redacted == {"id_contact": 1}


def test_masking_twice_is_masking_once():
    duties = Duties(mask=frozenset({"id_contact"}))
    once, _, _ = run("Trials/Get", us(), duties)
    _, state, same = run("Trials/Get", once, duties)
    assert same
    assert state.redacted == {}


# -- drop ------------------------------------------------------------------------------------------------------------


def test_records_leave_lists_maps_and_fields_whole():
    book = new("Book")(profiles=[us(), fr(), us(guardian=us())])
    book.by_id["us-2"].email = "a"
    book.by_id["fr-2"].email = "b"
    book.by_id["fr-3"].user_id = "us-3"
    book.notes[7], book.notes[700], book.notes[0] = "us", "fr", "nobody"
    book.by_owner["us-4"].serial = "s"
    book.by_owner["fr-4"].serial = "s"
    book.by_owner[""].serial = "s"
    out, state, _ = run("Trials/List", book, DROP_US)
    assert [one.user_id for one in out.profiles] == ["fr-1"]
    assert sorted(out.by_id) == ["fr-2"]
    assert dict(out.notes) == {700: "fr", 0: "nobody"}
    assert sorted(out.by_owner) == ["", "fr-4"]
    assert b"us-" not in out.SerializeToString()
    assert state.dropped == 7
    assert state.by_class().us.records == 0
    assert state.by_class().non_us.records == 4
    assert state.by_class().unknown.by_category == {"user_content": 1, "id_device": 1}


def test_a_record_of_two_subjects_goes_with_the_most_sensitive():
    letter = new("Letter")(sender_id=700, body="hello")
    letter.recipient_id.value = 7
    other = new("Letter")(sender_id=700, body="hello")
    third = new("Letter")(sender_id=700, copied=["who", "", "fr-9"])
    third.hidden.add(value="fr-10")
    out, state, _ = run("Trials/List", new("Book")(letters=[letter, other, third]), DROP_US)
    assert [one.sender_id for one in out.letters] == [700, 700]
    figures = state.by_class()
    assert (state.dropped, figures.non_us.records, figures.unknown.records) == (1, 1, 1)
    assert figures.non_us.by_category == {"communication_content": 1}


def test_a_record_goes_when_anyone_in_it_is_of_a_dropped_class():
    letter = new("Letter")(sender_id=7, copied=["who"])
    _, state, same = run("Trials/List", new("Book")(letters=[letter]), Duties(limit=1))
    assert same
    assert (state.by_class().us.records, state.by_class().unknown.records) == (1, 0)
    out, state, _ = run("Trials/List", new("Book")(letters=[letter]), Duties(drop=frozenset({"unknown"})))
    assert out == new("Book")()
    assert state.dropped == 1


def test_a_message_that_is_a_dropped_record_does_not_leave():
    message = us(guardian=fr())
    out, state, _ = run("Trials/Get", message, DROP_US)
    assert out is None
    assert (state.dropped, state.records) == (2, 0)


def test_a_nested_record_goes_alone():
    out, state, _ = run("Trials/Get", fr(guardian=us()), DROP_US)
    assert out == fr()
    assert state.dropped == 1


def test_a_record_that_names_nobody_is_unknown():
    nameless = new("Profile")(email="someone@example.com")
    book = new("Book")(profiles=[nameless, fr()])
    out, state, _ = run("Trials/List", book, Duties(drop=frozenset({"unknown"})))
    assert list(out.profiles) == [fr()]
    assert state.dropped == 1


def test_an_empty_record_is_none():
    _, state, same = run("Trials/Get", new("Profile")(), Duties(drop=frozenset({"us", "unknown", "non_us"})))
    assert same
    assert state.by_class().unknown.records == 0


def trip(**more):
    return new("Trip")(
        rider_id="us-1",
        pickup="Here",
        handle="@x",
        device=new("Device")(serial="s"),
        driver=fr(),
        seen=[us(), fr()],
        tips={"fr-7": "5", "us-7": "6"},
        **more,
    )


def test_a_message_that_names_a_subject_loses_what_is_theirs_and_keeps_the_records_of_others():
    message = trip()
    message.met["x"].user_id = "fr-8"
    message.extra.CopyFrom(pack(fr()))
    out, state, _ = run("Trials/Watch", message, DROP_US)
    kept = new("Trip")(driver=fr(), seen=[fr()], tips={"fr-7": "5"})
    kept.extra.CopyFrom(message.extra)
    assert out == kept
    assert state.dropped == 1 + 1 + 1 + 1  # the trip, one of `seen`, one of `tips`, the one in `met`
    assert state.by_class().us.records == 0
    assert state.by_class().non_us.records == 4


def test_nothing_left_of_a_dropped_message_is_nothing_to_send():
    message = new("Trip")(rider_id="us-1", pickup="Here", device=new("Device")(serial="s"), tips={"us-1": "1", "": "2"})
    message.extra.CopyFrom(pack(new("Device")(serial="s")))
    out, state, _ = run("Trials/Watch", message, DROP_US)
    assert out is None
    assert state.dropped == 2
    book, _, _ = run("Trials/List", new("Book")(trips=[message], next_page="2"), DROP_US)
    assert book == new("Book")(next_page="2")


def test_a_dropped_message_takes_its_unknown_fields_along_even_when_covered():
    message = new("Book")(trips=[new("Trip")(rider_id="us-1", driver=fr())])
    inside = message.trips[0].SerializeToString() + UNKNOWN_FIELD
    raw = b"\x4a" + bytes([len(inside)]) + inside
    out, _, _ = run("Trials/List", new("Book")(), DROP_US, covered=True, raw=raw, classes=classes_of(
        method("Trials/List").answer.parse(raw)
    ))  # fmt: skip
    assert out.SerializeToString() == new("Book")(trips=[new("Trip")(driver=fr())]).SerializeToString()


def test_a_subject_that_nobody_classified_is_unknown():
    _, state, _ = run("Trials/Get", fr(), Duties(drop=frozenset({"unknown"})), classes={})
    assert state.dropped == 1


# -- outside any record ----------------------------------------------------------------------------------------------


def test_data_outside_any_record_is_the_subject_s_whom_the_request_named():
    email = new("Email")(email="a@example.com", handle="@a")
    _, state, same = run("Trials/GetEmail", email, classes={("person", "us-1"): "us"})
    assert same
    assert state.by_class().us.by_category == {"id_contact": 1, "public": 1}
    out, state, _ = run("Trials/GetEmail", email, DROP_US, classes={("person", "us-1"): "us"})
    assert out == new("Email")(handle="@a")
    assert (state.dropped, state.records) == (1, 0)
    assert run("Trials/GetEmail", new("Email")(email="a"), DROP_US, classes={("person", "us-1"): "us"})[0] is None


def test_data_outside_any_record_is_an_unknown_subject_s_where_the_answer_names_them():
    book = new("Book")(
        phone="1", score=-0.0, next_page="2", profiles=[fr()], tree=new("Tree")(leaf="1"), notes={0: "n"}
    )
    book.plain["a"].serial = "s"
    book.by_owner[""].serial = "s"
    out, state, _ = run("Trials/List", book, Duties(drop=frozenset({"unknown"})))
    assert out == new("Book")(next_page="2", profiles=[fr()], tree=new("Tree")(leaf="1"))
    assert state.dropped == 1
    _, state, same = run("Trials/List", book)
    assert same
    assert state.by_class().unknown.records == 1
    assert state.by_class().unknown.by_category == {
        "id_contact": 1,
        "behaviour": 1,
        "public": 1,
        "aggregate": 1,
        "user_content": 1,
        "id_device": 1,
    }


def test_what_is_about_nobody_is_no_record():
    state = run("Trials/List", new("Book")(next_page="2"), Duties(drop=frozenset({"unknown"}), limit=0))[1]
    assert state.records == state.dropped == 0


# -- limit -----------------------------------------------------------------------------------------------------------


def test_limit_holds_over_the_whole_call():
    state, duties = Release(), Duties(limit=3)
    book = new("Book")(profiles=[fr(), us(guardian=fr())])
    first, _, same = run("Trials/List", book, duties, state=state)
    assert same
    second, _, _ = run("Trials/List", new("Book")(profiles=[fr()], phone="1", next_page="3"), duties, state=state)
    assert second == new("Book")(next_page="3")
    assert (state.records, state.dropped) == (3, 2)
    assert run("Trials/Get", fr(), duties, state=state)[0] is None


def test_limit_takes_outer_records_before_inner_ones():
    out, state, _ = run("Trials/Get", fr(guardian=us()), Duties(limit=1))
    assert out == fr()
    assert (state.records, state.dropped) == (1, 1)


# -- unknown fields and Any ------------------------------------------------------------------------------------------


def test_unknown_fields_are_dropped_and_counted_unless_covered():
    out, state, same = run("Trials/Get", us(), raw=UNKNOWN_FIELD)
    assert not same
    assert out == us()
    assert state.redacted == {"unclassified": 1}
    assert "unclassified" not in state.by_class().us.by_category

    _, state, same = run("Trials/Get", us(), covered=True, raw=UNKNOWN_FIELD)
    assert same
    assert state.by_class().us.by_category == {"id_contact": 1, "unclassified": 1}

    out, _, _ = run("Trials/Get", us(), Duties(redact=frozenset({"id_contact"})), covered=True, raw=UNKNOWN_FIELD)
    assert out.SerializeToString() == new("Profile")(user_id="us-1").SerializeToString() + UNKNOWN_FIELD


def test_unknown_fields_outside_any_record_count_as_loose():
    _, state, same = run("Trials/List", new("Book")(profiles=[us()]), covered=True, raw=UNKNOWN_FIELD)
    assert same
    assert state.by_class().unknown.by_category == {"unclassified": 1}


def test_redacting_unclassified_takes_unknown_fields_even_when_covered():
    message = us(devices=[new("Device")(model="m")])
    out, state, _ = run(
        "Trials/Get", message, Duties(redact=frozenset({"unclassified"})), covered=True, raw=UNKNOWN_FIELD
    )
    assert out == us(devices=[new("Device")()])
    assert state.redacted == {"unclassified": 2}


def test_an_any_of_a_known_type_is_treated_like_the_message_inside():
    message = us()
    message.extra.CopyFrom(pack(us(bio="x")))
    assert run("Trials/Get", message)[2]
    out, state, _ = run("Trials/Get", message, Duties(redact=frozenset({"id_contact"})))
    inside = new("Profile").FromString(out.extra.value)
    assert inside == new("Profile")(user_id="us-1", bio="x")
    assert state.redacted == {"id_contact": 2}
    assert state.by_class().us.records == 2
    out, state, _ = run("Trials/Get", fr(extra=pack(us())), DROP_US)
    assert out == fr()
    assert state.dropped == 1


def test_an_any_whose_categories_nobody_decided_about_is_taken_out():
    message = new("Trip")(rider_id="fr-1", extra=pack(new("Letter")(sender_id=700, body="hello")))
    out, state, _ = run("Trials/Watch", message)
    assert out == new("Trip")(rider_id="fr-1")
    assert state.redacted == {"unclassified": 1}
    assert run("Trials/Watch", message, decided=frozenset({"communication_content"}))[2]
    assert run("Trials/Watch", message, covered=True)[2]


@pytest.mark.parametrize("broken", ["type", "bytes"])
def test_an_any_that_cannot_be_resolved_stays_only_when_covered(broken):
    message = fr(extra=pack(us()))
    if broken == "type":
        message.extra.type_url = "type.googleapis.com/elsewhere.v1.Thing"
    else:
        message.extra.value = b"\x0a\xff"
    out, state, _ = run("Trials/Get", message)
    assert out == fr()
    assert state.redacted == {"unclassified": 1}
    _, state, same = run("Trials/Get", message, covered=True)
    assert same
    assert state.by_class().non_us.by_category == {"id_contact": 1, "unclassified": 1}
    trip_ = new("Trip")(rider_id="us-1", extra=message.extra, driver=fr())
    out, _, _ = run("Trials/Watch", trip_, DROP_US, covered=True)
    assert out == new("Trip")(driver=fr())


def test_unknown_fields_inside_an_any():
    message = fr(extra=pack(fr()))
    message.extra.value += UNKNOWN_FIELD
    out, state, _ = run("Trials/Get", message)
    assert out == fr(extra=pack(fr()))
    assert state.redacted == {"unclassified": 1}
    out, _, _ = run("Trials/Get", message, Duties(redact=frozenset({"user_content"})), covered=True)
    assert out == message


def test_any_values_in_lists_and_under_subject_keys():
    unresolved = pack(us())
    unresolved.type_url = "no-slash"
    book = new("Book")(more=[pack(us()), pack(fr()), unresolved, new("Profile")().extra])
    for key, value in {"us-1": pack(fr()), "fr-1": pack(us()), "fr-2": pack(fr()), "fr-3": unresolved, "fr-4": pack(
        new("Device")(serial="s")), "fr-5": pack(pack(fr()))}.items():  # fmt: skip
        book.extras[key].CopyFrom(value)
    out, state, _ = run("Trials/List", book, Duties(drop=frozenset({"us"}), redact=frozenset({"id_contact"})))
    assert len(out.more) == 2
    assert new("Profile").FromString(out.more[0].value) == new("Profile")(user_id="fr-1")
    assert sorted(out.extras) == ["fr-2", "fr-4", "fr-5"]
    assert state.dropped == 3
    assert state.redacted["unclassified"] == 2


def test_an_answer_that_is_an_any():
    wrapped = pack(us())
    out, state, same = run("Trials/Open", wrapped, covered=True)
    assert same
    assert run("Trials/Open", wrapped, DROP_US, covered=True)[0] is None
    assert run("Trials/Open", wrapped)[0] is None
    out, state, _ = run("Trials/Open", pack(fr()), covered=True, raw=UNKNOWN_FIELD)
    assert state.by_class().unknown.by_category == {"unclassified": 1}


# -- proto2 ----------------------------------------------------------------------------------------------------------


def old(**more):
    cls = new("Old")
    message = cls(name="fr-1", note="n", **more)
    pool = trial().descriptors.pool
    extensions = {
        name: pool.FindExtensionByName(f"trial.v1.{name}") for name in ("added", "others", "secret", "aliases")
    }
    return message, extensions


def test_groups_required_fields_and_extensions():
    message, ext = old(scores=[1, 2])
    message.address.street = "Street 1"
    message.Extensions[ext["added"]].name = "us-1"
    message.Extensions[ext["others"]].add(name="us-2")
    message.Extensions[ext["others"]].add(name="fr-2", email="e")
    message.Extensions[ext["secret"]] = "123-45-6789"
    message.Extensions[ext["aliases"]].extend(["alias-0001", "b"])
    out, state, _ = run(
        "Olds/Get", message,
        Duties(drop=frozenset({"us"}), redact=frozenset({"id_contact", "user_content"}),
               mask=frozenset({"id_government", "id_advertising"})),
    )  # fmt: skip
    assert not out.HasField("note")
    assert out.HasField("address")
    assert not out.address.HasField("street")
    assert not out.HasExtension(ext["added"])
    assert [one.name for one in out.Extensions[ext["others"]]] == ["fr-2"]
    assert out.Extensions[ext["secret"]] == "*******6789"
    assert list(out.Extensions[ext["aliases"]]) == ["******0001", "*"]
    assert state.dropped == 2
    assert state.redacted == {"id_contact": 2, "user_content": 1, "id_government": 1, "id_advertising": 1}
    out, _, _ = run("Olds/Get", message, Duties(redact=frozenset({"id_government", "id_advertising", "behaviour"})))
    assert not out.HasExtension(ext["secret"])
    assert not out.Extensions[ext["aliases"]]
    assert not out.scores


def test_text_that_is_not_utf8_is_cleared_instead_of_masked():
    data = new("Old")(name="fr-1").SerializePartialToString() + b"\x22\x01\xff"
    parsed = method("Olds/Get").answer.parse(data)
    assert Duties.none().apply(parsed, {}, False, Release()) is data
    out = Duties(mask=frozenset({"user_content"})).apply(parsed, {}, False, Release())
    assert out == new("Old")(name="fr-1").SerializePartialToString()


def test_a_map_key_that_is_not_utf8_is_malformed():
    parsed = method("Olds/List").answer.parse(b"\x12\x03\x0a\x01\xff")
    with pytest.raises(MalformedMessageError):
        DROP_US.apply(parsed, {}, False, Release())


# -- requests and figures --------------------------------------------------------------------------------------------


def test_a_request_goes_on_exactly_as_inspected():
    plan = method("Trials/Get").request
    twice = new("Ask")(user_id="us-1").SerializeToString() + new("Ask")(user_id="fr-1").SerializeToString()
    parsed = plan.parse(twice)
    assert [one.id for one in parsed.subjects] == ["fr-1"]
    assert admitted(parsed, unclassified_covered=False) == new("Ask")(user_id="fr-1").SerializeToString()


def test_what_a_request_holds_unclassified_goes_on_only_when_covered():
    plan = method("Trials/Get").request
    ask = new("Ask")(user_id="fr-1", extra=pack(new("Letter")(sender_id=700, body="b")))
    data = ask.SerializeToString()
    assert admitted(plan.parse(data + UNKNOWN_FIELD), unclassified_covered=True) == data + UNKNOWN_FIELD
    stripped = new("Ask")(user_id="fr-1").SerializeToString()
    assert admitted(plan.parse(data + UNKNOWN_FIELD), unclassified_covered=False) == stripped
    assert admitted(plan.parse(data), unclassified_covered=False) == stripped
    decided = frozenset({"communication_content"})
    assert admitted(plan.parse(data), unclassified_covered=False, decided=decided) == data
    opened = method("Trials/Put").request
    assert admitted(opened.parse(UNKNOWN_FIELD), unclassified_covered=False) == b""


def test_writes_count_whom_they_name():
    state = Release()
    state.named({("person", "us-1"): "us", ("person", "x"): "unknown"}, ("personal_health",))
    state.named({("person", "us-1"): "us"}, ("personal_health",))
    figures = state.by_class()
    assert figures.us.records == figures.unknown.records == 1
    assert figures.us.by_category == {"personal_health": 1}
    assert state.records == 0


def test_apply_leaves_what_was_parsed_alone():
    parsed = method("Trials/Get").answer.parse(us(phones=["1"]).SerializeToString())
    duties = Duties(redact=frozenset({"id_contact"}))
    first = duties.apply(parsed, classes_of(parsed), False, Release())
    assert duties.apply(parsed, classes_of(parsed), False, Release()) == first
    assert parsed.message == us(phones=["1"])
    assert CLASSIFIER.index.revision
