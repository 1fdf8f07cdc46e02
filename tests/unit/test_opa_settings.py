"""From `decision` in sidecar.yaml to engines, and what is told when two of them differ."""

from pathlib import Path
from typing import get_args

import pytest
from opa_parts import DENY, PERMIT, REVISION

from sidecar.decision.document import parse_decision
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.opa import OpaAtUrl, OpaMaker
from sidecar.decision.verified import Disagreement, VerifiedMaker
from sidecar.errors import ConfigurationError
from sidecar.main import engines
from sidecar.main.disagreements import Disagreements
from sidecar.observability.metrics import CallStats
from sidecar.record import RecordType
from sidecar.settings.policy import DecisionEngine


def made(**decision: object):
    return engines.maker(DecisionEngine.model_validate(decision), lambda *_said: None)


@pytest.fixture
def opa(tmp_path: Path) -> str:
    program = tmp_path / "opa"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


def test_the_settings_choose_the_engine(opa):
    assert isinstance(made(), EmbeddedMaker)
    assert isinstance(made(engine="opa", opa={"command": opa}), OpaMaker)
    assert isinstance(made(engine="opa", opa={"url": "http://127.0.0.1:8181"}), OpaAtUrl)
    assert isinstance(made(engine="opa", opa={"url": "https://opa.corp:8181/x"}), OpaAtUrl)


@pytest.mark.parametrize("first", ["embedded", "opa"])
def test_the_settings_choose_what_checks_it(opa, first):
    second = "opa" if first == "embedded" else "embedded"
    maker = made(engine=first, verify_with=second, opa={"command": opa}, sample=0.25, on_disagreement="refuse")
    assert isinstance(maker, VerifiedMaker)
    assert maker.name == first
    assert maker._second.name == second
    assert (maker._checks.sample, maker._checks.refuse) == (0.25, True)
    assert not made(engine=first, verify_with=second, opa={"command": opa})._checks.refuse


@pytest.mark.parametrize(
    "url",
    ["http://opa.corp:8181", "http://10.0.0.1:8181", "http://127.0.0.1.corp/", "https://user:pass@opa.corp",
     "https://opa.corp/?a=b", "https://opa.corp/#a", "https://opa.corp:0", "https://opa.corp:99999", "http://[::1"],
)  # fmt: skip
def test_who_could_be_anybody_may_not_decide(url):
    with pytest.raises(ConfigurationError) as caught:
        made(engine="opa", opa={"url": url})
    assert caught.value.where == "decision.opa.url"


def test_an_address_becomes_its_parts():
    plain = made(engine="opa", opa={"url": "http://[::1]:9000/opa/"})._address
    assert (plain.host, plain.port, plain.prefix, plain.tls) == ("::1", 9000, "/opa", None)
    secure = made(engine="opa", opa={"url": "https://opa.corp"})._address
    assert (secure.host, secure.port) == ("opa.corp", 443)
    assert secure.tls.check_hostname
    assert secure.root == "https://opa.corp:443"


def test_authorities_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(ConfigurationError, match=r"decision\.opa\.ca"):
            made(engine="opa", opa={"url": "https://opa.corp", "ca": str(tmp_path / name)})


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_token_is_read_again_and_kept_when_it_cannot_be(tmp_path):
    file, clock = tmp_path / "token", Clock()
    file.write_text("one\n")
    token = engines.TokenFile(file, clock)
    file.write_text("two\n")
    assert token() == "one"
    clock.now = 10
    assert token() == "two"
    file.unlink()
    clock.now = 20
    assert token() == "two"


@pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"a\nb", b"\xff", b"a\r\nX-Other: b"])
def test_what_is_no_token_is_named(tmp_path, content):
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"decision\.opa\.token_file"):
        engines.TokenFile(tmp_path / "token", Clock())


# -- what is told ---------------------------------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **details: object) -> None:
        self.lines.append((event, details))

    error = warning


FOUND = Disagreement(
    input_sha256="ab" * 32, revision=REVISION, engines=("embedded", "opa"), first=parse_decision(PERMIT),
    second=parse_decision(DENY),
)  # fmt: skip


async def test_a_disagreement_is_logged_counted_and_recorded():
    log, stats, said = Log(), CallStats(), []
    differences = Disagreements(log, stats)

    async def say(kind, details):
        said.append((kind, details))

    await differences.differ(FOUND)
    assert said == []
    differences.connect(say)
    await differences.differ(FOUND)
    want = {
        "input_sha256": "ab" * 32, "policy": REVISION, "first_engine": "embedded", "first_effect": "permit",
        "first_reasons": ["trial"], "second_engine": "opa", "second_effect": "deny",
        "second_reasons": ["not_us_personnel"],
    }  # fmt: skip
    assert said == [("engine_disagreement", want)]
    assert log.lines == [("engine_disagreement", want)] * 2
    assert stats.events == {("engine_disagreement", ""): 2}
    assert "engine_disagreement" in get_args(RecordType)


def test_what_was_not_checked_is_counted_and_logged_now_and_then():
    log, stats, clock = Log(), CallStats(), Clock()
    differences = Disagreements(log, stats, clock)
    for _ in range(100):
        differences.unchecked("dropped", "many")
    clock.now = 61
    differences.unchecked("no_answer", "away")
    assert stats.events == {("engine_unchecked", "dropped"): 100, ("engine_unchecked", "no_answer"): 1}
    assert [details["why"] for _, details in log.lines] == ["dropped", "no_answer"]
