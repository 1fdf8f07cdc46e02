"""gRPC's headers as the hosted door reads and writes them, and whom it takes a connection's peer for."""

import base64
import datetime as dt
import hashlib
import sys
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from proxy_parts import Authority

from sidecar.doors import hosted_wire as wire
from sidecar.doors.hosted_peers import ForwardedPeer, NamedWorkload, Unverified
from sidecar.enforcement.call import ErrorInfo, Final
from sidecar.enforcement.metadata import from_caller, from_upstream
from sidecar.errors import Code

NOW = dt.datetime.now(dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"1S", 1.0), (b"500m", 0.5), (b"2M", 120.0), (b"1H", 3600.0), (b"7u", 7e-6), (b"99999999n", 0.099999999)],
)
def test_a_timeout_is_in_its_unit(text: bytes, seconds: float) -> None:
    assert wire.timeout(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b"1S ", b"\xb2S"])
def test_what_is_no_timeout_is_refused(text: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.timeout(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_message_comes_back_as_it_was(text: str) -> None:
    sent = wire.percent(text)
    assert all(0x20 <= one <= 0x7E for one in sent)
    assert wire.unpercent(sent.decode("ascii")) == text


@given(st.binary())
def test_bytes_come_back_as_they_were_padded_or_not(data: bytes) -> None:
    ((key, text),) = wire.sent_text((("x-bin", data),))
    assert "=" not in text
    assert wire.pairs([(key, text)]) == [("x-bin", data)]
    assert wire.pairs([(key, base64.b64encode(data).decode())]) == [("x-bin", data)]


def test_several_values_of_a_binary_key_may_share_a_header_and_broken_ones_are_left_out() -> None:
    assert wire.pairs([("x-bin", "AAE,/w, Ag==")]) == [("x-bin", b"\x00\x01"), ("x-bin", b"\xff"), ("x-bin", b"\x02")]
    assert wire.pairs([("x-bin", "!!"), ("x-bin", "A"), ("x", "a,b")]) == [("x", "a,b")]


def test_what_envoy_itself_says_is_nobodys_metadata() -> None:
    assert wire.pairs([("x-envoy-internal", "true"), (":path", "/x"), ("x-tag", "1")]) == [("x-tag", "1")]


KEYS = st.sampled_from([
    "authorization", "x-a", "x-a-bin", "x-customhouse-purpose", "x-customhouse-call-id", "grpc-status-details-bin",
    "grpc-x", "host", "te", "x-envoy-internal", ":path", "x-forwarded-client-cert", "x_customhouse_a", "content-length",
])  # fmt: skip
VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.sampled_from(["", "QUJD", "QUJD,RUZH", "QUJ", "x" * 300, "QUJD" * 100]),
)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=8))
def test_headers_read_one_by_one_and_remembered_are_what_they_are_read_together(items: list[tuple[str, str]]) -> None:
    """Twice, so that what was remembered the first time is what comes the second time."""
    sent = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in items]
    for _ in range(2):
        assert wire.of_caller(sent) == from_caller(wire.pairs(items))
        assert wire.of_upstream(items) == from_upstream(wire.pairs(items))


@pytest.mark.parametrize("name", ["x-a", "authorization", "x-a-bin"])
def test_every_byte_of_a_value_is_judged_as_at_the_other_door(name: str) -> None:
    for number in range(256):
        text = f"a{chr(number)}b"
        assert wire.of_caller([(name.encode(), text.encode("latin-1"))]) == from_caller(wire.pairs([(name, text)]))
        assert wire.of_upstream([(name, text)]) == from_upstream(wire.pairs([(name, text)]))


SAID = st.one_of(KEYS, st.sampled_from(["content-type", "grpc-timeout", "grpc-encoding"]))


@given(st.lists(st.tuples(SAID, VALUES), max_size=8))
def test_headers_are_walked_once_and_every_one_is_where_it_belongs(items: list[tuple[str, str]]) -> None:
    sent = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in items]
    head = wire.Head(sent)

    def values(name: bytes) -> list[bytes]:
        return [value for key, value in sent if key == name]

    assert head.metadata == from_caller(wire.pairs(items)), "none of a call's own headers is metadata"
    assert head.forwarded == values(wire.FORWARDED)
    assert head.size == sum(len(key) + len(value) + 32 for key, value in sent if key != wire.FORWARDED)
    assert head.content == (values(b"content-type") or [None])[0]
    assert head.timeout == (values(b"grpc-timeout") or [None])[-1]
    assert head.encoding == (values(b"grpc-encoding") or [b"identity"])[-1]
    assert head.trailers == ((values(b"te") or [b""])[-1] == b"trailers")


def test_no_value_is_remembered() -> None:
    """A cookie or an id in memory would outlive the call that brought it."""
    words = [f"word-{number}" for number in range(3)]
    values = [word.encode() for word in words]
    names = [b"cookie", b"proxy-authorization", b"x-customhouse-ticket"]
    before = [sys.getrefcount(one) for one in (*values, *words)]
    for _ in range(2):
        wire.of_caller(list(zip(names, values, strict=True)))
        wire.of_upstream([(name.decode(), word) for name, word in zip(names, words, strict=True)])
    assert [sys.getrefcount(one) for one in (*values, *words)] == before


def test_a_refusal_is_a_status_with_its_details() -> None:
    final = Final(code=Code.PERMISSION_DENIED, message="100% nö", error_info=ErrorInfo(reason="not_us"))
    found = dict(wire.status(final, (("x-customhouse-call-id", "7"),)))
    assert found[b"grpc-status"] == b"7"
    assert found[b"grpc-message"] == b"100%25 n%C3%B6"
    assert b"not_us" in base64.b64decode(found[b"grpc-status-details-bin"] + b"==")
    assert found[b"x-customhouse-call-id"] == b"7"
    assert wire.status(Final(code=Code.OK)) == [(b"grpc-status", b"0")]


# -- peers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pem(tmp_path) -> bytes:
    return Authority(tmp_path, "corp").issue("one", uris=["spiffe://corp.example/one"])[0].read_bytes()


def digest(pem: bytes) -> bytes:
    return hashlib.sha256(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)).digest()


def element(pem: bytes, sha256: bytes | None = None, by: str = "spiffe://corp.example/sidecar") -> bytes:
    said = (sha256 or digest(pem)).hex()
    return f'By={by};Hash={said};Cert="{quote(pem, safe="")}"'.encode()


def test_a_verified_certificate_names_its_workload_and_its_thumbprint(pem: bytes) -> None:
    peer = ForwardedPeer(lambda: NOW).of([element(pem)], "192.0.2.1:7")
    assert (peer.identities, peer.certificate_sha256) == (("spiffe://corp.example/one",), digest(pem))
    assert peer.address == "192.0.2.1:7"


def test_a_certificate_that_has_expired_since_names_nobody(pem: bytes) -> None:
    peer = ForwardedPeer(lambda: NOW + 7200).of([element(pem)], "")
    assert (peer.identities, peer.certificate_sha256) == ((), digest(pem))


def test_what_is_not_exactly_one_whole_element_names_nobody(pem: bytes) -> None:
    good, reader = element(pem), ForwardedPeer(lambda: NOW)
    for forwarded in (
        [], [b""], [good, good], [good + b"," + good], [good[:-1]], [good + b";Subject=x"], [element(pem, bytes(32))],
        [good.replace(b"Hash=", b"hash=")], [b'Hash=;Cert=""'], [b'Cert="' + b"A" * 300_000 + b'"'], [b"\xff\x00"],
        [good.replace(b";Hash=", b";Hash=" + b"0" * 64 + b";Hash=")],
    ):  # fmt: skip
        assert reader.of(forwarded, "").identities == (), forwarded


def test_listeners_without_client_certificates_do_not_read_the_header(pem: bytes) -> None:
    assert Unverified().of([element(pem)], "a:1").identities == ()
    assert NamedWorkload("spiffe://corp.example/two").of([element(pem)], "a:1").identities == (
        "spiffe://corp.example/two",
    )
