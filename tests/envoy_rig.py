"""The Envoy doors without Envoy: the rig's enforcement point behind them, and a listener's word on the peer."""

from collections.abc import AsyncIterator

from pipeline_rig import Rig

from sidecar.enforcement.call import AnswerSink, Call, Final, Peer, Reply, Upstream
from sidecar.enforcement.inquiry import MethodInquiry

ENVOY = Peer(identities=("spiffe://t/envoy",))


class Point:
    """The rig's enforcement point; `believed` is the peer that relays. Keeps the calls it was asked about."""

    def __init__(self, rig: Rig, believed: Peer | None = ENVOY) -> None:
        self._rig, self._believed, self.calls = rig, believed, list[Call]()

    def kind(self, method: str) -> str | None:
        return self._rig.point.kind(method)

    def relays(self, peer: Peer) -> bool:
        return peer == self._believed

    def inquire(self, call: Call) -> MethodInquiry:
        self.calls.append(call)
        return self._rig.point.inquire(call)

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        self.calls.append(call)
        return await self._rig.point.unary(call, request, upstream)

    async def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        self.calls.append(call)
        return await self._rig.point.stream(call, requests, answer, upstream)


class Peers:
    """Every peer is the Envoy."""

    def of(self, transport: object) -> Peer:
        return ENVOY
