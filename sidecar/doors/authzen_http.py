"""HTTP messages as the AuthZEN door sees them, whoever carries them: the HTTPS listener, or a host such as Envoy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from sidecar.enforcement.call import Peer
from sidecar.enforcement.transport import OperatorLog

Headers = tuple[tuple[str, str], ...]
JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHead:
    """A request before its body. `path` has no query; names of headers are lower case.

    `anonymous`: the transport has verified nobody, though it could have.
    """

    method: str
    path: str
    headers: Headers
    peer: Peer
    anonymous: bool = False

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An answer. Length, date and connection headers are the transport's."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Headers = ()


class Application(Protocol):
    """What a transport hands requests to. Raises nothing but CancelledError."""

    def route(self, head: HttpHead) -> str:
        """What is asked for, as this application writes it: for logs, which repeat nothing that a client sends."""

    def early(self, head: HttpHead) -> HttpResponse | None:
        """An answer that needs no body, which is then not read; None: read it, and ask `answer`."""

    def refused(self, head: HttpHead | None, status: int, message: str) -> HttpResponse:
        """What the transport itself has to say: a request that cannot be read, or is too large."""

    async def answer(self, head: HttpHead, body: bytes) -> HttpResponse:
        """The answer to a whole request."""


Clock = Callable[[], float]


async def answered(application: Application, head: HttpHead, body: bytes, log: OperatorLog) -> HttpResponse:
    """The application's answer; 500 when it fails, of which a client learns no more than that."""
    try:
        return await application.answer(head, body)
    except Exception as error:  # noqa: BLE001 - whatever it was
        log.error("an answer failed", failure=type(error).__name__, path=application.route(head))  # noqa: TRY400
        return application.refused(head, 500, "the sidecar failed")
