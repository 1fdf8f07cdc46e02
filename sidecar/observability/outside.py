"""Where a process shows its metrics: a listener for Prometheus, and whoever the `OTEL_*` variables name."""

from contextlib import AsyncExitStack
from importlib.metadata import PackageNotFoundError, version

from sidecar.observability.exposition import Exposition, serve
from sidecar.observability.metrics import CallStats, Gauges
from sidecar.observability.telemetry import Telemetry


def show(
    stats: CallStats, gauges: Gauges, listen: str | None, telemetry: Telemetry, stack: AsyncExitStack
) -> Exposition:
    """Show them until `stack` is left; returns them. `listen` is host:port. ConfigurationError when nothing can there."""
    families = Exposition(stats, {**gauges, "build_info": ("1", lambda: {(release(),): 1.0})})
    telemetry.observe(families.collect)
    if listen is not None:
        host, _, port = listen.rpartition(":")
        stack.callback(serve(families, host, int(port)))
    return families


def release() -> str:
    """The version of this program; `source` when it is run from a tree that is not installed."""
    try:
        return version("customhouse")
    except PackageNotFoundError:
        return "source"
