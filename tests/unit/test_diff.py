"""Two bundles are compared by what is written in them and by what they decide."""

import json
from pathlib import Path

import pytest
from command_line import Shell
from minimal_policy import write_policy
from recorded import body, permitted, question, row, write_rows

from sidecar.administration.policy_corpus import generated
from sidecar.administration.policy_diff import Change, differences
from sidecar.decision.replay import read
from sidecar.vocabulary import canonical


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal bundles with data."""
    for name in ("one", "two"):
        folder = write_policy(tmp_path / name)
        (folder / "data" / "limits").mkdir(parents=True)
        (folder / "data" / "limits" / "data.json").write_text('{"most": 5, "places": ["US", "PR"], "gone": {"a": 1}}')
        manifest = {"revision": "trial", "roots": ["sidecar", "data"], "rego_version": 1}
        (folder / ".manifest").write_text(json.dumps(manifest))
    return tmp_path / "one", tmp_path / "two"


def test_equal_bundles_have_no_differences(folders: tuple[Path, Path]) -> None:
    found = differences(*map(read, folders))
    assert (found.rules, found.data, found.tests) == ((), (), ())


def test_comments_and_layout_change_no_rule(folders: tuple[Path, Path]) -> None:
    rego = folders[1] / "sidecar" / "decision.rego"
    lines = rego.read_text().splitlines()
    rego.write_text("\n".join([lines[0], "# another comment", "", *lines[1:]]).replace("\t", "  "))
    assert read(folders[0]).revision != read(folders[1]).revision
    assert differences(*map(read, folders)).rules == ()


def test_rules_are_added_removed_and_changed(folders: tuple[Path, Path]) -> None:
    one, two = (folder / "sidecar" / "decision.rego" for folder in folders)
    one.write_text(one.read_text() + "\nhelper := 1\n\nkept(x) if x == 1\n\nkept(x) if x == 2\n")
    two.write_text(one.read_text().replace("helper := 1", "other := 1").replace("x == 2", "x == 3"))
    (folders[1] / "sidecar" / "decision_test.rego").write_text("package sidecar.trial_test\n\ntest_it if { 1 == 1 }\n")
    found = differences(*map(read, folders))
    assert [(change.what, change.word) for change in found.rules] == [
        ("sidecar.helper", "removed"), ("sidecar.kept", "changed"), ("sidecar.other", "added"),
    ]  # fmt: skip
    changed = found.rules[1]
    assert changed.before is not None
    assert changed.before.splitlines() == ["kept(x) if x == 1", "kept(x) if x == 2"]
    assert changed.after == changed.before.replace("x == 2", "x == 3")
    assert [change.what for change in found.tests] == ["sidecar/decision_test.rego"]


def test_data_is_shown_by_path_with_both_values(folders: tuple[Path, Path]) -> None:
    (folders[1] / "data" / "limits" / "data.json").write_text('{"most": 6, "places": ["US"], "new": null}')
    assert differences(*map(read, folders)).data == (
        Change("data.data.limits.gone.a", "1", None),
        Change("data.data.limits.most", "5", "6"),
        Change("data.data.limits.new", None, "null"),
        Change("data.data.limits.places", '["US","PR"]', '["US"]'),
    )


def test_the_same_seed_generates_the_same_documents(folders: tuple[Path, Path]) -> None:
    bundles = [read(folder) for folder in folders]
    first, again, other = ([one.input for one in generated(bundles, 50, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) >= 50


@pytest.fixture
def flipped(folders: tuple[Path, Path]) -> tuple[Path, Path]:
    """The second lets Bob in and Amy no longer."""
    rego = folders[1] / "sidecar" / "decision.rego"
    rego.write_text(rego.read_text().replace('"amy"', '"bob"'))
    return folders


def test_diff_decides_recorded_questions_by_both(shell: Shell, flipped: tuple[Path, Path], tmp_path: Path) -> None:
    corpus = write_rows(tmp_path / "c.jsonl", row(body(question("amy"), permitted())), canonical(question("cy")))
    ran = shell("policy", "diff", *flipped, "--corpus", corpus, "--json", "--fail-on", "newly-denied")
    assert ran.code == 1
    said = json.loads(ran.out)
    assert (said["replayed"], said["agreed"], said["flips"]["newly_denied"]) == (2, 1, 1)
    assert [change["what"] for change in said["changes"]["rules"]] == ["sidecar.decision"]
    assert said["baseline"]["revision"] == read(flipped[0]).revision
    assert said["examples"][0]["input"]["subject"]["person"]["id"] == "amy"


def test_diff_finds_a_flip_in_generated_documents(shell: Shell, folders: tuple[Path, Path]) -> None:
    rego = folders[1] / "sidecar" / "decision.rego"
    rego.write_text(rego.read_text().replace('id == "amy"', "us_personnel == false"))
    ran = shell("policy", "diff", *folders, "--generated", 500, "--fail-on", "newly-permitted-non-us")
    assert ran.code == 1, ran.out
    assert "changed sidecar.decision" in ran.out
    assert "newly permitted" in ran.out


def test_diff_of_a_bundle_with_itself_passes_every_gate(shell: Shell, folders: tuple[Path, Path]) -> None:
    ran = shell("policy", "diff", *folders, "--generated", 50, "--fail-on", "any")
    assert ran.code == 0
    assert "0 otherwise" in ran.out
