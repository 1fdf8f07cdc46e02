"""W3C Trace Context (https://www.w3.org/TR/trace-context/): the header that joins a call to its caller's trace."""

import re
from typing import Literal

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
TraceOrigin = Literal["caller", "sidecar"]


def parse_traceparent(value: str | None) -> tuple[str, str] | None:
    """(trace id, parent span id) of a valid `traceparent`; None for none or a malformed one."""
    if value is None:
        return None
    match = _TRACEPARENT.fullmatch(value)
    if match is None or not match[1].strip("0") or not match[2].strip("0"):
        return None
    if value.startswith("00-") and len(value) != len("00-") + 32 + 1 + 16 + 1 + 2:
        return None
    return match[1], match[2]
