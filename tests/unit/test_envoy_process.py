"""The ext_proc door: nothing goes on that was not decided, and a conversation ends in good order only when the call has."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import grpc
import msgspec
import pytest
from envoy_rig import ENVOY, Peers, Point
from pipeline_rig import NOW, SERVICE, US, Rig, deny, get, permit, profile

from sidecar.api.envoy.v3.processing_pb2 import FULL_DUPLEX_STREAMED, STREAMED, ProcessingRequest, ProcessingResponse
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.doors import envoy_process
from sidecar.doors.envoy_process import PROCESS, ProcessingHandler
from sidecar.doors.grpc_frames import frame
from sidecar.enforcement.call import Peer


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def error(self, event: str, **details: object) -> None:
        self.lines.append((event, details))

    warning = error


class Envoy:
    """Envoy's side of a conversation. `service` is what stands behind it: what it answers to each message from us."""

    def __init__(self, service: Callable[["Envoy", ProcessingResponse], None]) -> None:
        self.told: list[ProcessingResponse] = []
        self.ended: tuple[grpc.StatusCode, str] | None = None
        self._service = service
        self._sent: asyncio.Queue[bytes | None] = asyncio.Queue()

    def send(self, **parts: object) -> None:
        self._sent.put_nowait(ProcessingRequest(**parts).SerializeToString())

    def raw(self, data: bytes | None) -> None:
        self._sent.put_nowait(data)

    def close(self) -> None:
        self.raw(None)

    async def read(self) -> object:
        data = await self._sent.get()
        return grpc.aio.EOF if data is None else data

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.told.append(ProcessingResponse.FromString(data))
        self._service(self, self.told[-1])

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        self.ended = (code, message)
        raise grpc.aio.AbortError(code, message)

    def kinds(self) -> list[str]:
        return [str(one.WhichOneof("response")) for one in self.told]

    def body(self, side: str) -> bytes:
        mutations = [
            getattr(one, side).response.body_mutation for one in self.told if one.WhichOneof("response") == side
        ]
        return b"".join(one.streamed_response.body for one in mutations)


def pairs(items: list[tuple[str, str]]) -> dict[str, object]:
    return {"headers": [{"key": key, "raw_value": value.encode()} for key, value in items]}


def opening(
    method: str = "GetProfile", media: str = "application/grpc", *more: tuple[str, str], **parts: object
) -> dict[str, object]:
    """What Envoy begins with."""
    items = [(":method", "POST"), (":path", f"/{SERVICE}/{method}"), ("content-type", media), *more]
    modes = {"request_body_mode": FULL_DUPLEX_STREAMED, "response_body_mode": FULL_DUPLEX_STREAMED}
    return {"request_headers": {"headers": pairs(items)}, "protocol_config": modes, **parts}


def answering(*messages: bytes, status: str = "0", headers: tuple[tuple[str, str], ...] = ()):  # noqa: ANN201
    """A service that answers these once it has the whole request; Envoy closes when it has everything."""

    def service(envoy: Envoy, told: ProcessingResponse) -> None:
        kind = told.WhichOneof("response")
        whole = kind == "request_trailers" or (
            kind == "request_body" and told.request_body.response.body_mutation.streamed_response.end_of_stream
        )
        if whole:
            envoy.send(
                response_headers={
                    "headers": pairs([(":status", "200"), ("content-type", "application/grpc"), *headers])
                }
            )
            for message in messages:
                envoy.send(response_body={"body": frame(message)})
            envoy.send(response_trailers={"trailers": pairs([("grpc-status", status), ("x-secret", "1")])})
        if kind in ("response_trailers", "immediate_response"):
            envoy.close()

    return service


class Door:
    def __init__(self, believed: Peer | None = ENVOY) -> None:
        self.rig, self.log, self.ended = Rig(), Log(), 0
        self.point = Point(self.rig, believed)
        self.handler = ProcessingHandler(self.point, Peers(), self.log, limit=1000, clock=lambda: NOW, ended=self._end)

    def _end(self) -> None:
        self.ended += 1

    def talk(self, envoy: Envoy, *sent: dict[str, object] | bytes, close: bool = False) -> None:
        """Run one conversation to its end; `close`: Envoy goes after that."""

        async def run() -> None:
            for one in sent:
                envoy.raw(one) if isinstance(one, bytes) else envoy.send(**one)
            if close:
                envoy.close()
            handler = self.handler.service(SimpleNamespace(method=PROCESS))
            try:
                await asyncio.wait_for(handler.stream_stream(None, envoy), 10)
            except grpc.aio.AbortError:
                return

        asyncio.run(run())
        assert self.ended == 1


def body(*messages: bytes, last: bool = True) -> dict[str, object]:
    return {"request_body": {"body": b"".join(map(frame, messages)), "end_of_stream": last}}


def test_it_serves_one_method() -> None:
    assert Door().handler.service(SimpleNamespace(method="/envoy.service.ext_proc.v3.ExternalProcessor/Else")) is None


def test_a_unary_call_goes_on_and_comes_back_as_it_was_decided() -> None:
    door, envoy = Door(), Envoy(answering(profile(US), headers=(("x-upstream", "1"),)))
    door.rig.engine.rule = lambda _: permit({"id": "redact_fields", "categories": ["id_contact"]})
    door.talk(envoy, opening("GetProfile", "application/grpc", ("x-customhouse-person", "root")), body(get(US)))
    assert envoy.ended is None
    assert envoy.kinds() == [
        "request_headers",
        "request_body",
        "response_headers",
        "response_body",
        "response_trailers",
    ]
    assert envoy.body("request_body") == frame(get(US))
    mutation = envoy.told[0].request_headers.response.header_mutation
    assert {one.header.key: one.header.raw_value for one in mutation.set_headers}["x-customhouse-person"] == b"amy"
    assert "x-upstream" in envoy.told[2].response_headers.response.header_mutation.remove_headers
    assert "x-secret" in envoy.told[4].response_trailers.header_mutation.remove_headers
    assert pb.Profile.FromString(envoy.body("response_body")[5:]).email == ""
    (outcome,) = door.rig.records.outcomes
    assert (outcome.status, outcome.seen, outcome.redacted) == ("OK", msgspec.UNSET, {"id_contact": 1})


def test_nothing_goes_on_before_the_decision_is_recorded() -> None:
    door, envoy = Door(), Envoy(answering(profile(US)))
    door.rig.records.fail = lambda _: True
    door.talk(envoy, opening(), body(get(US)))
    assert envoy.kinds() == ["immediate_response"]
    assert envoy.told[0].immediate_response.grpc_status.status == 14


def test_a_refusal_is_a_grpc_status() -> None:
    door, envoy = Door(), Envoy(answering())
    door.rig.engine.rule = lambda _: deny("purpose_not_allowed")
    door.talk(envoy, opening(), body(get(US)))
    reply = envoy.told[0].immediate_response
    assert (envoy.kinds(), reply.grpc_status.status) == (["immediate_response"], 7)
    assert b"purpose_not_allowed" in reply.body
    assert {one.header.key for one in reply.headers.set_headers} == {"grpc-status-details-bin", "x-customhouse-call-id"}


@pytest.mark.parametrize(("sent", "status"), [
    ([body(get(US), get(US))], 3), ([body()], 3), ([{"request_body": {"body": b"\x09", "end_of_stream": True}}], 13),
    ([body(bytes(1001))], 8), ([{"request_body": {"body": frame(get(US))[:-1], "end_of_stream": True}}], 13),
])  # fmt: skip
def test_what_is_not_one_message_is_refused_and_recorded(sent: list[dict[str, object]], status: int) -> None:
    door, envoy = Door(), Envoy(answering())
    door.talk(envoy, opening(), *sent)
    assert envoy.told[0].immediate_response.grpc_status.status == status
    assert len(door.rig.records.outcomes) == 1


def test_a_request_without_a_body_is_refused() -> None:
    door, envoy = Door(), Envoy(answering())
    first = opening()
    first["request_headers"]["end_of_stream"] = True  # type: ignore[index]
    door.talk(envoy, first)
    assert envoy.told[0].immediate_response.grpc_status.status == 3


def test_the_services_own_status_passes() -> None:
    door, envoy = Door(), Envoy(answering(status="5"))
    door.talk(envoy, opening(), body(get(US)))
    assert envoy.told[-1].immediate_response.grpc_status.status == 5


@pytest.mark.parametrize("answers", [(), (profile(US), profile(US))])
def test_a_unary_answer_is_one_message(answers: tuple[bytes, ...]) -> None:
    door, envoy = Door(), Envoy(answering(*answers))
    door.talk(envoy, opening(), body(get(US)))
    assert envoy.told[-1].immediate_response.grpc_status.status == 13


def test_trailers_of_a_request_do_not_reach_the_service() -> None:
    door, envoy = Door(), Envoy(answering(profile(US)))
    smuggled = {"request_trailers": {"trailers": pairs([("x-smuggled", "1")])}}
    door.talk(envoy, opening(), body(get(US), last=False), smuggled)
    told = next(one for one in envoy.told if one.WhichOneof("response") == "request_trailers")
    assert list(told.request_trailers.header_mutation.remove_headers) == ["x-smuggled"]
    assert envoy.kinds()[-1] == "response_trailers"


def test_a_stream_passes_message_by_message() -> None:
    shown = [pb.Message(text=one).SerializeToString() for one in ("a", "b")]
    door, envoy = Door(), Envoy(answering(*shown))
    door.talk(envoy, opening("ListMessages"), body(pb.ListMessagesRequest(user_id=US).SerializeToString()))
    assert envoy.body("response_body") == b"".join(map(frame, shown))
    assert envoy.told[-1].response_trailers.header_mutation.remove_headers == [], "a permit without obligations"
    assert door.rig.records.outcomes[0].messages.out == 2


def test_a_stream_that_is_refused_ends_with_its_status_in_the_services_trailers() -> None:
    door, envoy = Door(), Envoy(answering(pb.Message(text="a").SerializeToString(), b"\xff", b"never"))
    door.talk(envoy, opening("ListMessages"), body(pb.ListMessagesRequest(user_id=US).SerializeToString()))
    said = {
        one.header.key: one.header.raw_value for one in envoy.told[-1].response_trailers.header_mutation.set_headers
    }
    assert said["grpc-status"] == b"7"
    assert b"never" not in envoy.body("response_body")


def test_a_stream_of_garbage_is_given_up() -> None:
    door, envoy = Door(), Envoy(answering())
    door.talk(envoy, opening("Sync"), {"request_body": {"body": b"\x09garbage"}})
    assert envoy.told[-1].immediate_response.grpc_status.status == 13
    assert [one.status for one in door.rig.records.outcomes] == ["CANCELLED"]


def test_a_refused_stream_without_trailers_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_process, "REFUSAL_SECONDS", 0.05)

    def service(envoy: Envoy, told: ProcessingResponse) -> None:
        if told.WhichOneof("response") == "request_body":
            envoy.send(response_headers={"headers": pairs([(":status", "200")])})
            envoy.send(response_body={"body": frame(pb.Message(text="a").SerializeToString()) + frame(b"\xff")})
        if told.WhichOneof("response") == "immediate_response":
            envoy.close()

    door, envoy = Door(), Envoy(service)
    door.talk(envoy, opening("ListMessages"), body(pb.ListMessagesRequest(user_id=US).SerializeToString()))
    assert envoy.kinds()[-2:] == ["response_body", "immediate_response"]


@pytest.mark.parametrize("method", ["GetProfile", "ListMessages", "Sync"])
def test_when_envoy_goes_the_call_is_cancelled_and_never_ends_in_good_order(method: str) -> None:
    door, envoy = Door(), Envoy(lambda *_: None)
    request = get(US) if method == "GetProfile" else pb.ListMessagesRequest(user_id=US).SerializeToString()

    def then_go(one: Envoy, told: ProcessingResponse) -> None:
        if told.WhichOneof("response") == "request_body":
            one.close()

    envoy._service = then_go
    door.talk(envoy, opening(method), body(request, last=method != "Sync"))
    assert envoy.ended == (grpc.StatusCode.CANCELLED, "the caller has gone")
    assert [one.status for one in door.rig.records.outcomes] == ["CANCELLED"]


def test_a_fault_of_ours_is_an_error_at_which_envoy_fails_the_call() -> None:
    door, envoy = Door(), Envoy(lambda *_: None)

    async def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a person's name")

    door.rig.engine.decide = breaks
    door.talk(envoy, opening(), body(get(US)))
    assert envoy.ended is not None
    assert envoy.ended[0] is grpc.StatusCode.UNAVAILABLE
    assert envoy.told == []
    assert "name" not in str(door.log.lines)
    assert [one.status for one in door.rig.records.outcomes] == ["UNAVAILABLE"]


def test_an_envoy_that_does_not_close_is_no_good_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envoy_process, "CLOSE_SECONDS", 0.05)
    door, envoy = Door(), Envoy(lambda *_: None)
    door.rig.engine.rule = lambda _: deny("purpose_not_allowed")
    door.talk(envoy, opening(), body(get(US)))
    assert envoy.ended == (grpc.StatusCode.UNAVAILABLE, "Envoy did not end its call")


@pytest.mark.parametrize("first", [
    opening(observability_mode=True), {"response_headers": {}},
    opening(protocol_config={"request_body_mode": FULL_DUPLEX_STREAMED, "response_body_mode": STREAMED}),
    {"request_headers": {}}, b"\xff\xff",
])  # fmt: skip
def test_an_envoy_set_up_otherwise_gets_an_error(first: dict[str, object] | bytes) -> None:
    door, envoy = Door(), Envoy(lambda *_: None)
    door.talk(envoy, first, close=True)
    assert envoy.ended is not None
    assert (envoy.told, door.point.calls) == ([], [])


def test_what_is_no_grpc_is_refused_under_no_path() -> None:
    door, envoy = Door(), Envoy(answering())
    door.talk(envoy, opening("12345", "application/json"))
    reply = envoy.told[0].immediate_response
    assert (reply.status.code, b"undescribed_method" in reply.body) == (403, True)
    assert door.rig.records.decisions[0].method == "request"


def test_a_peer_that_does_not_relay_speaks_for_nobody() -> None:
    door, envoy = Door(believed=None), Envoy(answering(profile(US)))
    said = {"envoy.filters.http.ext_proc": {"source.address": "192.0.2.7:4711", envoy_process.PEER_ATTRIBUTE: "x"}}
    first = ProcessingRequest(**opening())
    for name, values in said.items():
        first.attributes[name].update(values)
    door.talk(envoy, first.SerializeToString(), body(get(US)))
    assert door.point.calls[0].peer == Peer(address="192.0.2.7:4711")


def test_an_answer_of_envoys_own_says_nothing_about_the_network() -> None:
    def service(envoy: Envoy, told: ProcessingResponse) -> None:
        if told.WhichOneof("response") == "request_body":
            failed = [(":status", "200"), ("grpc-status", "14"), ("grpc-message", "connect to 10.0.0.7 failed")]
            sent = ProcessingRequest(response_headers={"headers": pairs(failed), "end_of_stream": True})
            sent.attributes["envoy.filters.http.ext_proc"].update({envoy_process.DETAILS_ATTRIBUTE: "upstream_reset"})
            envoy.raw(sent.SerializeToString())
        if told.WhichOneof("response") == "immediate_response":
            envoy.close()

    door, envoy = Door(), Envoy(service)
    door.talk(envoy, opening(), body(get(US)))
    reply = envoy.told[-1].immediate_response
    assert (reply.grpc_status.status, b"10.0.0.7" in reply.body) == (14, False)
