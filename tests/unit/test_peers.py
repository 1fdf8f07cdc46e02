"""What a verified certificate names, and which workloads are registered."""

import datetime as dt
import hashlib
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from sidecar.attributes.peers import (
    PeerError,
    RegisteredWorkload,
    Workloads,
    dns_name,
    identities_of,
    read_certificate,
    spiffe_id,
    thumbprint,
)  # fmt: skip
from sidecar.errors import ConfigurationError

pytestmark = pytest.mark.unit
KEY = ec.generate_private_key(ec.SECP256R1())
START = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
WEB = "spiffe://corp/ns/web"


def certificate(*names, ca=None, encoding=serialization.Encoding.PEM):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spiffe://corp/ns/common-name")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(1).not_valid_before(START).not_valid_after(START + dt.timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(encoding)


def uri(text):
    return x509.UniformResourceIdentifier(text)


def dns(text):
    return x509.DNSName(text)


def test_pem_and_der_name_the_same():
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        assert identities_of(certificate(uri(WEB), dns("Web.Corp"), encoding=encoding)) == (WEB, "web.corp")


def test_the_thumbprint_is_of_the_der():
    der = certificate(uri(WEB), encoding=serialization.Encoding.DER)
    assert thumbprint(der) == hashlib.sha256(der).digest()
    pem = certificate(uri(WEB))
    assert (
        thumbprint(pem)
        == hashlib.sha256(x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)).digest()
    )
    assert read_certificate(pem).not_after == (START + dt.timedelta(days=1)).timestamp()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (certificate(), "no subject alternative name"),
        (certificate(uri(WEB), uri("spiffe://corp/ns/other")), "more than one URI"),
        (certificate(uri(WEB), uri("https://corp/")), "more than one URI"),
        (certificate(uri("https://corp/web")), "no SPIFFE id"),
        (certificate(uri(WEB), ca=True), "authority"),
        (certificate(uri("spiffe://corp")), "no path"),
        (certificate(uri(WEB + "?x=1")), "no SPIFFE id"),
        (certificate(uri(WEB), dns("we b.corp")), "no host name"),
        (certificate(uri(WEB), dns("web.corp\0.evil")), "no host name"),
        (certificate(dns("*.corp")), "neither"),
        (certificate(x509.IPAddress(ipaddress.ip_address("10.0.0.1"))), "neither"),
        (b"", "no certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        (b"x" * 100_000, "too long"),
    ],
)
def test_a_certificate_that_breaks_a_rule_names_nobody(data, why):
    found = read_certificate(data)
    assert found.identities == identities_of(data) == ()
    assert why in found.problem


def test_a_leaf_may_say_that_it_is_one_and_a_wildcard_is_left_out():
    assert identities_of(certificate(uri(WEB), dns("*.corp"), ca=False)) == (WEB,)
    assert thumbprint(b"nothing") is None


@given(st.binary(max_size=300))
def test_no_bytes_raise(data):
    assert identities_of(data) == ()
    assert identities_of(b"-----BEGIN CERTIFICATE-----\n" + data) == ()


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_flipped_byte_raises_or_keeps_the_thumbprint(position, value):
    der = certificate(uri(WEB), encoding=serialization.Encoding.DER)
    bent = bytearray(der)
    bent[position % len(der)] ^= value
    if bytes(bent) != der:
        assert read_certificate(bytes(bent)).sha256 != hashlib.sha256(der).digest()


@pytest.mark.parametrize(
    "text",
    ["spiffe://corp/a", "spiffe://corp.example/ns/web/sa/a_b-c.D", "spiffe://a-b_c.d/..." + "x", "spiffe://1/2"],
)  # fmt: skip
def test_spiffe_ids(text):
    assert spiffe_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "spiffe:", "spiffe://", "spiffe:///web", "spiffe://corp", "spiffe://corp/", "spiffe://corp/a/",
        "spiffe://corp//a", "spiffe://corp/./a", "spiffe://corp/a/..", "SPIFFE://corp/a", "spiffe://Corp/a",
        "spiffe://corp:8443/a", "spiffe://me@corp/a", "spiffe://corp/a?b", "spiffe://corp/a#b", "spiffe://corp/a%2fb",
        "spiffe://corp/ä", "spiffe://corp/a\n", " spiffe://corp/a", "spiffe://corp/" + "a" * 2048,
        "spiffe://" + "a" * 256 + "/b", "https://corp/a", "spiffe://cοrp/a",
    ],
)  # fmt: skip
def test_no_spiffe_ids(text):
    with pytest.raises(PeerError):
        spiffe_id(text)


@pytest.mark.parametrize("text", ["web", "web.corp", "xn--bcher-kva.example", "a-b.c1", "10.0.0.1"])
def test_host_names(text):
    assert dns_name(text.upper()) == text


@pytest.mark.parametrize(
    "text",
    ["", ".", "web.", ".web", "-web", "web-", "a..b", "*.corp", "wéb", "a_b", "a" * 64, "a." * 127 + "a", "web\n"],
)
def test_no_host_names(text):
    with pytest.raises(PeerError):
        dns_name(text)


def test_the_registered_workload_of_a_peer():
    found = Workloads([RegisteredWorkload(id=WEB, operated_from="US", may=("read",), acts_alone=True),
                       RegisteredWorkload(id="web.corp"), RegisteredWorkload(id="other.corp")])  # fmt: skip
    assert found.of((WEB,)).workload.operated_from == "US"
    assert found.of((WEB, "unknown.corp")).acts_alone
    assert found.of(()) is found.of(("nobody",)) is found.of(("a", "b")) is None
    assert found.of((WEB, "web.corp")) is None  # two registered workloads: which one calls?
    assert found.get("web.corp").workload.id == "web.corp"


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([RegisteredWorkload(id=WEB), RegisteredWorkload(id=WEB)], "twice"),
        ([RegisteredWorkload(id="spiffe://corp/")], "no SPIFFE id"),
        ([RegisteredWorkload(id="")], "no host name"),
        ([RegisteredWorkload(id="Web.corp")], "Write web.corp"),
        ([RegisteredWorkload(id=WEB, operated_from="us")], "ISO 3166-1"),
        ([RegisteredWorkload(id=WEB, operated_from="ZZ")], "ISO 3166-1"),
        ([RegisteredWorkload(id=WEB, may=("raed",))], "Did you mean read"),
    ],
)
def test_entries_that_cannot_be_right(entries, why):
    with pytest.raises(ConfigurationError, match=why):
        Workloads(entries)
