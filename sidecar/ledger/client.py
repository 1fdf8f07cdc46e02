"""The sidecar's end of the ledger: one connection, a deadline, and no guessing.

What does not come back in time, or comes back as an error, is LedgerError; the pipeline then has no figures, and policy
refuses where they matter. A request that the network lost is sent once more, which is safe since each is idempotent.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grpc

from sidecar.api.v1 import ledger_pb2 as pb
from sidecar.api.v1 import ledger_pb2_grpc
from sidecar.ledger import wire
from sidecar.ledger.certificates import Files, Followed
from sidecar.ledger.items import Item, LedgerError, Settlement

RENEW_SECONDS = 60.0
_REST_SECONDS = 5.0
"""How long requests under way may go on over the connection that was made with the old certificates."""
_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", wire.MOST_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 310_000),
)


class Log(Protocol):
    """Where events for the operator go."""

    def error(self, event: str, **details: object) -> object:
        """Something needs attention."""

    def warning(self, event: str, **details: object) -> object:
        """Something has changed."""


class LedgerClient:
    """One per event loop. `deadline`: seconds for each request, its one repetition included."""

    def __init__(
        self, address: str, files: Files, *, deadline: float, server_name: str | None = None, log: Log | None = None
    ) -> None:
        """ConfigurationError when the certificates cannot be used."""
        self._address, self._deadline, self._log = address, deadline, log
        self._followed = Followed(files)
        self._options = (*_OPTIONS, ("grpc.ssl_target_name_override", server_name)) if server_name else _OPTIONS
        self._retired: set[asyncio.Task[None]] = set()
        self.answered = self.failed = 0
        """Requests so far, by how they ended."""
        self._open()

    async def reserve(
        self, call: str, sequence: int, group: str, source: str, items: Sequence[Item]
    ) -> Mapping[str, int]:
        """Count these from now on; the group's exposure with them, categories above 0. LedgerError."""
        seen, told = wire.to_wire(items)
        request = pb.ReserveRequest(
            call_id=call, sequence=sequence, group=group, source=source, seen=seen, items=told
        )  # fmt: skip
        return dict((await self._ask(self._stub.Reserve, request)).counts)

    async def peek(self, group: str) -> Mapping[str, int]:
        """The group's exposure as it is. LedgerError."""
        return dict((await self._ask(self._stub.Peek, pb.PeekRequest(group=group))).counts)

    async def settle(self, settlement: Settlement) -> None:
        """Say what was released. LedgerError."""
        seen, told = wire.to_wire(settlement.items)
        await self._ask(
            self._stub.Settle,
            pb.SettleRequest(
                call_id=settlement.call, sequences=settlement.sequences, everything=settlement.everything,
                groups=settlement.groups, source=settlement.source, seen=seen, items=told,
                released_at=settlement.released_at,
            ),
        )  # fmt: skip

    async def follow(self, every: float = RENEW_SECONDS) -> None:
        """Take up changed certificate files. Runs until cancelled."""
        known = ""
        while True:
            await asyncio.sleep(every)
            if self._followed.look():
                old = self._channel
                self._open()
                task = asyncio.create_task(_retire(old))
                self._retired.add(task)
                task.add_done_callback(self._retired.discard)
                if self._log is not None:
                    self._log.warning("ledger_certificates_taken_up")
            problem = self._followed.problem
            if problem and problem != known and self._log is not None:
                self._log.error("ledger_certificates_refused", detail=problem)
            known = problem

    async def close(self) -> None:
        """End the connection."""
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        await self._channel.close()

    def _open(self) -> None:
        cert, key, ca = self._followed.pems
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        self._channel = grpc.aio.secure_channel(self._address, credentials, options=self._options)
        self._stub: Any = ledger_pb2_grpc.LedgerStub(self._channel)  # type: ignore[no-untyped-call]

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            answer = await self._asked(method, request)
        except LedgerError:
            self.failed += 1
            raise
        self.answered += 1
        return answer

    async def _asked(self, method: Any, request: Any) -> Any:
        until = time.monotonic() + self._deadline
        for last in (False, True):
            try:
                return await method(request, timeout=max(0.0, until - time.monotonic()))
            except grpc.aio.AioRpcError as error:
                lost = error.code() is grpc.StatusCode.UNAVAILABLE
                if last or not lost or time.monotonic() >= until:
                    raise LedgerError(f"the ledger at {self._address}: {_said(error)}") from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                raise LedgerError("the connection to the ledger was closed") from None
        raise AssertionError("the last attempt answers or raises")


def _said(error: grpc.aio.AioRpcError) -> str:
    """What failed. The ledger's own words hold no id; gRPC's about the connection hold only addresses."""
    return f"{error.code().name} {error.details() or ''}".strip()


async def _retire(channel: grpc.aio.Channel) -> None:
    try:
        await asyncio.sleep(_REST_SECONDS)
    finally:
        await channel.close()
