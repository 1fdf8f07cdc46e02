"""Takes up the upstream connection's certificates when their files change."""

import asyncio

from sidecar.enforcement.transport import OperatorLog
from sidecar.enforcement.upstream import GrpcUpstream
from sidecar.errors import ConfigurationError

RENEW_SECONDS = 5.0
DRAIN_SECONDS = 60.0
"""How long calls under way may go on over the connection that was made with the old certificates."""


async def follow(link: GrpcUpstream, log: OperatorLog, *, every: float = RENEW_SECONDS) -> None:
    """Look every so many seconds, until cancelled. Files that cannot be used are reported once; the connection stays."""
    known = ""
    while True:
        await asyncio.sleep(every)
        renewed, problem = False, ""
        try:
            renewed = await link.renew(drain=DRAIN_SECONDS)
        except ConfigurationError as error:
            problem = str(error)
        if problem and problem != known:
            log.error("upstream_certificates_refused", detail=problem)
        if renewed:
            log.warning("upstream_certificates_taken_up", drain_seconds=DRAIN_SECONDS)
        known = problem
