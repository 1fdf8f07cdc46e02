"""The ext_authz door: every question is decided and recorded, and only a recorded permit lets anything through."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from urllib.parse import quote

import grpc
import pytest
from envoy_rig import ENVOY, Peers, Point
from pipeline_rig import NOW, SERVICE, US, Rig, deny, describer, get, permit, user

from sidecar.api.envoy.v3.authorization_pb2 import CheckRequest, CheckResponse
from sidecar.attributes.entities import Route
from sidecar.attributes.routes import Routes
from sidecar.doors.envoy_authz import CHECK, AuthorizationHandler
from sidecar.doors.grpc_frames import frame
from sidecar.enforcement.call import Peer
from sidecar.enforcement.entries import DecisionEntry
from sidecar.errors import IdentifyError
from sidecar.record import OutcomeBody

Tree = dict[str, object]


class Door:
    """The handler, and what a test needs for asking it."""

    def __init__(self, *, believed: Peer | None = ENVOY, routes: bool = False) -> None:
        self.rig = Rig()
        self.rig.identifier.identity = user(US)
        self.point = Point(self.rig, believed)
        found = Routes([Route(http="GET /v1/profiles/{user_id}", rpc=f"{SERVICE}/GetProfile")], describer(), "r.yaml")
        self.ended = 0
        self.handler = AuthorizationHandler(
            self.point, Peers(), limit=1000, clock=lambda: NOW, routes=found if routes else None, ended=self._end
        )

    def _end(self) -> None:
        self.ended += 1

    def ask(self, method: str = "GetProfile", body: bytes | None = None, *, raw: bool = True, verb: str = "POST",
            path: str | None = None, certificate: str = "", **headers: str) -> CheckResponse:  # fmt: skip
        asked = CheckRequest()
        http = asked.attributes.request.http
        http.method, http.path = verb, f"/{SERVICE}/{method}" if path is None else path
        http.raw_body = frame(get(US)) if body is None else body
        source = asked.attributes.source
        source.principal, source.certificate = "spiffe://t/web", certificate
        source.address.socket_address.address, source.address.socket_address.port_value = "192.0.2.7", 4711
        said = {"content-type": "application/grpc", **{key.replace("_", "-"): value for key, value in headers.items()}}
        for key, value in said.items():
            if raw:
                http.header_map.headers.add(key=key, raw_value=value.encode())
            else:
                http.headers[key] = value
        return self.send(asked.SerializeToString())

    def send(self, data: bytes) -> CheckResponse:
        handler = self.handler.service(SimpleNamespace(method=CHECK))
        return CheckResponse.FromString(asyncio.run(handler.unary_unary(data, Context())))


class Context:
    def time_remaining(self) -> float | None:
        return 5.0

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        raise grpc.aio.AbortError(code, message)


def headers(options: object) -> dict[str, str]:
    return {one.header.key: one.header.value for one in options}  # type: ignore[attr-defined]


def test_it_serves_one_method() -> None:
    assert Door().handler.service(SimpleNamespace(method="/envoy.service.auth.v3.Authorization/Else")) is None


@pytest.mark.parametrize("raw", [True, False])
def test_a_permit_says_who_calls_and_takes_away_what_a_caller_may_not_say(raw: bool) -> None:
    door = Door()
    got = door.ask(
        raw=raw, x_customhouse_person="root", x_customhouse_other="1", x_forwarded_client_cert="URI=z", x_mine="1"
    )
    ok = got.ok_response
    assert got.status.code == 0
    assert headers(ok.headers)["x-customhouse-call-id"] == "call-1"
    assert headers(ok.headers)["x-customhouse-workload"] == "spiffe://t/web"
    assert set(headers(ok.headers)) == {"x-customhouse-call-id", "x-customhouse-workload", "traceparent"}
    assert list(ok.headers_to_remove) == ["x-customhouse-other", "x-customhouse-person", "x-forwarded-client-cert"]
    assert headers(ok.response_headers_to_add) == {"x-customhouse-call-id": "call-1"}
    assert dict(got.dynamic_metadata) == {"call_id": "call-1", "policy_revision": "p1"}
    assert door.ended == 1


def test_an_answer_holds_nothing_of_an_earlier_one() -> None:
    door = Door()
    said = [{}, {"x_customhouse_person": "root"}, {"x_customhouse_other": "1"}, {}, {"x_customhouse_person": "eve"}]
    for number, more in enumerate(said, start=1):
        got = door.ask(**more)
        ok = got.ok_response
        assert headers(ok.headers)["x-customhouse-call-id"] == f"call-{number}"
        assert headers(ok.response_headers_to_add) == {"x-customhouse-call-id": f"call-{number}"}
        assert dict(got.dynamic_metadata) == {"call_id": f"call-{number}", "policy_revision": "p1"}
        assert list(ok.headers_to_remove) == [name.replace("_", "-") for name in more]
        assert got == CheckResponse.FromString(got.SerializeToString())
    traces = [headers(door.ask().ok_response.headers)["traceparent"] for _ in range(3)]
    assert len(set(traces)) == 3


def test_the_outcome_of_a_permit_is_unobserved_and_comes_before_it() -> None:
    door = Door()
    door.ask()
    (decision,), (outcome,) = door.rig.records.decisions, door.rig.records.outcomes
    assert decision.door == "ext_authz"
    assert (outcome.seen, outcome.status, outcome.complete) == ("unobserved", "unobserved", False)


@pytest.mark.parametrize("kind", [DecisionEntry, OutcomeBody])
def test_without_its_records_nothing_is_permitted(kind: type) -> None:
    door = Door()
    door.rig.records.fail = lambda entry: isinstance(entry, kind)
    got = door.ask()
    assert got.WhichOneof("http_response") == "denied_response"
    assert (got.status.code, got.denied_response.status.code) == (14, 503)
    assert headers(got.denied_response.headers)["grpc-status"] == "14"


def test_a_peer_that_does_not_relay_speaks_for_nobody() -> None:
    door = Door(believed=None)
    door.ask(certificate=quote("-----BEGIN CERTIFICATE-----"))
    assert door.point.calls[0].peer == Peer(address="192.0.2.7:4711")


def test_a_refusal_says_its_reasons_to_grpc_clients() -> None:
    door = Door()
    door.rig.engine.rule = lambda _: deny("purpose_not_allowed")
    got = door.ask()
    said = headers(got.denied_response.headers)
    assert (got.status.code, got.denied_response.status.code, got.denied_response.body) == (7, 403, "")
    assert said["grpc-status"] == "7"
    assert said["x-customhouse-call-id"] == "call-1"
    assert "grpc-status-details-bin" in said
    assert [one.status for one in door.rig.records.outcomes] == ["PERMISSION_DENIED"]


@pytest.mark.parametrize("duty", [
    {"id": "redact_fields", "categories": ["id_contact"]}, {"id": "drop_records", "subjects": "us"},
    {"id": "recheck_seconds", "seconds": 9},
])  # fmt: skip
def test_duties_about_answers_are_refused(duty: Tree) -> None:
    door = Door()
    door.rig.engine.rule = lambda _: permit(duty)
    got = door.ask()
    assert got.status.code == 7
    assert "obligation_unfulfillable" in got.status.message


BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "no body": (lambda: b"", 7),
    "no frame": (lambda: b"\x07hello", 13),
    "half a frame": (lambda: frame(get(US))[:-1], 13),
    "two messages": (lambda: frame(get(US)) * 2, 3),
    "too long": (lambda: frame(bytes(1001)), 8),
    "no message": (lambda: frame(b"\xff"), 3),
    "a field nobody knows": (lambda: frame(get(US) + b"\xba\x3e\x01x"), 7),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_cannot_be_inspected_is_refused_and_recorded(body: str) -> None:
    made, code = BODIES[body]
    door = Door()
    got = door.ask(body=made())
    assert got.WhichOneof("http_response") == "denied_response"
    assert got.status.code == code
    assert len(door.rig.records.outcomes) == 1
    assert door.rig.records.outcomes[0].seen != "unobserved"


def test_a_part_of_a_body_is_refused_and_the_operator_told() -> None:
    door = Door()
    got = door.ask(x_envoy_auth_partial_body="true")
    assert got.status.code == 8
    assert "allow_partial_message" in door.rig.reports[-1].operator
    door.ask(body=b"")
    assert "with_request_body" in door.rig.reports[-1].operator


def test_a_compressed_message_is_inspected_and_passes_as_it_is() -> None:
    import gzip

    packed = gzip.compress(get(US))
    body = b"\x01" + len(packed).to_bytes(4, "big") + packed
    assert Door().ask(body=body, grpc_encoding="gzip").status.code == 0
    assert Door().ask(body=body).status.code == 13


def test_a_stream_is_decided_without_message_and_whoever_may_show_in_it_is_unknown() -> None:
    door = Door()
    got = door.ask("ListMessages", body=b"")
    assert got.status.code == 0
    (decision,) = door.rig.records.decisions
    assert b'"unknown":1' in bytes(decision.input)


def test_who_asks_comes_before_what_is_wrong() -> None:
    door = Door()
    door.rig.identifier.error = IdentifyError("who are you?")
    for body in (b"", b"\x07", frame(bytes(2000))):
        assert door.ask(body=body).status.code == 16


@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_grpc_is_a_post(verb: str) -> None:
    assert Door().ask(verb=verb).status.code == 3


def test_an_http_request_without_route_is_refused_under_no_path() -> None:
    door = Door(routes=True)
    got = door.ask(verb="GET", path="/v1/people/12345?x=secret", body=b"", content_type="application/json")
    assert (got.denied_response.status.code, got.status.code) == (403, 12)
    assert '"reasons": ["undescribed_method"]' in got.denied_response.body
    assert headers(got.denied_response.headers)["content-type"] == "application/problem+json"
    (decision,) = door.rig.records.decisions
    assert "12345" not in f"{decision.service}{decision.method}{bytes(decision.input)!r}"


def test_an_http_request_is_the_call_its_route_names() -> None:
    door = Door(routes=True)
    got = door.ask(verb="GET", path=f"/v1/profiles/{US}", body=b"", content_type="application/json")
    assert got.status.code == 0
    assert door.point.calls[0].method == f"/{SERVICE}/GetProfile"
    assert door.rig.records.decisions[0].subjects
    bad = door.ask(verb="GET", path=f"/v1/profiles/{US}?nothing=1", body=b"", content_type="application/json")
    assert (bad.status.code, bad.denied_response.status.code) == (3, 400)


def test_grpc_web_and_other_codecs_are_no_grpc() -> None:
    door = Door()
    assert door.ask(content_type="application/grpc-web").denied_response.status.code == 403
    assert door.ask(content_type="application/grpc+json").denied_response.status.code == 403


def test_what_is_no_check_request_is_an_error_and_not_an_answer() -> None:
    door = Door()
    with pytest.raises(grpc.aio.AbortError):
        door.send(b"\xff\xff")
    assert door.ended == 1


def test_a_fault_of_ours_is_an_error_and_leaves_an_outcome() -> None:
    door = Door()

    async def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    door.rig.engine.decide, door.rig.engine.peek = breaks, lambda _: None
    with pytest.raises(ZeroDivisionError):
        door.ask()
    assert [one.status for one in door.rig.records.outcomes] == ["CANCELLED"]
