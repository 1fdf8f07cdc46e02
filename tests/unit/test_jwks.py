"""Key sets: one algorithm per key, bounded, kept fresh off the call path."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_provider import NOW, Clock, Provider, Source, b64url, jwks, new_key, public_jwk

from sidecar.attributes.jwks import EARLY_REFRESH, LATER_RETRY, MAX_KEYS, MAX_UNKNOWN, JwksError, KeyRing, parse_jwks
from sidecar.attributes.keysource import FetchError
from sidecar.errors import Code, ConfigurationError, IdentifyError

pytestmark = pytest.mark.unit
OTHER = new_key("ES256")
ES = public_jwk(new_key("ES256"), "ES256", "es")
RS = public_jwk(new_key("RS256"), "RS256", "rs")
ED = public_jwk(new_key("EdDSA"), "EdDSA", "ed")


def test_each_key_gets_the_one_algorithm_it_names():
    keys, skipped = parse_jwks(jwks(ES, RS, ED), ("ES256", "RS256", "PS256", "EdDSA"))
    assert {kid: key.algorithm for kid, key in keys.items()} == {"es": "ES256", "rs": "RS256", "ed": "EdDSA"}
    assert skipped == ()


def test_a_key_without_alg_needs_exactly_one_that_fits():
    plain = {name: value for name, value in RS.items() if name != "alg"}
    assert parse_jwks(jwks(plain), ("RS256", "ES256"))[0]["rs"].algorithm == "RS256"
    with pytest.raises(JwksError, match="fits 2 of the configured"):
        parse_jwks(jwks(plain), ("RS256", "PS256"))


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("text", "not an object"),
        ({**ES, "kid": 7}, "kid must be"),
        ({**ES, "kid": ""}, "kid must be"),
        ({**ES, "kid": "x" * 257}, "kid must be"),
        ({name: value for name, value in ES.items() if name != "kid"}, "kid must be"),
        ({**ES, "d": "AAAA"}, "private"),
        ({"kty": "oct", "k": b64url(b"s" * 64), "kid": "es", "alg": "HS256"}, "private or symmetric"),
        ({**ES, "use": "enc"}, "not for signatures"),
        ({**ES, "key_ops": ["sign"]}, "not for verification"),
        ({**ES, "key_ops": "verify"}, "not for verification"),
        ({**ES, "alg": "RS256"}, "fits 0"),
        ({**ES, "alg": "HS256"}, "fits 0"),
        ({**ES, "alg": "none"}, "fits 0"),
        ({**ES, "crv": "P-384"}, "fits 0"),
        ({**ES, "kty": "RSA"}, "fits 0"),
        ({**ES, "x": b64url(b"\1" * 32)}, "cannot be read"),
        ({**ES, "x": 1}, "cannot be read"),
        (public_jwk(new_key("RS256", 1024), "RS256", "rs"), "too short"),
    ],
)
def test_a_key_that_cannot_be_used_is_left_out_and_named(entry, why):
    other = public_jwk(new_key("ES256"), "ES256", "other")
    keys, skipped = parse_jwks(jwks(entry, other), ("ES256", "RS256"))
    assert list(keys) == ["other"]
    assert len(skipped) == 1
    assert why in skipped[0]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", 'no list "keys"'),
        (b'{"keys": {}}', 'no list "keys"'),
        (b'{"keys": []}', "no usable key"),
        (jwks(ES, ES), "two keys with kid 'es'"),
        (jwks(*[ES] * (MAX_KEYS + 1)), "65 keys; at most 64"),
    ],
)
def test_a_set_that_cannot_be_used_says_why(data, why):
    with pytest.raises(JwksError, match=why):
        parse_jwks(data, ("ES256",))


@pytest.mark.parametrize("algorithms", [(), ("none",), ("HS256",), ("ES256", "HS512"), ("ES256K",), ("RSA-OAEP",)])
def test_only_signature_algorithms_with_public_keys_may_be_configured(algorithms):
    with pytest.raises(ConfigurationError, match="algorithm"):
        KeyRing(fetch=Source(b""), source="x", algorithms=algorithms, refresh=1, max_stale=1, clock=Clock())


def ring_of(source, clock, **more):
    settings = {"refresh": 300.0, "max_stale": 3600.0} | more
    ring = KeyRing(fetch=source, source="https://idp/jwks", algorithms=("ES256",), clock=clock, jitter=lambda: 0.5,
                   **settings)  # fmt: skip
    ring.load()
    return ring


def test_stale_keys_serve_up_to_the_bound_and_then_nobody_is_identified():
    clock, source = Clock(), Source(jwks(ES))
    ring = ring_of(source, clock)
    source.content = FetchError("connection refused")
    clock.now += 3600
    ring.load()
    assert ring.key("es", clock.now).algorithm == "ES256"
    with pytest.raises(IdentifyError) as caught:
        ring.key("es", clock.now + 1)
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "stale_directory")
    assert "connection refused" in caught.value.operator
    assert "connection refused" not in caught.value.message


def test_keys_never_read_identify_nobody():
    ring = ring_of(Source(FetchError("no route")), Clock())
    with pytest.raises(IdentifyError) as caught:
        ring.key("es", NOW)
    assert caught.value.code is Code.UNAVAILABLE
    assert ring.status().error == "no route"


def test_unchanged_at_the_source_makes_the_keys_fresh_again():
    clock, source = Clock(), Source(jwks(ES))
    ring = ring_of(source, clock)
    clock.now += 3000
    ring.load()
    assert source.tags[-1] is not None
    assert ring.good_until == NOW + 3000 + 3600


def test_a_source_that_says_unchanged_before_anything_was_read_is_not_believed():
    clock = Clock()
    ring = ring_of(lambda _tag: None, clock)
    with pytest.raises(IdentifyError):
        ring.key("es", NOW)


def test_a_damaged_set_keeps_the_old_keys_and_is_reported():
    clock, source, said = Clock(), Source(jwks(ES)), []
    ring = ring_of(source, clock, report=lambda event, detail: said.append((event, detail)))
    source.content = b"{"
    ring.load()
    assert ring.key("es", NOW) is not None
    assert [event for event, _ in said] == ["jwks_refreshed", "jwks_failed"]
    assert "not JSON" in said[-1][1]


def test_an_unchanged_key_stays_the_same_object_and_a_replaced_one_does_not():
    clock, source = Clock(), Source(jwks(ES, public_jwk(new_key("ES256"), "ES256", "two")))
    ring = ring_of(source, clock)
    same, replaced = ring.key("es", NOW), ring.key("two", NOW)
    source.content = jwks(public_jwk(new_key("ES256"), "ES256", "two"), ES)
    ring.load()
    assert ring.key("es", NOW) is same
    assert ring.key("two", NOW) is not replaced
    assert not ring.holds(replaced)


def test_unknown_kids_are_remembered_within_a_bound():
    clock = Clock()
    ring = ring_of(Source(jwks(ES)), clock)
    ring.good_until = float("inf")
    for number in range(MAX_UNKNOWN + 500):
        assert ring.key(f"unknown-{number}", NOW + number * EARLY_REFRESH) is None
    assert len(ring._unknown) == MAX_UNKNOWN


async def served(ring):
    task = asyncio.create_task(ring.run())
    await asyncio.sleep(0.05)
    return task


async def stopped(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def settle(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the ring has no event to wait for
            await asyncio.sleep(0.01)


async def test_an_unknown_kid_asks_for_one_early_refresh_in_thirty_seconds():
    clock, source = Clock(), Source(jwks(ES))
    ring = ring_of(source, clock)
    task = await served(ring)
    fresh = public_jwk(new_key("ES256"), "ES256", "fresh")
    source.content = jwks(ES, fresh)
    assert ring.key("fresh", clock.now) is None  # the call that finds it missing is refused at once
    await settle(lambda: ring.status().kids == ("es", "fresh"))
    assert ring.key("fresh", clock.now) is not None
    for number in range(50):
        ring.key(f"made-up-{number}", clock.now)
    await asyncio.sleep(0.1)
    assert source.fetches == 2
    clock.now += EARLY_REFRESH
    ring.key("made-up-0", clock.now)  # it came while nobody was asked
    await settle(lambda: source.fetches == 3)
    clock.now += EARLY_REFRESH
    ring.key("made-up-0", clock.now)  # known to be unknown: asks for nothing
    await asyncio.sleep(0.1)
    assert source.fetches == 3
    ring.key("another", clock.now)
    await settle(lambda: source.fetches == 4)
    await stopped(task)


async def test_a_stray_kid_just_before_a_rotation_does_not_lock_the_new_key_out():
    clock, source = Clock(), Source(jwks(ES))
    ring = ring_of(source, clock)
    task = await served(ring)
    ring.key("stray", clock.now)
    await settle(lambda: source.fetches == 1)
    source.content = jwks(ES, public_jwk(new_key("ES256"), "ES256", "fresh"))
    assert ring.key("fresh", clock.now) is None  # nobody is asked within thirty seconds
    clock.now += EARLY_REFRESH
    assert ring.key("fresh", clock.now) is None
    await settle(lambda: ring.status().kids == ("es", "fresh"))
    await stopped(task)


async def test_the_refresher_retries_after_failures_and_recovers():
    clock, source = Clock(), Source(FetchError("down"))
    ring = ring_of(source, clock, refresh=0.02)
    task = await served(ring)
    await settle(lambda: source.fetches > 2)
    source.content = jwks(ES)
    await settle(lambda: ring.status().error is None)
    assert ring.key("es", clock.now) is not None
    await stopped(task)


def test_two_providers_do_not_share_keys():
    clock = Clock()
    one, other = Provider(issuer="https://a", kid="a").ring(clock), Provider(issuer="https://b", kid="b").ring(clock)
    assert one.key("b", NOW) is None
    assert other.key("b", NOW) is not None


def test_status_names_what_was_left_out():
    ring = ring_of(Source(jwks(ES, {**ED, "kid": "odd"})), Clock())
    status = ring.status()
    assert status.kids == ("es",)
    assert "'odd' fits 0" in status.skipped[0]
    assert json.dumps(status.skipped)


VALUE = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=4), max_size=2) | st.just({"a": 1})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.dictionaries(st.sampled_from([*ES, "key_ops", "n", "e", "x5c"]), VALUE, min_size=1))
def test_no_set_raises_anything_else(data, changes):
    with pytest.raises(JwksError):
        parse_jwks(data, ("ES256", "RS256", "EdDSA"))
    for entry in (ES, RS, ED):
        keys, skipped = parse_jwks(
            jwks({**entry, **changes}, public_jwk(OTHER, "ES256", "other-key")), ("ES256", "RS256", "EdDSA")
        )
        assert "other-key" in keys
        assert len(keys) + len(skipped) == 2


async def test_a_source_that_fails_is_not_asked_again_within_thirty_seconds_whoever_asks():
    clock, source = Clock(), Source(jwks(ES))
    ring = ring_of(source, clock)
    source.content = FetchError("down")
    task = await served(ring)
    ring.key("made-up", clock.now)
    await settle(lambda: source.fetches == 2)
    for second in range(1, 30):
        clock.now += 1
        ring.key(f"made-up-{second}", clock.now)
        await asyncio.sleep(0)
    assert source.fetches == 2
    assert (LATER_RETRY * 0.9, ring.status().error) >= (EARLY_REFRESH, "down")
    await stopped(task)
