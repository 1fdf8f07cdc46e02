"""What the guarded service is sent beside the request: the caller's own metadata, and who called."""

from functools import lru_cache
from urllib.parse import quote

from sidecar.attributes.subject import Identity
from sidecar.enforcement.call import CALL_ID, Metadata

TRACE = "traceparent"
_PLAIN = "!#$&'()*+,/:;=?@[]"
"""What stands as it is in a header, besides letters and digits; the rest is percent-encoded (RFC 3986, 2.1)."""


def forwarded(metadata: Metadata, call_id: str, traceparent: str, who: Metadata) -> Metadata:
    """The metadata for the service. `metadata` is the caller's, of which only the trace is replaced; `who`: `who_called`."""
    kept = [item for item in metadata if item[0] != TRACE]
    return (*kept, (CALL_ID, call_id), (TRACE, traceparent), *who)


def who_called(identity: Identity) -> Metadata:
    """The part of it that says who called."""
    found: list[tuple[str, str | bytes]] = []
    if identity.person is not None:
        found.append(("x-customhouse-person", _quoted(identity.person)))
    if identity.workload is not None:
        found.append(("x-customhouse-workload", identity.workload))
    return tuple(found)


@lru_cache(maxsize=4096)
def _quoted(person: str) -> str:
    return quote(person, safe=_PLAIN)
