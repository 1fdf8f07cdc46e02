"""The demo's service with the guard inside: `python guarded_service.py aio|threads SETTINGS ADDRESS CERT KEY CA DATABASE`.

The aio form has handlers of every style that grpc.aio knows; the other is the demo's own class on `grpc.server`.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.profiles.v1 import profiles_pb2_grpc
from sidecar.demo.service import Profiles
from sidecar.main.in_process import guarding, guarding_threads


class AioProfiles(profiles_pb2_grpc.ProfilesServicer):
    """The same answers from coroutines, generators, and handlers that read and write by themselves."""

    def __init__(self, database: Path) -> None:
        self._plain = Profiles(database)
        self.ListProfiles = self._plain.ListProfiles  # a plain function, which grpc.aio runs in a thread

    async def GetProfile(self, request: pb.GetProfileRequest, context: grpc.aio.ServicerContext) -> pb.Profile:
        """A coroutine, which aborts for an unknown id."""
        found = [one async for one in self._profiles([request.user_id])]
        if not found:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no user {request.user_id}")
        return found[0]

    async def ListMessages(
        self, request: pb.GetProfileRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.Message]:
        """A generator."""
        for one in self._plain.ListMessages(request, context):
            await asyncio.sleep(0)
            yield one

    async def ImportContacts(
        self, request_iterator: AsyncIterator[pb.Contact], context: grpc.aio.ServicerContext
    ) -> pb.ImportContactsResponse:
        """Reads through the context."""
        count = 0
        while await context.read() is not grpc.aio.EOF:
            count += 1
        return pb.ImportContactsResponse(imported=count)

    async def Sync(self, request_iterator: AsyncIterator[pb.SyncRequest], context: grpc.aio.ServicerContext) -> None:
        """Writes through the context."""
        async for request in request_iterator:
            async for profile in self._profiles([request.user_id]):
                await context.write(pb.SyncResponse(profile=profile))

    async def _profiles(self, ids: list[int]) -> AsyncIterator[pb.Profile]:
        page = self._plain.ListProfiles(pb.ListProfilesRequest(page_size=1, page_token=str(ids[0] - 1)), None)  # type: ignore[arg-type]
        for one in page.profiles:
            if one.user_id == ids[0]:
                yield one


def _credentials(cert: str, key: str, ca: str) -> grpc.ServerCredentials:
    pair = (Path(key).read_bytes(), Path(cert).read_bytes())
    return grpc.ssl_server_credentials([pair], Path(ca).read_bytes(), require_client_auth=True)


async def serve_aio(settings: str, address: str, credentials: grpc.ServerCredentials, database: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with guarding(settings) as guard:
        server = grpc.aio.server(interceptors=[guard.aio_interceptor()])
        profiles_pb2_grpc.add_ProfilesServicer_to_server(AioProfiles(database), server)
        server.add_secure_port(address, credentials)
        await server.start()
        await stop.wait()
        await server.stop(2.0)


def serve_threads(settings: str, address: str, credentials: grpc.ServerCredentials, database: Path) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with guarding_threads(settings) as guard:
        server = grpc.server(ThreadPoolExecutor(16), interceptors=[guard.interceptor()])
        profiles_pb2_grpc.add_ProfilesServicer_to_server(Profiles(database), server)
        server.add_secure_port(address, credentials)
        server.start()
        stop.wait()
        server.stop(2.0).wait()


if __name__ == "__main__":
    kind, settings, address, cert, key, ca, database = sys.argv[1:]
    if kind == "aio":
        asyncio.run(serve_aio(settings, address, _credentials(cert, key, ca), Path(database)))
    else:
        serve_threads(settings, address, _credentials(cert, key, ca), Path(database))
