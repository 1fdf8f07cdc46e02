"""Tokens and `authorization` headers an attacker would try: one table, for whatever takes tokens.

None may be accepted. The callers' workloads are two: one may act alone, so that an attack that turned a bad token into a
missing one would get in; the other may not, for what is no token at all. `honest` is what the attacks were made from.
Replay of a whole token by its own holder, within its life, is no attack that a bearer of it could be told from; and the
other half of an ECDSA signature, (r, n-s), is the same token.
"""

import base64
import json
from dataclasses import dataclass
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from identity_provider import BATCH, NOW, WEB, Provider, b64url, jwks, new_key, public_jwk
from jwt.algorithms import HMACAlgorithm

IDP = Provider(kid="es")
RSA = Provider(issuer="https://rsa.corp", algorithm="RS256", kid="rs")
USERS = Provider(issuer="https://users", kind="data_subject", kid="us")
P384 = Provider(issuer="https://p384.corp", algorithm="ES384", kid="p384")
PROVIDERS = (IDP, RSA, USERS, P384)
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MINE = new_key("ES256")
MINE_RSA = new_key("RS256")


def honest(provider=IDP, **changes):
    return provider.sign(provider.header(), provider.claims(**{"azp": BATCH} | changes))


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


# -- what only the state of the world refuses, and what is no token ---------------------------------------------------

REVOKED = ({"jti": "revoked-1"}, {"sub": "p3"}, {"jti": "revoked-2", "iss": IDP.issuer})
"""The list that is in force wherever `attacks` are tried; `p3` is in the directory."""


def revoked_attacks():
    yield "a revoked jti", claims(jti="revoked-1")
    yield "a revoked jti of this issuer", claims(jti="revoked-2")
    yield "a revoked person", claims(sub="p3")
    yield "a revoked person as actor", claims(act={"sub": "p3"})
    yield "a revoked person further down", claims(act={"sub": "p2", "act": {"sub": "p3"}})


def nested_attacks():
    yield "a JWE with its key given", ".".join(
        [b64url(b'{"alg":"dir","enc":"A128GCM","typ":"JWT","kid":"es"}'), "", b64url(b"i" * 12), b64url(honest().encode()), b64url(b"t" * 16)]
    )  # fmt: skip
    yield "a JWT in a JWT", IDP.sign(IDP.header(cty="JWT"), honest().encode())
    yield "a JWT in a JWT, each as JSON", IDP.sign(IDP.header(cty="JWT"), json.dumps(honest()).encode())
    yield "an honest token within the kid", IDP.sign(IDP.header(kid=honest()[:250]), IDP.claims(azp=BATCH), key=MINE)
    yield "nine actors", claims(act=_chain(9))
    yield "an actor of another issuer", claims(act={"sub": "p2", "iss": USERS.issuer + "/"})
    yield "a chain that is a list", claims(act=[{"sub": "p2"}])
    yield "two audiences, neither ours", claims(aud=["customhouse.example", "other"])
    yield "the caller's certificate, which it does not show", claims(cnf={"x5t#S256": b64url(b"k" * 32)})
    yield "another workload's, as client_id", claims(azp=..., client_id=WEB)


def _chain(length):
    return {"sub": "p2"} if length == 1 else {"sub": "p2", "act": _chain(length - 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """`values`: what is sent as `name`, one header each. `peer`: the workload that sends it."""

    values: tuple[str, ...]
    peer: str = BATCH
    name: str = "authorization"

    @property
    def token(self):
        """The token by itself, for who takes it apart from headers; None where the attack is in the headers."""
        first = self.values[0]
        alone = len(self.values) == 1 and self.name == "authorization" and first.startswith("Bearer ")
        return first.removeprefix("Bearer ") if alone else None

    @property
    def plain(self):
        """Whether every transport carries it: printable ASCII that no transport trims, of moderate length."""
        return all(
            one.isascii() and one.isprintable() and one == one.strip() and len(one) < 12_000 for one in self.values
        )


def scheme_attacks():
    good, bad = honest(), claims(aud="other")
    for name, value in (
        ("no scheme", good), ("Basic", f"Basic {b64url(b'amy:x')}"), ("Token", f"Token {good}"), ("DPoP", f"DPoP {good}"),
        ("Negotiate", f"Negotiate {good}"), ("no space", f"Bearer{good}"), ("two spaces", f"Bearer  {good}"), ("a tab", f"Bearer\t{good}"),
        ("a colon", f"Bearer: {good}"), ("nothing behind", "Bearer"), ("empty", ""), ("a second scheme", f"Basic x, Bearer {good}"),
        ("parameters", f'Bearer token="{good}"'), ("bytes outside ASCII", f"Bearer {good}\u00e9"), ("only bytes outside ASCII", "Bearer \u00ff\u00fe"),
        ("a control character", f"Bearer {good}\x01"), ("a confusable scheme", f"\u0412earer {good}"),
    ):  # fmt: skip
        yield f"header: {name}", Attack(values=(value,))
    for name, values in (
        ("twice the same", (good, good)), ("good, then bad", (good, bad)), ("bad, then good", (bad, good)), ("two people", (good, honest(sub="p2"))),
        ("good, then bytes outside ASCII", (good, "\u00ff")), ("bytes outside ASCII, then good", ("\u00ff", good)), ("forty", (good,) * 40),
    ):  # fmt: skip
        yield f"headers: {name}", Attack(values=tuple(f"Bearer {one}" for one in values))
    for name in ("proxy-authorization", "x-authorization", "x-forwarded-authorization", "cookie", "x-customhouse-person",
                 "x-forwarded-access-token", "grpc-authorization", "authorization2"):  # fmt: skip
        yield f"under the name {name}", Attack(values=(f"Bearer {honest(azp=WEB)}",), peer=WEB, name=name)


@cache
def tokens():
    """Tokens that are refused whatever is revoked, by name."""
    sources = (
        algorithm_attacks,
        key_attacks,
        header_attacks,
        claim_attacks,
        payload_attacks,
        form_attacks,
        nested_attacks,
    )
    return _named(one for source in sources for one in source())


@cache
def attacks():
    """All of the table, as `Attack`, where `REVOKED` is in force."""
    found = {name: Attack(values=(f"Bearer {token}",)) for name, token in tokens().items()}
    found |= {name: Attack(values=(f"Bearer {token}",)) for name, token in _named(revoked_attacks()).items()}
    return found | _named(scheme_attacks())


def _named(pairs):
    found = {}
    for name, one in pairs:
        assert name not in found, name
        found[name] = one
    return found
