"""The ASGI middleware: an HTTP application guarded by the same enforcement point, filtered and recorded alike."""

import json

import pytest
from pipeline_rig import PERMIT, US, Rig, describer

from sidecar.attributes.entities import Route
from sidecar.attributes.routes import Routes
from sidecar.doors.asgi import Guarded, NamedPeers, TlsPeers

SERVICE = "sidecar.demo.profiles.v1.Profiles"
REDACTED = {**PERMIT, "obligations": [{"id": "redact_fields", "categories": ["id_contact"]}]}
DENIED = {**PERMIT, "effect": "deny", "reasons": [{"code": "not_us_personnel", "message": "secret words", "rule": "x"}]}
JSON = [(b"content-type", b"application/json")]


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def error(self, event: str, **_: object) -> None:
        self.events.append(event)

    warning = error


class App:
    """Answers what a test wants, and remembers what reached it."""

    def __init__(self, status: int = 200, headers=JSON, body: bytes = b"{}", parts: int = 1) -> None:
        self.status, self.headers, self.body, self.parts = status, list(headers), body, parts
        self.seen: list[tuple[dict, bytes]] = []

    async def __call__(self, scope, receive, send) -> None:
        event = await receive() if scope["type"] == "http" else {}
        self.seen.append((scope, event.get("body", b"")))
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        size = max(1, len(self.body) // self.parts)
        pieces = [self.body[at : at + size] for at in range(0, max(1, len(self.body)), size)]
        for number, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": number + 1 < len(pieces)})


class Got:
    def __init__(self, events: list[dict]) -> None:
        self.status = events[0]["status"]
        self.headers = {key.decode(): value.decode() for key, value in events[0]["headers"]}
        self.body = b"".join(one.get("body", b"") for one in events[1:])
        assert int(self.headers["content-length"]) == len(self.body)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def ask(rig: Rig, app: App, target: str = f"/v1/profiles/{US}", *, verb: str = "GET", body: bytes = b"",
              headers=(), guarded=None, chunks: int = 1, log: Log | None = None, limit: int = 4096) -> Got:  # fmt: skip
    routes = Routes([Route(http="GET /v1/profiles/{user_id}", rpc=f"{SERVICE}/GetProfile"),
                     Route(http="POST /v1/profiles", rpc=f"{SERVICE}/ListProfiles")], describer(), "r.yaml")  # fmt: skip
    door = guarded or Guarded(app, rig.point, routes, NamedPeers("spiffe://t/console"), log or Log(),
                              unguarded=["/healthz"], limit=limit)  # fmt: skip
    path, _, query = target.partition("?")
    size = max(1, -(-len(body) // chunks))
    pieces = [body[at : at + size] for at in range(0, max(1, len(body)), size)]
    events = [{"type": "http.request", "body": one, "more_body": n + 1 < len(pieces)} for n, one in enumerate(pieces)]
    sent: list[dict] = []

    async def receive() -> dict:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(event: dict) -> None:
        sent.append(event)

    scope = {"type": "http", "method": verb, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
             "headers": list(headers), "client": ("127.0.0.1", 1), "extensions": {}}  # fmt: skip
    await door(scope, receive, send)
    return Got(sent)


PROFILE = json.dumps({"user_id": US, "handle": "h", "email": "a@b.example"}).encode()


class TestPermits:
    async def test_an_answer_passes_as_it_was_written_and_is_recorded(self, rig: Rig) -> None:
        app = App(body=PROFILE, headers=[*JSON, (b"etag", b"1"), (b"x-customhouse-person", b"forged")], parts=3)
        got = await ask(
            rig, app, headers=[(b"x-customhouse-purpose", b"user_support"), (b"x-customhouse-person", b"eve")]
        )
        assert (got.status, got.body, got.headers["etag"]) == (200, PROFILE, "1")
        assert got.headers["x-customhouse-call-id"] == "call-1" and "x-customhouse-person" not in got.headers
        seen = dict(app.seen[0][0]["headers"])
        assert seen[b"x-customhouse-call-id"] == b"call-1" and seen[b"x-customhouse-person"] != b"eve"
        assert [one.door for one in rig.records.decisions] == ["interceptor"] * len(rig.records.decisions)
        assert rig.records.outcomes[0].status == "OK" and rig.records.outcomes[0].complete

    async def test_what_is_ordered_withheld_is_withheld(self, rig: Rig) -> None:
        rig.engine.rule = lambda _request: REDACTED
        got = await ask(rig, App(body=PROFILE))
        assert got.status == 200 and "email" not in json.loads(got.body) and json.loads(got.body)["handle"] == "h"

    async def test_an_unguarded_path_and_lifespan_pass(self, rig: Rig) -> None:
        app = App(body=b"ok", headers=[(b"content-length", b"2")])
        assert (await ask(rig, app, "/healthz")).body == b"ok"
        assert rig.records.decisions == []


class TestRefusals:
    async def test_a_deny_is_a_problem_with_reason_and_call_id(self, rig: Rig) -> None:
        rig.engine.rule = lambda _request: DENIED
        app = App(body=PROFILE)
        got = await ask(rig, app)
        said = json.loads(got.body)
        assert got.status == 403 and got.headers["content-type"] == "application/problem+json"
        assert said["reasons"] == ["not_us_personnel"] and said["call_id"] == "call-1" and b"secret" not in got.body
        assert app.seen == []

    @pytest.mark.parametrize(
        ("target", "verb", "body", "headers", "status"),
        [
            ("/v1/nothing", "GET", b"", (), 404),
            (f"/v1/profiles/{US}?who=1", "GET", b"", (), 400),
            ("/v1/profiles", "POST", b'{"page_size":1}', (), 400),
            ("/v1/profiles", "POST", b"{", JSON, 400),
            ("/v1/profiles", "POST", b" " * 5000, JSON, 400),
        ],
    )
    async def test_what_is_no_call_is_refused_and_recorded(
        self, rig: Rig, target: str, verb: str, body: bytes, headers, status: int
    ) -> None:
        app = App(body=PROFILE)
        got = await ask(rig, app, target, verb=verb, body=body, headers=headers, chunks=3)
        assert got.status == status and app.seen == []
        assert len(rig.records.outcomes) == 1

    @pytest.mark.parametrize(
        "app",
        [
            App(body=b"<html>", headers=[(b"content-type", b"text/html")]),
            App(body=PROFILE, headers=[*JSON, (b"content-encoding", b"gzip")]),
            App(body=PROFILE, headers=[]),
            App(body=b'{"secret": 1}'),
            App(body=b'{"user_id": 1, "userId": 2}'),
            App(body=b'{"email": "' + b"x" * 5000 + b'"}'),
        ],
    )
    async def test_an_answer_that_cannot_be_filtered_does_not_leave(self, rig: Rig, app: App) -> None:
        got = await ask(rig, app)
        assert got.status == 503 and b"secret" not in got.body and b"html" not in got.body
        assert rig.records.outcomes[0].status == "UNAVAILABLE"

    async def test_an_application_that_fails_is_an_error_without_its_words(self, rig: Rig) -> None:
        async def failing(scope, receive, send) -> None:
            raise ValueError("email a@b.example")

        got = await ask(rig, failing)  # type: ignore[arg-type]
        assert got.status == 503 and b"a@b" not in got.body

    async def test_an_error_of_the_application_keeps_its_status(self, rig: Rig) -> None:
        got = await ask(rig, App(status=404, body=b'{"detail":"no user 7"}'))
        assert got.status == 404
        assert rig.records.outcomes[0].status == "NOT_FOUND"

    async def test_its_words_stay_where_something_is_withheld(self, rig: Rig) -> None:
        rig.engine.rule = lambda _request: REDACTED
        got = await ask(rig, App(status=409, body=b'{"detail":"a@b.example"}'))
        assert got.status == 409 and b"a@b" not in got.body

    async def test_a_websocket_is_closed(self, rig: Rig) -> None:
        sent: list[dict] = []

        async def send(event: dict) -> None:
            sent.append(event)

        door = Guarded(App(), rig.point, Routes([], describer(), "r"), NamedPeers("w"), Log())
        await door({"type": "websocket", "path": "/"}, None, send)  # type: ignore[arg-type]
        assert sent[0]["type"] == "websocket.close"


def test_a_peer_without_a_certificate_is_nobody() -> None:
    peers = TlsPeers(lambda: 0.0)
    assert peers.of({"client": ("1.2.3.4", 5)}).identities == ()
    assert peers.of({"extensions": {"tls": {"client_cert_chain": ["garbage"]}}}).identities == ()
