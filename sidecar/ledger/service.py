"""The gRPC side of the ledger: knows its sidecars by their certificates, and hands the work to the writer.

Nothing of a request is logged or told back: ids of data subjects cross this file and go nowhere else.
"""

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeAlias, TypeVar

import grpc

from sidecar.api.v1 import ledger_pb2 as pb
from sidecar.api.v1 import ledger_pb2_grpc
from sidecar.ledger import wire
from sidecar.ledger.certificates import identities
from sidecar.ledger.items import LedgerError, RefusedError
from sidecar.ledger.rolling import Rolling
from sidecar.ledger.writer import Writer
from sidecar.observability.metrics import CallStats

_Peer: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_STATUS = {
    "malformed": grpc.StatusCode.INVALID_ARGUMENT,
    "differs": grpc.StatusCode.ALREADY_EXISTS,
    "settled": grpc.StatusCode.FAILED_PRECONDITION,
    "full": grpc.StatusCode.RESOURCE_EXHAUSTED,
}

T = TypeVar("T")


class LedgerServicer(ledger_pb2_grpc.LedgerServicer):
    """The servicer. `sidecars`: the certificate identities (SPIFFE URI or DNS name) that may call."""

    def __init__(self, writer: Writer, sidecars: frozenset[str], stats: CallStats) -> None:
        self._writer, self._sidecars, self._stats = writer, sidecars, stats

    async def Reserve(self, request: pb.ReserveRequest, context: _Peer) -> pb.LedgerExposure:  # noqa: N802 - the name in the proto
        """See `ledger.proto`."""

        async def answer(sidecar: str) -> pb.LedgerExposure:
            items = wire.items_of(request)
            wire.check(call=request.call_id, source=request.source, groups=[request.group],
                       sequences=[request.sequence])  # fmt: skip

            def work(rules: Rolling, now: float) -> dict[str, int]:
                return rules.reserve(
                    sidecar, request.call_id, request.sequence, request.group, request.source, items, now
                )

            return pb.LedgerExposure(counts=await self._writer.run(work))

        return await self._answered("Reserve", context, answer)

    async def Settle(self, request: pb.SettleRequest, context: _Peer) -> pb.SettleResponse:  # noqa: N802 - as above
        """See `ledger.proto`."""

        async def answer(sidecar: str) -> pb.SettleResponse:
            settlement = wire.settlement_of(request)
            await self._writer.run(lambda rules, now: rules.settle(sidecar, settlement, now))
            return pb.SettleResponse()

        return await self._answered("Settle", context, answer)

    async def Peek(self, request: pb.PeekRequest, context: _Peer) -> pb.LedgerExposure:  # noqa: N802 - as above
        """See `ledger.proto`."""

        async def answer(_sidecar: str) -> pb.LedgerExposure:
            wire.check(groups=[request.group])
            return pb.LedgerExposure(counts=await self._writer.run(lambda rules, _now: rules.peek(request.group)))

        return await self._answered("Peek", context, answer)

    async def _answered(self, method: str, context: _Peer, answer: Callable[[str], Awaitable[T]]) -> T:
        began = perf_counter()
        status, said = grpc.StatusCode.OK, ""
        sidecar = min(identities(context.auth_context()) & self._sidecars, default=None)
        try:
            if sidecar is None:
                status, said = grpc.StatusCode.UNAUTHENTICATED, "not a registered sidecar's certificate"
            else:
                return await answer(sidecar)
        except RefusedError as error:
            status, said = _STATUS[error.reason], str(error)
        except LedgerError as error:
            status, said = grpc.StatusCode.UNAVAILABLE, str(error)
        finally:
            self._stats.time(method.lower(), perf_counter() - began)
            effect = "permit" if status is grpc.StatusCode.OK else "deny"
            self._stats.count(f"sidecar.api.v1.Ledger/{method}", effect, "", status.name)
        return await context.abort(status, said)
