"""OPA (openpolicyagent.org) as an engine: a server that answers from one bundle, asked through `opa-python-client`.

OPA is the reference of the language. It is either a local program that the sidecar starts and feeds (`OpaMaker`), or a
server that others run beside the sidecar with the same bundle (`OpaAtUrl`). Of the client library one method is used,
`query_rule`; what it leaves open is closed here: the exact bytes of the document are sent, nothing is asked twice, no
redirect followed, no answer read beyond a bound, and none counts that does not say which bundle it comes from. Why so
stands in docs/adr/0014-opa-as-an-engine.md.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from opa_client.opa_async import AsyncOpaClient

from sidecar import _native
from sidecar.decision.bundle import Bundle
from sidecar.decision.document import Decisions
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.engines import Evaluate, TestResult
from sidecar.decision.opa_http import (
    MAX_ANSWER,
    QUESTION,
    Address,
    Answer,
    BlockingClient,
    Late,
    no_answer,
    read_answer,
)
from sidecar.decision.opa_program import OpaProgram
from sidecar.decision.opa_server import OpaServer, Report
from sidecar.decision.under_way import UnderWay
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, Decision

TRIAL_SECONDS: Final = 10.0
"""What a decision on trial may take: a busy machine is not to be taken for a policy that fails."""
WAIT_SECONDS: Final = 30.0
"""How long an OPA that others run may take to get the bundle."""
_WARM_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.05
_CONNECTIONS: Final = 64
_KEPT_SECONDS: Final = 60.0
_CLOSING_SECONDS: Final = 10.0
_PACKAGE, _RULE = "sidecar", "decision"

Token = Callable[[], str | None]
"""The bearer token to send now."""


class _Response(aiohttp.ClientResponse):
    """Reads no more than a decision can take, and as what it must be."""

    async def read(self) -> bytes:
        if self._body is None:
            parts: list[bytes] = []
            size = 0
            async for part in self.content.iter_any():
                size += len(part)
                if size > MAX_ANSWER:
                    self.close()
                    raise ValueError(f"the answer is longer than {MAX_ANSWER} bytes")
                parts.append(part)
            self._body = b"".join(parts)
        return self._body

    async def json(self, **_how: Any) -> Answer:
        return read_answer(await self.read())


class OpaClient(AsyncOpaClient):  # type: ignore[misc] # the library has no types
    """`AsyncOpaClient` without retries and redirects, over a socket where there is one."""

    _session: aiohttp.ClientSession | None

    def __init__(self, address: Address, timeout: float, token: Token) -> None:
        super().__init__(host=address.host, port=address.port, retries=0, timeout=timeout)
        self.root_url = f"{address.root}/v1"
        self._address, self._token = address, token

    async def ask(self, canonical: bytes) -> Answer:
        """Put one question. Raises whatever the library or the network raises."""
        if self._session is None:
            await self._init_session()
        # msgspec.Raw goes into the body as it is: what is recorded is, byte for byte, what was decided.
        answer: Answer = await self.query_rule(msgspec.Raw(canonical), _PACKAGE, _RULE, QUESTION)
        return answer

    async def _init_session(self) -> None:
        where = self._address
        connector: aiohttp.BaseConnector
        if where.socket is not None:
            connector = aiohttp.UnixConnector(str(where.socket), limit=_CONNECTIONS, keepalive_timeout=_KEPT_SECONDS)
        else:
            tls = True if where.tls is None else where.tls
            connector = aiohttp.TCPConnector(ssl=tls, limit=_CONNECTIONS, keepalive_timeout=_KEPT_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            json_serialize_bytes=msgspec.json.encode,
            response_class=_Response,
            auto_decompress=False,
            trust_env=False,
        )

    @asynccontextmanager
    async def _request(self, method: str, url: str, **how: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        token = self._token()
        if token is not None:
            how["headers"] = {"Authorization": f"Bearer {token}"}
        async with super()._request(method, url, allow_redirects=False, **how) as response:
            if response.status != 200:  # an answer is 200; the library lets a redirect and a 204 pass
                said = await response.read()
                raise ValueError(f"it answered {response.status}: {said[:300].decode(errors='replace')}")
            yield response


class OpaEngine:
    """Answers from one bundle on one server. An `Engine`; one event loop."""

    name = "opa"

    def __init__(self, client: OpaClient, revision: str, deadline_seconds: float, stop: Callable[[], None]) -> None:
        """`stop` blocks; it ends what was started for this engine alone."""
        self._client, self._revision, self._deadline, self._stop = client, revision, deadline_seconds, stop
        self._under_way = UnderWay()
        self._decisions = Decisions()

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        """Decide on the canonical bytes, which are what is sent and recorded.

        Raises DecideError(policy_error) when there is no well-formed answer in time, and Superseded when there is one
        from another bundle.
        """
        del request
        with self._under_way.one():
            try:
                async with asyncio.timeout(self._deadline):
                    answer = await self._client.ask(canonical)
            except TimeoutError:
                late = f"OPA did not answer within {self._deadline:g} s: it hangs, or the policy is slow"
                raise no_answer(late) from None
            except Exception as error:  # noqa: BLE001 - whatever the client raises, there is no answer
                raise no_answer(f"OPA gave no answer: {type(error).__name__}: {str(error)[:400]}") from None
            return self._decisions.of(answer.decision(self._revision))

    async def close(self) -> None:
        """Let those under way end, then end connection and server. Idempotent."""
        if await self._under_way.close(_CLOSING_SECONDS):
            await self._client.close_connection()
            await asyncio.to_thread(self._stop)


class OpaMaker:
    """Starts a local `opa` for each bundle. An `EngineMaker`; `report` may be called from any thread."""

    name = "opa"

    def __init__(self, command: str, deadline_seconds: float, report: Report) -> None:
        """ConfigurationError when there is no such program."""
        self._program, self._deadline, self._report = OpaProgram(command), deadline_seconds, report

    def run_tests(self, bundle: Bundle) -> tuple[TestResult, ...]:
        """`opa test`. ConfigurationError for what OPA does not compile."""
        return self._program.run_tests(bundle)

    @contextmanager
    def trial(self, bundle: Bundle) -> Iterator[Evaluate]:
        """The bundle on a server of its own, gone afterwards."""
        server = self._started(bundle)
        client = BlockingClient(server.address, TRIAL_SECONDS)
        try:
            yield lambda canonical: _tried(client, canonical, bundle.revision)
        finally:
            client.close()
            server.stop()

    def make(self, bundle: Bundle) -> OpaEngine:
        """The bundle on a server that has answered once already."""
        server = self._started(bundle)
        client = BlockingClient(server.address, _WARM_SECONDS)
        with suppress(OSError, ValueError):  # the first question compiles the query; what it answers does not matter
            client.decide(b"{}")
        client.close()
        return OpaEngine(
            OpaClient(server.address, self._deadline, lambda: None), bundle.revision, self._deadline, server.stop
        )

    def _started(self, bundle: Bundle) -> OpaServer:
        self._program.check(bundle)
        server = OpaServer(self._program, bundle, self._report)
        server.start()
        return server


class OpaAtUrl:
    """An OPA server that others run, and feed with the same bundle. An `EngineMaker`."""

    name = "opa"

    def __init__(
        self, address: Address, deadline_seconds: float, *, token: Token = lambda: None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:  # fmt: skip
        """`token` is asked before every question."""
        self._address, self._deadline, self._token, self._wait = address, deadline_seconds, token, wait_seconds

    def run_tests(self, bundle: Bundle) -> tuple[TestResult, ...]:
        """The bundle's tests by the embedded engine: a server that others run runs none. ConfigurationError."""
        with _standing_in():
            return EmbeddedMaker(self._deadline).run_tests(bundle)

    @contextmanager
    def trial(self, bundle: Bundle) -> Iterator[Evaluate]:
        """The bundle in the embedded engine: the server may not have it before it is in force here."""
        with _standing_in():
            trial = EmbeddedMaker(self._deadline).trial(bundle)
            evaluate = trial.__enter__()
        try:
            yield evaluate
        finally:
            trial.__exit__(None, None, None)

    def make(self, bundle: Bundle) -> OpaEngine:
        """Wait until the server says that it answers by this bundle. ConfigurationError with what it says instead."""
        client = BlockingClient(self._address, min(self._wait, 2.0), self._token())
        until, seen = time.monotonic() + self._wait, ""
        try:
            while time.monotonic() < until:
                try:
                    held = client.revision()
                except (OSError, ValueError) as error:
                    seen = f"no answer: {error}"
                else:
                    if held == bundle.revision:
                        break
                    seen = held or "no bundle with a revision, or several bundles"
                time.sleep(_LOOK_SECONDS)
            else:
                raise ConfigurationError(
                    f"OPA has not got the bundle {bundle.revision} within {self._wait:g} s",
                    where="decision.opa.url", value=seen,
                    fix="Give both the same bundle; build it with `sidecar policy build`, which writes its digest as "
                    "revision.",
                )  # fmt: skip
        finally:
            client.close()
        found = OpaClient(self._address, self._deadline, self._token)
        return OpaEngine(found, bundle.revision, self._deadline, lambda: None)


@contextmanager
def _standing_in() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(
            f"OPA at a URL cannot try a bundle, and the embedded engine, which does it instead, refuses it: {error.what}",
            fix="Write what both engines accept, or set decision.opa.command.",
        ) from None


def _tried(client: BlockingClient, canonical: bytes, revision: str) -> bytes:
    try:
        return client.decide(canonical).decision(revision)
    except Late:
        raise _native.DeadlineExceeded("OPA took too long") from None
    except OSError as error:
        raise ConfigurationError(f"OPA went away while the bundle was tried: {error}", fix="Try again.") from None
    except DecideError as error:
        raise ValueError(error.operator) from None


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """Trusting `ca` (PEM), or the system's authorities. ConfigurationError."""
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"no certificate authorities: {error}", where="decision.opa.ca", value=str(ca), fix="Give a PEM file."
        ) from None
