"""An ordinary grpcio client: nothing in it is customhouse's but the metadata keys it sends."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from sidecar.demo.pki import Pair
from sidecar.demo.profiles.v1 import profiles_pb2_grpc

TIMEOUT = 10.0
Sent = Iterable[tuple[str, str]]
Ended = Any
"""A finished call or its error: grpc's RpcError is a Call too, which its types do not say."""
CALL_ID = "x-customhouse-call-id"


@dataclass(slots=True)
class Got:
    """What came of a call."""

    status: str
    reason: str = ""
    call_id: str = ""
    messages: list[Any] = field(default_factory=list)


class Client:
    """One workload's way to the service."""

    def __init__(self, target: str, ca: bytes, certificate: Pair | None) -> None:
        pair = (certificate.key.read_bytes(), certificate.cert.read_bytes()) if certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(ca, *pair)
        self.channel = grpc.secure_channel(target, credentials, [("grpc.enable_retries", 0)])
        self.stub = profiles_pb2_grpc.ProfilesStub(self.channel)  # type: ignore[no-untyped-call]  # generated

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()

    def call(self, method: str, request: Message | Iterable[Message], metadata: Sent = ()) -> Got:
        """Call a method of any kind, to its end."""
        invoke = getattr(self.stub, method)
        try:
            if method in ("GetProfile", "ListProfiles", "ImportContacts"):
                answer, made = invoke.with_call(request, metadata=tuple(metadata), timeout=TIMEOUT)
                return Got("OK", call_id=_call_id(made), messages=[answer])
            return _drain(invoke(request, metadata=tuple(metadata), timeout=TIMEOUT))
        except grpc.RpcError as error:
            return _refused(error)

    @contextmanager
    def open(self, method: str, requests: Iterator[Message], metadata: Sent) -> Iterator[Any]:
        """A stream that the scene reads itself."""
        call = getattr(self.stub, method)(requests, metadata=tuple(metadata), timeout=TIMEOUT * 2)
        try:
            yield call
        finally:
            call.cancel()


def _drain(call: Any) -> Got:
    got = Got("OK")
    try:
        got.call_id = str(dict(call.initial_metadata() or ()).get(CALL_ID, ""))
        got.messages.extend(call)
    except grpc.RpcError as error:
        refused = _refused(error)
        got.status, got.reason = refused.status, refused.reason
        got.call_id = got.call_id or refused.call_id
    return got


def ended(call: Ended) -> Got:
    """How a stream that has ended did end."""
    return Got("OK", call_id=_call_id(call)) if call.code() is grpc.StatusCode.OK else _refused(call)


def _call_id(call: Ended) -> str:
    """Streams carry it in their headers, unary answers in their trailers."""
    said = (*(call.initial_metadata() or ()), *(call.trailing_metadata() or ()))
    return str(dict(said).get(CALL_ID, ""))


def _refused(call: Ended) -> Got:
    got = Got(call.code().name)
    got.call_id = _call_id(call)
    for key, value in call.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                got.reason = info.reason
                got.call_id = got.call_id or info.metadata.get("call_id", "")
    return got
