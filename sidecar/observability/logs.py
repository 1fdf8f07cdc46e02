"""The operator's log: one JSON object a line on standard error."""

import sys
from typing import TextIO

import structlog


def make_logger(component: str, stream: TextIO | None = None) -> structlog.typing.FilteringBoundLogger:
    """A logger for this process; `component` is `sidecar` or `oversight`. Writes to standard error by default."""
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    ).bind(component=component)
    return logger
