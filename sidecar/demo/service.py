"""The guarded service: an ordinary grpcio server over SQLite that knows nothing of the sidecar.

It accepts only clients whose certificate its own CA has signed, and that CA has signed one: the sidecar's.
Run as `python -m sidecar.demo.service DATABASE ADDRESS CERT KEY CLIENT_CA`.
"""

import sqlite3
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidecar.demo.profiles.v1 import profiles_pb2, profiles_pb2_grpc

SERVICE = profiles_pb2.DESCRIPTOR.services_by_name["Profiles"].full_name
WORKERS = 16
MAX_PAGE = 200


class Profiles(profiles_pb2_grpc.ProfilesServicer):
    """The data service."""

    def __init__(self, database: Path) -> None:
        self._path = database
        self._local = threading.local()

    def GetProfile(
        self, request: profiles_pb2.GetProfileRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.Profile:
        """One user's profile; NOT_FOUND for an unknown id."""
        row = self._database().execute("SELECT * FROM users WHERE id = ?", (request.user_id,)).fetchone()
        if row is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no user {request.user_id}")
        return _profile(row)

    def ListProfiles(
        self, request: profiles_pb2.ListProfilesRequest, context: grpc.ServicerContext
    ) -> profiles_pb2.ListProfilesResponse:
        """A page of profiles after the token's id."""
        size = min(request.page_size or 20, MAX_PAGE)
        if request.page_token and not request.page_token.isdigit():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "page_token is none of ours")
        rows = self._database().execute(
            "SELECT * FROM users WHERE id > ? ORDER BY id LIMIT ?", (int(request.page_token or 0), size)
        )
        answer = profiles_pb2.ListProfilesResponse(profiles=[_profile(row) for row in rows])
        if len(answer.profiles) == size:
            answer.next_page_token = str(answer.profiles[-1].user_id)
        return answer

    def ListMessages(
        self, request: profiles_pb2.ListMessagesRequest, context: grpc.ServicerContext
    ) -> Iterator[profiles_pb2.Message]:
        """Messages that the user sent or received."""
        rows = self._database().execute(
            "SELECT sender, recipient, text, sent_at FROM messages WHERE sender = ? OR recipient = ? ORDER BY id",
            (request.user_id, request.user_id),
        )
        for sender, recipient, text, sent_at in rows:
            yield profiles_pb2.Message(sender_id=sender, recipient_id=recipient, text=text, sent_at=sent_at)

    def ImportContacts(
        self, request_iterator: Iterator[profiles_pb2.Contact], context: grpc.ServicerContext
    ) -> profiles_pb2.ImportContactsResponse:
        """Count the contacts that came."""
        return profiles_pb2.ImportContactsResponse(imported=sum(1 for _ in request_iterator))

    def Sync(
        self, request_iterator: Iterator[profiles_pb2.SyncRequest], context: grpc.ServicerContext
    ) -> Iterator[profiles_pb2.SyncResponse]:
        """Each named user's profile, in turn; unknown ids are passed over."""
        for request in request_iterator:
            row = self._database().execute("SELECT * FROM users WHERE id = ?", (request.user_id,)).fetchone()
            if row is not None:
                yield profiles_pb2.SyncResponse(profile=_profile(row))

    def _database(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        return connection


def _profile(row: tuple[str, ...]) -> profiles_pb2.Profile:
    return profiles_pb2.Profile(
        user_id=int(row[0]), country=row[1], handle=row[2], display_name=row[3], email=row[4], phone=row[5],
        login=row[6], government_id=row[7], city=row[8], last_address=row[9], watched=row[10].split(","),
        last_payment=profiles_pb2.Payment(card_last_four=row[11], amount=row[12]),
    )  # fmt: skip


def serve(database: Path, address: str, cert: Path, key: Path, client_ca: Path) -> None:
    """Serve until the process is told to stop."""
    server = grpc.server(ThreadPoolExecutor(WORKERS))
    profiles_pb2_grpc.add_ProfilesServicer_to_server(Profiles(database), server)  # type: ignore[no-untyped-call]
    checks = health.HealthServicer()
    checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME, health.SERVICE_NAME), server)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], client_ca.read_bytes(), require_client_auth=True
    )
    server.add_secure_port(address, credentials)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], *(Path(name) for name in sys.argv[3:6]))
