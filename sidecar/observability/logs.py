"""The operator's log: one JSON object a line on standard error, and nothing else there."""

import asyncio
import json
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Protocol, Self, TextIO

from sidecar.observability.events import EVENTS

REPEAT_SECONDS = 1.0
"""What a library says at one place of its code is passed on no more often than this."""
_SPEAKING = ("opentelemetry",)
"""Libraries whose words hold nothing that a caller sent."""


class Log(Protocol):
    """Where events go."""

    def error(self, event: str, **details: object) -> object:
        """Something failed and needs attention."""


class JsonLog:
    """Writes lines, each whole, from any thread. What JSON does not know stands in them as Python shows it.

    `bound`: details of every line. `counts`: (event, level) -> how many lines there have been.
    """

    def __init__(
        self, stream: TextIO, counts: MutableMapping[tuple[str, str], int], bound: Mapping[str, object],
        writing: AbstractContextManager[bool] | None = None,
    ) -> None:  # fmt: skip
        self._stream, self._counts, self._bound = stream, counts, bound
        self._writing = writing or threading.Lock()

    def bind(self, **details: object) -> Self:
        """A logger of the same stream and counts whose lines all have these details."""
        return type(self)(self._stream, self._counts, {**self._bound, **details}, self._writing)

    def info(self, event: str, **details: object) -> None:
        """Something happened that operators may want to find again."""
        self._write("info", event, details)

    def warning(self, event: str, **details: object) -> None:
        """Something was refused or repaired, or changed."""
        self._write("warning", event, details)

    def error(self, event: str, **details: object) -> None:
        """Something failed and needs attention."""
        self._write("error", event, details)

    def critical(self, event: str, **details: object) -> None:
        """Something failed that this process does not go on without."""
        self._write("critical", event, details)

    def _write(self, level: str, event: str, details: Mapping[str, object]) -> None:
        stamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")  # noqa: TID251 - decides nothing: it tells people when
        line = json.dumps({**self._bound, **details, "event": event, "level": level, "timestamp": stamp}, default=repr)
        with self._writing:
            self._counts[event, level] = self._counts.get((event, level), 0) + 1
            print(line, file=self._stream, flush=True)


def make_logger(
    component: str, stream: TextIO | None = None, counts: MutableMapping[tuple[str, str], int] | None = None
) -> JsonLog:
    """A logger for this process; `component` is `sidecar`, `oversight` or `ledger`. Writes to standard error by default.

    `counts`: as `JsonLog` has it. Every event of the component begins at 0, or the first line of its kind would be no
    increase to whoever watches.
    """
    lines = {} if counts is None else counts
    for event in EVENTS:
        if component in event.of:
            lines.setdefault((event.name, event.level), 0)
    return JsonLog(stream or sys.stderr, lines, {"component": component})


def quiet_libraries(log: Log) -> None:
    """From now on, what libraries log (warnings and worse) becomes a line of `log`: which library, where, what failed.

    Not its words: gRPC's hold metadata values, and a traceback holds what it choked on. For the whole process.
    """
    root = logging.getLogger()
    root.handlers = [_Passed(log)]
    root.setLevel(logging.WARNING)


def settled_for_good(loop: asyncio.AbstractEventLoop, log: Log) -> None:
    """This process reads its settings once: SIGHUP, which would end it at once, is answered with a line and no more."""
    why = "this process reads its settings at its start only. Restart it; what runs goes on"
    loop.add_signal_handler(signal.SIGHUP, lambda: log.error("reload_refused", detail=why))


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
