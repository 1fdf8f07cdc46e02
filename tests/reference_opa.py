"""OPA itself as a server: what the embedded engine is compared with."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ERROR = "<error>"
UNDEFINED = "<undefined>"

_SECONDS = 20
_WRAPPER = """package customhouse_batch

answers := {i: answer | some i, document in input.documents; answer := %s with input as document}
"""


class ReferenceOpa:
    """Policies in, answers out, over one connection."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def put(self, path: str, body: str, kind: str = "text/plain") -> bool:
        """Store a policy (or data, as application/json); False when OPA refuses it."""
        return self._ask("PUT", path, body, kind)[0] < 300

    def remove(self, name: str) -> None:
        self._ask("DELETE", f"/v1/policies/{name}", "", "text/plain")

    def answer(self, path: str, document: object, *, strict: bool = True) -> Any:
        """The value at a path under `data`; UNDEFINED and ERROR are texts that no policy here yields."""
        query = "?strict-builtin-errors=true" if strict else ""
        status, body = self._ask("POST", f"/v1/data/{path}{query}", json.dumps({"input": document}), "application/json")
        return ERROR if status != 200 else json.loads(body).get("result", UNDEFINED)

    def batch(self, entrypoint: str) -> None:
        """Prepare `answers` for one rule, `data.…`."""
        assert self.put("/v1/policies/customhouse_batch", _WRAPPER % entrypoint)

    def answers(self, documents: Sequence[object], *, strict: bool = True) -> list[Any]:
        """The rule's value for each document in turn, in one query."""
        found = self.answer("customhouse_batch/answers", {"documents": documents}, strict=strict)
        if found == ERROR and len(documents) > 1:
            # One of them fails the query (some arguments crash OPA): find it.
            half = len(documents) // 2
            return self.answers(documents[:half], strict=strict) + self.answers(documents[half:], strict=strict)
        if found == ERROR:
            return [ERROR]
        return [found.get(str(number), UNDEFINED) for number in range(len(documents))]

    def _ask(self, method: str, path: str, body: str, kind: str) -> tuple[int, bytes]:
        self.connection.request(method, path, body.encode(), {"Content-Type": kind})
        try:
            response = self.connection.getresponse()
            return response.status, response.read()
        except http.client.RemoteDisconnected:  # OPA panicked in this request; it goes on with the next
            self.connection.close()
            return 599, b""


@contextlib.contextmanager
def running(program: Path, *arguments: str) -> Iterator[ReferenceOpa]:
    """A server on a free port; `arguments`: what it loads."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error", "--disable-telemetry"]
    command += arguments
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={"PATH": os.defpath}, **quiet) as server:  # type: ignore[call-overload]
        try:
            opa = _ready(port)
            with contextlib.closing(opa.connection):
                yield opa
        finally:
            server.kill()


def _ready(port: int) -> ReferenceOpa:
    opa = ReferenceOpa(port)
    for _ in range(_SECONDS * 20):
        try:
            opa.answer("none", {})
        except OSError:
            opa.connection.close()
            time.sleep(0.05)
        else:
            return opa
    raise AssertionError("OPA does not answer")
