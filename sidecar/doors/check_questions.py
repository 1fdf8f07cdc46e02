"""What a request of the decision API says, read strictly: who asks, about what. InterceptError for what says nothing clear.

A message from outside is read here and nowhere else; what comes out is typed and within bounds.
"""

from collections.abc import Iterable, Sequence
from typing import Final as Constant
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.enforcement.call import Call, Metadata
from sidecar.enforcement.circumstances import EXCEPTION, JUSTIFICATION, PURPOSE, TICKET
from sidecar.enforcement.metadata import OWN
from sidecar.errors import InterceptError
from sidecar.vocabulary import Phase

MOST_ITEMS: Constant = 1_000
MOST_IDS: Constant = 10_000
MOST_ID_BYTES: Constant = 1_024
MOST_NAME_BYTES: Constant = 128
MOST_CLAIM_BYTES: Constant = 1_024
MOST_TOKEN_BYTES: Constant = 16_384
_CLAIMS = (("purpose", PURPOSE), ("justification", JUSTIFICATION), ("ticket", TICKET), ("exception", EXCEPTION),
           ("traceparent", "traceparent"))  # fmt: skip
_PHASES: dict[int, Phase] = {0: "request", 1: "request", 2: "response"}
_CHECKED = {0: False, 1: False, 2: True}

M = TypeVar("M", bound=Message)


class AboutMethod(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A call of a gRPC method. `path` is empty where `call_id` names the call; no message: its opening."""

    path: str
    message: bytes | None


class AboutEntity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An action on entities of a type."""

    type: str
    action: str
    ids: tuple[str, ...]


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One question. `call_id`: empty for a new call. `checked`: answers will be asked about before they leave."""

    what: AboutMethod | AboutEntity
    phase: Phase
    checked: bool
    call_id: str


def read(kind: type[M], data: bytes) -> M:
    """The message. A field that is not known here might have narrowed what is asked: it is refused, not passed over."""
    try:
        found = kind.FromString(data)
    except DecodeError:
        raise InterceptError("the request cannot be read as the message of its method") from None
    size = found.ByteSize()
    found.DiscardUnknownFields()
    if found.ByteSize() != size:
        raise InterceptError("the request holds fields that this version of the decision API does not know")
    return found


def undisturbed(call: Call) -> None:
    """InterceptError where identity or claims came as metadata: they would be passed over here."""
    for key, _ in call.metadata:
        if key == "authorization" or key.startswith(OWN):
            raise InterceptError(f"{key} stands in the request's message here, not in metadata", operator=(
                "a caller of the decision API sent identity or claims as metadata; it asked for less than it meant"))  # fmt: skip


def on_behalf(call: Call, subject: pb.Subject, context: pb.Context) -> Call:
    """The call with what its message says of subject and circumstances."""
    token = subject.token if subject.HasField("token") else None
    person = subject.asserted_person if subject.HasField("asserted_person") else None
    if token is not None and person is not None:
        raise InterceptError("a token and an asserted person: send the one or the other")
    if "" in (token, person):
        raise InterceptError("an empty token or person: leave it out where the workload acts alone")
    _bounded(() if person is None else (person,), MOST_ID_BYTES)
    said = [] if token is None else [("authorization", f"Bearer {_plain(token, 'token', MOST_TOKEN_BYTES)}")]
    said += [(key, _plain(value, name, MOST_CLAIM_BYTES)) for name, key in _CLAIMS if (value := getattr(context, name))]
    claimed = {key for key, _ in said}
    kept: Metadata = tuple([item for item in call.metadata if item[0] not in claimed])
    return Call(
        method=call.method, metadata=(*kept, *said), peer=call.peer, door=call.door, deadline=call.deadline,
        asserted=person, claimed=call.claimed,
    )  # fmt: skip


def asked(question: pb.Question) -> Asked:
    """One question."""
    phase, checked, call_id = _PHASES.get(question.phase), _CHECKED.get(question.answers), question.call_id
    if phase is None or checked is None:
        raise InterceptError("no such phase, or no such way to treat answers")
    if phase == "response" and not call_id:
        raise InterceptError("an answer belongs to a call: send its call_id")
    what: AboutMethod | AboutEntity
    match question.WhichOneof("what"):
        case "entity":
            what = _entity(question.entity)
        case "call":
            what = _method(question.call, phase, call_id)
        case _:
            raise InterceptError("the question is about nothing: give a call or an entity")
    return Asked(what=what, phase=phase, checked=checked, call_id=call_id)


def asked_anew(question: pb.Question) -> Asked:
    """One question about a new call."""
    if question.call_id:
        raise InterceptError("items of a batch are calls of their own: leave out call_id")
    return asked(question)


def named(items: Sequence[pb.BatchItem]) -> list[str]:
    """Their names. InterceptError unless there are items, not too many, each with a name of its own."""
    if not 1 <= len(items) <= MOST_ITEMS:
        raise InterceptError(f"a batch holds 1 to {MOST_ITEMS} items, not {len(items)}")
    names = [name_of(one.id) for one in items]
    if len(set(names)) != len(names):
        raise InterceptError("two items of the batch have the same id")
    ids = sum(len(one.question.entity.ids) for one in items)
    if ids > MOST_IDS:
        raise InterceptError(f"a batch names at most {MOST_IDS} entities in all, not {ids}")
    return names


def name_of(given: str) -> str:
    """A caller's own id of a question."""
    if not 1 <= _size(given) <= MOST_NAME_BYTES:
        raise InterceptError(f"an id of 1 to {MOST_NAME_BYTES} bytes is needed to tell answers apart")
    return given


def _method(call: pb.MethodCall, phase: Phase, call_id: str) -> AboutMethod:
    if not call.method and not call_id:
        raise InterceptError("no method is named")
    if call.method and (not call.method.startswith("/") or call.method.count("/") != 2):
        raise InterceptError("a method is named /package.Service/Method")
    _plain(call.method, "method", MOST_CLAIM_BYTES)
    message = call.message if call.HasField("message") else None
    if message is None and (phase == "response" or call_id):
        raise InterceptError("no message to be asked about")
    return AboutMethod(path=call.method, message=message)


def _entity(entity: pb.Entity) -> AboutEntity:
    ids, type_, action = tuple(entity.ids), entity.type, entity.action
    if len(ids) > MOST_IDS:
        raise InterceptError(f"a question names at most {MOST_IDS} entities, not {len(ids)}")
    if not type_ or not action:
        raise InterceptError("an entity has a type and an action")
    _bounded((type_, action), MOST_NAME_BYTES)
    _bounded(ids, MOST_ID_BYTES)
    return AboutEntity(type=type_, action=action, ids=ids)


def _bounded(texts: Iterable[str], most: int) -> None:
    for one in texts:
        if not one or len(one) > most or (not one.isascii() and _size(one) > most):
            raise InterceptError(f"a name or id is empty, or longer than {most} bytes")


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _plain(value: str, name: str, most: int) -> str:
    if len(value) > most:  # remembered and recorded here; elsewhere the bound on a call's metadata holds it
        raise InterceptError(f"{name} is longer than {most} bytes")
    if not (value.isascii() and value.isprintable()):
        raise InterceptError(f"{name} holds something other than printable ASCII")
    return value
