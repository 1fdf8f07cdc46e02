"""`sidecar envoy-config`: from the settings to a bootstrap file for Envoy."""

from dataclasses import dataclass
from pathlib import Path

from sidecar.administration.envoy_config import Bootstrap, Mode, Secured, render
from sidecar.attributes.peers import read_certificate
from sidecar.enforcement.sockets import is_loopback, is_unix
from sidecar.errors import ConfigurationError
from sidecar.main import build
from sidecar.settings.sidecar import ClientTls, Listener, SidecarSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command was told besides the settings. `identity`, `identity_key`, `sidecar_ca`: for a door over TCP."""

    mode: Mode
    listen: str
    cert: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    identity: Path | None = None
    identity_key: Path | None = None
    sidecar_ca: Path | None = None


def config(settings: SidecarSettings, wanted: Wanted) -> str:
    """The file's text. ConfigurationError for settings under which the sidecar would not believe this Envoy."""
    is_loopback(wanted.listen)  # that it is an address at all
    door = next((one for one in settings.listen if one.door == wanted.mode), None)
    if door is None:
        raise ConfigurationError(
            f"no listener has the door {wanted.mode}", where="listen",
            fix=f"Add {{door: {wanted.mode}, address: unix:/run/customhouse/envoy, workload: ...}}.",
        )  # fmt: skip
    upstream = settings.upstream
    if upstream.address is None:
        raise ConfigurationError(
            "is missing: where should Envoy forward to?", where="upstream.address", fix="Name the guarded service."
        )
    described = build.describer(settings)
    return render(
        Bootstrap(
            mode=wanted.mode, listen=wanted.listen, listen_tls=_listen_tls(settings, wanted),
            sidecar=_sockets(door, settings.workers) if is_unix(door.address) else door.address,
            sidecar_tls=_door_tls(settings, door, wanted), upstream=upstream.address, upstream_tls=_upstream_tls(upstream.tls),
            streaming=tuple(sorted(one.path[1:] for one in described if not one.unary)),
            unguarded=tuple(settings.describe.unguarded), message=settings.limits.message,
            metadata=settings.limits.metadata, streams=settings.limits.streams,
        )
    )  # fmt: skip


def _listen_tls(settings: SidecarSettings, wanted: Wanted) -> Secured:
    """From the options, or else as the proxy's listener has it."""
    given = (wanted.cert, wanted.key, wanted.client_ca)
    proxy = next((one.tls for one in settings.listen if one.door == "proxy" and one.tls is not None), None)
    if given == (None, None, None) and proxy is not None:
        given = (proxy.cert, proxy.key, proxy.client_ca)
    cert, key, client_ca = given
    if cert is None or key is None or client_ca is None:
        raise ConfigurationError(
            "Envoy's listener has no certificate, or does not ask callers for theirs", where="envoy-config",
            fix="Give --cert, --key and --client-ca.",
        )  # fmt: skip
    return Secured(ca=client_ca.absolute(), cert=cert.absolute(), key=key.absolute())


def _sockets(door: Listener, workers: int) -> list[Path]:
    """The names that lead to each worker's newest socket: after a reload the sockets themselves have others."""
    folder = Path(door.address.removeprefix("unix:")).absolute()
    return [folder / f"worker-{worker}" for worker in range(workers)]


def _door_tls(settings: SidecarSettings, door: Listener, wanted: Wanted) -> Secured | None:
    """How Envoy shows itself to the sidecar. ConfigurationError unless it shows a workload that `relays`."""
    if door.workload is not None:
        _relays(settings, (door.workload,), "listen")
        return None
    if wanted.identity is None or wanted.identity_key is None or wanted.sidecar_ca is None:
        raise ConfigurationError(
            "the door asks Envoy for a certificate", where=f"listen ({door.door} {door.address})",
            fix="Give --identity, --identity-key and --sidecar-ca, or listen on a Unix socket.",
        )  # fmt: skip
    try:
        found = read_certificate(wanted.identity.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(wanted.identity), fix="Name Envoy's certificate."
        ) from None
    if found.problem:
        raise ConfigurationError(found.problem, where=str(wanted.identity), fix="Name Envoy's certificate.")
    _relays(settings, found.identities, str(wanted.identity))
    name = "localhost" if is_unix(door.address) else None
    return Secured(
        ca=wanted.sidecar_ca.absolute(), cert=wanted.identity.absolute(), key=wanted.identity_key.absolute(),
        server_name=name,
    )  # fmt: skip


def _relays(settings: SidecarSettings, identities: tuple[str, ...], where: str) -> None:
    if not any(one.relays for one in settings.identity.workloads if one.id in identities):
        raise ConfigurationError(
            "the sidecar would not believe this Envoy about who is calling", where=where, value=", ".join(identities),
            fix="Register it: identity.workloads: [{id: ..., relays: true}].",
        )  # fmt: skip


def _upstream_tls(tls: ClientTls | None) -> Secured | None:
    if tls is None:
        return None
    pair = (None, None) if tls.cert is None or tls.key is None else (tls.cert.absolute(), tls.key.absolute())
    return Secured(ca=tls.ca.absolute(), cert=pair[0], key=pair[1], server_name=tls.server_name)
