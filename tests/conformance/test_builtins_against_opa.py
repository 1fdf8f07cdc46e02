"""Built-ins that `native/` brings itself, on generated arguments: OPA's answer, or none.

Where OPA has no answer (an error), neither may the embedded engine. Where OPA has one, the embedded engine may fail
instead, for the reasons that docs/adr/0002-embedded-engine.md names, and no more often than `closed` allows.
"""

import base64
import collections
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from reference_opa import ERROR, UNDEFINED, ReferenceOpa

from sidecar import _native

COUNT, LONG = 1_500, 30_000
Make = Callable[[random.Random], Any]

_LETTERS = "abcXYZ019 .,/:-_=+\n\"'äß€😀\u00a0\u2028%<>&"
_ADDRESSES = (
    "10.0.0.0", "10.0.0.1", "10.1.2.3", "10.255.255.255", "192.168.1.0", "0.0.0.0", "255.255.255.255", "127.0.0.1",
    "010.0.0.1", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.4 ", "", "::", "::1", "2001:db8::", "2001:db8::1",
    "2001:DB8:0:0:8:800:200C:417A", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:0a00:0001", "::ffff:1.2.3", "ffff::",
    "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1:2:3:4:5:6:7::8", "::2:3:4:5:6:7:8", "1::2::3", ":::", "12345::", "1:2",
    "64:ff9b::10.0.0.1", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4", "0:0:0:0:0:ffff:10.1.2.3", "::fffe:a00:1",
)  # fmt: skip
_LENGTHS = ("0", "1", "7", "8", "9", "15", "16", "23", "24", "25", "30", "31", "32", "33", "48", "64", "80", "95", "96",
            "97", "104", "112", "120", "127", "128", "129", "08", "-1", "+8", "", "8 ", "99999999999")  # fmt: skip


def text(rng: random.Random) -> str:
    return "".join(rng.choice(_LETTERS) for _ in range(rng.choice((0, 1, 2, 3, 5, 8, 64, 65, 130))))


def anything(rng: random.Random) -> Any:
    return rng.choice((None, True, False, 0, -1, 12, "", "a", [], ["a"], {}, {"a": "b"}, text(rng)))


def address(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return ".".join(str(rng.choice((0, 1, 10, 127, 128, 192, 255, rng.randrange(256)))) for _ in range(4))
    if rng.random() < 0.3:
        groups = [
            f"{rng.choice((0, 0, 0, 1, 0xFFFF, rng.randrange(65536))):x}" for _ in range(rng.choice((8, 8, 7, 6)))
        ]
        cut = rng.randrange(len(groups) + 1)
        return ":".join(groups) if rng.random() < 0.5 else ":".join(groups[:cut]) + "::" + ":".join(groups[cut + 1 :])
    return rng.choice(_ADDRESSES)


def network(rng: random.Random) -> str:
    made = address(rng)
    return made if rng.random() < 0.15 else f"{made}/{rng.choice(_LENGTHS)}"


def good_network(rng: random.Random) -> str:
    """Networks that lie near each other, of one family mostly, so that they merge and contain."""
    if rng.random() < 0.5:
        return f"10.{rng.randrange(2)}.{rng.randrange(4)}.{rng.choice((0, 64, 128, 192, 255))}/{rng.randrange(14, 33)}"
    return f"2001:db8:{rng.randrange(2)}:{rng.choice(('0', '1', '8000'))}::{rng.choice(('', '1'))}/{rng.randrange(44, 129)}"


def networks(rng: random.Random) -> Any:
    one = good_network if rng.random() < 0.8 else network
    items = [one(rng) for _ in range(rng.randrange(7))]
    if rng.random() < 0.7:
        family = rng.choice((".", ":"))
        items = [item for item in items if family in item]
    shape = rng.random()
    if shape < 0.6:
        return items
    if shape < 0.7:
        return {f"k{number}": item for number, item in enumerate(items)}
    if shape < 0.8:
        return [[item, "note"] if rng.random() < 0.5 else item for item in items]
    return rng.choice((network(rng), anything(rng), [], [anything(rng)]))


def encoded(rng: random.Random) -> str:
    raw = rng.choice((text(rng).encode(), rng.randbytes(rng.randrange(6))))
    made = rng.choice((base64.b64encode, base64.urlsafe_b64encode, base64.b16encode))(raw).decode()
    if rng.random() < 0.4:
        made = made.rstrip("=")
    if rng.random() < 0.3:
        at = rng.randrange(len(made) + 1)
        made = made[:at] + rng.choice(("\n", "\r\n", "=", "==", "A", "_", "/", " ", "é")) + made[at:]
    return made.lower() if rng.random() < 0.1 else made


def document(rng: random.Random) -> str:
    if rng.random() < 0.75:
        claims = {"sub": text(rng), "n": rng.randrange(-(2**40), 2**40), "aud": ["a", None], "o": {"k": anything(rng)}}
        return json.dumps(claims, ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))
    return rng.choice((
        "", "null", "[]", '"a"', "1", "-0", "1.0", "1e3", "12345678901234567890", '{"a": 1, "a": 2}', '{"a": 1} x',
        '{"a": 1}}', "{", '{"a": "\\ud800"}', '{"\\u0000": 1}', " { } ", "true false", "[1,]", "\ufeff{}", "01", "NaN",
    ))  # fmt: skip


def part(content: str | bytes) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def token(rng: random.Random, depth: int = 0) -> str:
    header: dict[str, Any] = {"alg": "none", "typ": "JWT"}
    payload = document(rng)
    if rng.random() < 0.3 and depth < 6:
        header["cty"] = rng.choice(("JWT", "JWT", "jwt", "text"))
        payload = rng.choice(('"%s"', "'%s'", "%s")) % token(rng, depth + 1)
    if rng.random() < 0.05:
        header["enc"] = "A128GCM"
    signature = rng.choice((part(rng.randbytes(rng.randrange(8))), "", "!", encoded(rng)))
    parts = [part(json.dumps(header)) if rng.random() < 0.9 else encoded(rng), part(payload), signature]
    return ".".join(parts + ["x"] if rng.random() < 0.03 else parts)


@dataclass(frozen=True, kw_only=True)
class Builtin:
    """`call` with `%` for each argument; `closed`: the share of OPA's answers that may be missing here."""

    call: str
    arguments: tuple[Make, ...]
    closed: float = 0.0
    answers: float = 0.2
    odd: float = 0.05


BUILTINS = [
    Builtin(call="array.flatten(%)", arguments=(lambda rng: [anything(rng) for _ in range(rng.randrange(6))],)),
    Builtin(call="strings.split_n(%, %, %)", arguments=(text, lambda rng: rng.choice(("", "a", ".", "\n", "ß", "ab", text(rng))), lambda rng: rng.randrange(-9, 10))),
    Builtin(call="strings.count(%, %)", arguments=(text, lambda rng: rng.choice(("", "a", "ß", "aa", ".")))),
    Builtin(call="crypto.sha256(%)", arguments=(text,)),
    Builtin(call="crypto.hmac.sha256(%, %)", arguments=(text, text)),
    Builtin(call="crypto.hmac.sha512(%, %)", arguments=(text, text)),
    Builtin(call="crypto.hmac.equal(%, %)", arguments=(lambda rng: rng.choice(("", "ab", "ac", "abc")), lambda rng: rng.choice(("", "ab", "ac", "abc")))),
    Builtin(call="hex.encode(%)", arguments=(text,)),
    Builtin(call="hex.decode(%)", arguments=(lambda rng: rng.choice((encoded(rng), text(rng).encode().hex(), text(rng).encode().hex().upper())),), closed=0.15),
    Builtin(call="base64.encode(%)", arguments=(text,)),
    Builtin(call="base64.decode(%)", arguments=(encoded,), closed=0.45),
    Builtin(call="base64.is_valid(%)", arguments=(encoded,)),
    Builtin(call="base64url.encode(%)", arguments=(text,)),
    Builtin(call="base64url.encode_no_pad(%)", arguments=(text,)),
    Builtin(call="base64url.decode(%)", arguments=(encoded,), closed=0.45),
    Builtin(call="json.unmarshal(%)", arguments=(document,), closed=0.1),
    Builtin(call="io.jwt.decode(%)", arguments=(token,), closed=0.1),
    Builtin(call="net.cidr_is_valid(%)", arguments=(network,)),
    Builtin(call="net.cidr_contains(%, %)", arguments=(network, lambda rng: rng.choice((network, address))(rng))),
    Builtin(call="net.cidr_contains(%, %)", arguments=(good_network, good_network), answers=0.85),
    Builtin(call="net.cidr_intersects(%, %)", arguments=(network, network), answers=0.1),
    Builtin(call="net.cidr_intersects(%, %)", arguments=(good_network, good_network), answers=0.85),
    Builtin(call="net.cidr_contains_matches(%, %)", arguments=(networks, networks), closed=0.15),
    Builtin(call="net.cidr_merge(%)", arguments=(networks,), closed=0.35),
    Builtin(call="net.cidr_merge({x | some x in %})", arguments=(networks,), closed=0.35),
    Builtin(call="lower(%)", arguments=(text,), closed=0.9, answers=0.05),
    Builtin(call="upper(%)", arguments=(text,), closed=0.9, answers=0.05),
    Builtin(call="indexof(%, %)", arguments=(text, text)),
    Builtin(call="replace(%, %, %)", arguments=(text, lambda rng: rng.choice(("a", "ß", "ab", "", "\n")), text), closed=0.25),
]  # fmt: skip


@pytest.mark.parametrize("builtin", BUILTINS, ids=lambda builtin: builtin.call)
def test_answers_as_opa_or_not_at_all(opa: ReferenceOpa, builtin: Builtin, long_campaign: bool) -> None:
    rng, count = random.Random(builtin.call), LONG if long_campaign else COUNT
    call = builtin.call
    for number in range(len(builtin.arguments)):
        call = call.replace("%", f"input.a{number}", 1)
    documents = [
        {
            f"a{number}": anything(rng) if rng.random() < builtin.odd else make(rng)
            for number, make in enumerate(builtin.arguments)
        }
        for _ in range(count)
    ]
    source = f"package builtin_case\n\np := {call}\n"
    engine = _native.Engine([("p.rego", source)], b"{}", "data.builtin_case.p", 5.0)
    assert opa.put("/v1/policies/builtin_case", source)
    opa.batch("data.builtin_case.p")
    counts: collections.Counter[str] = collections.Counter()
    for document_, theirs in zip(documents, opa.answers(documents, strict=False), strict=True):
        try:
            ours = engine.evaluate(document_)
        except _native.Undefined:
            ours = UNDEFINED
        except _native.EvaluationError:
            ours = ERROR
        if ours == ERROR:
            counts["neither" if theirs in (UNDEFINED, ERROR) else "closed"] += 1
            continue
        assert json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True), document_
        counts["answers"] += 1
    assert counts["answers"] >= builtin.answers * count, counts
    assert counts["closed"] <= builtin.closed * count, counts
