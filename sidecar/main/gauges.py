"""What metrics show of a whole sidecar, beside what its parts show of themselves."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.attributes.tokens import TokenVerifier
from sidecar.decision.cache import DecisionCache
from sidecar.observability import certificates
from sidecar.observability.metrics import Gauges

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings


def whole(
    settings: "SidecarSettings",
    *,
    cache: DecisionCache,
    tokens: TokenVerifier,
    problems: Callable[[], list[str]],
    clock: Callable[[], float],
) -> Gauges:
    """Read when somebody asks; a call pays for none of it."""
    return {
        "problems": ("Problems", lambda: float(len(problems()))),
        "directory_max_age_seconds": ("Past it personnel are refused", lambda: settings.identity.directory.max_age),
        "index_max_age_seconds": ("Past it subjects are unknown", lambda: settings.subjects.max_age),
        "decision_cache_hits": ("Hits", lambda: float(cache.hits)),
        "decision_cache_misses": ("Misses", lambda: float(cache.misses)),
        "decision_cache_entries": ("Entries", lambda: float(len(cache))),
        "decision_cache_bytes": ("Bytes", lambda: float(cache.size_bytes)),
        "token_cache_entries": ("Verified tokens kept", lambda: float(tokens.size)),
        **_keys(tokens, clock),
        **certificates.gauges(certified(settings)),
    }


def _keys(tokens: TokenVerifier, clock: Callable[[], float]) -> Gauges:
    def age() -> Mapping[tuple[str, ...], float]:
        """Nothing of an issuer whose keys were never there: `jwks_keys` and `jwks_left_seconds` say that."""
        found = tokens.keys().items()
        return {(name,): max(0.0, clock() - one.confirmed_at) for name, one in found if one.confirmed_at is not None}

    def left() -> Mapping[tuple[str, ...], float]:
        return {(name,): one.good_until - clock() for name, one in tokens.keys().items()}

    return {
        "jwks_age_seconds": ("Since confirmed", age),
        "jwks_left_seconds": ("Until too old", left),
        "jwks_keys": ("Keys", lambda: {(name,): float(len(one.kids)) for name, one in tokens.keys().items()}),
    }


def certified(settings: "SidecarSettings") -> dict[str, Path]:
    """The certificates that this sidecar presents, by what for."""
    found = {f"listen.{place}": one.tls.cert for place, one in enumerate(settings.listen) if one.tls is not None}
    clients = {"upstream": settings.upstream.tls, "oversight": settings.oversight.tls}
    clients |= {"ledger": settings.ledger.tls} if settings.ledger is not None else {}
    return found | {name: tls.cert for name, tls in clients.items() if tls is not None and tls.cert is not None}
