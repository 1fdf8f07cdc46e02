"""Which metadata crosses the sidecar."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.enforcement.call import Call, Peer
from sidecar.enforcement.caller import Caller, _named
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.metadata import _DROPPED, DETAILS, INPUTS, from_caller, from_upstream
from sidecar.vocabulary import Action

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("key", sorted(INPUTS))
def test_a_caller_may_say_the_four_words(key):
    assert from_caller([(key, "v")]) == ((key, "v"),)
    assert from_upstream([(key, "v")]) == ()


@pytest.mark.parametrize("key", [
    "x-customhouse-person", "x-customhouse-workload", "x-customhouse-call-id", "x-customhouse-", "x-customhouse-purpose-bin",
    "x-customhouse-purposes", "x-forwarded-client-cert", "connection", "keep-alive", "te", "upgrade", "host",
    "transfer-encoding", "proxy-authorization", "user-agent", "content-type", "grpc-timeout", "grpc-encoding",
    "grpc-previous-rpc-attempts", "grpc-tags-bin", "grpc-status-details-bin",
])  # fmt: skip
def test_what_a_caller_may_not_say(key):
    assert from_caller([("a", "1"), (key, b"v" if key.endswith("-bin") else "v")]) == (("a", "1"),)


@pytest.mark.parametrize("key", ["authorization", "traceparent", "tracestate", "x-app", "x-custom", "cookie", "x-bin"])
def test_everything_else_of_the_application_passes(key):
    assert from_caller([(key, "v")]) == ((key, "v"),)


def test_only_status_details_of_grpcs_own_pass_from_the_upstream():
    pairs = [(DETAILS, b"\x08\x05"), ("grpc-status", "0"), ("grpc-message", "x"), ("grpc-encoding", "gzip"), ("x", "y")]
    assert from_upstream(pairs) == ((DETAILS, b"\x08\x05"), ("x", "y"))


@pytest.mark.parametrize("value", ["\xff", "Zoë", "a\nb", "a\x00", "\x7f", "日本"])
def test_a_value_that_cannot_be_carried_is_dropped_but_a_bad_token_stays_one(value):
    assert from_caller([("traceparent", value), ("x", "y")]) == (("x", "y"),)
    assert from_caller([("authorization", value), ("x", "y")]) == (("authorization", ""), ("x", "y"))
    assert from_upstream([("x-up", value)]) == ()


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
keys = st.text("abcxyz-_.09", min_size=1).map(lambda key: "app" + key)


@given(st.lists(st.one_of(st.tuples(keys, printable), st.tuples(keys.map(lambda k: k + "-bin"), st.binary()))))
def test_application_metadata_passes_both_ways_in_order_with_repeats(pairs):
    assert from_caller(pairs) == tuple(pairs)
    assert from_upstream(pairs) == tuple(pairs)


@given(st.lists(st.tuples(st.sampled_from(["x-customhouse-", "grpc-"]), st.text("abc-", min_size=1), printable)))
def test_nothing_in_the_sidecars_name_or_grpcs_ever_passes_by_accident(parts):
    pairs = [(prefix + rest, value) for prefix, rest, value in parts]
    assert [key for key, _ in from_caller(pairs) if key not in INPUTS] == []
    assert [key for key, _ in from_upstream(pairs) if key != DETAILS] == []


WORDS = ["authorization", "grpc-", "customhouse", "x-", "-", "_", *sorted(INPUTS), *sorted(_DROPPED)]
ANY_KEY = st.one_of(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("".join), st.text(max_size=70))
ANY_VALUE = st.one_of(printable, st.binary(max_size=9), st.text(st.characters(), max_size=9))


def said(key: str, value: str | bytes) -> list[tuple[str, str | bytes]]:
    """The rule in words: what of one pair is listened to."""
    ours = "customhouse" in key and key not in INPUTS
    if key in _DROPPED or key.startswith("grpc-") or ours:
        return []
    if isinstance(value, bytes) or all(" " <= one <= "~" for one in value):
        return [(key, value)]
    return [(key, "")] if key == "authorization" else []


@given(st.lists(st.tuples(ANY_KEY, ANY_VALUE), max_size=8))
def test_what_is_listened_to_is_what_the_rule_says_of_each_pair(pairs):
    assert from_caller(pairs) == from_caller(tuple(pairs)) == tuple(one for pair in pairs for one in said(*pair))
    assert from_caller(iter(pairs)) == from_caller(pairs)


def test_a_key_that_is_no_text_is_not_listened_to_and_what_is_no_metadata_is_refused():
    assert from_caller([("\ud800", "v"), ("x", "\ud800"), ("authorization", "\ud800")]) == (("authorization", ""),)
    for wrong in ([("x", None)], [(b"x", "y")], [("x",)], 7):
        with pytest.raises((TypeError, ValueError)):
            from_caller(wrong)


def test_keys_and_methods_that_only_an_attacker_has_are_not_kept() -> None:
    before = _named.cache_info().currsize
    key, path = "x-" + "k" * 5000, "/s/" + "M" * 5000
    assert from_caller([(key, "v")]) == ((key, "v"),)
    assert from_caller([(f"x-customhouse-{key}", "v")]) == ()
    call = Call(method=path, metadata=(), peer=Peer(), door=PROXY)
    assert Caller(None, call, None, "c").action == Action(service="s", method="M" * 5000)
    assert _named.cache_info().currsize == before
