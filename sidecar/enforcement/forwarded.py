"""What the guarded service is sent beside the request: the caller's own metadata, and who called."""

from functools import lru_cache
from urllib.parse import quote

from sidecar.attributes.subject import Identity
from sidecar.enforcement.call import CALL_ID, Metadata

_PLAIN = "!#$&'()*+,/:;=?@[]"
"""What stands as it is in a header, besides letters and digits; the rest is percent-encoded (RFC 3986, 2.1)."""


def forwarded(metadata: Metadata, call_id: str, traceparent: str, identity: Identity) -> Metadata:
    """The metadata for the service. `metadata` is the caller's, of which only the trace is replaced."""
    kept = [item for item in metadata if item[0] != "traceparent"]
    kept.append((CALL_ID, call_id))
    kept.append(("traceparent", traceparent))
    if identity.person is not None:
        kept.append(("x-customhouse-person", _quoted(identity.person)))
    if identity.workload is not None:
        kept.append(("x-customhouse-workload", identity.workload))
    return tuple(kept)


@lru_cache(maxsize=4096)
def _quoted(person: str) -> str:
    return quote(person, safe=_PLAIN)
