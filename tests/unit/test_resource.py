import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from trial_api import CLASSIFIER, Index, compile_text, describer, new, trial, trial_set

from sidecar.attributes import datasets
from sidecar.attributes.countries import country_class
from sidecar.attributes.messages import MalformedMessageError, Seen
from sidecar.attributes.resource import Classifier
from sidecar.errors import Code, ConfigurationError, DescribeError, InterceptError
from sidecar.vocabulary import Place, SubjectCounts

NOW = 1_000_000.0
UNKNOWN_FIELD = b"\xfa\x3f\x05extra"


def method(name):
    return trial().method(f"/trial.v1.{name}")


def counts(**more):
    return SubjectCounts(**more)


# -- methods ---------------------------------------------------------------------------------------------------------


def test_unknown_methods_are_not_there_and_undescribed_ones_are_refused():
    with pytest.raises(InterceptError) as caught:
        trial().method("/trial.v1.Trials/Nothing")
    assert caught.value.code is Code.UNIMPLEMENTED
    with pytest.raises(DescribeError) as caught:
        trial().method("/trial.v1.Trials/Nobody")
    assert (caught.value.code, caught.value.reason) == (Code.PERMISSION_DENIED, "undescribed_method")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/trial.v1.Trials/Get", "unary"),
        ("/trial.v1.Trials/Watch", "stream"),
        ("/trial.v1.Trials/Forget", "stream"),
        ("/trial.v1.Trials/Nobody", "stream"),
        ("/grpc.health.v1.Health/Check", "stream"),
        ("/grpc.health.v1.Healthy/Check", None),
        ("/trial.v1.Trials/Gone", None),
        ("", None),
        ("/", None),
    ],
)
def test_kinds_of_method(path, kind):
    assert trial().kind(path) == kind


def test_unguarded_patterns_name_a_service_or_a_method():
    api = describer(
        compile_text_of("service S { rpc A(M) returns (M); rpc B(M) returns (M); } message M {}"), unguarded=["t.S/A"]
    )
    assert api.unguarded("/t.S/A")
    assert not api.unguarded("/t.S/B")
    assert not api.unguarded("/t.S")
    found = api.report()
    assert [(row.method, row.status) for row in found.methods] == [("t.S/A", "unguarded"), ("t.S/B", "undescribed")]
    assert found.unannotated == ("t.S/B: nothing says what it reaches, so every call of it is refused",)


@pytest.mark.parametrize("pattern", ["", "*", "/t.S/A", "t.S", "t.*/A", "t.S/A*", "t.S/", "t.S/A\n"])
def test_other_patterns_are_refused(pattern):
    with pytest.raises(ConfigurationError, match="no pattern"):
        describer(compile_text_of("service S { rpc A(M) returns (M); } message M {}"), unguarded=[pattern])


@pytest.mark.parametrize("pattern", ["trial.v1.Trials/*", "trial.v1.Trials/Get"])
def test_a_described_method_cannot_be_unguarded(pattern):
    with pytest.raises(ConfigurationError, match="must be guarded"):
        describer(trial_set(), unguarded=[pattern])


_compiled = {}


def compile_text_of(text):
    if text not in _compiled:
        with TemporaryDirectory() as folder:
            _compiled[text] = compile_text(Path(folder), text)
    return _compiled[text]


def test_a_read_reaches_its_answer_and_a_write_both():
    read = method("Trials/GetEmail")
    assert read.categories == ("id_contact", "public")
    assert read.classes == ("protected", "public")
    assert read.listed_identifiers == ("d",)
    assert read.action.name == "read"
    assert (read.action.service, read.action.method) == ("trial.v1.Trials", "GetEmail")
    assert (read.subject_mode, read.resource_type, read.unary) == ("request_field", "email", True)
    write = method("Trials/Put")
    assert "personal_health" in write.categories
    assert write.listed_identifiers == ("b", "c", "d")
    assert method("Trials/Delete").categories == ("personal_health", "unclassified")


def test_what_nobody_has_classified_shows():
    assert method("Trials/Get").reach.unannotated == ("trial.v1.Device.model",)
    assert "unclassified" in method("Trials/Get").categories
    assert method("Trials/Open").categories == ("unclassified",)
    assert method("Trials/Open").classes == ("protected",)
    assert method("Trials/Count").categories == ("aggregate",)
    assert method("Trials/Count").classes == ("metrics",)


@pytest.mark.parametrize(
    ("fields", "computed"),
    [
        ('string a = 1 [(D) = {category: "id_contact"}]; repeated string b = 2 [(D) = {category: "id_contact"}];', ()),
        ('string a = 1 [(D) = {category: "id_contact"}]; string b = 2 [(D) = {category: "id_device"}];',
         ("covered_personal_identifiers",)),
        ('string a = 1 [(D) = {category: "id_government"}];', ()),
        ('repeated string a = 1 [(D) = {category: "id_government"}];', ("covered_personal_identifiers",)),
        ('string a = 1 [(D) = {category: "personal_health"}];', ()),
        ('string a = 1 [(D) = {category: "personal_health" listed_identifier: "h"}];',
         ("covered_personal_identifiers", "combined")),
        ('string a = 1 [(D) = {category: "personal_health"}]; string b = 2 [(D) = {category: "human_genomic"}];',
         ("combined",)),
        ('string a = 1 [(D) = {category: "human_proteomic"}]; string b = 2 [(D) = {category: "human_genomic"}];', ()),
    ],
)  # fmt: skip
def test_computed_categories(fields, computed):
    text = f"message M {{ {fields} }}".replace("(D)", "(sidecar.api.v1.data)") + (
        'service S { rpc A(M) returns (M) { option (sidecar.api.v1.access) = {action: "read" resource: "m" subject: CALLER}; } }'
    )
    assert describer(compile_text_of(text)).method("/t.S/A").computed == computed


def test_a_runtime_type_is_reported_by_the_field_that_holds_it(tmp_path):
    api = describer(
        compile_text(
            tmp_path,
            """
        import "google/protobuf/struct.proto";
        message M { google.protobuf.Struct more = 1; repeated M next = 2; map<string, M> keyed = 3; }
        service S { rpc A(M) returns (M) {
            option (sidecar.api.v1.access) = {action: "read" resource: "m" subject: NONE}; } }""",
        )
    )
    assert api.method("/t.S/A").reach.unannotated == ("t.M.keyed", "t.M.more")


def test_a_map_says_what_its_values_are_besides_whom_its_keys_name(tmp_path):
    api = describer(
        compile_text(
            tmp_path,
            """
        message M { map<string, string> a = 1 [(sidecar.api.v1.subject_id) = {}]; string b = 2 [deprecated = true]; }
        service S { option deprecated = true; rpc A(M) returns (M) { option deprecated = true;
            option (sidecar.api.v1.access) = {action: "read" resource: "m" subject: ANSWER}; }
            rpc B(M) returns (M) { option deprecated = true; } }""",
        )
    )
    assert api.method("/t.S/A").reach.unannotated == ("t.M.a", "t.M.b")
    assert api.method("/t.S/A").reach.subjects == ("t.M.a",)
    assert [row.method for row in api.report().methods if row.status == "undescribed"] == ["t.S/B"]


def test_the_report_has_a_row_for_each_method():
    found = trial().report()
    rows = {row.method: row for row in found.methods}
    assert len(rows) == 13
    row = rows["trial.v1.Trials/Get"]
    assert (row.status, row.action, row.resource, row.subject) == ("guarded", "read", "profile", "request_field")
    assert row.subject_fields == ("trial.v1.Ask.user_id", "trial.v1.Profile.user_id")
    assert row.opaque
    assert row.dataset is None
    assert rows["trial.v1.Trials/Nobody"].status == "undescribed"
    assert len(found.unannotated) == 4
    assert found.unannotated[1].startswith(
        "trial.v1.Ask.user_ids: no category, so it is `unclassified` (reached by trial.v1.Trials/Delete)"
    )
    assert json.loads(json.dumps(found.to_json()))["methods"][0]["method"] == "trial.v1.Olds/Get"


def test_the_resource_of_the_input_document(tmp_path):
    file = tmp_path / "datasets.jsonl"
    file.write_text(
        '{"id":"all","service":"trial.v1.Trials","population":{"id_contact":5}}\n\n'
        '{"id":"emails","service":"trial.v1.Trials","resource":"email","population":{"id_contact":7},'
        '"flags":["marketed_as_government"]}\n'
    )
    api = describer(trial_set(), datasets=datasets.load(file), location=Place(country="US", provider="oci", region="r"))
    resource = api.method("/trial.v1.Trials/GetEmail").resource(counts(us=1))
    assert resource.dataset.id == "emails"
    assert resource.dataset.population["id_contact"] == 7
    assert resource.dataset.population["public"] is None
    assert resource.flags == ("marketed_as_government",)
    assert resource.computed == ("government_related",)
    assert resource.location.country == "US"
    assert resource.subjects == counts(us=1)
    assert api.method("/trial.v1.Trials/Get").resource(counts()).dataset.id == "all"
    assert api.method("/trial.v1.Olds/Get").resource(counts()).dataset.id is None
    assert datasets.load(file).services() == {"trial.v1.Trials"}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "not valid"),
        ('{"id":"a","service":"s"}', "not valid"),
        ('{"id":"a","service":"s","population":{},"size":1}', "not valid"),
        ('{"id":"","service":"s","population":{}}', "not empty"),
        ('{"id":"a","service":"s","population":{"id_contcat":1}}', "id_contact"),
        ('{"id":"a","service":"s","population":{"id_contact":-1}}', "negative"),
        ('{"id":"a","service":"s","population":{},"flags":["secret"]}', "unknown flag"),
        ('{"id":"a","service":"s","population":{}}\n{"id":"b","service":"s","population":{}}', ":2"),
    ],
)
def test_rows_of_data_sets_that_are_refused(tmp_path, line, what):
    file = tmp_path / "datasets.jsonl"
    file.write_text(line)
    with pytest.raises(ConfigurationError, match=what):
        datasets.load(file)


def test_data_sets_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        datasets.load(tmp_path / "none")


# -- parsing ---------------------------------------------------------------------------------------------------------


def test_ids_are_exact_text_and_distinct():
    letter = new("Letter")(sender_id=-7, copied=["é", "", "é", "us-1"])
    letter.recipient_id.value = 0
    letter.hidden.add(value="us-2")
    book = new("Book")(letters=[letter], notes={5: "n", 0: "m"})
    parsed = method("Trials/List").answer.parse(book.SerializeToString())
    assert {(one.kind, one.id) for one in parsed.subjects} == {
        ("account", "-7"),
        ("person", "é"),
        ("person", "us-1"),
        ("person", "us-2"),
        ("account", "5"),
    }
    assert parsed.records == 2
    assert parsed.unnamed == 0


def test_records_without_a_name_are_counted():
    book = new("Book")(profiles=[new("Profile")(), new("Profile")(bio="x")], trips=[new("Trip")(pickup="x")])
    parsed = method("Trials/List").answer.parse(book.SerializeToString())
    assert (parsed.records, parsed.unnamed, parsed.subjects) == (1, 1, ())


@pytest.mark.parametrize("data", [b"\x0a\xff", b"\xff\xff", b"\x0a\x02\xff\xfe"])
def test_bytes_that_are_no_message(data):
    with pytest.raises(MalformedMessageError) as caught:
        method("Trials/Get").request.parse(data)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("Get", b"\x0a\x01\xff"),
        ("List", b"\x0a\x05\x0a\x01\xff\x12\x00"),
        ("Get", b"\xa2\x06\x03\x0a\x01\xff"),
        ("List", b"\x1a\x03\x0a\x01\xff"),
    ],
)
def test_ids_that_are_not_utf8(name, data):
    with pytest.raises(MalformedMessageError):
        method(f"Olds/{name}").answer.parse(data)


def nested(levels, inner, tag=b"\x4a"):
    for _ in range(levels):
        size, length = len(inner), b""
        while True:
            length += bytes([size & 127 | (128 if size > 127 else 0)])
            size >>= 7
            if not size:
                break
        inner = tag + length + inner
    return inner


@pytest.mark.parametrize("levels", range(0, 90, 7))
def test_unknown_fields_are_seen_however_deep_or_the_message_is_refused(levels):
    data = nested(levels, UNKNOWN_FIELD)
    try:
        assert method("Trials/Get").answer.parse(data).unclassified
    except MalformedMessageError:
        assert levels > 50


def test_depth_counts_through_any_values_and_types_without_subjects():
    tree = nested(58, UNKNOWN_FIELD, b"\x0a")
    assert method("Trials/Count").answer.parse(tree).unclassified
    with pytest.raises(MalformedMessageError):
        method("Trials/Count").answer.parse(nested(61, UNKNOWN_FIELD, b"\x0a"))
    holder = new("Profile")().extra
    for _ in range(70):
        outer = new("Profile")().extra
        outer.type_url = "x/google.protobuf.Any"
        outer.value = holder.SerializeToString()
        holder = outer
    with pytest.raises(MalformedMessageError):
        method("Trials/Open").answer.parse(holder.SerializeToString())


def test_unknown_fields_in_extensions_groups_and_maps():
    parsed = method("Olds/Get").answer.parse
    assert not parsed(b"\x13\x0a\x01a\x14\xa2\x06\x03\x0a\x01b").unclassified
    assert parsed(b"\x13\xfa\x3f\x01a\x14").unclassified
    assert parsed(b"\xa2\x06\x04\xfa\x3f\x01b").unclassified
    assert parsed(b"\xfa\x3f\x01b").stripped
    listed = method("Olds/List").answer.parse
    assert listed(b"\x12\x09\x0a\x01a\x12\x04\xfa\x3f\x01b").unclassified


# -- classes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("country", "class_"),
    [
        ("US", "us"),
        ("us", "us"),
        (" PR ", "us"),
        ("GU", "us"),
        ("VI", "us"),
        ("AS", "us"),
        ("MP", "us"),
        ("UM", "us"),
        ("FR", "non_us"),
        ("CN", "non_us"),
        ("ZZ", "unknown"),
        ("USA", "unknown"),
        ("", "unknown"),
        ("EU", "unknown"),
        ("UK", "unknown"),
    ],
)
def test_countries(country, class_):
    assert country_class(country) == class_


@pytest.mark.parametrize(
    ("id_", "country", "authoritative", "class_"),
    [
        ("us-1", None, False, "us"),
        ("us-1", "FR", True, "us"),
        ("us-1", "ZZ", False, "us"),
        ("fr-1", None, False, "non_us"),
        ("fr-1", "US", False, "us"),
        ("fr-1", "PR", True, "us"),
        ("fr-1", "ZZ", True, "unknown"),
        ("fr-1", "FR", False, "non_us"),
        ("who", None, False, "unknown"),
        ("who", "FR", False, "unknown"),
        ("who", "FR", True, "non_us"),
        ("who", "US", False, "us"),
        ("who", "USA", True, "unknown"),
    ],
)
def test_the_more_sensitive_of_index_and_answer_counts(id_, country, authoritative, class_):
    seen = (Seen("person", id_, country, authoritative),)
    assert CLASSIFIER.classify(seen, None, NOW).classes == {("person", id_): class_}


@pytest.mark.parametrize(("country", "class_"), [(None, "unknown"), ("FR", "unknown"), ("US", "us")])
def test_while_the_index_is_stale_nobody_is_cleared(country, class_):
    stale = Classifier(Index(fresh=False))
    assert stale.classify((Seen("person", "fr-1", country, True),), None, NOW).classes == {("person", "fr-1"): class_}


def test_one_subject_seen_twice_is_what_the_worse_says():
    def parsed(*countries):
        book = new("Book")(profiles=[new("Profile")(user_id="who", country=one) for one in countries])
        return method("Trials/List").answer.parse(book.SerializeToString())

    for countries, expected in [
        (("FR", ""), "non_us"),
        (("", "FR"), "non_us"),
        (("FR", "US"), "us"),
        (("US", "FR"), "us"),
        (("FR", "ZZ"), "unknown"),
        (("ZZ", "FR"), "unknown"),
        (("ZZ", "US"), "us"),
        (("FR", "DE"), "non_us"),
    ]:
        assert CLASSIFIER.classify(parsed(*countries).subjects, None, NOW).classes == {("person", "who"): expected}


def test_a_country_in_a_request_is_no_evidence():
    get = method("Trials/Get")
    parsed = get.request.parse(new("Ask")(user_id="who", country="FR").SerializeToString())
    assert parsed.subjects == (Seen("person", "who"),)
    assert get.request_subjects(CLASSIFIER, parsed, None, NOW).counts == counts(unknown=1)


def request(name, message, own=None):
    described = method(name)
    return described.request_subjects(CLASSIFIER, described.request.parse(message.SerializeToString()), own, NOW)


def answer(name, message, own=None, raw=b""):
    described = method(name)
    return described.answer_subjects(CLASSIFIER, described.answer.parse(message.SerializeToString() + raw), own, NOW)


def test_a_request_that_names_nobody_concerns_one_unknown():
    found = request("Trials/Get", new("Ask")())
    assert (found.counts, found.classes, found.nobody) == (counts(unknown=1), {}, True)
    assert request("Trials/Put", new("Profile")(bio="x")).counts == counts(unknown=1)


def test_own_records_count_in_their_class_too():
    own = ("person", "us-1")
    assert request("Trials/Get", new("Ask")(user_id="us-1"), own).counts == counts(us=1, own=1)
    assert request("Trials/Get", new("Ask")(user_id="us-2"), own).counts == counts(us=1)
    assert request("Trials/Mine", new("Filter")(), own).counts == counts(us=1, own=1)
    assert request("Trials/Mine", new("Filter")()).counts == counts(unknown=1)


def test_subjects_of_the_answer_are_pending_until_then():
    assert request("Trials/List", new("Filter")()).counts == counts(pending=True)
    assert request("Trials/Count", new("Filter")()).counts == counts()
    book = new("Book")(profiles=[new("Profile")(user_id=one) for one in ("us-1", "fr-1", "who", "fr-2")])
    assert answer("Trials/List", book).counts == counts(us=1, non_us=2, unknown=1)


def test_personal_data_outside_any_subject_concerns_one_unknown():
    one = new("Profile")(user_id="us-1")
    assert answer("Trials/List", new("Book")(profiles=[one], phone="1")).counts == counts(us=1, unknown=1)
    assert answer("Trials/List", new("Book")(profiles=[one], next_page="2")).nobody is False
    assert answer("Trials/List", new("Book")(profiles=[new("Profile")(bio="x")])).counts == counts(unknown=1)
    assert answer("Trials/Watch", new("Trip")(rider_id="us-1", pickup="x")).counts == counts(us=1)
    assert answer("Trials/Watch", new("Trip")(pickup="x")).counts == counts(unknown=1)
    assert answer("Trials/GetEmail", new("Email")(email="x")).counts == counts()


def test_what_a_message_holds_beyond_its_description_is_told():
    get = method("Trials/Get")
    assert answer("Trials/Get", new("Profile")(user_id="us-1")).reached is None
    assert answer("Trials/Get", new("Profile")(user_id="us-1"), raw=UNKNOWN_FIELD).reached is None  # reaches it anyway
    email = answer("Trials/GetEmail", new("Email")(email="x"), raw=UNKNOWN_FIELD)
    assert email.reached.categories == {"unclassified"}
    wider = method("Trials/GetEmail").resource(email.counts, email.reached)
    assert wider.categories == ("id_contact", "public", "unclassified")
    assert wider.type == "email"
    ask = new("Ask")(user_id="us-1")
    ask.extra.type_url, ask.extra.value = (
        "x/trial.v1.Letter",
        new("Letter")(sender_id=700, body="b").SerializeToString(),
    )
    found = request("Trials/Get", ask)
    assert found.reached.categories == {"communication_content"}
    assert found.classes == {("person", "us-1"): "us", ("account", "700"): "non_us"}
    assert "communication_content" in get.resource(found.counts, found.reached).categories
