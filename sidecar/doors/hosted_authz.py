"""Envoy's ext_authz where the hosted door carries it: the one unary method, before the same handler as over grpc.aio."""

import time
from collections.abc import AsyncIterator, Callable

from google.protobuf.message import DecodeError

from sidecar.api.envoy.v3.authorization_pb2 import CheckRequest
from sidecar.doors.envoy_authz import CHECK, AuthorizationHandler
from sidecar.enforcement.call import AnswerSink, Call, Final, Reply, Upstream
from sidecar.errors import Code

_UNKNOWN = Final(code=Code.UNIMPLEMENTED, message="no such method")
_MALFORMED = Final(code=Code.INVALID_ARGUMENT, message="not a CheckRequest")


class HostedAuthorization:
    """Stands where the enforcement point stands behind the proxy door. `ended` is told of each call that has ended."""

    def __init__(self, handler: AuthorizationHandler, ended: Callable[[], None]) -> None:
        self._handler, self._ended = handler, ended

    def kind(self, method: str) -> str | None:
        """`unary` for the one method that there is."""
        return "unary" if method == CHECK else None

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        """Decide about one request. A fault of ours is an exception, which the door answers with UNAVAILABLE."""
        del upstream
        try:
            attributes = CheckRequest.FromString(request).attributes
            remaining = None if call.deadline is None else max(0.0, call.deadline - time.monotonic())
            answer = await self._handler.check(attributes, call.peer, remaining)
            return Reply(message=answer, headers=(), final=Final(code=Code.OK))
        except DecodeError:
            return Reply(message=None, headers=(), final=_MALFORMED)
        finally:
            self._ended()

    async def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        """No method of this service streams."""
        del call, requests, answer, upstream
        self._ended()
        return _UNKNOWN
