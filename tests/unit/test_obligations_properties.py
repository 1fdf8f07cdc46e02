"""What holds for any message: nothing of a dropped subject is left, nothing needless is changed, once is enough."""

from hypothesis import given, settings
from hypothesis import strategies as st
from trial_api import classes_of, new, trial

from sidecar.attributes.presence import inventory
from sidecar.enforcement.obligations import Duties, Release

PLAN = trial().method("/trial.v1.Trials/List").answer
UNKNOWN_FIELD = b"\xfa\x3f\x05extra"
ids = st.sampled_from(["", "us-1", "us-2", "fr-1", "fr-2", "who"])
texts = st.sampled_from(["", "x", "someone@example.com", "+1 555 010 0123"])
unknown = st.booleans()


def with_unknown(message, extra):
    """A message of the same type whose bytes may end in a field that nobody declared."""
    return type(message).FromString(message.SerializeToString() + (UNKNOWN_FIELD if extra else b""))


def packed(message, resolvable=True):
    holder = new("Profile")().extra
    holder.type_url = ("type.googleapis.com/" if resolvable else "nowhere/gone.") + message.DESCRIPTOR.full_name
    holder.value = message.SerializeToString()
    return holder


def _profile(user, email, bio, guardian, extra, serials, labels, more):
    message = new("Profile")(user_id=user, email=email, bio=bio, labels=labels)
    for serial in serials:
        message.devices.add(serial=serial, model="m")
    if guardian is not None:
        message.guardian.CopyFrom(guardian)
    if extra is not None:
        message.extra.CopyFrom(extra)
    return with_unknown(message, more)


def profiles_of(inner):
    return st.builds(
        _profile,
        ids,
        texts,
        texts,
        st.none() | inner,
        st.none() | st.builds(packed, inner, st.booleans()),
        st.lists(texts, max_size=2),
        st.dictionaries(texts, texts, max_size=2),
        unknown,
    )


profiles = st.recursive(
    st.builds(_profile, ids, texts, texts, st.none(), st.none(), st.just([]), st.just({}), unknown),
    profiles_of,
    max_leaves=4,
)


def _trip(rider, pickup, driver, seen, tips, more):
    message = new("Trip")(rider_id=rider, pickup=pickup, seen=seen, tips=tips)
    if driver is not None:
        message.driver.CopyFrom(driver)
    return with_unknown(message, more)


trips = st.builds(
    _trip,
    ids,
    texts,
    st.none() | profiles,
    st.lists(profiles, max_size=2),
    st.dictionaries(ids, texts, max_size=2),
    unknown,
)


def _book(people, by_id, extras, more, trips_, phone, extra):
    message = new("Book")(profiles=people, trips=trips_, phone=phone, next_page="n")
    for key, value in by_id.items():
        message.by_id[key].CopyFrom(value)
    for key, value in extras.items():
        message.extras[key].CopyFrom(value)
    message.more.extend(more)
    return with_unknown(message, extra)


anys = st.builds(packed, profiles | trips, st.booleans())
books = st.builds(
    _book,
    st.lists(profiles, max_size=3),
    st.dictionaries(ids, profiles, max_size=2),
    st.dictionaries(ids, anys, max_size=2),
    st.lists(anys, max_size=2),
    st.lists(trips, max_size=2),
    texts,
    unknown,
)
duties = st.builds(
    Duties,
    redact=st.frozensets(st.sampled_from(["id_contact", "user_content", "behaviour", "trial.v1.Profile.devices"])),
    mask=st.frozensets(st.sampled_from(["id_contact", "id_device", "trial.v1.Profile.bio"])),
    drop=st.frozensets(st.sampled_from(["us", "unknown"])),
    limit=st.none() | st.integers(0, 4),
)


def released(data, duty, covered=False, state=None):
    parsed = PLAN.parse(data)
    return duty.apply(parsed, classes_of(parsed), covered, Release() if state is None else state)


@settings(max_examples=150, deadline=None)
@given(books, duties)
def test_no_record_of_a_dropped_class_is_left(book, duty):
    out = released(book.SerializeToString(), duty)
    after = PLAN.parse(out or b"")
    classes = classes_of(after)
    units, _ = inventory(PLAN, after.message)
    for ids_, _ in units:
        assert not {classes[one] for one in ids_} & duty.drop
    if "us" in duty.drop:
        assert b"us-" not in (out or b"")
    assert duty.limit is None or len(units) <= duty.limit


@settings(max_examples=150, deadline=None)
@given(books, duties, st.booleans())
def test_applying_twice_is_applying_once(book, duty, covered):
    once = released(book.SerializeToString(), duty, covered)
    if once is not None:
        assert released(once, duty, covered) in (once, None if once == b"" else once)


@settings(max_examples=150, deadline=None)
@given(books)
def test_a_message_in_which_nothing_changes_is_the_same_object(book):
    data = book.SerializeToString()
    parsed = PLAN.parse(data)
    out = Duties.none().apply(parsed, classes_of(parsed), False, Release())
    assert (out is data) == (out == data), "the very object, where the bytes are in the usual order"
    assert parsed.unclassified or PLAN.parse(out).message == parsed.message
    out = Duties.none().apply(parsed, classes_of(parsed), True, Release())
    assert set(PLAN.parse(out).subjects) == set(parsed.subjects)
    assert (out is data) == (out == data), "the very object, where the bytes are in the usual order"


@settings(max_examples=150, deadline=None)
@given(books, duties)
def test_what_leaves_has_no_unknown_fields_unless_covered(book, duty):
    out = released(book.SerializeToString(), duty)
    assert not PLAN.parse(out or b"").unclassified
    assert b"extra" not in (out or b"")


@settings(max_examples=150, deadline=None)
@given(books, st.sampled_from([frozenset(), frozenset({"us"}), frozenset({"unknown"}), frozenset({"us", "unknown"})]))
def test_every_record_is_released_or_dropped(book, drop):
    data = with_unknown(book, False).SerializeToString()
    parsed = PLAN.parse(data)
    if parsed.unclassified:
        return
    state = Release()
    out = Duties(drop=drop).apply(parsed, classes_of(parsed), False, state)
    _, loose = inventory(PLAN, parsed.message)
    assert state.records + state.dropped == parsed.records + (not loose <= {"public", "aggregate"})
    figures = state.by_class()
    after = PLAN.parse(out or b"")
    assert figures.us.records + figures.non_us.records + figures.unknown.records == state.records
    assert after.records <= state.records
