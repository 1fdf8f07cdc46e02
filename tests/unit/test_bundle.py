"""Reading, testing and activating a bundle folder."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from sidecar import _native
from sidecar.decision import bundle
from sidecar.decision.activation import activate
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.decision.guard import check_null_leaves, nullable_leaves
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import canonical

POLICIES = Path(__file__).parents[2] / "policies"
DECISION = """package sidecar

decision := {"effect": "permit", "reasons": [{"code": "ok", "message": "", "rule": "r"}], "obligations": [], \
"advice": [], "ttl_seconds": 1} if {
	input.subject.person.us_personnel == true
} else := {"effect": "deny", "reasons": [{"code": "not_us_personnel", "message": "", "rule": "r"}], \
"obligations": [], "advice": [], "ttl_seconds": data.limits.ttl}
"""
TEST = """package sidecar.decision_test

test_nobody if {
	doc := {"subject": {"person": {"us_personnel": false}}}
	decision := data.sidecar.decision with input as doc
	decision.effect == "deny"
}
"""


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "bundle"
    files = {
        ".manifest": json.dumps({"revision": "1", "roots": ["sidecar", "limits"], "rego_version": 1}),
        "sidecar/decision.rego": DECISION,
        "sidecar/decision_test.rego": TEST,
        "limits/data.json": '{"ttl": 5}',
        "README.md": "not read",
    }
    for name, text in files.items():
        put(root, name, text)
    return root


def put(root: Path, name: str, text: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def activated(root: Path, deadline: float = 0.5):
    return activate(load_folder(root), str(root), EmbeddedMaker(deadline))


def finding(root: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        activated(root)
    assert caught.value.where
    assert caught.value.fix
    return str(caught.value)


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_opas_layout(folder):
    loaded = load_folder(folder)
    assert [name for name, _ in loaded.modules] == ["sidecar/decision.rego"]
    assert [name for name, _ in loaded.tests] == ["sidecar/decision_test.rego"]
    assert json.loads(loaded.data) == {"limits": {"ttl": 5}}
    assert loaded.label == "1"


def test_data_stands_at_the_path_of_its_folder(folder):
    put(folder, "data.json", '{"sidecar": {"top": {"a": 1}}}')
    put(folder, "sidecar/top/data.json", '{"b": {"c": [true, null, "x"]}}')
    data = json.loads(load_folder(folder).data)
    assert data == {"limits": {"ttl": 5}, "sidecar": {"top": {"a": 1, "b": {"c": [True, None, "x"]}}}}


def test_the_revision_is_the_content(folder, tmp_path):
    before = load_folder(folder).revision
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert load_folder(copy).revision == before
    put(copy, "README.md", "still not read")
    assert load_folder(copy).revision == before
    for name in ("sidecar/decision.rego", "sidecar/decision_test.rego", "limits/data.json"):
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        with (copy / name).open("a") as file:
            file.write(" ")
        assert load_folder(copy).revision != before
    assert before.startswith("sha256:")
    assert len(before) == 71


def manifest(folder: Path, **changes: object) -> None:
    put(folder, ".manifest", json.dumps({"roots": ["sidecar", "limits"], "rego_version": 1, **changes}))


def test_a_label_and_white_space_are_no_other_revision_but_roots_are(folder):
    before = load_folder(folder)
    manifest(folder, revision="2")
    assert load_folder(folder).revision == before.revision
    manifest(folder, revision=before.revision, metadata={"label": "1"})
    assert (load_folder(folder).revision, load_folder(folder).label) == (before.revision, "1")
    manifest(folder, revision="3", metadata={"label": "1"})
    assert load_folder(folder).label == "3"
    manifest(folder, metadata={"more": "1"})
    assert load_folder(folder).revision != before.revision
    manifest(folder, roots=["sidecar", "limits", "other"])
    assert load_folder(folder).revision != before.revision


def test_signatures_are_no_other_revision(folder):
    before = load_folder(folder)
    put(folder, ".signatures.json", "anything")
    found = load_folder(folder)
    assert (found.revision, found.signatures, found.files) == (before.revision, b"anything", before.files)


def test_the_files_are_kept_as_they_are(folder):
    found = load_folder(folder)
    assert [name for name, _ in found.files] == sorted(
        (".manifest", "sidecar/decision.rego", "sidecar/decision_test.rego", "limits/data.json")
    )
    assert all((folder / name).read_bytes() == content for name, content in found.files)


def test_a_moved_file_is_another_revision(folder):
    before = load_folder(folder).revision
    (folder / "sidecar/deeper").mkdir()
    (folder / "sidecar/decision.rego").rename(folder / "sidecar/deeper/decision.rego")
    assert load_folder(folder).revision != before


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (".manifest", "{", "not JSON"),
        (".manifest", "{}", "not a manifest"),
        (".manifest", '{"roots": ["sidecar", "limits"], "roots": ["sidecar", "limits"]}', "twice"),
        (".manifest", '{"roots": ["sidecar", "limits"], "wasm": []}', "wasm"),
        (".manifest", '{"roots": ["sidecar", "limits"], "revision": "a\\nb"}', "one printable line"),
        (".manifest", '{"roots": ["sidecar", "limits"], "revision": "' + "a" * 201 + '"}', "one printable line"),
        (".manifest", '{"roots": ["sidecar", "limits"], "revision": "sha256:00"}', "not those of the revision"),
        ("sidecar/.manifest", "{}", "a second .manifest"),
        ("sidecar/policy.wasm", "", "compiled policies"),
        ("patch.json", "{}", "a delta bundle"),
        ("plan.json", "{}", "a plan"),
        (".manifest.pb", "", "a binary manifest"),
        ("limits/data.json", '{"ttl": "\\ud800"}', "half a character"),
        (".manifest", '{"roots": ["sidecar", "limits"], "rootz": []}', "rootz"),
        (".manifest", '{"roots": []}', "roots"),
        (".manifest", '{"roots": ["sidecar", "limits", "limits/more"]}', "overlap"),
        (".manifest", '{"roots": ["sidecar", "limits", "sidecar"]}', "overlap"),
        (".manifest", '{"roots": ["sidecar"]}', "limits/ttl"),
        (".manifest", '{"roots": ["limits"]}', "package is outside"),
        (".manifest", '{"roots": ["sidecar", "limits"], "rego_version": 0}', "Rego version 1"),
        ("sidecar/more.rego", "# nothing", "no package"),
        ("sidecar/more.rego", "package other\n", "outside of the manifest's roots"),
        ("sidecar/more.rego", b"package sidecar.more\n# \xff", "not UTF-8 at byte 23"),
        ("data.json", '{"limits": {"ttl": 6}}', "two files define one data path"),
        ("data.json", '{"limits": 1}', "two files define one data path"),
        ("data.json", '{"elsewhere": 1}', "outside of the manifest's roots"),
        ("limits/data.json", '{"ttl": 0.5}', "no integer"),
        ("limits/data.json", '{"ttl": 1e3}', "no integer"),
        ("limits/data.json", '{"ttl": NaN}', "no integer"),
        ("limits/data.json", '{"ttl": 18446744073709551616}', "beyond 64 bits"),
        ("limits/data.json", '{"ttl": ' + "9" * 100_000 + "}", "beyond 64 bits"),
        ("limits/data.json", '{"ttl": 5, "ttl": 6}', "twice"),
        ("limits/data.json", "[]", "not a JSON object"),
        ("limits/data.json", "[" * 100_000, "not JSON"),
        ("limits/data.json", '{"a":' * 60 + "1" + "}" * 60, "deeper"),
        ("limits/data.json", "", "not JSON"),
        ("limits/data.yaml", "ttl: 5", "JSON only"),
        ("schemas/corpus.json", "[{}]", "not a list of input documents"),
        ("/".join("abcdefghijklmnopqrst") + "/x.rego", "package sidecar.x", "nested deeper"),
    ],
)
def test_what_is_wrong_is_named(folder, name, text, words):
    put(folder, name, text)
    assert words in finding(folder)


def test_files_beyond_the_limits_are_named(folder):
    put(folder, "sidecar/long.rego", "package sidecar.long\n" + "#" * bundle.MAX_MODULE_BYTES)
    assert "sidecar/long.rego" in finding(folder)


def test_a_bundle_has_a_manifest_policies_and_tests(folder):
    (folder / "sidecar/decision_test.rego").unlink()
    assert "has no tests" in finding(folder)
    (folder / "sidecar/decision.rego").unlink()
    assert "no policy" in finding(folder)
    (folder / ".manifest").unlink()
    assert "no manifest" in finding(folder)
    shutil.rmtree(folder)
    assert "cannot be read" in finding(folder)


# --- links -------------------------------------------------------------------------------------------------------


def test_links_do_not_lead_out(folder, tmp_path):
    put(tmp_path, "outside.rego", "package sidecar.outside\n")
    (folder / "sidecar/outside.rego").symlink_to(tmp_path / "outside.rego")
    assert "leads out of the bundle" in finding(folder)
    (folder / "sidecar/outside.rego").unlink()
    (tmp_path / "rules").mkdir()
    (folder / "sidecar/rules").symlink_to(tmp_path / "rules")
    assert "is a link" in finding(folder)


def test_a_pipe_is_not_a_policy(folder):
    os.mkfifo(folder / "sidecar/pipe.rego")
    writer = os.open(folder / "sidecar/pipe.rego", os.O_RDWR | os.O_NONBLOCK)
    try:
        assert "not a regular file" in finding(folder)
    finally:
        os.close(writer)


def mounted(folder: Path, mount: Path) -> Path:
    """As Kubernetes projects a volume: dated folder, ..data, and links for the top level."""
    shutil.copytree(folder, mount / "..2026_11_22")
    (mount / "..data").symlink_to("..2026_11_22")
    for entry in folder.iterdir():
        (mount / entry.name).symlink_to(Path("..data") / entry.name)
    return mount


def test_a_mounted_volume_is_read_as_one_generation(folder, tmp_path):
    mount = mounted(folder, tmp_path / "mount")
    assert load_folder(mount).revision == load_folder(folder).revision
    assert activated(mount).tests_passed == 1


def test_a_mounted_volume_does_not_lead_out(folder, tmp_path):
    mount = mounted(folder, tmp_path / "mount")
    (mount / "..data").unlink()
    (mount / "..data").symlink_to(folder)
    assert "leads out" in finding(mount)


# --- activation --------------------------------------------------------------------------------------------------


def test_a_bundle_that_passes_its_tests_answers(folder):
    active = activated(folder, 5.0)
    assert active.tests_passed == 1
    assert active.revision == active.bundle.revision
    request = load_folder(POLICIES).corpus[0]
    decision = asyncio.run(active.engine.decide(request, canonical(request)))
    assert decision.permits


def test_failing_tests_are_named(folder):
    put(
        folder,
        "sidecar/more_test.rego",
        TEST.replace("sidecar.decision_test", "sidecar.more_test").replace('"deny"', '"permit"'),
    )
    assert "sidecar.more_test.test_nobody" in finding(folder)


def test_test_files_hold_tests(folder):
    put(folder, "sidecar/decision_test.rego", "package sidecar.decision_test\n\nnothing := 1\n")
    assert "hold no test" in finding(folder)


def test_what_does_not_load_is_named_with_its_line(folder):
    put(folder, "sidecar/more.rego", "package sidecar.more\n\nlate if time.now_ns() > 0\n")
    assert "sidecar/more.rego:3" in finding(folder)


def test_comparing_what_may_be_null_does_not_load(folder):
    put(folder, "sidecar/more.rego", 'package sidecar.more\n\nold if input.subject.person.vetted_until < "2026"\n')
    assert "may be null" in finding(folder)


@pytest.mark.parametrize(
    "helped",
    [
        "input.subject.person.us_personnel == null",
        "input.subject.person.location.country == null",
    ],
)
def test_a_policy_that_permits_because_it_does_not_know_is_not_activated(folder, helped):
    put(folder, "sidecar/decision.rego", DECISION.replace("input.subject.person.us_personnel == true", helped))
    (folder / "sidecar/decision_test.rego").write_text("package sidecar.decision_test\n\ntest_one if 1 == 1\n")
    shutil.copytree(POLICIES / "schemas", folder / "schemas")
    assert "a deny becomes a permit when input.subject.person" in finding(folder)


def test_without_a_corpus_a_neutral_one_is_tried(folder):
    put(folder, "sidecar/decision.rego", DECISION.replace("person.us_personnel == true", "person.us_personnel == null"))
    (folder / "sidecar/decision_test.rego").write_text("package sidecar.decision_test\n\ntest_one if 1 == 1\n")
    assert "when input.subject.person.us_personnel is unknown" in finding(folder)


def test_a_corpus_without_a_deny_proves_nothing(folder):
    always = '{"effect": "permit"}'
    with pytest.raises(ConfigurationError, match="no document of the corpus is denied"):
        check_null_leaves(lambda _: always.encode(), load_folder(POLICIES).corpus[:2], where="corpus")


def test_a_decision_that_takes_too_long_is_no_refusal():
    def late(_: bytes) -> bytes:
        raise _native.DeadlineExceeded("late")

    with pytest.raises(ConfigurationError, match="takes too long"):
        check_null_leaves(late, load_folder(POLICIES).corpus, where="corpus")


def test_the_nullable_leaves_are_those_of_the_vocabulary():
    leaves = nullable_leaves()
    assert "input.subject.person.us_personnel" in leaves
    assert "input.context.exceptions.*.max_records" in leaves
    assert "input.context.exposure.*" in leaves
    assert "input.context.time" not in leaves
    assert len(set(leaves)) == len(leaves)


def test_the_shipped_policies_activate():
    active = activated(POLICIES)
    assert active.tests_passed > 100
    assert active.documents_tried > 500
    assert active.bundle.revision == load_folder(POLICIES).revision
