"""`sidecar doctor`: tries what must hold around a sidecar for its records to mean anything."""

import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from sidecar.cli.console import FINDING, out
from sidecar.errors import ConfigurationError
from sidecar.main.process import check
from sidecar.settings.sidecar import ClientTls, SidecarSettings

_SECONDS = 3.0
_PROBE = "/customhouse.doctor.v1.Probe/Direct"
_FREE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing tried."""

    name: str
    good: bool
    detail: str


def examine(settings: SidecarSettings) -> int:
    """Try everything and print it; 1 when something does not hold."""
    findings = list(_examined(settings))
    for one in findings:
        mark, style = ("ok  ", "green") if one.good else ("FAIL", "red")
        out().print(f"[{style}]{mark}[/{style}] {one.name}: ", end="")
        out().print(one.detail, markup=False)
    return 0 if all(one.good for one in findings) else FINDING


def _examined(settings: SidecarSettings) -> Iterator[Finding]:
    yield _tried("settings", lambda: f"{len(check(settings))} parts load")
    yield from _upstream(settings)
    yield _tried("oversight store", lambda: _reaches(settings.oversight.address))
    yield _tried("key service", lambda: _reaches(settings.oversight.keys))
    yield _spool(settings.record.spool, settings.record.max_bytes)
    for listener in settings.listen:
        if listener.tls is None or listener.tls.client_ca is None:
            known = listener.workload is not None
            yield Finding(f"callers on {listener.address}", known, f"known as {listener.workload}" if known else
                          "no client certificate is asked for, so no caller is known. Give tls.client_ca.")  # fmt: skip
    if settings.identity.bind_to_workload == "none":
        yield Finding("tokens", False, "are bound to no workload: whoever steals one can use it "
                      "(identity.bind_to_workload: none)")  # fmt: skip


def _tried(name: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, trial())
    except (ConfigurationError, OSError) as error:
        return Finding(name, False, str(error))


def _reaches(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), _SECONDS):
        return f"{address} accepts connections"


def _upstream(settings: SidecarSettings) -> Iterator[Finding]:
    address, tls = settings.upstream.address, settings.upstream.tls
    if address.startswith("unix:"):
        yield _socket(Path(address.removeprefix("unix:")))
        return
    if tls is None:
        yield Finding("upstream", False, f"{address} is reached without TLS, so anybody who reaches it is let in. "
                      "Give the service a certificate and let it ask for the sidecar's.")  # fmt: skip
        return
    mine = _call(address, tls, tls.cert, tls.key)
    yield Finding("upstream answers the sidecar", mine is not None, mine or f"no answer from {address}")
    for name, cert, key in _others(settings):
        got = _call(address, tls, cert, key)
        yield Finding(f"upstream refuses {name}", got is None, "the connection is refused" if got is None else
                      f"{address} answered {got}: it can be reached past the sidecar. Let it accept only the "
                      "certificate in upstream.tls.")  # fmt: skip


def _others(settings: SidecarSettings) -> Iterator[tuple[str, Path | None, Path | None]]:
    yield "a caller without a certificate", None, None
    for listener in settings.listen:
        if listener.tls is not None:
            yield "another certificate", listener.tls.cert, listener.tls.key
            return


def _call(address: str, tls: ClientTls, cert: Path | None, key: Path | None) -> str | None:
    """What the service itself answers on a direct call; None when the connection is refused."""
    pair = (key.read_bytes(), cert.read_bytes()) if cert and key else (None, None)
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), *pair)
    options = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            probe: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PROBE)
            probe(b"", timeout=_SECONDS)
        except grpc.RpcError as error:
            code = error.code()
            gone = code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            return None if gone else str(code.name)
        return "OK"


def _socket(path: Path) -> Finding:
    if not path.is_socket():
        return Finding("upstream", False, f"{path} is no socket")
    loose = path.stat().st_mode & 0o007 and path.parent.stat().st_mode & 0o001
    return Finding("upstream refuses others", not loose, f"{path} can be opened by every user of this host. "
                   "Take the rights of others away from it or its folder." if loose else
                   f"{path} is closed to other users")  # fmt: skip


def _spool(folder: Path, most: int) -> Finding:
    there = folder if folder.exists() else folder.parent
    free = shutil.disk_usage(there).free
    good = free >= min(most, _FREE_BYTES)
    return Finding("spool", good, f"{free >> 20} MiB free of the {most >> 20} MiB that record.max_bytes allows")
