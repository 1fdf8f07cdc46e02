"""Signatures of bundles: whose count, of what, and when."""

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from bundle_signing import NOW, ec_key, ed25519_key, public_pem, rsa_key, signed, write_signers
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.decision import signatures
from sidecar.decision.bundle import Bundle, assemble
from sidecar.decision.signers import Signer, Signers, signers_of
from sidecar.errors import ConfigurationError
from sidecar.main.policy_signers import Signatures, read_signers

FILES = {
    ".manifest": b'{"roots": ["sidecar", "limits"]}',
    "sidecar/decision.rego": b"package sidecar\n\ndecision := 1\n",
    "limits/data.json": b'{"ttl": 5, "a": ["x", null, true, {"b": -3}]}',
    "schemas/corpus.json": b"[]",
}
ALICE, BOB, CAROL = ed25519_key(), ec_key(), rsa_key()
KEYS = {"alice": ALICE, "bob": BOB, "carol": CAROL}
ALGORITHMS = {"alice": "EdDSA", "bob": "ES256", "carol": "RS256"}


@pytest.fixture
def bundle() -> Bundle:
    return assemble("test", FILES)


def listed(**more: object) -> Signers:
    """All three; `until_alice` and so on, `revoked`, `scope`."""
    rows = {
        name: Signer(id=name, key=key.public_key(), algorithm=ALGORITHMS[name], until=more.get(f"until_{name}"))
        for name, key in KEYS.items()
    }  # fmt: skip
    return Signers(by_id=rows, revoked=frozenset(more.get("revoked", ())), scope=more.get("scope", ""))


def counted(bundle: Bundle, require: int = 1, signers: Signers | None = None, now: float = NOW) -> tuple[str, ...]:
    return signatures.verify(bundle, signers or listed(), require=require, now=now, where="test")


def finding(bundle: Bundle, require: int = 1, signers: Signers | None = None, now: float = NOW) -> str:
    with pytest.raises(ConfigurationError) as caught:
        counted(bundle, require, signers, now)
    assert caught.value.where.startswith("test")
    assert caught.value.fix
    return str(caught.value)


def forged(
    bundle: Bundle, key: object = ALICE, algorithm: str = "EdDSA", header: dict | None = None, **claims
) -> Bundle:
    """One signature whose claims a test chooses; without `files`, those of the bundle."""
    made = json.loads(signed(bundle, ("alice", ALICE)).signatures)["signatures"][0]
    payload = {**jwt.decode(made, options={"verify_signature": False}), **claims}
    payload = {name: value for name, value in payload.items() if value is not None}
    token = jwt.encode(payload, key, algorithm=algorithm, headers={"kid": "alice"} if header is None else header)
    return replace(bundle, signatures=json.dumps({"signatures": [token]}).encode())


def entries(bundle: Bundle) -> list[dict[str, str]]:
    made = json.loads(signed(bundle, ("alice", ALICE)).signatures)["signatures"][0]
    return jwt.decode(made, options={"verify_signature": False})["files"]


# --- who counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KEYS)
def test_each_kind_of_key_signs(bundle, name):
    assert counted(signed(bundle, (name, KEYS[name]))) == (name,)


def test_k_of_n_are_different_people(bundle):
    one = signed(bundle, ("alice", ALICE))
    assert "1 of 2" in finding(one, 2)
    assert counted(signed(one, ("bob", BOB)), 2) == ("alice", "bob")
    twice = signed(one, ("alice", ALICE), now=NOW + 5)
    assert len(json.loads(twice.signatures)["signatures"]) == 1
    doubled = replace(one, signatures=json.dumps({"signatures": json.loads(one.signatures)["signatures"] * 2}).encode())
    assert "1 of 2" in finding(doubled, 2)


def test_a_bad_signature_beside_enough_good_ones_is_no_matter(bundle):
    found = signed(bundle, ("alice", ALICE), ("mallory", ed25519_key()), ("bob", BOB))
    assert counted(found, 2) == ("alice", "bob")
    assert "signature 2: mallory is no signer of the list" in finding(found, 3)


def test_an_unsigned_bundle_is_refused(bundle):
    assert "is not signed" in finding(bundle)


def test_whoever_is_revoked_or_whose_time_has_run_out_does_not_count(bundle):
    found = signed(bundle, ("alice", ALICE), ("bob", BOB))
    assert counted(found, 1, listed(revoked=["alice"])) == ("bob",)
    assert "alice is revoked" in finding(found, 2, listed(revoked=["alice"]))
    assert counted(found, 2, listed(until_bob=NOW + 1)) == ("alice", "bob")
    assert "the time of bob has run out" in finding(found, 2, listed(until_bob=NOW))


def test_a_key_of_one_s_own_does_not_sign_for_another(bundle):
    assert "does not verify with the key of alice" in finding(signed(bundle, ("alice", ed25519_key())))
    assert "does not verify" in finding(signed(bundle, ("alice", BOB)))


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_the_algorithm_is_the_key_s_not_the_token_s(bundle, algorithm):
    """The classic: an HMAC whose secret is the public key, or no signature at all."""
    key = None if algorithm == "none" else base64.b64encode(public_pem(CAROL).encode()).decode()
    assert "does not verify" in finding(forged(bundle, key, algorithm, {"kid": "carol"}, keyid="carol"))


def test_rsa_of_another_kind_than_listed(bundle):
    assert "does not verify" in finding(forged(bundle, CAROL, "PS256", {"kid": "carol"}, keyid="carol"))


@pytest.mark.parametrize(
    ("header", "claims", "words"),
    [
        ({}, {"keyid": None}, "nobody is no signer"),
        ({"kid": "alice"}, {"keyid": "bob"}, "two signers"),
        ({"kid": 5}, {}, "JWT"),
        ({"kid": "alice", "crit": ["x"], "x": 1}, {}, "JWT"),
    ],
)
def test_who_signed_is_said_once(bundle, header, claims, words):
    try:
        made = forged(bundle, header=header, **claims)
    except jwt.PyJWTError:
        token = f"{coded(json.dumps({'alg': 'EdDSA', **header}))}.{coded(json.dumps({'files': []}))}.AAAA"
        made = replace(bundle, signatures=json.dumps({"signatures": [token]}).encode())
    assert words in finding(made)


def coded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def test_the_older_name_of_the_claim_is_understood(bundle):
    assert counted(forged(bundle, header={})) == ("alice",)


# --- of what -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_file_counts(bundle, name):
    content = b'[{"version": 1}]' if name.startswith("schemas") else FILES[name]
    if name == ".manifest":
        content = FILES[name].replace(b"}", b', "metadata": {"label": "another"}}')
    elif name.endswith(".rego"):
        content += b"\n"
    elif name == "limits/data.json":
        content = content.replace(b"5", b"6")
    other = replace(bundle, files=tuple((one, content if one == name else text) for one, text in bundle.files))
    good = signed(bundle, ("alice", ALICE)).signatures
    assert f"{name} is not the file that was signed" in finding(replace(other, signatures=good))


def test_json_counts_as_what_it_says(bundle):
    """White space and order do not, as with OPA; in Rego they do."""
    data = b'{ "a" :["x",null,true,{"b":-3}],\n"ttl": 5}'
    other = assemble("test", {**FILES, "limits/data.json": data})
    assert counted(replace(other, signatures=signed(bundle, ("alice", ALICE)).signatures)) == ("alice",)


def test_a_file_more_or_less_is_seen(bundle):
    good = signed(bundle, ("alice", ALICE)).signatures
    more = assemble("test", {**FILES, "sidecar/more.rego": b"package sidecar.more\n"})
    assert "does not list sidecar/more.rego" in finding(replace(more, signatures=good))
    less = assemble("test", {name: text for name, text in FILES.items() if name != "limits/data.json"})
    assert "lists limits/data.json, which is not in the bundle" in finding(replace(less, signatures=good))


def test_a_file_is_listed_once(bundle):
    twice = [*entries(bundle), entries(bundle)[0]]
    assert "listed twice" in finding(forged(bundle, files=twice))


def test_files_that_nobody_reads_may_be_listed(bundle):
    more = [*entries(bundle), {"name": "README.md", "hash": "00", "algorithm": "SHA-256"}]
    assert counted(forged(bundle, files=more)) == ("alice",)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-1", "SHA-512", ""])
def test_other_digests_do_not_count(bundle, algorithm):
    other = [{**one, "algorithm": algorithm} for one in entries(bundle)]
    assert "not SHA-256" in finding(forged(bundle, files=other))


def test_names_are_not_tidied(bundle):
    slashed = [{**one, "name": f"/{one['name']}"} for one in entries(bundle)]
    assert finding(forged(bundle, files=slashed))


# --- when, and for what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"exp": NOW}, "has expired"),
        ({"iat": NOW + 301}, "in the future"),
        ({"nbf": NOW + 301}, "in the future"),
        ({"scope": "write"}, "for the scope 'write'"),
        ({"files": None}, "lists no files"),
        ({"files": [{"name": "a"}]}, "lists no files"),
        ({"iat": "yesterday"}, "lists no files"),
    ],
)
def test_what_a_signature_says_of_itself(bundle, claims, words):
    assert words in finding(forged(bundle, **claims))


def test_scope_and_times_that_fit(bundle):
    assert counted(forged(bundle, exp=NOW + 1, iat=NOW + 300, nbf=NOW)) == ("alice",)
    assert counted(forged(bundle, scope="write"), 1, listed(scope="write")) == ("alice",)
    assert "not 'write'" in finding(signed(bundle, ("alice", ALICE)), 1, listed(scope="write"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no list of signatures"),
        (b"\xff", "no list of signatures"),
        (b'{"signatures": []}', "not 1 to 16"),
        (b'{"signatures": [1]}', "no list of signatures"),
        (b'{"signatures": ["x"], "plugin": "mine"}', "no list of signatures"),
        (json.dumps({"signatures": ["x"] * 17}).encode(), "not 1 to 16"),
        (b'{"signatures": ["x"]}', "it is no JWT"),
        (b'{"signatures": ["a.b.c"]}', "it is no JWT"),
    ],
)
def test_what_is_no_signature_is_named(bundle, content, words):
    assert words in finding(replace(bundle, signatures=content))


def test_signing_anew_drops_signatures_of_other_content(bundle):
    before = signed(bundle, ("alice", ALICE))
    other = assemble("test", {**FILES, "limits/data.json": b"{}"})
    found = signed(replace(other, signatures=before.signatures), ("bob", BOB))
    assert counted(found) == ("bob",)
    assert len(json.loads(found.signatures)["signatures"]) == 1


def test_a_curve_that_no_algorithm_fits(bundle):
    with pytest.raises(ConfigurationError, match="does not sign bundles"):
        signed(bundle, ("alice", ec.generate_private_key(ec.SECP256K1())))


def test_strings_are_digested_as_go_writes_them(bundle):
    """v1/bundle/hash.go of OPA: no HTML escapes, but U+2028 and U+2029 are always escaped."""
    data = {"a": '<&>\N{LINE SEPARATOR}\N{PARAGRAPH SEPARATOR}é\x7f\x01\t"\\/', "é": 1, "b": 2}
    other = assemble("test", {**FILES, "limits/data.json": json.dumps(data).encode()})
    expected = b'{"a":"<&>\\u2028\\u2029\xc3\xa9\x7f\\u0001\\t\\"\\\\/","b":2,"\xc3\xa9":1}'
    said = {one["name"]: one["hash"] for one in entries(other)}
    assert said["limits/data.json"] == hashlib.sha256(expected).hexdigest()


# --- the signers' file -------------------------------------------------------------------------------------------


def row(name: str = "alice", key: object = ALICE, **more: object) -> dict[str, object]:
    return {"id": name, "key": public_pem(key), "algorithm": "EdDSA", **more}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ([], "no list of signers"),
        ({"signers": []}, "not 1 to 64"),
        ({"signers": [row()], "more": 1}, "no list of signers"),
        ({"signers": [{**row(), "more": 1}]}, "no list of signers"),
        (
            {
                "signers": [
                    row(""),
                ]
            },
            "empty, or stands twice",
        ),
        ({"signers": [row(), row("Alice", ed25519_key())]}, "empty, or stands twice"),
        ({"signers": [row(), row("bob")]}, "two signers with one key"),
        ({"signers": [row(algorithm="ES256")]}, "does not fit the key"),
        ({"signers": [row(algorithm="HS256")]}, "does not fit the key"),
        ({"signers": [row(key=rsa_key(1024), algorithm="RS256")]}, "none: use"),
        ({"signers": [row(key=BOB, algorithm="ES384")]}, "It can do ES256"),
        ({"signers": [{**row(), "key": "-----BEGIN NOTHING-----"}]}, "no PEM public key"),
        ({"signers": [{**row(), "key": "missing.pub"}]}, "cannot be read"),
        ({"signers": [row(until="2027-06-30")]}, "no instant"),
        ({"signers": [row(until="soon")]}, "no instant"),
    ],
)
def test_what_is_wrong_with_the_signers_is_named(tree, words, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        signers_of(tree, "signers.yaml", lambda name: (tmp_path / name).read_bytes())
    assert words in str(caught.value)
    assert caught.value.fix


def test_a_signers_file_with_keys_beside_it(tmp_path: Path):
    (tmp_path / "alice.pub").write_text(public_pem(ALICE))
    file = tmp_path / "signers.yaml"
    file.write_text('signers:\n  - {id: alice, key: alice.pub, algorithm: EdDSA, until: "2027-06-30T00:00:00Z"}\n')
    found = read_signers(file)
    assert found.by_id["alice"].until == 1814313600.0
    file.write_text("signers: [")
    with pytest.raises(ConfigurationError, match="not YAML"):
        read_signers(file)
    file.write_bytes(b"x" * (1 << 19))
    with pytest.raises(ConfigurationError, match="larger than"):
        read_signers(file)


def test_a_key_in_base64(bundle):
    raw = base64.b64encode(ALICE.public_key().public_bytes_raw()).decode()
    found = signers_of(
        {"signers": [{"id": "alice", "key": raw, "algorithm": "EdDSA"}]}, "signers.yaml", Path.read_bytes
    )
    assert counted(signed(bundle, ("alice", ALICE)), 1, found) == ("alice",)


def test_the_file_is_read_again_when_it_or_a_key_beside_it_changes(bundle, tmp_path: Path):
    file = write_signers(tmp_path / "signers.yaml", {"alice": ALICE, "bob": BOB})
    checks = Signatures(file, 1, lambda: NOW)
    found = signed(bundle, ("alice", ALICE))
    assert checks.changed()
    assert not checks.changed()
    assert checks.check(found, "test") == ("alice",)
    write_signers(file, {"alice": ALICE, "bob": BOB}, revoked=["alice"])
    with pytest.raises(ConfigurationError, match="alice is revoked"):
        checks.check(found, "test")
    (tmp_path / "alice.pub").write_text(public_pem(ALICE))
    file.write_text("signers: [{id: alice, key: alice.pub, algorithm: EdDSA}]")
    assert checks.changed()
    assert checks.check(found, "test") == ("alice",)
    (tmp_path / "alice.pub").write_text(public_pem(ed25519_key()))
    assert checks.changed()
    with pytest.raises(ConfigurationError, match="does not verify"):
        checks.check(found, "test")


def test_a_file_that_cannot_be_used_admits_nobody_until_it_can(bundle, tmp_path: Path):
    file = tmp_path / "signers.yaml"
    checks = Signatures(file, 2, lambda: NOW)
    found = signed(bundle, ("alice", ALICE), ("bob", BOB))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        checks.check(found, "test")
    write_signers(file, {"alice": ALICE})
    with pytest.raises(ConfigurationError, match=r"fewer signers than policy.keys.require \(2\)"):
        checks.check(found, "test")
    write_signers(file, {"alice": ALICE, "bob": BOB})
    assert checks.check(found, "test") == ("alice", "bob")
