"""The operator's log: one JSON object a line on standard error, and nothing else there."""

import asyncio
import logging
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol, TextIO

import structlog

from sidecar.observability.events import EVENTS

REPEAT_SECONDS = 1.0
"""What a library says at one place of its code is passed on no more often than this."""
_SPEAKING = ("opentelemetry",)
"""Libraries whose words hold nothing that a caller sent."""


class Log(Protocol):
    """Where events go."""

    def error(self, event: str, **details: object) -> object:
        """Something failed and needs attention."""


def make_logger(
    component: str, stream: TextIO | None = None, counts: MutableMapping[tuple[str, str], int] | None = None
) -> structlog.typing.FilteringBoundLogger:
    """A logger for this process; `component` is `sidecar`, `oversight` or `ledger`. Writes to standard error by default.

    `counts`: (event, level) -> how many lines there have been. Every event of the component begins at 0, or the first
    line of its kind would be no increase to whoever watches.
    """
    lines = {} if counts is None else counts
    for event in EVENTS:
        if component in event.of:
            lines.setdefault((event.name, event.level), 0)

    def counted(_log: object, level: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        key = (str(line["event"]), level)
        lines[key] = lines.get(key, 0) + 1
        return line

    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(stream or sys.stderr),
        processors=[
            counted,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    ).bind(component=component)
    return logger


def quiet_libraries(log: Log) -> None:
    """From now on, what libraries log (warnings and worse) becomes a line of `log`: which library, where, what failed.

    Not its words: gRPC's hold metadata values, and a traceback holds what it choked on. For the whole process.
    """
    root = logging.getLogger()
    root.handlers = [_Passed(log)]
    root.setLevel(logging.WARNING)


def unhandled(log: Log) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """An event loop's exception handler: one line that names the kind of failure and where, never its words."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # asyncio's own words end where the representation of a callback, with its arguments, begins.
        said = str(context.get("message", "")).partition("<")[0].partition("(")[0].strip()
        log.error("unhandled", failure=type(error).__name__, at=_places(error), detail=said)

    return handle


class _Passed(logging.Handler):
    def __init__(self, log: Log, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._log, self._monotonic = log, monotonic
        self._last: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on that something was said, once a second for each place."""
        place, now = (record.name, record.lineno), self._monotonic()
        if now - self._last.get(place, float("-inf")) < REPEAT_SECONDS:
            return
        self._last[place] = now
        error = record.exc_info[1] if record.exc_info else None
        words = {"detail": record.getMessage()} if record.name.startswith(_SPEAKING) else {}
        self._log.error(
            "library", library=record.name, severity=record.levelname.lower(), function=record.funcName,
            line=record.lineno, failure=None if error is None else type(error).__name__, at=_places(error), **words,
        )  # fmt: skip


def _places(error: BaseException | None) -> list[str]:
    """The innermost functions and lines; no values."""
    frames = traceback.extract_tb(error.__traceback__)[-3:] if error is not None else []
    return [f"{frame.name}:{frame.lineno}" for frame in frames]
