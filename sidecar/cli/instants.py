"""Points in time on the command line: RFC 3339, or an age such as `7d`."""

import re
from datetime import UTC, datetime, timedelta

from sidecar.errors import ConfigurationError

_AGE = re.compile(r"^(\d{1,6})([mhdw])$", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def now() -> datetime:
    """The wall clock, aware, UTC: a command is asked at some moment, on either side of the product."""
    return datetime.now(UTC)  # noqa: TID251 - an edge


def instant(text: str, at: datetime) -> str:
    """RFC 3339 as it is; an age as the instant so long before `at`; empty as empty. ConfigurationError otherwise."""
    age = _AGE.match(text)
    try:
        if age is not None:
            then = at - timedelta(**{_UNITS[age[2]]: int(age[1])})
            return then.isoformat(timespec="seconds").replace("+00:00", "Z")
        if not text or datetime.fromisoformat(text).tzinfo is not None:
            return text
    except (ValueError, OverflowError):
        pass
    raise ConfigurationError("no point in time", value=text, fix="Give RFC 3339, or an age such as 30m, 12h, 7d, 2w.")
