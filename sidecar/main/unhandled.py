"""Counts the calls that ended before they reached a handler.

gRPC core answers by itself a message or metadata beyond its bounds, and one call too many (RESOURCE_EXHAUSTED): nothing
here sees such a call. But core counts them (channelz, gRFC A14), so what has ended there and not here was one of those,
or the caller went before its request was whole.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # a compiled module; grpcio-channelz reads it so

from sidecar.enforcement.call import AnswerSink, Call, Final, Reply, Upstream
from sidecar.enforcement.intercept import Enforcement
from sidecar.enforcement.transport import OperatorLog
from sidecar.observability.metrics import Gauges

LOOK_SECONDS = 1.0
SETTLED_LOOKS = 5
"""A call that its caller cancels ends in core first, and here once its outcome is written. What is still missing after
so many looks did not come here."""

Ended = Callable[[], Mapping[str, int]]
"""Calls ended so far, by server."""


class Unhandled:
    """Stands before the enforcement point and counts what reaches it. See `Enforcement` for the calls."""

    def __init__(self, point: Enforcement, log: OperatorLog, ended: Ended | None = None) -> None:
        self._point, self._log, self._ended = point, log, ended or ended_in_core
        self._servers: dict[str, int] = {}
        self._recent: deque[int] = deque(maxlen=SETTLED_LOOKS)
        self._handled = 0
        self.calls = 0
        """How many calls ended without having been handled, as far as that is settled."""

    def kind(self, method: str) -> str | None:
        """As the enforcement point says."""
        return self._point.kind(method)

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        """Hand it on, and count it when it has ended."""
        try:
            return await self._point.unary(call, request, upstream)
        finally:
            self._handled += 1

    async def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        """As `unary`."""
        try:
            return await self._point.stream(call, requests, answer, upstream)
        finally:
            self._handled += 1

    def handled(self) -> None:
        """A call has ended that a door answered without handing it on here."""
        self._handled += 1

    def gauges(self) -> Gauges:
        """For metrics."""
        text = "Calls that ended before they reached a handler: refused by gRPC core, or given up early"
        return {"calls_unhandled": (text, lambda: float(self.calls))}

    async def run(self) -> None:
        """Look every second, until cancelled; a line in the log when there were more."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if new := self.look():
                self._log.warning(
                    "calls_unhandled", calls=new, total=self.calls,
                    detail="refused by gRPC core (oversized message or metadata, too many calls), or given up early",
                )  # fmt: skip

    def look(self) -> int:
        """Count now; how many more there are since the look before. A server that was replaced keeps its number."""
        self._servers.update(self._ended())
        self._recent.append(sum(self._servers.values()) - self._handled)
        if len(self._recent) < SETTLED_LOOKS:
            return 0
        new = max(0, min(self._recent) - self.calls)
        self.calls += new
        return new


def ended_in_core() -> dict[str, int]:
    """Calls that have ended, by channelz id of this process's gRPC servers."""
    found: dict[str, int] = {}
    first, more = 0, True
    while more:
        page = json.loads(cygrpc.channelz_get_servers(first))
        for one in page.get("server", ()):
            name, data = one["ref"]["serverId"], one.get("data", {})
            found[name] = int(data.get("callsSucceeded", 0)) + int(data.get("callsFailed", 0))
            first = int(name) + 1
        more = bool(page.get("server")) and not page.get("end", False)
    return found
