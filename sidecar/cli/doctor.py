"""`sidecar doctor`: tries what must hold around a sidecar for its records to mean anything."""

import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from sidecar.cli.console import FINDING, out, plain
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main.process import check
from sidecar.settings.sidecar import ClientTls, SidecarSettings

_SECONDS = 3.0
_PROBE = "/customhouse.doctor.v1.Probe/Direct"
_FREE_BYTES = 256 << 20


class _NotHeldError(Exception):
    """What was tried does not hold; says why and what to do."""


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
        out().print(mark, style=style, end=" ")
        out().print(plain(f"{one.name}: {one.detail}"))
    return 0 if all(one.good for one in findings) else FINDING


def _examined(settings: SidecarSettings) -> Iterator[Finding]:
    yield _tried("settings", lambda: f"{len(check(settings))} parts load")
    yield from _upstream(settings.upstream.address, settings.upstream.tls, _another(settings))
    yield _tried("oversight store", lambda: _reaches(settings.oversight.address))
    yield _tried("key service", lambda: _reaches(settings.oversight.keys))
    yield _tried("spool", lambda: _spool(settings.record.spool, settings.record.max_bytes))
    for listener in settings.listen:
        if listener.tls is None or listener.tls.client_ca is None:
            known = listener.workload is not None
            yield Finding(f"callers on {listener.address}", known, f"known as {listener.workload}" if known else
                          "no client certificate is asked for, so no caller is known. Give tls.client_ca.")  # fmt: skip
    if settings.identity.bind_to_workload == "none":
        yield Finding("tokens", False, "are bound to no workload: whoever steals one can use it "
                      "(identity.bind_to_workload: none)")  # fmt: skip


def _another(settings: SidecarSettings) -> tuple[Path, Path] | None:
    """A certificate that is not the one the upstream knows the sidecar by: a listener's, where it is another."""
    mine = settings.upstream.tls.cert if settings.upstream.tls else None
    found = (one.tls for one in settings.listen if one.tls is not None and one.tls.cert != mine)
    return next(((one.cert, one.key) for one in found), None)


def _tried(name: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, trial())
    except _NotHeldError as error:
        return Finding(name, False, str(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Finding(name, False, f"{where}{error.strerror or error}")
    except (ConfigurationError, IntegrityError) as error:
        return Finding(name, False, str(error))


def _reaches(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), _SECONDS):
            return f"{address} accepts connections"
    except OSError as error:
        raise _NotHeldError(f"{address}: {error.strerror or error}") from None


def _upstream(address: str, tls: ClientTls | None, another: tuple[Path, Path] | None) -> Iterator[Finding]:
    if address.startswith("unix:"):
        yield _tried("upstream refuses others", lambda: _socket(Path(address.removeprefix("unix:"))))
    elif tls is None:
        yield Finding("upstream", False, f"{address} is reached without TLS, so anybody who reaches it is let in. "
                      "Give the service a certificate and let it ask for the sidecar's.")  # fmt: skip
    else:
        own = (tls.cert, tls.key) if tls.cert and tls.key else None
        yield _tried("upstream answers the sidecar", lambda: _answers(address, tls, own))
        yield _tried("upstream refuses a caller without a certificate", lambda: _refuses(address, tls, None))
        if another is not None:
            yield _tried("upstream refuses another certificate", lambda: _refuses(address, tls, another))


def _answers(address: str, tls: ClientTls, pair: tuple[Path, Path] | None) -> str:
    code, said = _call(address, tls, pair)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise _NotHeldError(f"no answer from {address}: {said}")
    return code.name


def _refuses(address: str, tls: ClientTls, pair: tuple[Path, Path] | None) -> str:
    code, said = _call(address, tls, pair)
    if code is grpc.StatusCode.UNAVAILABLE:
        return "the connection is refused"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise _NotHeldError(f"{address} neither answered nor refused within {_SECONDS:.0f} s: {said}")
    raise _NotHeldError(
        f"{address} answered {code.name}: it can be reached past the sidecar. Let it accept only the certificate in "
        "upstream.tls."
    )


def _call(address: str, tls: ClientTls, pair: tuple[Path, Path] | None) -> tuple[grpc.StatusCode, str]:
    """How a direct call ends. The service itself answers that it has no such method; a refused connection is UNAVAILABLE."""
    cert, key = pair or (None, None)
    credentials = grpc.ssl_channel_credentials(
        tls.ca.read_bytes(), None if key is None else key.read_bytes(), None if cert is None else cert.read_bytes()
    )
    options = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            probe: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_PROBE)
            probe(b"", timeout=_SECONDS)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


def _socket(path: Path) -> str:
    if not path.is_socket():
        raise _NotHeldError(f"{path} is no socket. Start the service first.")
    # To connect, others need the right to write to the socket and to pass every folder above it.
    if path.stat().st_mode & stat.S_IWOTH and all(one.stat().st_mode & stat.S_IXOTH for one in path.absolute().parents):
        raise _NotHeldError(
            f"{path} can be opened by every user of this host. Take the rights of others away from it or its folder."
        )
    return f"{path} is closed to other users"


def _spool(folder: Path, most: int) -> str:
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    said = f"{free >> 20} MiB free of the {most >> 20} MiB that record.max_bytes allows"
    if free < min(most, _FREE_BYTES):
        raise _NotHeldError(f"{said}. Make room, or give record.spool a larger disk.")
    return said
