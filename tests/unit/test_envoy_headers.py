"""Envoy's headers as metadata and back: nothing forged gets through, nothing said gets lost."""

import datetime as dt
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api.envoy.v3.parts_pb2 import HeaderMap, HeaderValueOption
from sidecar.doors import envoy_headers as eh
from sidecar.doors.envoy_exchange import mutated
from sidecar.doors.problems import http_status, problem
from sidecar.enforcement.call import ErrorInfo, Final
from sidecar.errors import Code

NOW = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
REFUSED = Final(code=Code.PERMISSION_DENIED, message="refused: ü %", error_info=ErrorInfo(
    reason="purpose_not_allowed",
    metadata={"call_id": "c1", "policy_revision": "p1", "reasons": "purpose_not_allowed,residency"},
))  # fmt: skip


def certificate(*names: x509.GeneralName, days: int = 1) -> str:
    """A certificate with these names, as Envoy writes it: PEM, URL-encoded."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([])
    built = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key()).serial_number(7)
        .not_valid_before(NOW - dt.timedelta(days=9)).not_valid_after(NOW + dt.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    return quote(built.public_bytes(serialization.Encoding.PEM).decode(), safe="")


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def behind(found: str, principal: str | None) -> tuple[str, ...]:
    return eh.behind(found, principal, "192.0.2.1:7", NOW.timestamp()).identities


def test_the_certificate_says_who_is_behind_an_envoy() -> None:
    peer = eh.behind(certificate(uri("spiffe://t/web")), "spiffe://t/web", "192.0.2.1:7", NOW.timestamp())
    assert (peer.identities, peer.address) == (("spiffe://t/web",), "192.0.2.1:7")
    assert peer.certificate_sha256 is not None
    assert len(peer.certificate_sha256) == 32
    assert behind(certificate(uri("spiffe://t/web")), None) == ("spiffe://t/web",)
    assert behind(certificate(x509.DNSName("Web.Corp")), "Web.Corp") == ("web.corp",)


@pytest.mark.parametrize(
    ("names", "days", "principal"),
    [
        ([uri("spiffe://t/web"), uri("spiffe://t/admin")], 1, "spiffe://t/web"),
        ([uri("spiffe://t/web")], 1, "spiffe://t/admin"),
        ([uri("spiffe://t/web")], -1, "spiffe://t/web"),
        ([uri("https://t/web")], 1, "https://t/web"),
        ([x509.IPAddress(__import__("ipaddress").ip_address("192.0.2.9"))], 1, ""),
        ([uri("spiffe://t/web")], 1, ""),
    ],
    ids=["two names", "another principal", "lapsed", "no SPIFFE id", "an address", "no principal"],
)
def test_a_certificate_that_is_not_plain_names_nobody(names: list[x509.GeneralName], days: int, principal: str) -> None:
    assert behind(certificate(*names, days=days), principal) == ()


@pytest.mark.parametrize("garbage", ["", "-", "%ff%00", "x" * 100_000, "-----BEGIN CERTIFICATE-----"])
def test_what_is_no_certificate_names_nobody(garbage: str) -> None:
    assert behind(garbage, None) == ()


def test_metadata_is_what_a_caller_may_say() -> None:
    headers = [
        (":path", "/a.B/C"), ("content-type", "application/grpc"), ("authorization", "Bearer x"),
        ("x-customhouse-purpose", "support"), ("x-customhouse-person", "root"), ("x-forwarded-client-cert", "URI=z"),
        ("x-twice", "1"), ("x-twice", "2"), ("token-bin", "AAE"), ("token-bin", "AA==,AQ"), ("other-bin", "%%"),
        ("grpc-timeout", "1S"), ("grpc-tags-bin", "AA"), ("x-odd", "\xff"), ("x-half", "ok"), ("x-half", "\x01"),
    ]  # fmt: skip
    seen = eh.metadata(headers)
    assert seen == (
        ("authorization", "Bearer x"), ("x-customhouse-purpose", "support"), ("x-twice", "1"), ("x-twice", "2"),
        ("token-bin", b"\0\x01"), ("token-bin", b"\0"), ("token-bin", b"\x01"), ("x-half", "ok"),
    )  # fmt: skip
    assert eh.withheld(headers, seen) == [
        "grpc-tags-bin", "other-bin", "x-customhouse-person", "x-forwarded-client-cert", "x-half", "x-odd",
    ]  # fmt: skip


def test_header_maps_are_read_raw_or_as_text() -> None:
    found = HeaderMap()
    found.headers.add(key="A", value="text")
    found.headers.add(key="b", raw_value=b"\xff")
    assert eh.read(found) == [("a", "text"), ("b", "\xff")]
    assert eh.first(eh.read(found), "b") == "\xff"
    assert eh.first([], "b") == ""


@pytest.mark.parametrize(
    ("media", "grpc"),
    [("application/grpc", True), ("application/grpc+proto", True), ("Application/GRPC; charset=x", True),
     ("application/grpc+json", False), ("application/grpc-web", False), ("application/grpc-web-text", False),
     ("application/json", False), ("", False)],
)  # fmt: skip
def test_only_protobuf_messages_are_grpc_here(media: str, grpc: bool) -> None:
    assert eh.is_grpc([("content-type", media)]) is grpc


def test_a_refusal_is_told_in_grpcs_words() -> None:
    found = dict(eh.status(REFUSED))
    assert found["grpc-status"] == "7"
    assert found["grpc-message"] == "refused: %C3%BC %25"
    details = Status.FromString(found["grpc-status-details-bin"])
    assert (details.code, details.message) == (7, REFUSED.message)
    assert eh.status(Final(code=Code.OK)) == (("grpc-status", "0"),)
    assert eh.call_id(REFUSED) == (("x-customhouse-call-id", "c1"),)
    assert eh.call_id(Final(code=Code.OK)) == ()


def test_a_refusal_is_a_problem_document_for_http() -> None:
    number, headers, body = problem(REFUSED)
    assert number == 403 and json.loads(body) == {
        "type": "about:blank", "title": "Forbidden", "status": 403, "detail": "refused: ü %",
        "code": "PERMISSION_DENIED",
        "reasons": ["purpose_not_allowed", "residency"], "call_id": "c1",
    }  # fmt: skip
    assert ("content-type", "application/problem+json") in headers
    number, headers, body = problem(Final(code=Code.UNAVAILABLE, message="m", retry_after=0.2))
    assert number == json.loads(body)["status"] == 503
    assert ("retry-after", "1") in headers


@pytest.mark.parametrize("code", list(Code))
def test_no_refusal_is_a_success_in_http(code: Code) -> None:
    assert http_status(code) >= 400


@pytest.mark.parametrize(
    ("timeout", "remaining", "seconds"),
    [("100m", None, 0.1), ("2S", 1.0, 1.0), ("1M", 100.0, 60.0), ("", 3.0, 3.0), ("1x", 3.0, 3.0), ("-1S", 3.0, 3.0)],
)
def test_the_sooner_of_both_deadlines_counts(timeout: str, remaining: float | None, seconds: float) -> None:
    found = eh.deadline([("grpc-timeout", timeout)], remaining)
    assert found is not None
    assert found - time.monotonic() == pytest.approx(seconds, abs=0.05)


def test_without_a_deadline_there_is_none() -> None:
    assert eh.deadline([]) is None


KEYS = st.sampled_from(["a", "b", "c", "d-bin", "x-customhouse-call-id", "content-type"])
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=4)
ITEMS = st.lists(st.one_of(
    st.tuples(KEYS.filter(lambda key: not key.endswith("-bin")), VALUES), st.tuples(st.just("d-bin"), st.binary(max_size=4)),
), max_size=6)  # fmt: skip


@given(ITEMS, ITEMS)
def test_a_mutation_makes_exactly_what_is_wanted(before: list, after: list) -> None:
    """Whatever the upstream sent, what goes on is what was decided, and what is kept on purpose."""
    was = [(":status", "200"), *((key, eh.as_text(value)) for key, value in before)]
    mutation = mutated(was, tuple(after), frozenset({"content-type"}))
    now = [item for item in was if item[0] not in mutation.remove_headers]
    for option in mutation.set_headers:
        key = option.header.key
        if option.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD:
            now = [item for item in now if item[0] != key]
        now.append((key, option.header.raw_value.decode("latin-1")))
    wanted = [(key, eh.as_text(value)) for key, value in after]
    wanted += [
        item
        for item in was
        if item[0] == ":status" or (item[0] == "content-type" and "content-type" not in dict(after))
    ]
    assert sorted(now) == sorted(wanted)
    for key in {key for key, _ in wanted}:
        assert [value for name, value in now if name == key] == [value for name, value in wanted if name == key]


def test_generated_messages_clash_with_nobodys_envoy(tmp_path: Path) -> None:
    """Another copy of Envoy's files can be loaded into the same process: the names are our own."""
    del tmp_path
    from google.protobuf import descriptor_pb2, descriptor_pool

    from sidecar.api.envoy.v3 import authorization_pb2, parts_pb2, processing_pb2

    for module in (authorization_pb2, parts_pb2, processing_pb2):
        assert module.DESCRIPTOR.name.startswith("sidecar/api/envoy/v3/")
        assert module.DESCRIPTOR.package == "sidecar.api.envoy.v3"
    theirs = descriptor_pb2.FileDescriptorProto(
        name="envoy/service/auth/v3/external_auth.proto", package="envoy.service.auth.v3"
    )
    theirs.message_type.add(name="CheckRequest")
    pool = descriptor_pool.Default()
    pool.Add(theirs) if hasattr(pool, "Add") else pool.AddSerializedFile(theirs.SerializeToString())
