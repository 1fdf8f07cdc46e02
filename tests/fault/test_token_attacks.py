"""Tokens an attacker would try. None is accepted, each is refused as UNAUTHENTICATED, and nothing else is raised.

The caller's workload may act alone, so that an attack that turned a bad token into a missing one would get in. Beside
each kind of attack stands the honest token it was made from, which is accepted: the refusals are not for nothing.
Replay of a whole token by its own holder, within its life, is no attack that a bearer of it could be told from.
"""

import base64
import json
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_provider import BATCH, NOW, WEB, Provider, b64url, desk, jwks, new_key, public_jwk
from jwt.algorithms import HMACAlgorithm

from sidecar.errors import Code, IdentifyError

pytestmark = pytest.mark.fault
IDP = Provider(kid="es")
RSA = Provider(issuer="https://rsa.corp", algorithm="RS256", kid="rs")
USERS = Provider(issuer="https://users", kind="data_subject", kid="us")
P384 = Provider(issuer="https://p384.corp", algorithm="ES384", kid="p384")
PROVIDERS = (IDP, RSA, USERS, P384)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MINE = new_key("ES256")
MINE_RSA = new_key("RS256")


@cache
def counter():
    return desk(*PROVIDERS)


def honest(provider=IDP, **changes):
    return provider.sign(provider.header(), provider.claims(azp=BATCH, **changes))


def outcome(token, *, peer=(BATCH,), at=None):
    """None when accepted, the error when refused; anything else that is raised fails the test."""
    try:
        (at or counter()).ask(token, peer=peer)
    except IdentifyError as error:
        return error
    return None


def header(provider=IDP, **changes):
    return provider.sign(provider.header(**changes), provider.claims(azp=BATCH))


def claims(provider=IDP, **changes):
    return provider.sign(provider.header(), provider.claims(**{"azp": BATCH} | changes))


def parts(token):
    return token.split(".")


def joined(first, second, third):
    return f"{first}.{second}.{third}"


def hmac(secret, algorithm, provider, **more):
    head, body = provider.header(alg=algorithm, **more), provider.claims(azp=BATCH)
    signing = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(body).encode())}"
    digest = {"HS256": HMACAlgorithm.SHA256, "HS384": HMACAlgorithm.SHA384, "HS512": HMACAlgorithm.SHA512}[algorithm]
    return f"{signing}.{b64url(HMACAlgorithm(digest).sign(signing.encode(), secret))}"


def unsigned(signature=b"", **changes):
    first, second, _ = parts(IDP.sign(IDP.header(**changes), IDP.claims(azp=BATCH)))
    return joined(first, second, b64url(signature))


def public_forms(provider):
    key = provider.key.public_key()
    yield "pem", key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "pem without newline", key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).strip()
    yield "der", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    yield "jwk", json.dumps(provider.jwk()).encode()
    yield (
        "jwk, bare",
        json.dumps({k: v for k, v in provider.jwk().items() if k in {"kty", "crv", "x", "y", "n", "e"}}).encode(),
    )
    yield "jwks", jwks(provider.jwk())
    if isinstance(key, ec.EllipticCurvePublicKey):
        yield "point", key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        yield "compressed point", key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def algorithm_attacks():
    for name in ("none", "None", "NONE", "nOnE", "none ", "", "\0none"):
        yield f"alg {name!r}, empty signature", unsigned(alg=name)
        yield f"alg {name!r}, some signature", unsigned(b"x" * 64, alg=name)
        yield f"alg {name!r}, honest signature", header(alg=name)
    for provider in (IDP, RSA):
        for algorithm in ("HS256", "HS384", "HS512"):
            for form, secret in public_forms(provider):
                yield (
                    f"{algorithm} keyed with the public key of {provider.kid} as {form}",
                    hmac(secret, algorithm, provider),
                )
    for secret in (b"", b"\0", b"secret", b"es", b"https://idp.corp"):
        yield f"HS256 keyed with {secret!r}", hmac(secret or b"\0" * 32, "HS256", IDP)
    for algorithm in ("RS256", "PS256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "es256", "ES256 ", "ES-256"):
        yield f"an ES256 key said to be {algorithm}", header(alg=algorithm)
    for algorithm in ("PS256", "RS384", "RS512", "ES256"):
        yield f"an RS256 key said to be {algorithm}", RSA.sign(RSA.header(alg=algorithm), RSA.claims(azp=BATCH))
    yield "an RS256 key used for PS256", RSA.sign(RSA.header(alg="PS256"), RSA.claims(azp=BATCH), algorithm="PS256")
    yield "an RS256 key used for RS512", RSA.sign(RSA.header(alg="RS512"), RSA.claims(azp=BATCH), algorithm="RS512")
    for value in (None, 7, True, ["ES256"], {"ES256": 1}, ...):
        yield f"alg {value!r}", header(alg=value)
    for curve, algorithm in (("ES384", "ES384"), ("ES512", "ES512")):
        yield f"a key on the curve of {curve} as ES256", IDP.sign(
            IDP.header(), IDP.claims(azp=BATCH), key=new_key(curve), algorithm=algorithm)  # fmt: skip
    other = ec.generate_private_key(ec.SECP256K1())
    yield "a key on secp256k1", IDP.sign(IDP.header(alg="ES256K"), IDP.claims(azp=BATCH), key=other, algorithm="ES256K")
    yield (
        "a P-256 key for an issuer of P-384",
        P384.sign(P384.header(alg="ES256"), P384.claims(azp=BATCH), key=MINE, algorithm="ES256"),
    )


def key_attacks():
    mine = {"key": MINE}
    yield "own key under a known kid", IDP.sign(IDP.header(), IDP.claims(azp=BATCH), **mine)
    for kid in ("unknown", "", " es", "es ", "ES", "../../dev/null", "/dev/null", "file:///dev/null", "es\0", "es' OR '1'='1",
                "http://evil/jwks", "x" * 257, "$(id)", "еs", 0, None, True, ["es"], {"kid": "es"}, ...):  # fmt: skip
        yield f"own key, kid {kid!r}", IDP.sign(IDP.header(kid=kid), IDP.claims(azp=BATCH), **mine)
        if kid != "es":
            yield f"honest key, kid {kid!r}", header(kid=kid)
    own = public_jwk(MINE, "ES256", "mine")
    for name, value in (("jwk", own), ("jku", "https://evil/jwks"), ("x5u", "https://evil/cert"), ("x5c", ["MIIB"]),
                        ("x5t", "AAAA"), ("x5t#S256", "AAAA")):  # fmt: skip
        for kid in ("es", "mine", ...):
            yield (
                f"own key offered in {name}, kid {kid!r}",
                IDP.sign(IDP.header(kid=kid, **{name: value}), IDP.claims(azp=BATCH), **mine),
            )
    yield "HS256 with a jwk of its own", hmac(b"s" * 32, "HS256", IDP, jwk={"kty": "oct", "k": b64url(b"s" * 32)})
    yield "the key of another issuer", IDP.sign(IDP.header(kid="us"), IDP.claims(azp=BATCH), key=USERS.key)
    yield "the key of another issuer under this one's kid", IDP.sign(IDP.header(), IDP.claims(azp=BATCH), key=USERS.key)
    yield "an issuer of users speaks of personnel", USERS.sign(USERS.header(), USERS.claims(azp=BATCH, iss=IDP.issuer))
    yield "an issuer of users with the kid of personnel", USERS.sign(USERS.header(kid="es"), USERS.claims(azp=BATCH))


def header_attacks():
    for kind in (..., None, "", "JWS", "JOSE", "id_token+jwt", "dpop+jwt", "logout+jwt", "at+jwt ", "application/at+jwt;x=1",
                 "text/jwt", "at+jwt\0", "ＪＷＴ", "jwt" * 50, 1, ["JWT"], {"typ": "JWT"}):  # fmt: skip
        yield f"typ {kind!r}", header(typ=kind)
    for crit in (["exp"], ["b64"], ["unknown"], [], "exp", None, {}, [1]):
        yield f"crit {crit!r}", header(crit=crit)
    yield "b64 false with crit", header(b64=False, crit=["b64"])
    yield "b64 false", header(b64=False)
    yield "b64 true", header(b64=True)
    yield "zip", header(zip="DEF")
    yield "enc", header(enc="A128GCM")
    first, second, third = parts(honest())
    for name, text in (
        ("a header that is a list", b"[]"), ("a header that is a string", b'"x"'), ("a header that is null", b"null"),
        ("an empty header", b"{}"), ("no JSON", b"{"), ("trailing data", json.dumps(IDP.header()).encode() + b"x"),
        ("a byte order mark", b"\xef\xbb\xbf" + json.dumps(IDP.header()).encode()),
        ("UTF-16", json.dumps(IDP.header()).encode("utf-16")), ("invalid UTF-8", b'{"alg":"ES256\xff"}'),
        ("alg twice, none first", b'{"alg":"none","typ":"JWT","kid":"es","alg":"ES256"}'),
        ("alg twice, none last", b'{"alg":"ES256","typ":"JWT","kid":"es","alg":"none"}'),
        ("kid twice", b'{"alg":"ES256","typ":"JWT","kid":"es","kid":"es"}'),
        ("alg twice, once escaped", b'{"alg":"ES256","typ":"JWT","kid":"es","\\u0061lg":"ES256"}'),
        ("deep nesting", b'{"alg":"ES256","typ":"JWT","kid":"es","x":' + b"[" * 900 + b"]" * 900 + b"}"),
        ("a deeper nesting", b"[" * 4000), ("a comment", b'{"alg":"ES256",/**/"typ":"JWT","kid":"es"}'),
        ("single quotes", b"{'alg':'ES256','typ':'JWT','kid':'es'}"),
    ):  # fmt: skip
        yield f"header: {name}", IDP.sign(text, IDP.claims(azp=BATCH))


def claim_attacks():
    now = int(NOW)
    for name in ("exp", "iat", "iss", "aud", "sub"):
        yield f"no {name}", claims(**{name: ...})
        for value in (None, True, [], {}, ""):
            yield f"{name} {value!r}", claims(**{name: value})
    for name in ("exp", "iat", "nbf", "auth_time"):
        for value in ("1800000500", -1, 1e300, 10**30, [now], {"$numberLong": "1"}, False):
            yield f"{name} {value!r}", claims(**{name: value})
    for text in ("NaN", "Infinity", "-Infinity", "1e999", "0x6b49d200", "1_800_000_900", "+1800000900", "01800000900"):
        payload = json.dumps(IDP.claims(azp=BATCH, exp=0)).replace('"exp": 0', f'"exp": {text}')
        yield f"exp {text}", IDP.sign(IDP.header(), payload.encode())
    yield "expired", claims(exp=now - 11)
    yield "expired long ago", claims(iat=now - 90_000, exp=now - 80_000)
    yield "not valid yet", claims(nbf=now + 11)
    yield "issued in the future", claims(iat=now + 11)
    yield "signed in in the future", claims(auth_time=now + 11)
    yield "expires before it was issued", claims(iat=now + 9, exp=now + 5)
    yield "lives for ever", claims(exp=253_402_300_799)
    yield "lives a day and a second", claims(iat=now, exp=now + 86_401)
    for issuer in ("https://idp.corp/", "https://IDP.corp", "http://idp.corp", "https://idp.corp.evil", "https://іdp.corp",
                   " https://idp.corp", "https://idp.corp\0", "https://evil", ["https://idp.corp"], 1):  # fmt: skip
        yield f"iss {issuer!r}", claims(iss=issuer)
    for audience in ("other", "Customhouse", "customhouse ", "сustomhouse", "customhouse/", ["other"], [["customhouse"]],
                     ["customhouse", 1], {"customhouse": True}, 1):  # fmt: skip
        yield f"aud {audience!r}", claims(aud=audience)
    for subject in (
        1,
        1.5,
        ["p1"],
        {"id": "p1"},
        "p1\0",
        "p1\n",
        "p1 ",
        " p1",
        "p1\u200b",
        "р1",
        "p1\x7f",
        "x" * 257,
        "\u202ep1",
    ):
        yield f"sub {subject!r}", claims(sub=subject)
    for jti in (1, None, [], "", "x" * 257):
        yield f"jti {jti!r}", claims(jti=jti)
    for azp in (WEB, "", None, 1, [BATCH], BATCH + "/", BATCH.upper(), "spiffe://corp/ns/bаtch", "*", ...):
        yield f"azp {azp!r}", claims(azp=azp)
    yield "azp and client_id differ", claims(client_id=WEB)
    for cnf in (None, "x", {}, {"jkt": "x"}, {"x5t#S256": ""}, {"x5t#S256": b64url(b"c" * 32)}, {"x5t#S256": 1},
                {"x5t#S256": b64url(b"c" * 32) + "="}, {"jwk": {}}, {"kid": "es"}):  # fmt: skip
        yield f"cnf {cnf!r}", claims(cnf=cnf)
    for act in (
        None,
        "p2",
        [],
        {},
        {"sub": 1},
        {"sub": None},
        {"sub": "p2", "act": {}},
        {"sub": "p2", "iss": "https://evil"},
    ):
        yield f"act {act!r}", claims(act=act)
    for name, value in (("amr", "pwd"), ("amr", [1]), ("amr", ["x"] * 17), ("acr", 2), ("roles", "admin"), ("us_personnel", 1),
                        ("location", "US"), ("location", {"country": "ZZ"})):  # fmt: skip
        yield f"{name} {value!r}", claims(**{name: value})


def payload_attacks():
    usual = json.dumps(IDP.claims(azp=BATCH)).encode()
    doubled = {
        "sub": b'"p1"', "iss": b'"https://idp.corp"', "aud": b'"customhouse"', "exp": b"1800000900", "azp": json.dumps(BATCH).encode()
    }  # fmt: skip
    for name, value in doubled.items():
        extra = b'"%s": %s' % (name.encode(), value)
        yield f"{name} twice", IDP.sign(IDP.header(), usual[:-1] + b", " + extra + b"}")
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in name).encode()
        yield f"{name} twice, once escaped", IDP.sign(IDP.header(), b'{"%s": %s, ' % (escaped, value) + usual[1:])
    yield "a name twice within act", IDP.sign(IDP.header(), usual[:-1] + b', "act": {"sub": "p2", "sub": "p1"}}')
    for name, text in (
        ("list", b"[]"), ("list of claims", b"[" + usual + b"]"), ("string", json.dumps(usual.decode()).encode()), ("null", b"null"),
        ("empty object", b"{}"), ("not JSON", b"sub=p1"), ("truncated", usual[:-1]), ("two objects", usual + usual),
        ("byte order mark", b"\xef\xbb\xbf" + usual), ("UTF-16", usual.decode().encode("utf-16")), ("UTF-32", usual.decode().encode("utf-32")),
        ("invalid UTF-8", usual.replace(b"p1", b"p\xc3\x28")), ("overlong UTF-8", usual.replace(b"p1", b"p\xc0\xb1")),
        ("lone surrogate", usual.replace(b'"p1"', b'"p1\\ud800"')), ("deep list", usual[:-1] + b',"x":' + b"[" * 1500 + b"]" * 1500 + b"}"),
        ("deep object", usual[:-1] + b',"x":' + b'{"a":' * 700 + b"1" + b"}" * 700 + b"}"), ("never closed", b"[" * 5000),
        ("a huge number", usual[:-1] + b',"x":' + b"9" * 5000 + b"}"), ("a control character", usual.replace(b"p1", b"p1\n")),
        ("a number out of range", usual[:-1] + b',"x": 1e999}'), ("another token", honest().encode()),
    ):  # fmt: skip
        yield f"payload: {name}", IDP.sign(IDP.header(), text)


def form_attacks():
    first, second, third = parts(honest())
    raw = base64.urlsafe_b64decode(third + "==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    other = json.dumps(IDP.claims(azp=BATCH, sub="p2")).encode()
    signatures = {
        "DER": encode_dss_signature(r, s), "DER of (r, n-s)": encode_dss_signature(r, ORDER - s), "truncated": raw[:-1], "halved": raw[:32],
        "longer": raw + b"\0", "padded in front": b"\0" + raw, "zeros": b"\0" * 64, "ones": b"\xff" * 64, "r = 0": b"\0" * 32 + raw[32:],
        "s = 0": raw[:32] + b"\0" * 32, "r and s exchanged": raw[32:] + raw[:32], "n, n": ORDER.to_bytes(32, "big") * 2, "n-r": (ORDER - r).to_bytes(32, "big") + raw[32:],
        "one bit": bytes([raw[0] ^ 1]) + raw[1:], "the last bit": raw[:-1] + bytes([raw[-1] ^ 1]), "a single byte": b"\0",
        "ASN.1 zeros": bytes.fromhex("3006020100020100"),
        "48-byte halves": r.to_bytes(48, "big") + s.to_bytes(48, "big"),
    }  # fmt: skip
    for name, signature in signatures.items():
        yield f"signature: {name}", joined(first, second, b64url(signature))
    yield "payload exchanged", joined(first, b64url(other), third)
    yield "header exchanged", joined(b64url(json.dumps(IDP.header(typ="JWT")).encode()), second, third)
    yield "a signature of another token", joined(first, second, parts(honest(sub="p2"))[2])
    yield "detached payload", joined(first, "", third)
    yield "no signature", joined(first, second, "")
    yield "no header", joined("", second, third)
    for name, text in (
        ("empty", ""), ("dots", ".."), ("dot", "."), ("one part", first), ("two parts", f"{first}.{second}"), ("four parts", f"{honest()}.{third}"),
        ("five parts, as a JWE", f"{first}.{second}.{third}.{first}.{second}"), ("a newline after", honest() + "\n"), ("a newline before", "\n" + honest()),
        ("a space within", joined(first, second + " ", third)), ("padding", joined(first, second, third + "==")), ("standard alphabet", joined(first, second, "+/" + third[2:])),
        ("quotes", f'"{honest()}"'), ("a NUL after", honest() + "\0"), ("two tokens", f"{honest()} {honest()}"), ("two tokens, with a comma", f"{honest()},{honest()}"),
        ("Bearer twice", f"Bearer {honest()}"), ("a confusable dot", honest().replace(".", "．")), ("full-width", "ｅ" + honest()[1:]),
        ("bits left over", joined(first, second, third[:-1] + chr(ord(third[-1]) + 1))), ("JSON serialization", json.dumps({"protected": first, "payload": second, "signature": third})),
        ("JSON, general", json.dumps({"payload": second, "signatures": [{"protected": first, "signature": third}]})),
        ("oversized, dots", "." * 9000), ("oversized, letters", "a" * 9000), ("oversized, a megabyte", "a.b." + "c" * 1_000_000),
        ("lone surrogate", honest() + "\ud800"), ("null", "null"), ("no ASCII", "ä.ö.ü"),
    ):  # fmt: skip
        yield f"form: {name}", text
    yield "oversized but honestly signed", claims(x="a" * 8200)


@cache
def attacks():
    found = {}
    for source in (algorithm_attacks, key_attacks, header_attacks, claim_attacks, payload_attacks, form_attacks):
        for name, token in source():
            assert name not in found, name
            found[name] = token
    return found


def test_honest_tokens_of_every_issuer_are_accepted():
    for provider in PROVIDERS:
        assert outcome(honest(provider)) is None
    assert (
        outcome(header(jku="https://evil/jwks", x5u="https://evil", jwk={"kty": "oct"}, x5c=["x"])) is None
    )  # ignored


def test_attacks_are_many_and_distinct():
    assert len(attacks()) >= 200
    assert len(set(attacks().values())) >= len(attacks()) - 2  # (two kinds of emptiness may meet)
    assert honest() not in attacks().values()


@pytest.mark.parametrize("name", list(attacks()))
def test_attack(name):
    for _ in range(2):
        error = outcome(attacks()[name])
        assert error is not None, "accepted"
        assert (error.code, error.reason, error.stage) == (Code.UNAUTHENTICATED, "unidentified_person", "identify")


def test_another_workload_cannot_replay_a_token():
    token = IDP.token()
    assert outcome(token, peer=(WEB,)) is None
    for peer in ((BATCH,), (), ("spiffe://corp/ns/webb",)):
        assert outcome(token, peer=peer).code is Code.UNAUTHENTICATED


def test_the_other_half_of_an_ecdsa_signature_gains_nothing():
    """(r, n-s) verifies wherever (r, s) does. It is the same token for every purpose but the cache's."""
    at = desk(IDP)
    first, second, third = parts(honest(jti="j1"))
    raw = base64.urlsafe_b64decode(third + "==")
    s = int.from_bytes(raw[32:], "big")
    twin = joined(first, second, b64url(raw[:32] + (ORDER - s).to_bytes(32, "big")))
    assert decode_dss_signature(encode_dss_signature(1, s))[1] == s
    assert at.tokens.verify(twin, NOW) == at.tokens.verify(joined(first, second, third), NOW)


def test_a_set_that_offers_a_symmetric_key_does_not_make_tokens_for_it():
    provider = Provider()
    secret = b"s" * 32
    provider.source.content = jwks(provider.jwk(), {"kty": "oct", "k": b64url(secret), "kid": "hs", "alg": "HS256"})
    at = desk(provider)
    assert outcome(hmac(secret, "HS256", provider, kid="hs"), at=at).code is Code.UNAUTHENTICATED
    assert outcome(provider.token(azp=BATCH), at=at) is None


def test_a_short_rsa_key_is_not_used():
    weak = new_key("RS256", 1024)
    provider = Provider(algorithm="RS256")
    provider.source.content = jwks(provider.jwk(), public_jwk(weak, "RS256", "weak"))
    at = desk(provider)
    token = provider.sign(provider.header(kid="weak"), provider.claims(azp=BATCH), key=weak)
    assert outcome(token, at=at).code is Code.UNAUTHENTICATED


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=400), st.binary(max_size=400).map(lambda raw: raw.decode("latin-1"))))
def test_no_text_is_accepted_or_raises_anything_else(text):
    assert outcome(text).code is Code.UNAUTHENTICATED


SEGMENT = st.binary(max_size=80).map(b64url)


@settings(max_examples=300, deadline=None)
@given(SEGMENT, SEGMENT, SEGMENT)
def test_no_three_segments_are_accepted(first, second, third):
    assert outcome(joined(first, second, third)).code is Code.UNAUTHENTICATED


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_character_is_accepted(data):
    token = honest()
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters())
    if token[place] != letter:
        assert outcome(token[:place] + letter + token[place + 1 :]).code is Code.UNAUTHENTICATED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("exp", "iat", "nbf", "iss", "aud", "sub", "azp", "client_id", "jti", "cnf", "act", "acr", "amr", "auth_time",
         "roles", "location", "us_personnel")  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_signed_nonsense_raises_nothing_else_and_never_widens(changes):
    """An issuer may sign anything. Whoever is let in is p1 as the directory has them, or less."""
    token = claims(**changes)
    error = outcome(token)
    if error is not None:
        assert error.code in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
        return
    found = counter().ask(token, peer=(BATCH,))
    entry = counter().people.entries["p1"].person
    (subject,) = found.subjects
    assert subject.person.id == "p1"
    assert set(subject.person.roles) <= set(entry.roles)
    assert found.expires_at <= NOW + 86_430


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(("alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5c", "zip")), JSON, min_size=1, max_size=3
    )
)
def test_signed_nonsense_in_the_header_raises_nothing_else(changes):
    error = outcome(header(**changes))
    ignored = {"jku", "jwk", "x5c"}
    assert (error is None) == (set(changes) <= ignored)


def test_how_many_attacks_there_were(record_property):
    accepted = [name for name, token in attacks().items() if outcome(token) is None]
    record_property("attacks", len(attacks()))
    record_property("accepted", len(accepted))
    assert accepted == []
