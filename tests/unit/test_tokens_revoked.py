"""The revocation list: asked on every call, and closed when damaged."""

import json

import pytest
from identity_provider import BATCH, NOW, WEB, Clock, Provider, desk

from sidecar.attributes.revoked import MAX_AGE, Revocations, RevokedFormatError, marks_of, parse_revoked
from sidecar.errors import Code, IdentifyError

pytestmark = pytest.mark.unit
IDP = Provider()


def listed(tmp_path, *lines, clock=None):
    path = tmp_path / "revoked.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    revocations = Revocations(path, clock=clock or Clock())
    revocations.load()
    return revocations


def code_of(ask, *args, **more):
    with pytest.raises(IdentifyError) as caught:
        ask(*args, **more)
    return caught.value.code


@pytest.mark.parametrize(
    "line",
    [
        {"jti": "j1"},
        {"jti": "j1", "iss": "https://idp.corp"},
        {"sub": "p1", "reason": "left", "revoked_at": "2027-01-15T00:00:00Z"},
        {"sub": "p1", "iss": "https://idp.corp"},
        {"sub": WEB},
        {"sub": "p2"},  # the current actor
        {"sub": "earlier"},  # an actor further down
    ],
)
def test_a_revoked_token_is_refused_though_it_was_kept(tmp_path, line):
    clock = Clock()
    revocations = listed(tmp_path, clock=clock)
    at = desk(IDP, revocations=revocations)
    token = IDP.token(jti="j1", act={"sub": "p2", "act": {"sub": "earlier"}})
    assert at.ask(token).person == "p1"
    (tmp_path / "new").write_text(json.dumps(line) + "\n")
    (tmp_path / "new").rename(tmp_path / "revoked.jsonl")
    revocations.load()
    assert code_of(at.ask, token) is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    "line", [{"jti": "j2"}, {"sub": "p9"}, {"jti": "p1"}, {"sub": "j1"}, {"sub": "p1", "iss": "https://other"}]
)
def test_others_are_not_affected(tmp_path, line):
    at = desk(IDP, revocations=listed(tmp_path, line))
    assert at.ask(IDP.token(jti="j1")).person == "p1"


def test_a_workload_without_token_can_be_revoked(tmp_path):
    at = desk(IDP, revocations=listed(tmp_path, {"sub": BATCH}))
    with pytest.raises(IdentifyError) as caught:
        at.ask(None, peer=(BATCH,))
    assert (caught.value.code, caught.value.reason) == (Code.UNAUTHENTICATED, "unidentified_workload")


def test_a_person_known_by_another_claim_is_revoked_by_either_name(tmp_path):
    provider = Provider(subject_claim="employee")
    for name in ("opaque", "p1"):
        at = desk(provider, revocations=listed(tmp_path, {"sub": name}))
        assert code_of(at.ask, provider.token(sub="opaque", employee="p1")) is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (b'{"jti": "a"}\n{"jti": ', "line 2"),
        (b"{}\n", "line 1"),
        (b'\n\n{"jti": "a", "sub": "b"}', "line 3"),
        (b'{"jtl": "a"}', "line 1"),
        (b'{"jti": 7}', "line 1"),
        (b'{"jti": "\xff"}', "line 1"),
        (b"[" * 5000, "line 1"),
    ],
)
def test_a_damaged_list_refuses_every_call_and_names_the_line(tmp_path, damage, where):
    revocations = listed(tmp_path, {"jti": "j1"})
    at = desk(IDP, revocations=revocations)
    assert at.ask(IDP.token())
    (tmp_path / "revoked.jsonl").write_bytes(damage)
    revocations.load()
    for token, peer in ((IDP.token(), (WEB,)), (None, (BATCH,))):
        with pytest.raises(IdentifyError) as caught:
            at.ask(token, peer=peer)
        assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "stale_directory")
        assert where in caught.value.operator
        assert where not in caught.value.message
    (tmp_path / "revoked.jsonl").write_bytes(b'{"jti": "j1"}\n')
    revocations.load()
    assert at.ask(IDP.token())
    with pytest.raises(RevokedFormatError, match=where):
        parse_revoked(damage)


def test_a_missing_list_refuses_every_call(tmp_path):
    revocations = Revocations(tmp_path / "none", clock=Clock())
    at = desk(IDP, revocations=revocations)
    assert code_of(at.ask, IDP.token()) is Code.UNAVAILABLE
    revocations.load()
    assert code_of(at.ask, IDP.token()) is Code.UNAVAILABLE
    assert revocations.error == "No such file or directory"
    folder = Revocations(tmp_path, clock=Clock())
    folder.load()
    assert folder.error == "not a regular file"


def test_a_list_nobody_reads_any_more_refuses(tmp_path):
    clock = Clock()
    revocations = listed(tmp_path, clock=clock)
    at = desk(IDP, revocations=revocations)
    assert at.ask(IDP.token(), now=NOW + MAX_AGE)
    assert code_of(at.ask, IDP.token(), now=NOW + MAX_AGE + 1) is Code.UNAVAILABLE
    clock.now += MAX_AGE
    revocations.load()
    assert at.ask(IDP.token(), now=NOW + MAX_AGE + 1)


def test_damage_is_reported_once(tmp_path):
    said = []
    path = tmp_path / "revoked.jsonl"
    path.write_text('{"jti": "a"}\n\n{"sub": "b"}\n')
    revocations = Revocations(path, clock=Clock(), report=lambda event, detail: said.append(event))
    revocations.load()
    revocations.load()
    assert revocations.size == 2
    path.write_text("{")
    revocations.load()
    revocations.load()
    assert said == ["revoked_loaded", "revoked_damaged"]


def test_a_list_beyond_the_bound_is_not_read(tmp_path):
    path = tmp_path / "revoked.jsonl"
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    revocations = Revocations(path, clock=Clock())
    revocations.load()
    assert revocations.error == "more than 16777216 bytes"


async def test_without_a_list_there_is_nothing_to_poll():
    revocations = Revocations(None, clock=Clock())
    revocations.load()
    await revocations.run()
    assert not revocations.check(marks_of(issuer="i", jti="j", subjects=("s",)), 0.0)
