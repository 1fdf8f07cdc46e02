import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from trial_api import HERE, compile_files, compile_text, describer, trial_set

from sidecar.api.v1 import annotations_pb2
from sidecar.attributes import annotations, descriptors
from sidecar.errors import ConfigurationError

ACCESS = 'option (sidecar.api.v1.access) = {action: "read" resource: "m" subject: NONE};'
SERVICE = f"service S {{ rpc A(M) returns (M) {{ {ACCESS} }} }}"


def words(data):
    return annotations.read(descriptors.parse(data, "set.binpb"))


def shuffled(data):
    found = FileDescriptorSet.FromString(data)
    files = list(found.file)
    del found.file[:]
    found.file.extend(reversed(files))
    return found.SerializeToString()


# -- the set ---------------------------------------------------------------------------------------------------------


def test_annotations_read_the_same_however_the_set_was_made():
    whole = trial_set()
    assert words(whole) == words(shuffled(whole))
    bare = FileDescriptorSet.FromString(trial_set(with_imports=False))
    assert {one.name for one in bare.file} == {"trial/v1/trial.proto", "trial/v1/old.proto"}
    found, wanted = words(bare.SerializeToString()), words(whole)
    assert found == wanted
    assert wanted.records == {"trial.v1.Profile", "trial.v1.Letter", "trial.v1.Old", "trial.v1.Added"}
    assert wanted.fields["trial.v1.secret"].data.letter == "a"
    assert wanted.methods["trial.v1.Trials/Delete"].categories == ("personal_health",)


def test_the_numbers_are_those_of_annotations_proto():
    declared = {
        (one.containing_type.full_name, one.number): one.full_name
        for one in annotations_pb2.DESCRIPTOR.extensions_by_name.values()
    }
    assert declared == annotations.NUMBERS
    modes = {
        one.number: one.name.lower() for one in annotations_pb2.Access.DESCRIPTOR.enum_types_by_name["Subject"].values
    }
    assert annotations._SUBJECT == modes | {0: "SUBJECT_UNSPECIFIED"}
    for message in ("Data", "SubjectId", "SubjectCountry", "Record", "Access"):
        fields = annotations_pb2.DESCRIPTOR.message_types_by_name[message].fields
        assert sorted(annotations._VIEW[message]) == sorted(one.number for one in fields)


def test_the_pool_is_our_own():
    found = descriptors.parse(trial_set(), "set.binpb")
    assert found.pool is not descriptor_pool.Default()
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("trial.v1.Profile")


def test_entries_of_maps_are_no_types():
    assert not [name for name in descriptors.parse(trial_set(), "s").messages if name.endswith("Entry")]


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x0a\x05"])
def test_bytes_that_are_no_set(data):
    with pytest.raises(ConfigurationError, match=r"set.binpb: (these bytes|the set declares)"):
        descriptors.parse(data, "set.binpb")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        descriptors.load(tmp_path / "none.binpb")
    (tmp_path / "set.binpb").write_bytes(trial_set())
    assert "trial.v1.Trials/Get" in descriptors.load(tmp_path / "set.binpb").methods


def edited(change):
    found = FileDescriptorSet.FromString(trial_set())
    change(found)
    return found.SerializeToString()


def test_a_missing_import_is_asked_for():
    def change(found):
        next(one for one in found.file if one.name == "trial/v1/old.proto").dependency.append("gone/v1/gone.proto")

    with pytest.raises(
        ConfigurationError, match=r"old.proto imports gone/v1/gone.proto, which the set lacks.*include_imports"
    ):
        descriptors.parse(edited(change), "set.binpb")


def test_a_circle_of_imports_is_refused():
    def change(found):
        for one in found.file:
            if one.name == "sidecar/api/v1/annotations.proto":
                one.dependency.append("trial/v1/old.proto")

    with pytest.raises(ConfigurationError, match="imports itself"):
        descriptors.parse(edited(change), "set.binpb")


def test_a_file_twice_is_refused_only_when_it_differs():
    descriptors.parse(edited(lambda found: found.file.append(found.file[0])), "set.binpb")

    def change(found):
        found.file.append(found.file[-1])
        found.file[-1].package = "other"

    with pytest.raises(ConfigurationError, match="stands in the set twice"):
        descriptors.parse(edited(change), "set.binpb")


def test_an_invalid_file_is_named():
    def change(found):
        found.file[-1].message_type[0].field[0].type_name = ".no.Such"
        found.file[-1].message_type[0].field[0].type = 11

    with pytest.raises(ConfigurationError, match="is not valid"):
        descriptors.parse(edited(change), "set.binpb")


def test_an_import_of_the_annotations_among_others_is_struck_out():
    found = FileDescriptorSet.FromString(trial_set(with_imports=False))
    one = found.file[0]
    index = list(one.dependency).index("sidecar/api/v1/annotations.proto")
    one.public_dependency.extend([0, index])
    one.weak_dependency.append(index)
    assert words(found.SerializeToString()) == words(trial_set())


# -- the annotations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "element", "what"),
    [
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "id_contcat"}]; }', "t.M.a", "id_contact"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "combined"}]; }', "t.M.a", "computed"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {class: "public"}]; }', "t.M.a", "no category"),
        ("message M { string a = 1 [(sidecar.api.v1.data) = {}]; }", "t.M.a", "no category"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "public" class: "pubic"}]; }', "t.M.a", "'public'"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "unclassified" class: "public"}]; }', "t.M.a",
         "protected"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "public" listed_identifier: "z"}]; }', "t.M.a",
         "202.234"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "public" listed_identifier: "ab"}]; }', "t.M.a",
         "202.234"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "id_device" listed_identifier: "d"}]; }', "t.M.a",
         "another letter"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "coarse_location" precision_m: 1000}]; }',
         "t.M.a", "precise_geolocation"),
        ('message M { string a = 1 [(sidecar.api.v1.data) = {category: "id_contact" precision_m: 5}]; }', "t.M.a",
         "precision"),
        ("message M { bytes a = 1 [(sidecar.api.v1.subject_id) = {}]; }", "t.M.a", "string or an integer"),
        ("message M { M a = 1 [(sidecar.api.v1.subject_id) = {}]; }", "t.M.a", "string or an integer"),
        ("message M { map<bool, string> a = 1 [(sidecar.api.v1.subject_id) = {}]; }", "t.M.a", "string or an integer"),
        ('message M { string a = 1 [(sidecar.api.v1.subject_id) = {kind: "Person 1"}]; }', "t.M.a", "Person 1"),
        ("message M { string a = 1 [(sidecar.api.v1.subject_id) = {}, (sidecar.api.v1.subject_country) = {}]; }", "t.M.a",
         "not both"),
        ("message M { string a = 1 [(sidecar.api.v1.subject_country) = {}]; }", "t.M", "needs a subject_id"),
        (("message M { string a = 1 [(sidecar.api.v1.subject_id) = {}]; "
         "int32 b = 2 [(sidecar.api.v1.subject_country) = {}]; }"), "t.M.b", "one string field"),
        (("message M { string a = 1 [(sidecar.api.v1.subject_id) = {}]; "
         "repeated string b = 2 [(sidecar.api.v1.subject_country) = {}]; }"), "t.M.b", "one string field"),
        (("message M { string a = 1 [(sidecar.api.v1.subject_id) = {}]; "
         "M b = 2 [(sidecar.api.v1.subject_country) = {}]; }"), "t.M.b", "one string field"),
        (("message M { string a = 1 [(sidecar.api.v1.subject_id) = {}]; string b = 2 [(sidecar.api.v1.subject_country) = {}];"
         " string c = 3 [(sidecar.api.v1.subject_country) = {}]; }"), "t.M", "at most one"),
        (("message M { string a = 1 [(sidecar.api.v1.subject_id) = {}]; string b = 2 [(sidecar.api.v1.subject_id) = {}];"
         " string c = 3 [(sidecar.api.v1.subject_country) = {authoritative: true}]; }"), "t.M", "exactly one subject"),
        (("message M { repeated string a = 1 [(sidecar.api.v1.subject_id) = {}];"
         " string c = 3 [(sidecar.api.v1.subject_country) = {authoritative: true}]; }"), "t.M", "exactly one subject"),
        ("message M { option (sidecar.api.v1.record) = {}; string a = 1; }", "t.M", "a record needs"),
        ("message M { option (sidecar.api.v1.record) = {}; map<string, M> a = 1 [(sidecar.api.v1.subject_id) = {}]; }",
         "t.M", "a record needs"),
    ],
)  # fmt: skip
def test_what_cannot_hold_names_file_element_and_fix(tmp_path, text, element, what):
    with pytest.raises(ConfigurationError, match=what) as caught:
        describer(compile_text(tmp_path, text + SERVICE))
    assert f"set.binpb: t.proto: {element}" in str(caught.value)


@pytest.mark.parametrize(
    ("access", "what"),
    [
        ('action: "raed" resource: "m" subject: NONE', "'read'"),
        ('resource: "m" subject: NONE', "unknown action"),
        ('action: "read" subject: NONE', "resource"),
        ('action: "read" resource: "m"', "SUBJECT_UNSPECIFIED"),
        ('action: "read" resource: "m" subject: NONE categories: ["publik"]', "'public'"),
        ('action: "read" resource: "m" subject: REQUEST_FIELD', "no field of the request"),
        ('action: "read" resource: "m" subject: ANSWER', "no field of the answer"),
    ],
)
def test_methods_that_cannot_hold(tmp_path, access, what):
    text = f"message M {{}} service S {{ rpc A(M) returns (M) {{ option (sidecar.api.v1.access) = {{{access}}}; }} }}"
    with pytest.raises(ConfigurationError, match=what) as caught:
        describer(compile_text(tmp_path, text))
    assert "set.binpb: t.proto: t.S/A" in str(caught.value)


def test_a_number_that_belongs_to_another_extension_is_refused(tmp_path):
    (tmp_path / "x.proto").write_text(
        'syntax = "proto3"; package x; import "google/protobuf/descriptor.proto";'
        "extend google.protobuf.FieldOptions { string note = 52401; }"
        'message M { string a = 1 [(note) = "hello"]; } service S { rpc A(M) returns (M); }'
    )
    data = compile_files([tmp_path], ["x.proto"])
    with pytest.raises(ConfigurationError, match=r"x.note: this extension has the number of sidecar.api.v1.data"):
        words(data)


@pytest.mark.parametrize("value", [b"\x2a\x02hi", b"\xff"])
def test_an_annotation_of_another_version_is_refused(tmp_path, value):
    found = descriptors._schema().FromString(compile_text(tmp_path, f"message M {{ string a = 1; }} {SERVICE}"))
    field = found.file[-1].message_type[0].field[0]
    field.options.MergeFromString(b"\x8a\xcb\x19" + bytes([len(value)]) + value)
    with pytest.raises(ConfigurationError, match=r"t.M.a: an annotation says more"):
        words(found.SerializeToString())


def test_extensions_cannot_name_subjects(tmp_path):
    old = (HERE / "protos/trial/v1/old.proto").read_text()
    (tmp_path / "old.proto").write_text(
        old.replace(
            'secret = 102 [(sidecar.api.v1.data) = {category: "id_government"}]',
            "secret = 102 [(sidecar.api.v1.subject_id) = {}]",
        )
    )
    with pytest.raises(ConfigurationError, match=r"trial.v1.secret: a subject id"):
        describer(compile_files([tmp_path], ["old.proto"]))
    (tmp_path / "old.proto").write_text(
        old.replace(
            'secret = 102 [(sidecar.api.v1.data) = {category: "id_government"}]',
            "secret = 102 [(sidecar.api.v1.subject_country) = {}]",
        )
    )
    with pytest.raises(ConfigurationError, match=r"trial.v1.secret: a country"):
        describer(compile_files([tmp_path], ["old.proto"]))
