"""Bad input from callers, at a running deployment: the status of the stage table, a record that says so, and on it goes."""

import base64
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from deployment import SOON, Answer, Deployment, wait
from proxy_parts import frame, headers, message

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE
from sidecar.demo.world import CONSOLE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = f"/{SERVICE}/GetProfile".encode()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("bad")) as deployment:
        pid = deployment.processes.pid("sidecar")
        yield deployment
        assert deployment.processes.pid("sidecar") == pid
        os.kill(pid, 0)  # the same process, to the end
        assert "Traceback" not in deployment.log("sidecar")
        deployment.delivered()
        assert deployment.audit().returncode == 0


def get(deployment: Deployment, user: int | None = None, **more: object) -> Answer:
    return deployment.call("GetProfile", pb.GetProfileRequest(user_id=user or deployment.world.cast.us), **more)  # type: ignore[arg-type]


def refused(deployment: Deployment, answer: Answer, said: str) -> None:
    """The caller was told so, the service never heard of it, and the records say so."""
    assert answer.said == said
    assert not any(answer.messages)
    assert deployment.upstream.calls_of(answer.call_id) == []
    recorded = deployment.recorded(answer.call_id)
    assert recorded.effects == ["deny"]
    assert (recorded.status, recorded.codes[0]) == tuple(said.split())


# -- messages and methods ------------------------------------------------------------------------------------------------


UNREADABLE = {
    "a field number of zero": b"\x00\x01",
    "noise": b"\xff\xff\xff",
    "a tag without its value": b"\x08",
    "a length beyond the end": b"\x12\x7f",
    "groups that never end": b"\x0b\x0b\x0b",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
@pytest.mark.parametrize("method", ["GetProfile", "ListMessages", "ImportContacts"])
def test_a_message_that_cannot_be_read_is_refused(deployed: Deployment, method: str, data: bytes) -> None:
    answer = deployed.call(method, data)
    assert answer.status == "INVALID_ARGUMENT", answer
    refused(deployed, answer, f"INVALID_ARGUMENT {answer.reason}")


@pytest.mark.parametrize("method", ["GetProfile", "ImportContacts"])
def test_text_that_is_not_utf_8_is_refused(deployed: Deployment, method: str) -> None:
    answer = deployed.call(method, b"\x12\x02\xff\xfe")
    refused(deployed, answer, f"INVALID_ARGUMENT {answer.reason}")


def test_a_bad_message_in_the_middle_of_a_stream_ends_it(deployed: Deployment) -> None:
    good = pb.Contact(user_id=deployed.world.cast.us, name="F")
    answer = deployed.call("ImportContacts", good, good, b"\xff\xff", good)
    assert answer.status == "INVALID_ARGUMENT"
    seen = deployed.upstream.calls_of(answer.call_id)[0]
    assert seen.ended.wait(60)
    assert seen.given_up, "the service must not take the beginning for all of it"
    recorded = deployed.recorded(answer.call_id)
    assert (recorded.status, recorded.effects[0], recorded.effects[-1]) == ("INVALID_ARGUMENT", "permit", "deny")


@pytest.mark.parametrize(
    "path",
    [f"/{SERVICE}/DropTable", "/no.such.Service/Get", "/x", "/", f"/{SERVICE}/", "/a/b/c", f"/{SERVICE}/getprofile"],
)
def test_an_unknown_method_is_unimplemented_and_recorded(deployed: Deployment, path: str) -> None:
    answer = deployed.caller().call(path, [b"anything"], deployed.metadata())
    refused(deployed, answer, "UNIMPLEMENTED undescribed_method")
    name = deployed.recorded(answer.call_id).decisions[0]
    assert f"/{name['service']}/{name['method']}".startswith(path.rstrip("/")[:20])


def test_what_grpc_itself_refuses_reaches_nobody(deployed: Deployment) -> None:
    """Oversized messages and metadata: RESOURCE_EXHAUSTED, no record; and the calls around them are not disturbed."""
    wait(lambda: deployed.status()["open_calls"] == 0, SOON, "no call of another test's is open")
    before = get(deployed)
    large = deployed.call("GetProfile", pb.GetProfileRequest(user_id=1, country="x" * (5 << 20)))
    assert (large.status, large.call_id) == ("RESOURCE_EXHAUSTED", "")
    in_stream = deployed.call("ImportContacts", pb.Contact(user_id=deployed.world.cast.us, name="x" * (5 << 20)))
    assert in_stream.status == "RESOURCE_EXHAUSTED"
    headers_ = deployed.call("GetProfile", pb.GetProfileRequest(user_id=1), more=[("x-filler", "y" * 20_000)])
    assert (headers_.status, headers_.call_id) == ("RESOURCE_EXHAUSTED", "")
    after = get(deployed)
    assert (before.status, after.status) == ("OK", "OK")
    deployed.recorded(after.call_id)
    ids = [str(leaf["call_id"]) for leaf, _ in deployed.records(type="outcome")]
    between = ids[ids.index(before.call_id) + 1 : ids.index(after.call_id)]
    recorded = [deployed.recorded(one) for one in set(between)]
    assert [one.decisions for one in recorded] in ([], [[]]), "only the stream, whose call had begun, left an outcome"
    assert [one.status for one in recorded] in ([], ["CANCELLED"])


def test_a_message_of_the_largest_size_passes(deployed: Deployment) -> None:
    answer = deployed.call("ImportContacts", pb.Contact(user_id=deployed.world.cast.us, name="x" * ((4 << 20) - 64)))
    assert answer.status == "OK", answer.text


# -- who is calling --------------------------------------------------------------------------------------------------------


def unsigned(claims: dict[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{part(claims)}."


def test_bad_tokens_are_refused_and_recorded(deployed: Deployment) -> None:
    now, good = int(time.time()), deployed.token("amy")
    head, payload, signature = good.split(".")
    other_kid = (
        base64.urlsafe_b64encode(json.dumps({"alg": "ES256", "kid": "who-knows", "typ": "at+jwt"}).encode())
        .rstrip(b"=")
        .decode()
    )
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    tokens = {
        "not a token": "x", "empty": "", "alg none": unsigned(claims), "unknown kid": f"{other_kid}.{payload}.{signature}",
        "no signature": f"{head}.{payload}.", "altered": f"{head}.{payload[:-4]}AAAA.{signature}",
        "expired": deployed.token("amy", exp=now - 60), "from tomorrow": deployed.token("amy", iat=now + 86400, nbf=now + 86400),
        "another audience": deployed.token("amy", aud="somebody-else"), "another issuer": deployed.token("amy", iss="https://evil.example"),
        "no subject": deployed.token("amy", sub=""), "another workload's": deployed.token("amy", azp=CONSOLE + "x"),
        "too large": deployed.token("amy", filler="x" * 9000),
    }  # fmt: skip
    for name, token in tokens.items():
        metadata = [("authorization", f"Bearer {token}"), *deployed.metadata(None)]
        answer = deployed.caller().call("GetProfile", [pb.GetProfileRequest(user_id=1).SerializeToString()], metadata)
        assert answer.status == "UNAUTHENTICATED", name
        refused(deployed, answer, "UNAUTHENTICATED unidentified_person")
    twice = deployed.call("GetProfile", pb.GetProfileRequest(user_id=1), more=[("authorization", f"Bearer {good}")])
    assert twice.status == "UNAUTHENTICATED", "two tokens name nobody"


def test_a_peer_nobody_registered_is_refused(deployed: Deployment) -> None:
    answer = get(deployed, certificate="reviewer")
    refused(deployed, answer, "UNAUTHENTICATED unidentified_workload")


def test_a_caller_without_a_certificate_does_not_get_in(deployed: Deployment) -> None:
    answer = get(deployed, certificate=None)
    deployed.caller(None).close()  # or it would try again and again
    assert (answer.status, answer.call_id) == ("UNAVAILABLE", "")


@pytest.mark.parametrize("country", ["DE", "IE", "us", "", "ZZ", "🇩🇪"])
def test_a_country_that_a_caller_claims_decides_nothing(deployed: Deployment, country: str) -> None:
    request = pb.GetProfileRequest(user_id=deployed.world.cast.us, country=country)
    answer = deployed.call("GetProfile", request, token="niall")
    refused(deployed, answer, "PERMISSION_DENIED not_us_personnel")


def test_words_of_the_wrong_form_do_not_become_free_text_in_a_record(deployed: Deployment) -> None:
    """A ticket or justification outside its pattern is as good as none, and does not stand anywhere."""
    told = {"ticket": "call me at jo@mail.example", "justification": "because Jo Jones of Columbus asked"}
    answer = get(deployed, **told)
    assert answer.status == "INVALID_ARGUMENT"
    recorded = deployed.recorded(answer.call_id)
    assert recorded.effects == ["deny"]
    for text in told.values():
        assert text not in json.dumps([recorded.decisions, recorded.outcomes])
        assert text not in deployed.log("sidecar")


# -- headers -----------------------------------------------------------------------------------------------------------------


def test_headers_in_the_sidecars_name_are_stripped_and_set_anew(deployed: Deployment) -> None:
    forged = [
        ("x-customhouse-person", "root"), ("x-customhouse-workload", "spiffe://evil"), ("x-customhouse-call-id", "0000"),
        ("x-customhouse-person-bin", b"root"), ("x-customhouse-anything", "else"), ("x-forwarded-client-cert", "Hash=00"),
        ("x-ordinary", "kept"), ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]  # fmt: skip
    answer = get(deployed, more=forged)
    assert answer.status == "OK", answer.said
    seen = deployed.upstream.calls_of(answer.call_id)[0]
    assert seen.header("x-customhouse-person") == ["amy"]
    assert seen.header("x-customhouse-workload") == [CONSOLE]
    assert seen.header("x-customhouse-call-id") == [answer.call_id]
    assert seen.header("x-ordinary") == ["kept"]
    for gone in ("x-customhouse-person-bin", "x-customhouse-anything", "x-forwarded-client-cert"):
        assert seen.header(gone) == []
    trace = str(seen.header("traceparent")[0]).split("-")
    assert (trace[1], trace[2] == "b7ad6b7169203331") == ("0af7651916cd43dd8448eb211c80319c", False), (
        "the caller's trace goes on"
    )
    recorded = deployed.recorded(answer.call_id).decisions[0]["trace"]
    assert (recorded["trace_id"], recorded["span_id"], recorded["from"]) == (trace[1], trace[2], "caller")


def test_an_exception_cannot_be_claimed_out_of_thin_air(deployed: Deployment) -> None:
    answer = get(deployed, token="niall", exception="EX-99")
    assert answer.status == "PERMISSION_DENIED"
    assert "exception_invalid" in deployed.recorded(answer.call_id).codes


# -- what is no gRPC at all ------------------------------------------------------------------------------------------------


def secure(deployment: Deployment) -> ssl.SSLSocket:
    """A connection with the console's certificate, on which anything may be said."""
    pair = deployment.world.certificates["console"]
    context = ssl.create_default_context(cafile=str(deployment.world.ca))
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection(("127.0.0.1", deployment.world.ports["proxy"]), timeout=60)
    return context.wrap_socket(plain, server_hostname="localhost")


GARBAGE = {
    "plain text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 16,
    "a preface and noise": PREFACE + bytes(range(256)) * 64,
    "a frame longer than allowed": PREFACE + frame(4, 0, 0) + (1 << 23).to_bytes(3, "big") + b"\0\0" + bytes(4) + b"x" * 9000,
    "data on a stream nobody opened": PREFACE + frame(4, 0, 0) + message(7, b"hello"),
    "headers that are no HPACK": PREFACE + frame(4, 0, 0) + frame(1, 4, 1, b"\xff" * 200),
    "a path that is not UTF-8": PREFACE + frame(4, 0, 0) + headers(1, b"/\xff\xfe/\xff") + message(1, b""),
    "a message cut short": PREFACE + frame(4, 0, 0) + headers(1, PATH) + frame(0, 1, 1, b"\0\0\0\x10\0half"),
    "a compressed message that is not": PREFACE + frame(4, 0, 0) + headers(1, PATH, [(b"grpc-encoding", b"gzip")]) + frame(0, 1, 1, b"\1\0\0\0\4junk"),
    "settings without end": PREFACE + frame(4, 0, 0) * 3000,
    "resets without end": PREFACE + frame(4, 0, 0) + b"".join(headers(n, PATH) + frame(3, 0, n, bytes(4)) for n in range(1, 801, 2)),
    "a window of nothing": PREFACE + frame(4, 0, 0) + frame(8, 0, 0, bytes(4)),
}  # fmt: skip


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_on_the_port_harms_nobody(deployed: Deployment, what: str) -> None:
    for connect in (
        lambda: socket.create_connection(("127.0.0.1", deployed.world.ports["proxy"]), timeout=60),
        lambda: secure(deployed),
    ):
        with connect() as raw:
            try:
                raw.sendall(GARBAGE[what])
                raw.settimeout(0.3)
                while raw.recv(65536):
                    continue
            except OSError:
                pass  # it hung up, or has nothing to say: either is fine
    caller = deployed.new_caller()
    try:
        request = [pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString()]
        for _ in range(300):
            answer = caller.call("GetProfile", request, deployed.metadata())
            if answer.status == "OK":
                break
            time.sleep(0.1)  # a listener that a bad path has stopped is put back at once
        assert answer.status == "OK", answer.text
    finally:
        caller.close()
