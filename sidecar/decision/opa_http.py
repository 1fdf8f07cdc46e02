"""One question to an OPA server and its answer: the address, what is sent, and what of an answer counts.

OPA's Data API (openpolicyagent.org, "REST API"): POST /v1/data/sidecar/decision with {"input": …} answers
{"result": …, "provenance": …}; an undefined rule has no result.
"""

import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sidecar.errors import DecideError, Superseded
from sidecar.vocabulary import ReasonCode

MAX_ANSWER: Final = 1 << 20
"""Bytes of an answer that are read. A decision document takes some hundreds."""
QUESTION: Final = {"provenance": "true", "strict-builtin-errors": "true"}
"""Every answer says which bundle it comes from, and a failing built-in is an error, as in the embedded engine."""
_QUERY: Final = "?" + "&".join(f"{key}={value}" for key, value in QUESTION.items())
_DECISION: Final = f"/v1/data/sidecar/decision{_QUERY}"
_NOTHING: Final = f"/v1/data/system/customhouse/nothing{_QUERY}"


class Late(ValueError):  # noqa: N818 - the name says what happened
    """No answer in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an OPA server listens: a Unix socket, or a host with an optional prefix of paths."""

    socket: Path | None = None
    host: str = "localhost"
    port: int = 80
    prefix: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def root(self) -> str:
        """The address as a URL, without a path of its own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'' if self.tls is None else 's'}://{host}:{self.port}{self.prefix}"


class _Bundle(msgspec.Struct, frozen=True):
    revision: str = ""


class _Provenance(msgspec.Struct, frozen=True):
    bundles: dict[str, _Bundle] = {}


class Answer(msgspec.Struct, frozen=True):
    """What counts of an answer's body."""

    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    provenance: _Provenance = _Provenance()

    @property
    def revision(self) -> str:
        """The revision of the only bundle; empty where there is none, or more than one."""
        held = list(self.provenance.bundles.values())
        return held[0].revision if len(held) == 1 else ""

    def decision(self, revision: str) -> bytes:
        """The decision document as JSON, if it comes from this bundle. Superseded, DecideError."""
        if self.revision != revision:
            raise Superseded(self.revision, revision)
        if self.result is msgspec.UNSET:
            raise no_answer("the entrypoint is undefined for this input: give the decision rule a default")
        return bytes(self.result)


read_answer: Final = msgspec.json.Decoder(Answer).decode
"""From the body of a 200. msgspec.DecodeError."""


def no_answer(operator: str) -> DecideError:
    """Indeterminate; `operator` says why and what to do."""
    return DecideError("the policy gave no decision", reason=ReasonCode.POLICY_ERROR, operator=operator)


class _OverSocket(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class BlockingClient:
    """Asks from a thread: while a bundle is loaded and tried, never on the call path. One connection, kept."""

    def __init__(self, address: Address, timeout: float, token: str | None = None) -> None:
        self._prefix = address.prefix
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        if address.socket is not None:
            self._connection: http.client.HTTPConnection = _OverSocket(address.socket, timeout)
        elif address.tls is not None:
            self._connection = http.client.HTTPSConnection(
                address.host, address.port, timeout=timeout, context=address.tls
            )
        else:
            self._connection = http.client.HTTPConnection(address.host, address.port, timeout=timeout)

    def revision(self) -> str:
        """The revision of what OPA holds. OSError or ValueError while it does not say."""
        return self._ask("GET", _NOTHING, None).revision

    def decide(self, canonical: bytes) -> Answer:
        """The answer to one document. Late, ValueError where OPA has none to give, OSError where nobody answers."""
        return self._ask("POST", _DECISION, b'{"input":' + canonical + b"}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        try:
            self._connection.request(method, self._prefix + path, body, self._headers)
            response = self._connection.getresponse()
            answer = response.read(MAX_ANSWER + 1)
        except TimeoutError:
            self._connection.close()
            raise Late("OPA did not answer in time") from None
        except http.client.HTTPException as error:
            self._connection.close()
            raise ConnectionError(f"OPA broke off: {type(error).__name__}") from None
        except OSError:
            self._connection.close()
            raise
        if response.status != 200 or len(answer) > MAX_ANSWER:
            self._connection.close()
            raise ValueError(f"OPA answered {response.status}: {answer[:300].decode(errors='replace')}")
        return read_answer(answer)
