"""Attacks with the bytes of one call: what is hidden in a message, in its size, in the method's name, in metadata."""

import asyncio
import dataclasses
import itertools

import msgspec
import pytest
from google.protobuf import any_pb2
from pipeline_rig import GERMAN, SERVICE, US, Rig, Sink, answer, deny, get, permit, profile, several
from trial_api import compile_text, describer

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.call import Final
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.errors import Code

MAIL, SSN = "us@person.example", "123-45-6789"
HIDDEN = (MAIL.encode(), SSN.encode())
API = """
import "google/protobuf/any.proto";
service S {
  rpc Get(Who) returns (Answer) { option (sidecar.api.v1.access) = {action: "read" resource: "r" subject: REQUEST_FIELD}; }
  rpc Find(Many) returns (Answer) { option (sidecar.api.v1.access) = {action: "search" resource: "r" subject: REQUEST_FIELD}; }
}
message Who { string id = 1 [(sidecar.api.v1.subject_id) = {}]; }
message Many { repeated string id = 1 [(sidecar.api.v1.subject_id) = {}]; repeated google.protobuf.Any any = 2; }
message Answer {
  option (sidecar.api.v1.record) = {};
  string id = 1 [(sidecar.api.v1.subject_id) = {}];
  oneof way {
    string mail = 2 [(sidecar.api.v1.data) = {category: "id_contact"}];
    string town = 3 [(sidecar.api.v1.data) = {category: "coarse_location"}];
  }
  Inner inner = 4;
  map<string, string> notes = 5 [(sidecar.api.v1.data) = {category: "coarse_location"}];
  google.protobuf.Any any = 6;
}
message Inner { string mail = 1 [(sidecar.api.v1.data) = {category: "id_contact"}]; }
"""


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    return describer(compile_text(tmp_path_factory.mktemp("api"), API))


def described_by(rig: Rig, found) -> Rig:
    rig.point = EnforcementPoint(dataclasses.replace(rig.point._parts, describer=found))
    return rig


def only_outsiders(request):
    """A policy under which nobody may have anything of a US subject."""
    return deny("not_us_personnel") if request.resource.subjects.us else permit()


def leaked(*shown: object) -> bool:
    return any(
        one in repr(part).encode() or (isinstance(part, bytes) and one in part) for part in shown for one in HIDDEN
    )


# -- data behind data ------------------------------------------------------------------------------------------------


async def test_overwritten_data_does_not_leave(rig):
    """A parser keeps the last of a field given twice; a caller who reads the bytes would have both."""
    us = pb.Profile(user_id=US, email=MAIL, government_id=SSN).SerializeToString()
    german = pb.Profile(user_id=GERMAN, email="de@person.example", government_id="-").SerializeToString()
    rig.upstream.reply = lambda _message: answer(us + german)
    rig.engine.rule = only_outsiders
    reply = await rig.unary(get(GERMAN))
    assert not leaked(reply.message, reply.headers, reply.final)
    if reply.message is not None:
        assert pb.Profile.FromString(reply.message) == pb.Profile.FromString(us + german)


async def test_overwritten_data_does_not_leave_a_stream(rig):
    hidden = pb.Message(sender_id=US, recipient_id=US, text=MAIL).SerializeToString()
    shown = pb.Message(sender_id=GERMAN, recipient_id=GERMAN, text="hi").SerializeToString()
    rig.upstream.answers = [hidden + shown]
    rig.engine.rule = only_outsiders
    _, sink = await rig.stream("ListMessages", get(GERMAN))
    assert not leaked(*sink.messages)


@pytest.mark.parametrize("how", ["oneof", "inner", "map", "any", "any value"])
async def test_overwritten_parts_do_not_leave(rig, api, how):
    described_by(rig, api)
    new = api.method("/t.S/Get").answer.plan.new
    base = new(id=str(GERMAN))
    payload = any_pb2.Any(type_url="type/t.Inner", value=new(inner={"mail": MAIL}).inner.SerializeToString())
    empty = any_pb2.Any(type_url="type/t.Inner", value=new(inner={"mail": "x"}).inner.SerializeToString())
    parts = {
        "oneof": [new(mail=MAIL), new(town="x")],
        "inner": [new(inner={"mail": MAIL}), new(inner={"mail": "x"})],
        "map": [new(notes={"k": MAIL}), new(notes={"k": "x"})],
        "any": [_with_any(new, payload), _with_any(new, empty)],
        "any value": [_with_any(new, any_pb2.Any(type_url="type/t.Inner", value=payload.value + empty.value))],
    }[how]
    data = base.SerializeToString() + b"".join(one.SerializeToString() for one in parts)
    rig.upstream.reply = lambda _message: answer(data)
    reply = await rig.point.unary(
        rig.call("Get", service="t.S"), api.method("/t.S/Get").request.plan.new(id=str(GERMAN)).SerializeToString()
    )
    assert not leaked(reply.message)
    assert reply.final.code is Code.OK


def _with_any(new, value: any_pb2.Any):
    made = new()
    made.any.type_url, made.any.value = value.type_url, value.value
    return made


async def test_a_request_is_forwarded_as_it_was_understood(rig):
    """Who reads the first of two ids, where the sidecar read the last, must not get another person."""
    rig.engine.rule = only_outsiders
    rig.upstream.reply = lambda _message: answer(profile(GERMAN))
    reply = await rig.unary(get(US) + get(GERMAN))
    assert reply.final.code is Code.OK
    assert rig.upstream.seen[0][0] == get(GERMAN)


async def test_what_is_inside_an_any_is_forwarded_as_it_was_understood(rig, api):
    described_by(rig, api)
    rig.engine.rule = lambda request: deny("not_us_personnel") if request.resource.subjects.us else permit()
    who, many = api.method("/t.S/Get").request.plan.new, api.method("/t.S/Find").request.plan.new
    twice = who(id=str(US)).SerializeToString() + who(id=str(GERMAN)).SerializeToString()
    rig.upstream.reply = lambda _message: answer(
        api.method("/t.S/Find").answer.plan.new(id=str(GERMAN)).SerializeToString()
    )
    asked = many(id=[str(GERMAN)], any=[{"type_url": "a/t.Who", "value": twice}]).SerializeToString()
    reply = await rig.point.unary(rig.call("Find", service="t.S"), asked)
    assert reply.final.code is Code.OK
    sent = many.FromString(rig.upstream.seen[0][0])
    assert [one.value for one in sent.any] in ([who(id=str(GERMAN)).SerializeToString()], [])


# -- size ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [permit, lambda: deny("not_us_personnel")])
async def test_a_message_that_names_half_a_million_is_refused(rig, api, rule):
    """It would hold the event loop for seconds, and a hundred megabytes of the spool."""
    described_by(rig, api)
    rig.engine.rule = lambda _request: rule()
    many = api.method("/t.S/Find").request.plan.new(id=[f"{one:x}" for one in range(500_000)]).SerializeToString()
    assert len(many) < 4 << 20
    reply = await rig.point.unary(rig.call("Find", service="t.S"), many)
    assert reply.final.code in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)
    assert sum(len(one.subjects) for one in rig.records.decisions) == 0
    assert rig.upstream.seen == []
    assert len(rig.records.outcomes) == 1


async def test_an_answer_that_names_a_hundred_thousand_is_refused(rig):
    rows = pb.ListProfilesResponse(profiles=[pb.Profile(user_id=one + 10, handle="h") for one in range(100_000)])
    rig.upstream.reply = lambda _message: answer(rows.SerializeToString())
    reply = await rig.unary(b"", method="ListProfiles")
    assert (reply.final.code, reply.message) in ((Code.PERMISSION_DENIED, None), (Code.RESOURCE_EXHAUSTED, None))


async def test_an_answer_of_two_million_empty_records_is_refused(rig):
    """They hold nothing, but each has to be looked at."""
    rig.upstream.reply = lambda _message: answer(b"\x0a\x00" * 2_000_000)
    reply = await rig.unary(b"", method="ListProfiles")
    assert (reply.final.code, reply.message) in ((Code.PERMISSION_DENIED, None), (Code.RESOURCE_EXHAUSTED, None))


async def test_a_message_full_of_any_values_is_refused(rig, api):
    described_by(rig, api)
    new = api.method("/t.S/Find").request.plan.new
    one = new(any=[{"type_url": "a/t.Who", "value": b"\x0a\x01a"}]).SerializeToString()
    reply = await rig.point.unary(rig.call("Find", service="t.S"), new(id=["1"]).SerializeToString() + one * 150_000)
    assert reply.final.code in (Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED)
    assert rig.upstream.seen == []


# -- names and metadata ----------------------------------------------------------------------------------------------

ODD_NAMES = [
    "", "/", "//", "///", "GetProfile", f"{SERVICE}/GetProfile", f"//{SERVICE}/GetProfile", f"/{SERVICE}//GetProfile",
    f"/{SERVICE}/GetProfile/", f"/{SERVICE}/getprofile", f"/{SERVICE.lower()}/GetProfile", f"/{SERVICE}/GetProfile?a=b",
    f"/{SERVICE}%2FGetProfile", f"/{SERVICE}/%47etProfile", f"/{SERVICE}/GetProfile\x00", f"/{SERVICE}/ GetProfile",
    f"/grpc.health.v1.Health/../{SERVICE}/GetProfile", "//grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Check/x",
    "/grpc.health.v1.Healthy/Check", "/grpc.reflection.v1.ServerReflectionX/ServerReflectionInfo", "/*/*", "/x/" + "y" * 16_000,
    "/" + "\u00e9" * 3000 + "/\u2028", "/a/" + "\x01" * 8000,
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
async def test_odd_method_names_reach_nobody(rig, name):
    call = dataclasses.replace(rig.call(), method=name)
    assert rig.point.kind(name) in (None, "stream")
    final = await rig.point.stream(call, several(get(US)), Sink())
    assert final.code is Code.UNIMPLEMENTED
    assert (rig.upstream.exchanges, rig.upstream.seen) == ([], [])
    assert len(rig.records.outcomes) == 1


@pytest.mark.parametrize(
    "pair",
    [
        ("x-customhouse-purpose", ""), ("x-customhouse-purpose", "user_support "), ("x-customhouse-purpose", "USER_SUPPORT"),
        ("x-customhouse-purpose", "a" * 65), ("x-customhouse-ticket", "A-1\n"), ("x-customhouse-ticket", "A-1 A-2"),
        ("x-customhouse-ticket", "Alice-1"), ("x-customhouse-justification", "she asked"), ("x-customhouse-ticket", ""),
    ],
)  # fmt: skip
async def test_claims_that_could_carry_words_do_not_pass(rig, pair):
    reply = await rig.unary(get(US), pair)
    assert reply.final.code is Code.INVALID_ARGUMENT
    assert rig.upstream.seen == []
    assert pair[1] == "" or all(
        pair[1].encode() not in bytes(one.input) + bytes(one.decision) for one in rig.records.decisions
    )


# -- an upstream that misbehaves ---------------------------------------------------------------------------------------


async def test_every_answer_of_an_upstream_that_gives_too_many_is_decided(rig):
    rig.upstream.answers = [pb.ImportContactsResponse(imported=1).SerializeToString(), profile(US), None]
    rig.engine.rule = lambda request: permit() if request.context.phase == "request" else deny("not_us_personnel")
    final, sink = await rig.stream("ImportContacts", pb.Contact(user_id=GERMAN, name="A").SerializeToString())
    assert not any(MAIL.encode() in one or b"a@b.example" in one for one in sink.messages)
    assert final.code in (Code.OK, Code.PERMISSION_DENIED)


@pytest.mark.parametrize("code", [one for one in Code if one is not Code.OK])
async def test_an_upstream_s_error_tells_nothing_where_something_was_ordered(rig, code):
    rig.upstream.reply = lambda _message: answer(
        None, code, message=MAIL, trailing=(("x-trailer", MAIL), ("grpc-status-details-bin", SSN.encode()))
    )
    rig.engine.rule = lambda _request: permit({"id": "redact_fields", "categories": ["id_contact"]})
    reply = await rig.unary()
    assert reply.final.code is code
    assert not leaked(reply.final, reply.headers)


async def test_a_refused_answer_takes_headers_and_trailers_with_it(rig):
    told = Final(code=Code.OK, message=MAIL, trailing=(("x-trailer", MAIL),))
    rig.upstream.reply = lambda _message: msgspec.structs.replace(
        answer(profile(US)), final=told, headers=(("x-mail", MAIL),)
    )
    rig.engine.rule = lambda request: deny("not_us_personnel") if request.resource.subjects.us else permit()
    reply = await rig.unary(get(GERMAN))
    assert reply.final.code is Code.PERMISSION_DENIED
    assert not leaked(reply.final, reply.headers, reply.message)


# -- a recorder that fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", range(8))
async def test_nothing_moves_on_the_strength_of_a_record_that_failed(nth):
    """The disk refuses the nth record and all after it."""
    rig = Rig()
    letters = [(US, US), (US, GERMAN), (US, 3), (US, 4)]
    rig.upstream.answers = [pb.Message(sender_id=a, recipient_id=b, text="hi").SerializeToString() for a, b in letters]
    count = itertools.count()
    rig.records.fail = lambda _entry: next(count) >= nth
    final, sink = await rig.stream("ListMessages", get(US))
    known = {(kind, name) for one in rig.records.decisions for kind, name, _ in one.subjects}
    for data in sink.messages:
        message = pb.Message.FromString(data)
        assert {("person", str(message.sender_id)), ("person", str(message.recipient_id))} <= known
    assert (len(sink.messages) > 0) == (nth > 0)
    assert (len(rig.upstream.exchanges) > 0) == (nth > 0)
    if nth < 5:
        assert (final.code, final.error_info.reason) == (Code.UNAVAILABLE, "record_unavailable")


async def test_a_thousand_calls_leave_nothing_behind(rig):
    """No task, no open stream, one outcome each."""
    rig.numbers = itertools.count(1)
    rig.upstream.answers = [pb.Message(sender_id=US, recipient_id=US, text="hi").SerializeToString()]
    before = len(asyncio.all_tasks())
    for _ in range(1000):
        await rig.stream("ListMessages", get(US))
    await asyncio.sleep(0)
    assert len(rig.records.outcomes) == 1000
    assert rig.point._streams._open == set()
    assert len(asyncio.all_tasks()) == before
