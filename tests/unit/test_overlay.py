import pytest
from trial_api import compile_text, describer, trial_set

from sidecar.attributes import overlay
from sidecar.errors import ConfigurationError

BARE = """
message Trip { string id = 1; Rider rider = 2; }
message Rider { string rider_id = 1; string country = 2; string phone = 3; int64 born = 4; }
message Ask { string id = 1; }
service Trips { rpc GetTrip(Ask) returns (Trip); }
"""
YAML = """
methods:
  t.Trips/GetTrip: {action: read, resource: trip, subject: answer, categories: [behaviour]}
fields:
  t.Rider.phone: {category: id_contact}
  t.Rider.born: {category: id_contact, listed_identifier: d, class: protected}
  t.Rider.rider_id: {subject_id: {}}
  t.Rider.country: {subject_country: {authoritative: true}}
  t.Trip.id: {category: coarse_location, precision_m: 5000}
records: [t.Rider]
"""
ANNOTATED = """
message M {
  string id = 1 [(sidecar.api.v1.subject_id) = {kind: "account"}];
  string country = 2 [(sidecar.api.v1.subject_country) = {}];
  string handle = 3 [(sidecar.api.v1.data) = {category: "public" class: "public"}];
  string phone = 4 [(sidecar.api.v1.data) = {category: "id_contact" class: "commerce"}];
  string place = 5 [(sidecar.api.v1.data) = {category: "coarse_location" precision_m: 5000}];
  string other = 6;
  string health = 7 [(sidecar.api.v1.data) = {category: "personal_health" listed_identifier: "d"}];
}
service S {
  rpc A(M) returns (M) { option (sidecar.api.v1.access) = {action: "read" resource: "m" subject: NONE categories: ["public"]}; }
  rpc B(M) returns (M) { option (sidecar.api.v1.access) = {action: "read" resource: "m" subject: ANSWER}; }
}
"""


@pytest.fixture(scope="module")
def annotated(tmp_path_factory):
    return compile_text(tmp_path_factory.mktemp("annotated"), ANNOTATED)


def test_protos_that_cannot_be_edited(tmp_path):
    api = describer(compile_text(tmp_path, BARE), YAML)
    found = api.method("/t.Trips/GetTrip")
    assert found.categories == ("id_contact", "behaviour", "coarse_location")
    assert found.listed_identifiers == ("d",)
    assert found.reach.unannotated == ()
    trip = found.answer.plan.new()
    trip.rider.rider_id, trip.rider.country = "r-1", "FR"
    parsed = found.answer.parse(trip.SerializeToString())
    assert [(one.kind, one.id, one.country, one.authoritative) for one in parsed.subjects] == [
        ("person", "r-1", "FR", True)
    ]
    assert parsed.records == 1


def test_an_empty_overlay_says_nothing(tmp_path):
    (tmp_path / "overlay.yaml").write_text("# nothing\n")
    said = overlay.load(tmp_path / "overlay.yaml")
    assert (said.methods, said.fields, said.records) == ({}, {}, ())
    with pytest.raises(ConfigurationError, match="cannot be read"):
        overlay.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a", "a mapping is expected"),
        ("a: [", "not valid YAML"),
        ("field: {}", "Did you mean 'fields'"),
        ("fields: {}\nfields: {}", "stands twice"),
        ("1: {}", "stands twice or is no text"),
        ("fields: [a]", "full names"),
        ("fields: {t.M.other: 5}", "a mapping is expected"),
        ("fields: {t.M.other: {categry: public}}", "'category'"),
        ("fields: {t.M.other: {}}", "nothing is said"),
        ("fields: {t.M.othr: {category: public}}", "'t.M.other'"),
        ("fields: {t.M.other: {category: 5}}", "text is expected"),
        ("fields: {t.M.other: {class: public}}", "no category"),
        ("fields: {t.M.other: {category: publik}}", "'public'"),
        ("fields: {t.M.other: {category: precise_geolocation, precision_m: -1}}", "metres"),
        ("fields: {t.M.other: {category: precise_geolocation, precision_m: yes}}", "metres"),
        ("fields: {t.M.other: {subject_id: false}}", "a mapping is expected"),
        ("fields: {t.M.other: {subject_id: {type: x}}}", "unknown key"),
        ("fields: {t.M.other: {subject_id: {kind: 5}}}", "text is expected"),
        ("fields: {t.M.other: {subject_country: {authoritative: 1}}}", "true or false"),
        ("records: t.M", "a list of names"),
        ("records: [t.N]", "'t.M'"),
        ("records: [5]", "a list of names"),
        ("methods: {t.S/C: {action: read}}", "t.S/A|t.S/B"),
        ("methods: {t.S/A: {verb: read}}", "unknown key"),
        ("methods: {t.S/A: {categories: public}}", "a list of names"),
        ("methods: {nothing.like.it: {action: read}}", "no such method"),
    ],
)
def test_what_is_refused_with_its_path(annotated, text, what):
    with pytest.raises(ConfigurationError, match=what) as caught:
        describer(annotated, text)
    assert str(caught.value).startswith("overlay.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "fields: {t.M.other: {category: public, class: public}}",
        "fields: {t.M.handle: {category: id_contact}}",
        "fields: {t.M.handle: {class: protected}}",
        "fields: {t.M.phone: {category: unclassified}}",
        "fields: {t.M.phone: {category: id_contact}}",
        "fields: {t.M.phone: {class: commerce}}",
        "fields: {t.M.place: {category: precise_geolocation}}",
        "fields: {t.M.place: {precision_m: 2000}}",
        "fields: {t.M.handle: {listed_identifier: d}}",
        "fields: {t.M.id: {subject_id: {kind: account}}}",
        "fields: {t.M.country: {subject_country: {}}}",
        "fields: {t.M.country: {subject_country: {authoritative: false}}}",
        "records: [t.M]",
        "methods: {t.S/A: {subject: answer}}",
        "methods: {t.S/A: {categories: [id_contact]}}",
        "methods: {t.S/B: {action: read, resource: m, subject: answer}}",
    ],
)
def test_stricter_or_equal_is_accepted(annotated, text):
    describer(annotated, text)


@pytest.mark.parametrize(
    "text",
    [
        "fields: {t.M.phone: {category: public}}",
        "fields: {t.M.phone: {category: personal_health}}",
        "fields: {t.M.handle: {category: aggregate}}",
        "fields: {t.M.handle: {class: metrics}}",
        "fields: {t.M.phone: {class: public}}",
        "fields: {t.M.place: {precision_m: 9000}}",
        "fields: {t.M.place: {precision_m: 0}}",
        "fields: {t.M.health: {listed_identifier: c}}",
        "fields: {t.M.id: {subject_id: {}}}",
        "fields: {t.M.country: {subject_country: {authoritative: true}}}",
        "methods: {t.S/A: {action: write}}",
        "methods: {t.S/A: {resource: n}}",
        "methods: {t.S/B: {subject: none}}",
        "methods: {t.S/B: {subject: caller}}",
    ],
)
def test_laxer_is_refused(annotated, text):
    with pytest.raises(ConfigurationError, match="an overlay may only be stricter"):
        describer(annotated, text)


def test_what_the_overlay_says_is_in_force(annotated):
    api = describer(
        annotated,
        """
        fields: {t.M.handle: {class: protected}, t.M.phone: {category: unclassified}, t.M.other: {category: behaviour}}
        methods: {t.S/A: {categories: [id_device]}}""",
    )
    found = api.method("/t.S/A")
    assert found.classes == ("protected",)
    assert found.categories == (
        "personal_health",
        "id_device",
        "behaviour",
        "coarse_location",
        "public",
        "unclassified",
    )
    assert found.reach.unannotated == ()


def test_the_overlay_must_fit_together_too(annotated):
    with pytest.raises(ConfigurationError, match="string or an integer"):
        describer(trial_set(), "fields: {trial.v1.Place.latitude: {subject_id: {}}}")
    with pytest.raises(ConfigurationError, match="a record needs"):
        describer(trial_set(), "records: [trial.v1.Place]")
