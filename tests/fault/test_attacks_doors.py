"""Attacks by way of the doors: HTTP beside what was decided, an inquiry used wrongly, a caller who goes at a bad moment."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pipeline_rig import GERMAN, SERVICE, US, Rig, deny, describer, get, permit, profile

from sidecar.api.envoy.v3.authorization_pb2 import CheckRequest, CheckResponse
from sidecar.attributes.entities import Route
from sidecar.attributes.routes import Routes
from sidecar.doors.asgi import Guarded, NamedPeers, TlsPeers
from sidecar.doors.envoy_authz import AuthorizationHandler
from sidecar.doors.interceptor import SyncInterceptor, _Answers
from sidecar.enforcement.call import Call, Final, Peer
from sidecar.enforcement.declarations import CHECK, CHECK_ANSWERS
from sidecar.enforcement.metadata import from_caller
from sidecar.enforcement.outcomes import Confirmation
from sidecar.enforcement.permits import Permit
from sidecar.errors import Code, InterceptError
from sidecar.record import MessageCounts

pytestmark = pytest.mark.fault
JSON = (b"content-type", b"application/json")
SECRET = "us@person.example"
REDACTED = permit({"id": "redact_fields", "categories": ["id_contact"]})
SAID = Confirmation(status="OK", messages=MessageCounts(in_=1, out=1))


class Log:
    def error(self, event: str, **_: object) -> None:
        """Nothing: what is asserted is what callers get and what is recorded."""

    warning = error


@pytest.fixture
def rig() -> Rig:
    return Rig()


def routes() -> Routes:
    found = [Route(http="GET /v1/profiles/{user_id}", rpc=f"{SERVICE}/GetProfile"),
             Route(http="POST /v1/profiles", rpc=f"{SERVICE}/ListProfiles")]  # fmt: skip
    return Routes(found, describer(), "r.yaml")


class Service:
    """An HTTP application; what it says beside its JSON is about the person as well."""

    def __init__(self, *events: dict[str, object]) -> None:
        body = json.dumps({"user_id": US, "handle": "h", "email": SECRET}).encode()
        said = [JSON, (b"etag", SECRET.encode()), (b"Link", SECRET.encode()), (b"set-cookie", SECRET.encode()),
                (b"x_customhouse_person", b"root")]  # fmt: skip
        self.events = list(events) or [{"type": "http.response.start", "status": 200, "headers": said},
                                       {"type": "http.response.body", "body": body}]  # fmt: skip
        self.seen: list[tuple[dict, bytes]] = []

    async def __call__(self, scope, receive, send) -> None:
        self.seen.append((scope, (await receive())["body"]))
        for one in self.events:
            await send(one)


async def ask(rig: Rig, service, verb="GET", path=f"/v1/profiles/{US}", body=b"", headers=(), **scope):
    """(status, headers, body), and what the service saw."""
    events, sent = [{"type": "http.request", "body": body}], list[dict]()

    async def receive():
        if events:
            return events.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(event):
        sent.append(event)

    found = {"type": "http", "method": verb, "path": path, "raw_path": path.encode(), "query_string": b"",
             "headers": list(headers), **scope}  # fmt: skip
    door = Guarded(service, rig.point, routes(), NamedPeers("spiffe://t/console"), Log(), limit=1000)
    await door(found, receive, send)
    return sent[0]["status"], sent[0]["headers"], b"".join(one["body"] for one in sent[1:])


# -- an HTTP service -------------------------------------------------------------------------------------------------


async def test_headers_of_an_answer_stay_where_something_of_it_is_withheld(rig):
    rig.engine.rule = lambda _: REDACTED
    status, headers, body = await ask(rig, Service())
    assert (status, json.loads(body)["handle"]) == (200, "h")
    assert SECRET not in str((headers, body))
    assert (b"cache-control", b"no-store") in headers


async def test_headers_of_an_answer_pass_where_everything_may(rig):
    status, headers, _ = await ask(rig, Service())
    assert status == 200 and {b"etag", b"link", b"set-cookie"} < {key for key, _ in headers}
    assert [value for key, value in headers if b"customhouse" in key] == [b"call-1"]


async def test_a_body_beyond_the_limit_is_refused_however_it_ends(rig):
    service = Service()
    status, _, _ = await ask(rig, service, "POST", "/v1/profiles", b"{}" + b" " * 1000, [JSON])
    assert (status, service.seen, len(rig.records.outcomes)) == (400, [], 1)


@pytest.mark.parametrize("scope", [
    {"raw_path": f"/v1/profiles/{GERMAN}".encode()},  # the service looks at `path`: something outside has rewritten it
    {"path": "/v1/profiles/é", "raw_path": "/v1/profiles/é".encode()},
    {"path": "/v1/profiles/\ufffd", "raw_path": b"/v1/profiles/%ff"},
])  # fmt: skip
async def test_a_path_that_the_service_sees_otherwise_is_refused(rig, scope):
    service = Service()
    status, _, _ = await ask(rig, service, **scope)
    assert (status, service.seen, len(rig.records.outcomes)) == (404, [], 1)


@pytest.mark.parametrize("scope", [
    {"raw_path": b""}, {"raw_path": f"/v1/profiles/%3{US}".encode()}, {"path": f"/v1/profiles/{US}", "raw_path": None},
    {"path": f"/profiles/{US}", "root_path": "/v1", "raw_path": f"/v1/profiles/{US}".encode()},
])  # fmt: skip
async def test_one_path_however_it_is_spelt_is_served(rig, scope):
    assert (await ask(rig, Service(), **scope))[0] == 200


@pytest.mark.parametrize("key", ["x-http-method-override", "X-HTTP-Method", "x-method-override", "x-original-url",
                                 "x-rewrite-url", "x_customhouse_person", "x-customhouse_person", "x_customhouse-call-id"])  # fmt: skip
async def test_what_makes_another_request_or_caller_of_it_does_not_reach_the_service(rig, key):
    service = Service()
    assert (await ask(rig, service, headers=[(key.encode(), b"DELETE")]))[0] == 200
    assert b"DELETE" not in [value for _, value in service.seen[0][0]["headers"]]
    assert from_caller([(key.lower(), "DELETE")]) == ()


async def test_a_caller_that_stays_is_not_said_to_have_gone(rig):
    """Else a streaming answer would stop half-way, and a service would undo what it was about to do."""
    gone = []

    async def patient(scope, receive, send):
        await receive()
        watching = asyncio.create_task(receive())
        await asyncio.sleep(0.05)
        gone.append(watching.done())
        watching.cancel()
        await Service()(scope, _nothing, send)

    assert (await ask(rig, patient))[0] == 200
    assert gone == [False]


async def _nothing():
    return {"type": "http.request", "body": b""}


@pytest.mark.parametrize("events", [
    [{"type": "http.response.start", "status": 200, "headers": [JSON]},
     {"type": "http.response.body", "body": b'{"user_id": 1}', "more_body": True}],
    [{"type": "http.response.start", "status": 103, "headers": [(b"link", SECRET.encode())]}],
    [{"type": "http.response.start", "status": 200, "headers": [JSON], "trailers": True},
     {"type": "http.response.body", "body": b"{}"}, {"type": "http.response.trailers", "headers": [(b"x", SECRET.encode())]}],
    [{"type": "http.response.early_hint", "links": [SECRET.encode()]}],
    [{"type": "http.response.start", "status": 200, "headers": [JSON, JSON]}, {"type": "http.response.body", "body": b"{}"}],
    [{"type": "http.response.start", "status": 200, "headers": [JSON]},
     {"type": "http.response.body", "body": json.dumps({"email": SECRET, "x" * 900: 1}).encode()}],
])  # fmt: skip
async def test_an_answer_in_another_way_does_not_leave(rig, events):
    rig.engine.rule = lambda _: REDACTED
    status, headers, body = await ask(rig, Service(*events))
    assert status == 503 and SECRET not in str((headers, body))
    assert [one.status for one in rig.records.outcomes] == ["UNAVAILABLE"]


async def test_of_two_beginnings_nothing_is_left_over(rig):
    rig.engine.rule = lambda _: REDACTED
    first = {"type": "http.response.start", "status": 201, "headers": [JSON, (b"x", SECRET.encode())]}
    status, headers, body = await ask(rig, Service(first, *Service().events))
    assert status == 200 and SECRET not in str((headers, body))


def test_a_certificate_that_the_server_could_not_verify_is_nobodys(certificate):
    """ASGI TLS extension, `client_cert_error`: a server may let the connection in all the same."""
    peers = TlsPeers(lambda: 0.0)
    tls = {"client_cert_chain": [certificate]}
    assert peers.of({"extensions": {"tls": tls}}).identities == ("console.example",)
    unverified = peers.of({"extensions": {"tls": {**tls, "client_cert_error": "unable to get local issuer"}}})
    assert (unverified.identities, unverified.certificate_sha256) == ((), None)


@pytest.fixture(scope="module")
def certificate() -> str:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2040, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("console.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(serialization.Encoding.PEM).decode()


# -- Envoy's ext_authz -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("media", "code"), [
    ("application/json", 0), ("application/x-www-form-urlencoded", 3), ("text/plain", 3), ("", 3),
    ("application/json; charset=utf-7", 3), ("application/json,application/x-www-form-urlencoded", 3),
])  # fmt: skip
def test_envoys_http_body_is_what_its_content_type_says(media, code):
    rig = Rig()
    point = SimpleNamespace(kind=rig.point.kind, relays=lambda _: False, inquire=rig.point.inquire)
    handler = AuthorizationHandler(point, SimpleNamespace(of=lambda _: Peer()), limit=1000, clock=lambda: 0.0, routes=routes())  # fmt: skip
    asked = CheckRequest()
    http = asked.attributes.request.http
    http.method, http.path, http.raw_body = "POST", "/v1/profiles", b'{"page_token": "&user_id=2&"}'
    if media:
        http.header_map.headers.add(key="content-type", raw_value=media.encode())
    got = CheckResponse.FromString(asyncio.run(handler.check(asked.attributes, Peer(), None)))
    assert got.status.code == code
    assert len(rig.records.outcomes) == 1


# -- an inquiry ------------------------------------------------------------------------------------------------------


def inquiry(rig, door=CHECK_ANSWERS):
    peer = Peer(identities=("spiffe://t/console",))
    return rig.point.inquire(Call(method=f"/{SERVICE}/GetProfile", metadata=(), peer=peer, door=door))


ENDINGS = {
    "confirmed": lambda one: one.confirm(SAID),
    "unobserved": lambda one: one.unobserved(),
    "gone": lambda one: one.gone(Final(code=Code.CANCELLED)),
    "refused": lambda one: one.refuse(InterceptError("no")),
}


@pytest.mark.parametrize("door", [CHECK, CHECK_ANSWERS])
@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
async def test_after_its_outcome_a_call_is_given_nothing_more(rig, ending, door):
    """The outcome says what was released: nothing may be released after it, though the old decision would cover it."""
    one = inquiry(rig, door)
    assert isinstance(await one.request(get(US)), Permit)
    await ending(one)
    written = list(rig.records.log)
    for found in (await one.answer(profile(US)), await one.request(get(US)), await one.request(None)):
        assert isinstance(found, Final)
        assert found.code is Code.UNAVAILABLE
    await one.confirm(SAID)
    assert rig.records.log == written


async def test_an_answer_before_any_question_is_refused(rig):
    one = inquiry(rig)
    found = await one.answer(profile(US))
    assert isinstance(found, Final)
    assert found.code is not Code.OK
    assert len(rig.records.outcomes) == 1


# -- a service of threads --------------------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    thread = threading.Thread(target=made.run_forever)
    thread.start()
    yield made
    made.call_soon_threadsafe(made.stop)
    thread.join()
    made.close()


class Context:
    """A caller that goes when `leave` is called; `active` until then."""

    def __init__(self) -> None:
        self.active, self.left = True, list[object]()
        self.code = None

    def add_callback(self, callback) -> bool:
        self.left.append(callback)
        return self.active

    def is_active(self) -> bool:
        return self.active

    def leave(self) -> None:
        self.active = False
        for one in self.left:
            one()

    def invocation_metadata(self):
        return ()

    def peer(self) -> str:
        return "ipv4:192.0.2.1:1"

    def auth_context(self):
        return {}

    def time_remaining(self):
        return None

    def send_initial_metadata(self, metadata) -> None:
        """Sent."""

    set_trailing_metadata = set_details = send_initial_metadata

    def set_code(self, code) -> None:
        self.code = code


def ended(work, seconds: float = 60.0) -> bool:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


def test_a_caller_that_goes_before_the_last_word_keeps_no_thread(loop):
    """The end is put behind an answer that nobody has taken yet; what puts it is cancelled there."""
    answers = asyncio.run_coroutine_threadsafe(_made(loop), loop).result()

    async def work() -> Final:
        await answers.message(b"one")
        return Final(code=Code.OK)

    running: Future[Final] = asyncio.run_coroutine_threadsafe(answers.told(work()), loop)
    running.add_done_callback(answers.over)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
    running.cancel()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), loop).result()
    taken: list[object] = []
    assert ended(lambda: taken.extend((answers.take(), answers.take())))
    assert taken == [b"one", None]


async def _made(loop) -> _Answers:
    return _Answers(loop)


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_stream_whose_caller_has_gone_ends_and_is_recorded(loop, when):
    rig = asyncio.run_coroutine_threadsafe(_rig(), loop).result()
    context, wait = Context(), threading.Event()
    if when == "before":
        context.active = False
    with ThreadPoolExecutor(4) as threads:
        door = SyncInterceptor(rig.point, SimpleNamespace(of=lambda _: Peer(identities=("a",))), Log(), loop,
                               threads=threads, readers=threads)  # fmt: skip
        details = SimpleNamespace(method=f"/{SERVICE}/Sync", invocation_metadata=())
        handler = door.intercept_service(lambda _: None, details)

        def requests():
            context.leave()
            wait.wait(60)
            yield b""

        assert ended(lambda: list(handler.stream_stream(requests(), context)))
        wait.set()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), loop).result()
    assert len(rig.records.outcomes) == 1
    assert context.code is not None


async def _rig() -> Rig:
    return Rig()


async def test_a_refused_call_stays_refused_whatever_is_confirmed(rig):
    rig.engine.rule = lambda _: deny("not_us_personnel")
    one = inquiry(rig, CHECK)
    found = await one.request(get(US))
    assert isinstance(found, Final)
    await one.confirm(SAID)
    await one.unobserved()
    assert [body.status for body in rig.records.outcomes] == ["PERMISSION_DENIED"]
