"""What composition takes from outside: the clock, and how operators are told. Imports no grpc: the supervisor uses it too."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError

FILE_SECONDS = 1.0
"""How often files that may change are looked at."""


def now() -> datetime:
    """The wall clock, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one home of the clock


clock: Callable[[], float] = time.time  # noqa: TID251 - the one home of the clock
"""The wall clock in unix seconds."""


def unchanged() -> None:
    """For parts whose changes concern nobody."""


def reporter(log: OperatorLog | None) -> Callable[[str, str], None]:
    """What parts call with (event, detail) when something changes that the operator should know."""

    def report(event: str, detail: str) -> None:
        if log is not None:
            log.warning(event, detail=detail)

    return report


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Errors of the file that stands at this key of the settings say so."""
    try:
        yield
    except ConfigurationError as error:
        if error.where.startswith(key):
            raise
        where = f"{key}: {error.where}" if error.where else key
        fix = error.fix or "Mend the file, or correct the path."
        raise ConfigurationError(error.what, where=where, value=error.value, fix=fix) from None
