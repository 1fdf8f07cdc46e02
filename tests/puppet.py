"""The guarded service in the test's own process: answers what a test wants, and remembers what it was asked.

It listens where the demo's service would, with the same certificates: only the sidecar is let in. Without further word
it answers like the demo's service.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from grpc_reflection.v1alpha import reflection

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE, Profiles
from sidecar.demo.world import World

Behaviour = Callable[["Seen", Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]
"""From what was asked to the answer's messages. Runs in a thread of the server."""
THREADS = 48


@dataclass(slots=True)
class Seen:
    """One call as the service saw it. `given_up`, once `ended` is set: whether it was cancelled."""

    method: str
    metadata: list[tuple[str, str | bytes]]
    requests: list[bytes] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    given_up: bool = False

    def header(self, key: str) -> list[str | bytes]:
        """All values of a key."""
        return [value for name, value in self.metadata if name == key]

    @property
    def call_id(self) -> str:
        """The id under which the sidecar forwarded the call; empty for what is no guarded call (`sidecar doctor`)."""
        return "".join(map(str, self.header("x-customhouse-call-id")))


class Puppet(grpc.GenericRpcHandler):
    """The service. `seen` holds every call that reached it."""

    def __init__(self, world: World) -> None:
        self.seen: list[Seen] = []
        self._behaviour: dict[str, Behaviour] = {}
        self._profiles = Profiles(world.folder / "users.sqlite")
        self._pool = ThreadPoolExecutor(THREADS)
        self._server = grpc.server(self._pool)
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), self._server)
        self._server.add_generic_rpc_handlers((self,))
        tls, pair = world.folder / "tls", world.certificates["upstream"]
        credentials = grpc.ssl_server_credentials(
            [(pair.key.read_bytes(), pair.cert.read_bytes())],
            (tls / "upstream-clients-ca.pem").read_bytes(),
            require_client_auth=True,
        )
        self._server.add_secure_port(f"127.0.0.1:{world.ports['upstream']}", credentials)
        self._server.start()

    def stop(self) -> None:
        """Stop serving; open calls are ended."""
        self._server.stop(0).wait()
        self._pool.shutdown()

    @contextmanager
    def behaving(self, method: str, behaviour: Behaviour) -> Iterator[None]:
        """Answer a method in another way for a while."""
        self._behaviour[method] = behaviour
        try:
            yield
        finally:
            del self._behaviour[method]

    def calls_of(self, call_id: str) -> list[Seen]:
        """What came under this id: one call, or none."""
        return [one for one in tuple(self.seen) if one.call_id == call_id]

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Every method: what it is asked is remembered, then answered."""
        method = handler_call_details.method.rpartition("/")[2]
        metadata = [(one.key, one.value) for one in handler_call_details.invocation_metadata]

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            seen = Seen(method, metadata)
            self.seen.append(seen)

            def over() -> None:
                # grpc's own word: a cancelled call's requests may look, for a moment, as if they had ended in good order.
                seen.given_up = context._state.client == "cancelled"
                seen.ended.set()

            if not context.add_callback(over):
                over()  # it had ended before anybody could listen
            behaviour = self._behaviour.get(method, self._as_usual)
            yield from behaviour(seen, _kept(seen, requests), context)

        return grpc.stream_stream_rpc_method_handler(answer)

    def _as_usual(self, seen: Seen, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        kinds = {"GetProfile": pb.GetProfileRequest, "ListProfiles": pb.ListProfilesRequest,
                 "ListMessages": pb.ListMessagesRequest, "ImportContacts": pb.Contact, "Sync": pb.SyncRequest}  # fmt: skip
        if seen.method not in kinds:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{SERVICE} has no {seen.method}")
        asked = (kinds[seen.method].FromString(data) for data in requests)
        streams = seen.method in ("ImportContacts", "Sync")
        answered = getattr(self._profiles, seen.method)(asked if streams else next(asked), context)
        for message in answered if seen.method in ("ListMessages", "Sync") else (answered,):
            yield message.SerializeToString()


def _kept(seen: Seen, requests: Iterator[bytes]) -> Iterator[bytes]:
    for data in requests:
        seen.requests.append(data)
        yield data
