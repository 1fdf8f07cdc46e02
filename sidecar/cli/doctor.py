"""`sidecar doctor`: tries what must hold around a sidecar for its records to mean anything."""

import json
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc

from sidecar.cli import doctor_around, doctor_store
from sidecar.cli.console import FINDING, out, plain
from sidecar.cli.findings import Finding, NotHeldError, tried
from sidecar.main.process import check
from sidecar.settings.sidecar import ClientTls, SidecarSettings

_SECONDS = 3.0
_PROBE = "/customhouse.doctor.v1.Probe/Direct"
_FREE_BYTES = 256 << 20
_MARKS = {"ok": ("ok  ", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "red")}


def examine(settings: SidecarSettings, *, as_json: bool = False) -> int:
    """Try everything and print it; 1 when something does not hold. What will not hold for long is a warning, and 0."""
    findings = []
    for one in _examined(settings):
        findings.append(one)
        if not as_json:
            mark, style = _MARKS[one.state]
            out().print(mark, style=style, end=" ")
            out().print(plain(f"{one.name}: {one.detail}"))
    failed = sum(not one.good for one in findings)
    if as_json:
        counts = {"failed": failed, "warnings": sum(one.warns for one in findings)}
        print(json.dumps({"findings": [one.document() for one in findings], **counts}))
    return FINDING if failed else 0


def _examined(settings: SidecarSettings) -> Iterator[Finding]:
    yield tried("settings", lambda: f"{len(check(settings))} parts load")
    if settings.upstream.address is not None:
        yield from _upstream(settings.upstream.address, settings.upstream.tls, _another(settings))
    yield tried("oversight store", lambda: _reaches(settings.oversight.address, "oversight.address"))
    yield tried("key service", lambda: _reaches(settings.oversight.keys, "oversight.keys"))
    yield from doctor_store.examined(settings)
    yield tried("spool", lambda: _spool(settings.record.spool, settings.record.max_bytes))
    yield from doctor_around.examined(settings)
    for listener in settings.listen:
        if listener.tls is None or listener.tls.client_ca is None:
            known = listener.workload is not None
            yield Finding(f"callers on {listener.address}", known, f"known as {listener.workload}" if known else
                          "no client certificate is asked for, so no caller is known",
                          fix="" if known else "Give tls.client_ca.")  # fmt: skip
    if settings.identity.bind_to_workload == "none":
        yield Finding("tokens", False, "are bound to no workload: whoever steals one can use it "
                      "(identity.bind_to_workload: none)", "identity.bind_to_workload", "Use cnf or azp.")  # fmt: skip


def _another(settings: SidecarSettings) -> tuple[Path, Path] | None:
    """A certificate that is not the one the upstream knows the sidecar by: a listener's, where it is another."""
    mine = settings.upstream.tls.cert if settings.upstream.tls else None
    found = (one.tls for one in settings.listen if one.tls is not None and one.tls.cert != mine)
    return next(((one.cert, one.key) for one in found), None)


def _reaches(address: str, key: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), _SECONDS):
            return f"{address} accepts connections"
    except OSError as error:
        raise NotHeldError(
            error.strerror or str(error), where=address,
            fix=f"Start what listens there, open the way to it, or correct {key}.",
        ) from None  # fmt: skip


def _upstream(address: str, tls: ClientTls | None, another: tuple[Path, Path] | None) -> Iterator[Finding]:
    if address.startswith("unix:"):
        yield tried("upstream refuses others", lambda: _socket(Path(address.removeprefix("unix:"))))
    elif tls is None:
        yield Finding("upstream", False, f"{address} is reached without TLS, so anybody who reaches it is let in",
                      "upstream.tls", "Give the service a certificate and let it ask for the sidecar's.")  # fmt: skip
    else:
        own = (tls.cert, tls.key) if tls.cert and tls.key else None
        yield tried("upstream answers the sidecar", lambda: _answers(address, tls, own))
        yield tried("upstream refuses a caller without a certificate", lambda: _refuses(address, tls, None))
        if another is not None:
            yield tried("upstream refuses another certificate", lambda: _refuses(address, tls, another))


def _answers(address: str, tls: ClientTls, pair: tuple[Path, Path] | None) -> str:
    code, said = _call(address, tls, pair)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise NotHeldError(
            f"no answer from {address}: {said}", where="upstream.address",
            fix="Start the service, or correct upstream.address and upstream.tls.",
        )  # fmt: skip
    return code.name


def _refuses(address: str, tls: ClientTls, pair: tuple[Path, Path] | None) -> str:
    code, said = _call(address, tls, pair)
    if code is grpc.StatusCode.UNAVAILABLE:
        return "the connection is refused"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise NotHeldError(
            f"{address} neither answered nor refused within {_SECONDS:.0f} s: {said}", where="upstream.address",
            fix="Look at the service: whether it lets others in is not known.",
        )  # fmt: skip
    raise NotHeldError(
        f"{address} answered {code.name}: it can be reached past the sidecar", where="upstream.address",
        fix="Let it accept only the certificate in upstream.tls.",
    )  # fmt: skip


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
        raise NotHeldError(f"{path} is no socket", where="upstream.address", fix="Start the service first.")
    # To connect, others need the right to write to the socket and to pass every folder above it.
    if path.stat().st_mode & stat.S_IWOTH and all(one.stat().st_mode & stat.S_IXOTH for one in path.absolute().parents):
        raise NotHeldError(
            f"{path} can be opened by every user of this host", where="upstream.address",
            fix="Take the rights of others away from it or its folder.",
        )  # fmt: skip
    return f"{path} is closed to other users"


def _spool(folder: Path, most: int) -> str:
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    said = f"{free >> 20} MiB free of the {most >> 20} MiB that record.max_bytes allows"
    if free < min(most, _FREE_BYTES):
        raise NotHeldError(said, where=str(folder), fix="Make room, or give record.spool a larger disk.")
    return said
