"""The environment of the process: the one place where it is read."""

import os
from collections.abc import MutableMapping


def environment() -> MutableMapping[str, str]:
    """The process's own environment: the standard `OTEL_*` variables, and what a supervisor hands to those it starts."""
    return os.environ  # noqa: TID251 - the one home of the environment
