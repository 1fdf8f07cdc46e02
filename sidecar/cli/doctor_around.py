"""What `sidecar doctor` tries on this host: what decisions rest on, certificates, keys' files, the admin socket."""

import stat
from collections.abc import Iterator
from pathlib import Path

from sidecar.attributes.directory import Directory
from sidecar.attributes.subjects_index import SubjectIndex
from sidecar.cli.findings import Finding, NotHeldError, tried
from sidecar.main import build, gauges, policy_start
from sidecar.main.given import clock, naming
from sidecar.observability.certificates import not_after
from sidecar.settings.sidecar import Issuer, SidecarSettings

_DAY = 86400.0
_SOON = 14 * _DAY
_NEARLY = 0.75
_READABLE = "Name a file that this user may read."


def examined(settings: SidecarSettings) -> Iterator[Finding]:
    """Try everything."""
    for name, path in gauges.certified(settings).items():
        yield tried(f"certificate of {name}", lambda path=path: _certificate(path), _READABLE)  # type: ignore[misc]
    for key, path in _keys(settings):
        yield tried(f"key {key}", lambda path=path: _private(path), _READABLE)  # type: ignore[misc]
    for issuer in settings.identity.issuers:
        yield tried(f"keys of {issuer.issuer}", lambda issuer=issuer: _jwks(issuer))  # type: ignore[misc]
    most = settings.identity.directory.max_age
    yield tried("directory", lambda: _age(build.directory(settings), most, "sidecar directory build"))
    yield tried(
        "subject index", lambda: _age(build.index(settings), settings.subjects.max_age, "sidecar subjects build")
    )
    yield tried("policy source", lambda: _policy(settings))
    if settings.admin is not None:
        socket = settings.admin.socket
        yield tried("admin socket", lambda: _admin(socket))


def _certificate(path: Path) -> str:
    try:
        left = not_after(path) - clock()
    except ValueError:
        raise NotHeldError("holds no certificate", where=str(path), fix="Give a PEM certificate.") from None
    said = f"{path} ends in {left / _DAY:.0f} days"
    if left <= 0:
        raise NotHeldError("has ended", where=str(path), fix="Renew it: connections with it are refused.")
    if left < _SOON:
        raise NotHeldError(f"ends in {left / _DAY:.1f} days", where=str(path), fix="Renew it.", warns=True)
    return said


def _keys(settings: SidecarSettings) -> Iterator[tuple[str, Path]]:
    yield "producer.key", settings.producer.key
    for place, one in enumerate(settings.listen):
        if one.tls is not None:
            yield f"listen.{place}.tls.key", one.tls.key
    clients = {"upstream": settings.upstream.tls, "oversight": settings.oversight.tls}
    clients |= {"ledger": settings.ledger.tls} if settings.ledger is not None else {}
    for name, tls in clients.items():
        if tls is not None and tls.key is not None:
            yield f"{name}.tls.key", tls.key


def _private(path: Path) -> str:
    """Who else may read it. A group's right to read is how a mounted secret looks, and still one too many."""
    mode = stat.S_IMODE(path.stat().st_mode)
    fix = f"chmod 600 {path}"
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise NotHeldError(f"mode {mode:04o}: others may read or change it", where=str(path), fix=fix)
    if mode & stat.S_IRGRP:
        raise NotHeldError(f"mode {mode:04o}: its group may read it", where=str(path), fix=fix, warns=True)
    return f"{path} has mode {mode:04o}"


def _jwks(issuer: Issuer) -> str:
    ring = build.key_ring(issuer)
    ring.load()
    found = ring.status()
    if found.error is not None or not found.kids:
        raise NotHeldError(
            found.error or "holds no key that may be used", where=found.source,
            fix="Mend the way to the issuer, or correct identity.issuers: tokens of this issuer are refused.",
        )  # fmt: skip
    return f"{found.source} holds {len(found.kids)} keys"


def _age(part: Directory | SubjectIndex, most: float, builder: str) -> str:
    now = clock()
    age = part.age(now)
    said = f"revision {str(part.revision)[:16]} is {_long(age)} old, of {_long(most)} allowed"
    fix = f"Run `{builder}`, and what should run it regularly."
    if not part.fresh(now):
        raise NotHeldError(said if age >= 0 else "it was built in the future: a clock is wrong", fix=fix)
    if age > _NEARLY * most:
        raise NotHeldError(said, fix=fix, warns=True)
    return said


def _long(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"


def _policy(settings: SidecarSettings) -> str:
    source = policy_start.open_source(settings.policy.bundle)
    with naming(f"policy.bundle.{source.kind}"):
        return f"{source.where} holds revision {source.read().revision[:16]}"


def _admin(path: Path) -> str:
    if not path.is_socket():
        raise NotHeldError("there is no socket, so no sidecar runs with these settings", where=str(path),
                           fix="Start it: sidecar run.", warns=True)  # fmt: skip
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise NotHeldError(f"mode {mode:04o}: others may give it commands", where=str(path), fix=f"chmod 700 {path}")
    return f"{path} has mode {mode:04o}"
