"""Certificates for the hosting Envoy: given as files of its secret discovery service, and anew when they change.

Public parts stand in these files; private keys are named, never copied. Envoy takes a file up when another is moved into
its place. Files that cannot be used are refused before Envoy sees them: the certificate in use stays, and it is said once.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar import pem
from sidecar.enforcement.certificates import ServerTls
from sidecar.enforcement.transport import OperatorLog
from sidecar.enforcement.upstream import ClientTls
from sidecar.errors import ConfigurationError
from sidecar.main.given import FILE_SECONDS
from sidecar.main.hosted_bootstrap import CALLERS_SECRET, CLIENT_SECRET, SERVER_SECRET, SERVICE_SECRET

_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type's name
Secrets = dict[str, dict[str, Any]]


class HostedSecrets:
    """The secrets of one Envoy, in a folder that only the sidecar's user may enter."""

    def __init__(
        self, folder: Path, server: ServerTls | None, client: ClientTls | None, name: str, log: OperatorLog
    ) -> None:
        """`name`: what the upstream's certificate must name."""
        self._folder, self._server, self._client, self._name, self._log = folder, server, client, name, log
        self._given: dict[str, bytes] = {}
        self._refused = ""

    def write(self) -> bool:
        """Write what has changed; whether anything has. ConfigurationError for files that cannot be used."""
        changed = False
        for name, secret in self._read().items():
            said = json.dumps({"resources": [{"@type": _SECRET, "name": name, **secret}]}).encode()
            if self._given.get(name) != said:
                self._put(name, said)
                self._given[name], changed = said, True
        return changed

    async def follow(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(FILE_SECONDS)
            try:
                changed = await asyncio.to_thread(self.write)
            except ConfigurationError as error:
                if self._refused != str(error):
                    self._log.error("new certificate files cannot be used; those in use stay", problem=str(error))
                self._refused = str(error)
            else:
                self._refused = ""
                if changed:
                    self._log.warning("certificate taken up", files=sorted(self._given))

    def _read(self) -> Secrets:
        found: Secrets = {}
        if self._server is not None:
            cert, key, callers = self._server.read()
            found[SERVER_SECRET] = _pair(cert, key, self._server.key)
            if callers is not None:
                found[CALLERS_SECRET] = {"validation_context": {"trusted_ca": _inline(callers)}}
        if self._client is not None:
            names = [{"san_type": kind, "matcher": {"exact": self._name}} for kind in ("DNS", "IP_ADDRESS")]
            found[SERVICE_SECRET] = {"validation_context": {
                "trusted_ca": _inline(pem.authorities(self._client.ca)), "match_typed_subject_alt_names": names,
            }}  # fmt: skip
            if self._client.cert is not None and self._client.key is not None:
                cert, key = pem.pair(self._client.cert, self._client.key)
                found[CLIENT_SECRET] = _pair(cert, key, self._client.key)
        return found

    def _put(self, name: str, said: bytes) -> None:
        beside = self._folder / f".{name}.json"
        beside.write_bytes(said)
        beside.rename(self._folder / f"{name}.json")


def _pair(cert: bytes, key: bytes, path: Path) -> dict[str, Any]:
    """The chain's file would be read again only when it is moved; so the chain stands here, marked by its key's hash."""
    mark = f"# key {hashlib.sha256(key).hexdigest()}\n".encode()
    return {
        "tls_certificate": {"certificate_chain": _inline(mark + cert), "private_key": {"filename": str(path.resolve())}}
    }


def _inline(data: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(data).decode("ascii")}


Changed = Callable[[], None]
