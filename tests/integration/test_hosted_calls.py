"""What a caller may send to a sidecar inside Envoy, and what comes back: identity, bounds, errors, flow control."""

import hashlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from deployment import Deployment, ended, wait
from google.rpc import error_details_pb2, status_pb2
from hosted_parts import HostedDeployment

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE

FORGED = "x-forwarded-client-cert"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedDeployment]:
    with HostedDeployment(tmp_path_factory.mktemp("calls")) as deployment:
        yield deployment


def ask(deployment: Deployment, **how: object):
    return deployment.call("GetProfile", pb.GetProfileRequest(user_id=deployment.world.cast.us), **how)


def element(deployment: Deployment, name: str) -> str:
    """What Envoy would say of a workload's certificate."""
    pem = deployment.world.certificates[name].cert.read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    quoted = "".join(chr(one) if chr(one).isalnum() else f"%{one:02X}" for one in pem)
    return f'By=spiffe://x/y;Hash={hashlib.sha256(der).hexdigest()};Cert="{quoted}"'


# -- who calls ----------------------------------------------------------------------------------------------------


def test_nobody_becomes_another_by_what_their_headers_say(deployed: HostedDeployment) -> None:
    console, other = element(deployed, "console"), element(deployed, "web")
    assert ask(deployed).status == "OK"
    refused = ask(deployed, certificate="web")
    assert refused.status in ("UNAUTHENTICATED", "PERMISSION_DENIED")
    forged = ask(deployed, certificate="web", more=[(FORGED, console)])
    assert forged.said == refused.said, "the console's certificate in a header makes nobody the console"
    assert ask(deployed, more=[(FORGED, other)]).status == "OK", "and takes nothing from who is"
    twice = ask(deployed, certificate="web", more=[(FORGED, console), (FORGED, console)])
    assert twice.said == refused.said
    seen = ask(deployed, more=[(FORGED, other), ("x-forwarded-for", "10.9.8.7")])
    workload = deployed.recorded(seen.call_id).decisions[0]["input"]["subject"]["workload"]
    assert "console" in str(workload)
    assert deployed.upstream.calls_of(seen.call_id)[0].header(FORGED) == [], "nor is the service told"


def test_no_certificate_no_connection(deployed: HostedDeployment) -> None:
    assert ask(deployed, certificate=None, timeout=2.0).status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    context = ssl.create_default_context(cafile=str(deployed.world.ca))
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", deployed.world.ports["proxy"]), 5) as plain:
        assert _refused(context, plain)


def _refused(context: ssl.SSLContext, plain: socket.socket) -> bool:
    """TLS 1.3 tells a client that it is not let in once it has begun to talk."""
    try:
        with context.wrap_socket(plain, server_hostname="localhost") as talk:
            talk.settimeout(5)
            talk.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            return talk.recv(100) == b""
    except (ssl.SSLError, ConnectionError):
        return True


# -- bounds -------------------------------------------------------------------------------------------------------


def test_a_message_beyond_the_limit_is_refused_whichever_way_it_goes(deployed: HostedDeployment) -> None:
    large = (
        pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString()
        + b"\x7a\x80\x80\xc0\x02"
        + bytes(5 << 20)
    )
    before = len(deployed.upstream.seen)
    assert deployed.call("GetProfile", large).status == "RESOURCE_EXHAUSTED"
    assert deployed.call("Sync", large).status == "RESOURCE_EXHAUSTED"
    assert len(deployed.upstream.seen) == before or not any(one.requests for one in deployed.upstream.seen[before:])

    def too_much(seen, requests, context):
        next(requests)
        yield bytes(5 << 20)

    for method in ("GetProfile", "ListMessages"):
        with deployed.upstream.behaving(method, too_much):
            answer = deployed.call(method, pb.GetProfileRequest(user_id=deployed.world.cast.us))
        assert answer.status == "RESOURCE_EXHAUSTED"
        assert deployed.recorded(deployed.upstream.seen[-1].call_id).status == "RESOURCE_EXHAUSTED"
    assert ask(deployed).status == "OK"


def test_a_message_as_large_as_the_limit_arrives_whole(deployed: HostedDeployment) -> None:
    name = "ab" * 1_000_000
    answer = deployed.call("ImportContacts", *(pb.Contact(user_id=7, name=name) for _ in range(3)))
    assert (answer.status, pb.ImportContactsResponse.FromString(answer.messages[0]).imported) == ("OK", 3)
    assert [len(one) for one in deployed.upstream.calls_of(answer.call_id)[0].requests] == [2_000_006] * 3


def test_metadata_beyond_the_limit_is_refused_with_a_status(deployed: HostedDeployment) -> None:
    assert ask(deployed, more=[("x-long", "v" * 20_000)]).status == "RESOURCE_EXHAUSTED"
    assert ask(deployed, more=[(f"x-{n}", "v") for n in range(600)]).status == "RESOURCE_EXHAUSTED"
    huge = ask(deployed, more=[("x-long", "v" * 200_000)])
    assert huge.status not in ("OK", "PERMISSION_DENIED"), "Envoy itself refuses what is far beyond"
    assert ask(deployed).status == "OK"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_is_read(deployed: HostedDeployment, compression: grpc.Compression) -> None:
    request = pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString()
    call = deployed.caller().channel.stream_stream(f"/{SERVICE}/GetProfile")(
        iter([request]), metadata=deployed.metadata(), timeout=60, compression=compression
    )
    assert ended(call).status == "OK"


# -- what the service says ----------------------------------------------------------------------------------------


def test_an_error_of_the_service_keeps_its_code_and_loses_what_could_carry_data(deployed: HostedDeployment) -> None:
    detail = status_pb2.Status(code=9, message="jo@mail.example owes")
    detail.details.add().Pack(error_details_pb2.ErrorInfo(reason="OWES", domain="bank.example", metadata={"who": "jo"}))
    detail.details.add().Pack(error_details_pb2.DebugInfo(detail="jo@mail.example"))

    def failing(seen, requests, context):
        next(requests)
        context.set_trailing_metadata((("grpc-status-details-bin", detail.SerializeToString()), ("x-end", "jo")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "jo@mail.example owes")
        yield b""

    for method in ("GetProfile", "Sync"):
        with deployed.upstream.behaving(method, failing):
            answer = deployed.call(method, pb.GetProfileRequest(user_id=deployed.world.cast.us))
        assert (answer.status, answer.reason, answer.info) == ("FAILED_PRECONDITION", "OWES", {})
        assert answer.text == "the service answered FAILED_PRECONDITION"
        assert "x-end" not in dict(answer.trailers)
        assert "jo@" not in str(answer)
        assert deployed.recorded(answer.call_id).status == "FAILED_PRECONDITION"


def test_metadata_crosses_as_it_does_with_the_other_host(deployed: HostedDeployment) -> None:
    sent = [
        ("x-tag", "a"),
        ("x-tag", "b"),
        ("x-raw-bin", b"\x00\xff,"),
        ("grpc-foo", "x"),
        ("x-customhouse-person", "eve"),
    ]
    seen = deployed.upstream.calls_of(ask(deployed, more=sent).call_id)[0]
    assert (seen.header("x-tag"), seen.header("x-raw-bin")) == (["a", "b"], [b"\x00\xff,"])
    assert seen.header("grpc-foo") == []
    assert seen.header("x-customhouse-person") == ["amy"], "the sidecar's word, not the caller's"
    assert len(seen.header("x-customhouse-call-id")) == 1


def test_a_service_that_is_down_is_unavailable_and_recorded(deployed: HostedDeployment) -> None:
    with deployed.variant(upstream__address="localhost:1"):
        for method in ("GetProfile", "ListMessages"):
            answer = deployed.call(method, pb.GetProfileRequest(user_id=deployed.world.cast.us), port="abroad")
            assert (answer.status, answer.text.partition(" (")[0]) == ("UNAVAILABLE", "the service cannot be reached")
            recorded = deployed.recorded(answer.call_id)
            assert (recorded.status, recorded.effects) == ("UNAVAILABLE", ["permit"])


def test_a_service_whose_certificate_names_another_is_not_asked(deployed: HostedDeployment) -> None:
    tls = {"ca": "ca.pem", "cert": "tls/to-upstream.pem", "key": "tls/to-upstream.key", "server_name": "other.example"}
    before = len(deployed.upstream.seen)
    with deployed.variant(upstream__tls=tls):
        assert ask(deployed, port="abroad").status == "UNAVAILABLE"
    assert len(deployed.upstream.seen) == before


# -- cancelling and flow control ----------------------------------------------------------------------------------


def test_a_unary_caller_who_goes_cancels_the_service_and_leaves_an_outcome(deployed: HostedDeployment) -> None:
    gate = threading.Event()

    def silent(seen, requests, context):
        next(requests)
        gate.wait(60)
        yield b""

    request = pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString()
    with deployed.upstream.behaving("GetProfile", silent):
        before = len(deployed.upstream.seen)
        call = deployed.caller().open("GetProfile", iter([request]), deployed.metadata())
        wait(lambda: len(deployed.upstream.seen) > before, 60, "the call reaches the service")
        call.cancel()
        seen = deployed.upstream.seen[-1]
        assert seen.ended.wait(60), "the service is told"
        gate.set()
    assert deployed.recorded(seen.call_id).status == "CANCELLED"


def test_a_slow_reader_holds_the_service_back(deployed: HostedDeployment) -> None:
    """Memory stays bounded: what nobody reads is not taken in."""
    produced, stop = itertools.count(), threading.Event()
    page = pb.Message(sender_id=deployed.world.cast.german, recipient_id=deployed.world.cast.french, text="x" * 100_000)
    data, made = page.SerializeToString(), [0]

    def flood(seen, requests, context):
        next(requests)
        while not stop.is_set() and context.is_active():
            made[0] = next(produced)
            yield data

    memory = deployed.envoy().memory_info().rss
    with deployed.upstream.behaving("ListMessages", flood):
        request = pb.ListMessagesRequest(user_id=deployed.world.cast.us).SerializeToString()
        call = deployed.caller().open("ListMessages", iter([request]), deployed.metadata(), 120)
        next(call)
        settled = _settled(lambda: made[0])
        grown = deployed.envoy().memory_info().rss - memory
        for _ in range(settled):
            next(call)
        wait(lambda: made[0] > settled, 60, "once something is read, the service goes on")
        call.cancel()
        stop.set()
    assert settled * len(data) < 32 << 20, f"{settled} messages were taken in"
    assert grown < 64 << 20


def test_a_slow_service_holds_the_uploader_back(deployed: HostedDeployment) -> None:
    gate, sent = threading.Event(), [0]
    contact = pb.Contact(user_id=7, name="x" * 100_000).SerializeToString()

    def closed(seen, requests, context):
        next(requests)
        gate.wait(120)
        count = 1 + sum(1 for _ in requests)
        yield pb.ImportContactsResponse(imported=count).SerializeToString()

    def upload():
        for _ in range(800):
            sent[0] += 1
            yield contact

    with deployed.upstream.behaving("ImportContacts", closed):
        call = deployed.caller().open("ImportContacts", upload(), deployed.metadata(), 120)
        settled = _settled(lambda: sent[0])
        gate.set()
        answer = ended(call)
    assert settled * len(contact) < 48 << 20, f"{settled} messages were taken in"
    assert (answer.status, pb.ImportContactsResponse.FromString(answer.messages[0]).imported) == ("OK", 800)


def _settled(count) -> int:
    """What a counter stands at once it has stood still for a second."""
    last, since = -1, time.monotonic()
    end = since + 60
    while time.monotonic() - since < 1.0:
        assert time.monotonic() < end, f"it goes on and on: {count()}"
        if count() != last:
            last, since = count(), time.monotonic()
        time.sleep(0.02)
    return last
