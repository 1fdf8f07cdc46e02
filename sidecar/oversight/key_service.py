"""KeyService: gives registered producers the pseudonym keys of the periods and the store's sealing key."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import grpc

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.errors import ConfigurationError
from sidecar.observability.logs import JsonLog
from sidecar.oversight.keys import KeyVault, PeriodKey
from sidecar.oversight.periods import rfc3339
from sidecar.oversight.producers import Registry
from sidecar.oversight.storage import StorageError
from sidecar.oversight.wire import identities

_Peer: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


TIME = "x-customhouse-time"
"""The store's clock, so that `sidecar doctor` can compare its own."""


class KeyServicer(oversight_pb2_grpc.KeyServiceServicer):
    """The servicer of `listen.keys`. Both calls need the client certificate of a producer that is not revoked."""

    def __init__(
        self, registry: Registry, vault: KeyVault, sealing_key: bytes, pool: Executor, *, length: timedelta,
        ahead: int, now: Callable[[], datetime], log: JsonLog,
    ) -> None:  # fmt: skip
        """`sealing_key`: the public key, 32 bytes."""
        self._registry, self._vault, self._sealing_key, self._pool = registry, vault, sealing_key, pool
        self._length, self._ahead, self._now, self._log = length, ahead, now, log

    async def GetPeriodKeys(  # noqa: N802 - the name in the proto
        self, request: pb.GetPeriodKeysRequest,
        context: _Peer,
    ) -> pb.GetPeriodKeysResponse:  # fmt: skip
        """The running period's key and those issued ahead."""
        peer = identities(context.auth_context())
        if not self._admits(lambda: self._registry.find(request.producer, peer) is not None):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not a registered producer's certificate")
        try:
            keys = await asyncio.get_running_loop().run_in_executor(self._pool, self._issue)
        except StorageError as error:
            self._log.warning("period keys cannot be issued", reason=str(error))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "keys cannot be issued just now")
        self._log.info("period keys issued", producer=request.producer, periods=[one.period.name for one in keys])
        return pb.GetPeriodKeysResponse(
            keys=[
                pb.PeriodKey(period=one.period.name, until=rfc3339(one.period.until), key=one.key,
                             **{"from": rfc3339(one.period.start)})
                for one in keys
            ]
        )  # fmt: skip

    async def GetSealingKey(  # noqa: N802 - the name in the proto
        self,
        request: pb.GetSealingKeyRequest,
        context: _Peer,
    ) -> pb.GetSealingKeyResponse:
        """The public key to which epoch keys are sealed."""
        peer = identities(context.auth_context())
        if not self._admits(lambda: self._registry.knows(peer)):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not a registered producer's certificate")
        await context.send_initial_metadata(((TIME, rfc3339(self._now())),))
        return pb.GetSealingKeyResponse(public_key=self._sealing_key)

    def _issue(self) -> list[PeriodKey]:
        return self._vault.issue(now=self._now(), length=self._length, ahead=self._ahead)

    def _admits(self, check: Callable[[], bool]) -> bool:
        try:
            return check()
        except ConfigurationError as error:
            self._log.critical("the registry of producers cannot be read", reason=str(error))
            return False
