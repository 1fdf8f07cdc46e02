"""The settings of the policy, of who answers from it, and of what counts beside it."""

from pathlib import Path

import pytest
from settings_files import SIDECAR, changed, refused, written

from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings


def settings(folder: Path, key: str, value: object) -> SidecarSettings:
    return load(written(folder, changed(key, value)), SidecarSettings, {})


@pytest.mark.parametrize(
    "source",
    [
        {"folder": "p"},
        {"file": "p.tar.gz", "poll": "5s"},
        {"url": "https://policies.corp/bundle.tar.gz", "wait": "30s", "ca": "ca.pem", "token_file": "token"},
        {"s3": "s3://policies/bundle.tar.gz", "region": "us-ashburn-1", "endpoint": "https://objects.corp"},
    ],
)
def test_a_bundle_comes_from_one_of_four_places(tmp_path: Path, source: dict[str, str]) -> None:
    bundle = settings(tmp_path, "policy.bundle", source).policy.bundle
    given = [name for name in ("folder", "file", "url", "s3") if getattr(bundle, name) is not None]
    assert given == [next(iter(source))]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, "exactly one of folder, file, url and s3"),
        ({"folder": "p", "file": "p.tar.gz"}, "exactly one of folder, file, url and s3"),
        ({"folder": "p", "wait": "30s"}, "wait goes with url"),
        ({"file": "p.tar.gz", "token_file": "t"}, "token_file goes with url"),
        ({"url": "https://x/b", "region": "r"}, "region goes with s3"),
        ({"folder": "p", "ca": "ca.pem"}, "ca goes with url or s3"),
        ({"url": "ftp://x/b"}, "url"),
        ({"s3": "policies/bundle.tar.gz"}, "s3"),
    ],
)
def test_a_source_that_says_too_much_or_too_little_is_refused(
    tmp_path: Path, source: dict[str, str], said: str
) -> None:
    assert said in refused(tmp_path, "policy.bundle", source)


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        ({"engine": "opa"}, "the OPA engine needs decision.opa"),
        ({"verify_with": "opa"}, "the OPA engine needs decision.opa"),
        ({"verify_with": "embedded"}, "verify_with is the other engine"),
        ({"opa": {"command": "opa"}}, "decision.opa is not used"),
        ({"engine": "opa", "opa": {}}, "exactly one of url and command"),
        (
            {"engine": "opa", "opa": {"command": "opa", "url": "http://127.0.0.1:8181"}},
            "exactly one of url and command",
        ),
        ({"engine": "opa", "opa": {"command": "opa", "ca": "ca.pem"}}, "ca and token_file go with url"),
        ({"engine": "opa", "opa": {"command": "opa"}, "sample": 1.5}, "sample"),
    ],
)
def test_who_answers_has_to_make_sense(tmp_path: Path, decision: dict[str, object], said: str) -> None:
    assert said in refused(tmp_path, "decision", decision)


def test_one_engine_may_check_the_other(tmp_path: Path) -> None:
    found = settings(
        tmp_path, "decision", {"verify_with": "opa", "opa": {"command": "opa"}, "on_disagreement": "refuse"}
    ).decision
    assert (found.engine, found.verify_with, found.sample, found.on_disagreement) == ("embedded", "opa", 1.0, "refuse")


def test_a_shadow_has_a_source_of_its_own(tmp_path: Path) -> None:
    found = settings(tmp_path, "shadow", {"bundle": {"file": "next.tar.gz"}, "sample": 0.1}).shadow
    assert found is not None
    assert (found.bundle.file, found.sample) == (tmp_path / "next.tar.gz", 0.1)


def test_authorizations_name_who_may_sign_them(tmp_path: Path) -> None:
    assert "identity.authorizations.keys: " in refused(tmp_path, "identity.authorizations", {"file": "a.jsonl"})


def test_the_ledger_is_reached_with_a_certificate(tmp_path: Path) -> None:
    assert "ledger.tls: " in refused(tmp_path, "ledger", {"address": "ledger:9445"})


def test_the_settings_these_tests_change_are_good(tmp_path: Path) -> None:
    assert load(written(tmp_path, SIDECAR), SidecarSettings, {}).policy.bundle.folder == tmp_path / "policies"
