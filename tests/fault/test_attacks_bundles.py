"""Bundles made to harm whoever reads them: refused by what they hold, before anybody's signature or test is looked at."""

import base64
import hashlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_signing import NOW, ed25519_key, public_pem, signed
from minimal_policy import PERMIT, write_policy
from policy_rig import AMY

from sidecar.decision import archive, bundle, signatures
from sidecar.decision.activation import activate
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.decision.signers import signers_of
from sidecar.errors import ConfigurationError, DecideError
from sidecar.main.sources import load
from sidecar.vocabulary import canonical

ALICE, BOB = ed25519_key(), ed25519_key()
SECONDS = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


def finding(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.where
    assert caught.value.fix
    return str(caught.value)


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_does_not_stand_for_two_lines_of_the_list_that_is_the_revision(folder: Path) -> None:
    """A file that is gone, named with its digest in the name of the one before: the list would read the same."""
    (folder / "sidecar" / "a.rego").write_text("package sidecar.a\n")
    (folder / "sidecar" / "b.rego").write_text("package sidecar.b\n\nwithheld := true\n")
    before = load_folder(folder)
    gone = (folder / "sidecar" / "b.rego").read_bytes()
    forged = folder / f"sidecar/a.rego\n{hashlib.sha256(gone).hexdigest()}  sidecar/b.rego"
    forged.parent.mkdir()
    (folder / "sidecar" / "a.rego").rename(forged)
    (folder / "sidecar" / "b.rego").unlink()
    files = [(str(path.relative_to(folder)), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]
    assert bundle.digest("x", files) == before.revision, "the list of its files is that of the other bundle"
    assert "not a plain one" in finding(folder)


@pytest.mark.parametrize("name", [b"\xff.rego", b"a\\b.rego", b"a\x1b[2J.rego", b"\xe2\x80\xaea.rego"])
def test_a_name_that_is_not_what_it_looks_like(folder: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(folder / "sidecar") + b"/" + name)).write_text("package sidecar.a\n")
    text = finding(folder)
    assert "not a plain one" in text
    assert text.isprintable(), "the message itself is harmless in a terminal"


def test_a_pipe_without_a_writer_holds_nobody_up(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "sidecar" / "pipe.rego")
    os.mkfifo(tmp_path / "b.tar.gz")
    found: list[str] = []

    def read() -> None:
        found.extend((finding(folder), finding(tmp_path / "b.tar.gz")))

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    reading.join(SECONDS)
    assert ["not a regular file" in one for one in found] == [True, True]


# -- content ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["utf-16", "utf-32", "utf-16-le", "utf-8-sig"])
@pytest.mark.parametrize("name", [".manifest", "sidecar/limits/data.json"])
def test_json_is_utf8_and_nothing_else(folder: Path, name: str, coding: str) -> None:
    """Another reader would see another text, or none."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes('{"roots": ["sidecar"]}'.encode(coding))
    assert any(words in finding(folder) for words in ("not UTF-8", "not JSON", "UTF-8 BOM"))


@pytest.mark.parametrize("name", [".manifest", "sidecar/limits/data.json"])
def test_half_a_character_is_a_finding_not_a_crash(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text('{"roots": ["sidecar"], "metadata": {"x": "\\ud800"}}')
    assert "lone surrogate" in finding(folder)


@pytest.mark.parametrize("before", ["  ", "\t", "# package sidecar\n ", "\r\n "])
def test_a_later_line_of_a_text_is_not_the_package(folder: Path, before: str) -> None:
    """The first statement is; a text in backticks may hold a line that looks like one."""
    (folder / "sidecar" / "more.rego").write_text(f"{before}package elsewhere\n\ntext := `\npackage sidecar.more\n`\n")
    assert "outside of the manifest's roots (found 'elsewhere')" in finding(folder)


def test_what_stands_before_the_package_is_comments(folder: Path) -> None:
    (folder / "sidecar" / "more.rego").write_text("# package elsewhere\n\r\n \t# more\n package\tsidecar.more\n")
    assert activate(load_folder(folder), "x", EmbeddedMaker(5.0)).tests_passed == 1


def test_a_small_archive_of_very_many_small_values_is_refused_before_they_are_made(
    folder: Path, tmp_path: Path
) -> None:
    """Sixty thousand bytes would become gigabytes, in a process that has not seen a signature yet."""
    size = (60 << 20) // 3
    files = [(name, content) for name, content in load_folder(folder).files]
    files += [("sidecar/limits/data.json", b'{"a": [' + b"[]," * size + b"0]}")]
    packed = archive.write_archive(files)
    assert len(packed) < 200_000
    (tmp_path / "b.tar.gz").write_bytes(packed)
    assert f"more than {bundle.MAX_VALUES} values" in finding(tmp_path / "b.tar.gz")
    split = [(name, content) for name, content in load_folder(folder).files]
    split += [(f"sidecar/n{n}/data.json", b'{"a": [' + b"0," * (bundle.MAX_VALUES // 8) + b"0]}") for n in range(9)]
    (tmp_path / "b.tar.gz").write_bytes(archive.write_archive(split))
    assert f"more than {bundle.MAX_VALUES} values" in finding(tmp_path / "b.tar.gz"), "all files count together"


# -- signatures -------------------------------------------------------------------------------------------------------


def signers(**keys: object):
    rows = [{"id": name, "key": public_pem(key), "algorithm": "EdDSA"} for name, key in keys.items()]  # type: ignore[arg-type]
    return signers_of({"signers": rows}, "signers.yaml", Path.read_bytes)


def verified(found: bundle.Bundle, require: int = 1) -> tuple[str, ...]:
    return signatures.verify(found, signers(alice=ALICE, bob=BOB), require=require, now=NOW, where="x")


def with_tokens(found: bundle.Bundle, *tokens: str) -> bundle.Bundle:
    return replace(found, signatures=json.dumps({"signatures": tokens}).encode())


def tokens(found: bundle.Bundle) -> list[str]:
    return json.loads(found.signatures)["signatures"]


def test_one_person_who_signs_twice_is_one_person(folder: Path) -> None:
    once, later = (signed(load_folder(folder), ("alice", ALICE), now=at) for at in (NOW, NOW - 60))
    twice = with_tokens(once, *tokens(once), *tokens(once), *tokens(later))
    assert verified(twice) == ("alice",)
    with pytest.raises(ConfigurationError, match="1 of 2 signatures"):
        verified(twice, require=2)


def test_one_key_under_two_names_signs_for_nobody(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="two signers with one key"):
        signers(alice=ALICE, carol=ALICE)
    both = signed(load_folder(folder), ("alice", ALICE), ("bob", ALICE))
    with pytest.raises(ConfigurationError, match="1 of 2 signatures.*does not verify with the key of bob"):
        verified(both, require=2)


def test_signatures_of_another_bundle_do_not_come_along(folder: Path, tmp_path: Path) -> None:
    other = signed(load_folder(write_policy(tmp_path / "other", ttl_seconds=9)), ("alice", ALICE), ("bob", BOB))
    stolen = replace(load_folder(folder), signatures=other.signatures)
    with pytest.raises(ConfigurationError, match="sidecar/decision.rego is not the file that was signed"):
        verified(stolen)
    half = with_tokens(stolen, *tokens(signed(load_folder(folder), ("alice", ALICE))), tokens(other)[1])
    with pytest.raises(ConfigurationError, match="1 of 2 signatures"):
        verified(half, require=2)


@pytest.mark.parametrize("header", ['{"a":' + "[" * 100_000, '{"alg":"EdDSA","kid":"alice","x":"' + "x" * 5_000 + '"}'])
def test_what_is_read_before_a_signature_is_verified_is_small(folder: Path, header: str) -> None:
    good = signed(load_folder(folder), ("alice", ALICE))
    _, payload, signature = tokens(good)[0].split(".")
    bad = base64.urlsafe_b64encode(header.encode()).decode().rstrip("=")
    bent = with_tokens(good, f"{bad}.{payload}.{signature}")
    with pytest.raises(ConfigurationError, match="its header is too long"):
        verified(bent)
    assert verified(with_tokens(good, f"{bad}.{payload}.{signature}", *tokens(good))) == ("alice",)


# -- decisions of the wrong type --------------------------------------------------------------------------------------

DENY = {**PERMIT, "effect": "deny", "reasons": [{"code": "not_us_personnel", "message": "no", "rule": "sidecar.trial"}]}
REASON = DENY["reasons"][0]  # type: ignore[index]
WRONG: dict[str, object] = {
    "effect_unknown": {**DENY, "effect": "allow"},
    "effect_true": {**DENY, "effect": True},
    "effect_missing": {key: value for key, value in DENY.items() if key != "effect"},
    "reasons_none": {**DENY, "reasons": []},
    "reasons_object": {**DENY, "reasons": REASON},
    "reason_text": {**DENY, "reasons": ["not_us_personnel"]},
    "reason_unknown": {**DENY, "reasons": [{**REASON, "code": "because"}]},  # type: ignore[dict-item]
    "reason_without_rule": {**DENY, "reasons": [{**REASON, "rule": ""}]},  # type: ignore[dict-item]
    "reason_message_null": {**DENY, "reasons": [{**REASON, "message": None}]},  # type: ignore[dict-item]
    "obligations_null": {**DENY, "obligations": None},
    "obligations_object": {**DENY, "obligations": {"id": "redact_fields"}},
    "obligation_text": {**DENY, "obligations": ["redact_fields"]},
    "obligation_nameless": {**DENY, "obligations": [{"fields": []}]},
    "obligation_wrong_argument": {**DENY, "obligations": [{"id": "recheck_seconds", "seconds": "30"}]},
    "obligation_without_argument": {**DENY, "obligations": [{"id": "recheck_seconds"}]},
    "advice_number": {**DENY, "advice": [1]},
    "advice_text": {**DENY, "advice": "none"},
    "ttl_text": {**DENY, "ttl_seconds": "30"},
    "ttl_negative": {**DENY, "ttl_seconds": -1},
    "ttl_null": {**DENY, "ttl_seconds": None},
    "ttl_true": {**DENY, "ttl_seconds": True},
    "more": {**DENY, "allow": True},
    "a_list": [DENY],
    "a_number": 1,
    "null": None,
}


@pytest.mark.parametrize("document", WRONG.values(), ids=WRONG.keys())
async def test_what_is_no_decision_is_not_activated_and_refuses_the_call(folder: Path, document: object) -> None:
    (folder / "sidecar" / "decision.rego").write_text(f"package sidecar\n\ndecision := {json.dumps(document)}\n")
    (folder / "sidecar" / "decision_test.rego").write_text("package sidecar.decision_test\n\ntest_one if 1 == 1\n")
    found = load_folder(folder)
    with pytest.raises(ConfigurationError, match="not a decision document"):
        activate(found, "x", EmbeddedMaker(5.0))
    with pytest.raises(DecideError, match="no valid decision"):
        await EmbeddedMaker(5.0).make(found).decide(AMY, canonical(AMY))
