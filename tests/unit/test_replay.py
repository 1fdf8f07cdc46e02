"""Decisions are compared by what an enforcer would do, and a bundle answers old documents without the sidecar's modules."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from minimal_policy import PERMIT, write_policy
from recorded import denied, permitted, question

from sidecar.administration.policy_children import answering
from sidecar.decision import flips
from sidecar.decision.archive import exact, write_archive
from sidecar.decision.replay import Answer, Replayer, read, replaying, total
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import (
    AnyObligation,
    Decision,
    DropRecords,
    LimitRecords,
    MaskFields,
    RecheckSeconds,
    RedactFields,
    RequireDurability,
    UnknownObligation,
    canonical,
)  # fmt: skip

REDACT_ONE, REDACT_TWO = RedactFields(categories=("id_contact",)), RedactFields(categories=("id_contact", "behaviour"))
MASK, DROP, LIMIT = MaskFields(categories=("id_contact",)), DropRecords(subjects="us"), LimitRecords(max=5)
UNDECIDED = flips.undecided("too late")


def kind(before: Decision | flips.Verdict, after: Decision | flips.Verdict) -> str:
    return flips.compare(
        *(one if isinstance(one, flips.Verdict) else flips.of_decision(one) for one in (before, after))
    )


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (denied(), denied(), "same"),
        (denied(), permitted(), "newly_permitted"),
        (permitted(), denied(), "newly_denied"),
        (permitted(), UNDECIDED, "undecided"),
        (denied(), UNDECIDED, "undecided"),
        (UNDECIDED, UNDECIDED, "same"),
        (UNDECIDED, permitted(), "newly_permitted"),
        (UNDECIDED, denied(), "reasons"),
        (denied(), denied("person_location"), "reasons"),
        (denied(), denied(rule="sidecar.other"), "reasons"),
        (permitted(REDACT_TWO), permitted(REDACT_ONE), "obligations_weaker"),
        (permitted(REDACT_ONE), permitted(REDACT_TWO), "obligations_stronger"),
        (permitted(REDACT_ONE), permitted(MASK), "obligations_weaker"),
        (permitted(MASK), permitted(REDACT_ONE), "obligations_stronger"),
        (permitted(DROP), permitted(), "obligations_weaker"),
        (permitted(), permitted(DROP), "obligations_stronger"),
        (permitted(LIMIT), permitted(LimitRecords(max=6)), "obligations_weaker"),
        (permitted(LIMIT), permitted(), "obligations_weaker"),
        (permitted(), permitted(LIMIT), "obligations_stronger"),
        (permitted(DROP), permitted(LIMIT), "obligations_weaker"),  # one duty goes, another comes: the loss counts
        (permitted(RequireDurability(level="committed")), permitted(RequireDurability(level="written")), "obligations_weaker"),
        (permitted(RecheckSeconds(seconds=30)), permitted(RecheckSeconds(seconds=60)), "obligations_weaker"),
        (permitted(UnknownObligation(name="pray")), permitted(), "obligations_weaker"),
        (permitted(), permitted(UnknownObligation(name="pray")), "obligations_stronger"),
        (permitted(), msgspec.structs.replace(permitted(), ttl_seconds=9), "minor"),
        (denied(), msgspec.structs.replace(denied(), advice=("ask",)), "minor"),
    ],
)  # fmt: skip
def test_two_decisions_differ_by_the_gravest_word_for_it(before, after, found) -> None:
    assert kind(before, after) == found


OBLIGATIONS = st.lists(
    st.one_of(
        st.builds(RedactFields, categories=st.lists(st.sampled_from("abc"), max_size=2).map(tuple)),
        st.builds(MaskFields, fields=st.lists(st.sampled_from("abc"), max_size=2).map(tuple)),
        st.builds(DropRecords, subjects=st.sampled_from(("us", "unknown"))),
        st.builds(LimitRecords, max=st.integers(0, 3)),
        st.builds(RecheckSeconds, seconds=st.integers(1, 3)),
    ),
    max_size=4,
)


@given(OBLIGATIONS, OBLIGATIONS)
def test_what_is_no_weaker_either_way_is_the_same(one: list[AnyObligation], other: list[AnyObligation]) -> None:
    before, after = permitted(*one), permitted(*other)
    there, back = kind(before, after), kind(after, before)
    assert (there == "same") == (back == "same")
    assert there == "same" or "obligations_weaker" in (there, back)
    assert kind(before, permitted(*one, *other)) in ("same", "obligations_stronger")


@given(OBLIGATIONS, OBLIGATIONS)
def test_a_permit_releases_more_where_a_duty_on_content_is_lost(
    one: list[AnyObligation], other: list[AnyObligation]
) -> None:
    before, after = flips.of_decision(permitted(*one, *other)), flips.of_decision(permitted(*one))
    assert not flips.releases_more(after, before)
    content = flips.compare(before, after) == "obligations_weaker" and not after.duties.holds_back(before.duties)
    assert flips.releases_more(before, after) == content


def test_a_record_reads_as_the_decision_that_it_holds() -> None:
    for one in (denied(), permitted(REDACT_TWO, DROP, UnknownObligation(name="pray"))):
        assert flips.of_record(msgspec.json.encode(one)) == flips.of_decision(one)
    old = b'{"effect":"deny","reasons":[{"code":"a_code_of_long_ago","message":"","rule":"r"}]}'
    assert flips.of_record(old).codes == ("a_code_of_long_ago",)
    with pytest.raises(ValueError):
        flips.of_record(b'{"effect":"maybe"}')


def test_an_old_document_is_completed_with_unknown_leaves() -> None:
    document = msgspec.json.decode(canonical(question()))
    del document["subject"]["engagement"]["onward_clause_ref"], document["context"]["network"]
    assert total(msgspec.json.encode(document)) == canonical(question())
    with pytest.raises(ValueError):
        total(b'{"version": 1, "subject": {"kind": null, "from_the_future": 1}}')


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


def test_a_bundle_answers_documents_and_says_why_it_does_not(policies: Path) -> None:
    with replaying(read(policies), policies) as replayer:
        assert json.loads(replayer.answer(canonical(question())).decision or b"") == PERMIT
        assert "not an input document" in (replayer.answer(b"{}").error or "")


@pytest.mark.parametrize(
    "answer", [b"{}", b"[", b'{"effect":"deny","reasons":[],"obligations":[],"advice":[],"ttl_seconds":0}']
)
def test_an_ill_typed_answer_is_no_decision(answer: bytes) -> None:
    found = Replayer(lambda _: answer).answer(canonical(question()))
    assert found.decision is None
    assert "no decision" in (found.error or "")


def test_an_engine_that_fails_is_no_decision() -> None:
    def broken(_: bytes) -> bytes:
        raise RuntimeError("gone")

    assert Replayer(broken).answer(canonical(question())) == Answer(None, "no decision: gone")


def test_a_built_bundle_answers_like_its_folder(policies: Path, tmp_path: Path) -> None:
    built = tmp_path / "bundle.tar.gz"
    built.write_bytes(write_archive(exact(read(policies))))
    assert read(built).revision == read(policies).revision
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read(tmp_path / "nothing")


def run_child(*arguments: str | Path, questions: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = (sys.executable, "-m", "sidecar.decision.replay", *map(str, arguments))
    return subprocess.run(command, input=questions, capture_output=True, timeout=60, check=False)


def test_the_child_process_answers_line_by_line_in_order(policies: Path) -> None:
    amy, bob = (json.loads(canonical(question(name))) for name in ("amy", "bob"))
    lines = [{"id": "a", "input": amy}, {"id": 2, "input": bob}, {"id": None, "input": {"x": 1}}]
    ran = run_child(policies, questions="\n".join(map(json.dumps, lines)).encode() + b"\n\nno question\n")
    assert ran.returncode == 0
    first, second, third, fourth = map(json.loads, ran.stdout.splitlines())
    assert (first["id"], first["decision"]) == ("a", PERMIT)
    assert (second["id"], second["decision"]["effect"]) == (2, "deny")
    assert third["id"] is None
    assert "not an input document" in third["error"]
    assert "not a question" in fourth["error"]


def test_the_child_process_names_a_bundle_that_does_not_load(tmp_path: Path) -> None:
    ran = run_child(tmp_path / "nothing")
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert b"nothing" in ran.stderr
    assert ran.stderr.count(b"\n") == 1
    assert run_child().returncode == 2


def test_the_child_process_loads_nothing_of_the_sidecar_but_its_decisions(policies: Path) -> None:
    """The oversight store runs it: no settings, no network, no generated code."""
    program = (
        "import sys\n"
        "from sidecar.decision import replay\n"
        f"assert replay.main([{str(policies)!r}]) == 0\n"
        "print(*sorted(one for one in sys.modules if one.split('.')[0] in ('sidecar', 'grpc', 'google', 'pydantic')))"
    )
    ran = subprocess.run(
        (sys.executable, "-c", program), input="", capture_output=True, text=True, timeout=300, check=True
    )
    loaded = set(ran.stdout.split())
    assert "sidecar.decision.replay" in loaded
    assert {one for one in loaded if not one.startswith("sidecar.decision")} == {
        "sidecar", "sidecar._native", "sidecar.errors", "sidecar.json_names", "sidecar.vocabulary"
    }  # fmt: skip


def test_children_answer_as_this_process_does(policies: Path) -> None:
    documents = [canonical(question(f"p{number % 7}", minute=number % 60)) for number in range(600)] + [b'{"x":1}']
    bundle = read(policies)
    with answering(bundle, policies, 1) as one, answering(bundle, policies, 3) as many:
        assert one(documents) == many(documents)
        assert many([]) == []


def test_a_child_that_dies_is_an_error_and_no_answer(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read(policies)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises((ConfigurationError, OSError)), answering(bundle, policies, 2) as many:
        many([canonical(question())] * 500)
