"""How durations, sizes and paths are spelled in settings."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def _duration(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError("a duration is a number and ms, s, m, h or d, such as 50ms or 24h")
        return float(match[1]) * _SECONDS[match[2]]
    raise ValueError("a duration needs its unit, such as 50ms or 24h")


def _size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is not None:
            return int(match[1]) * _BYTES[match[2]]
    raise ValueError("a size is a whole number and B, KiB, MiB or GiB, such as 4MiB")


def _path(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("a path is a non-empty string")
    base = (info.context or {}).get("base", Path())
    return Path(base, value)


Duration = Annotated[float, BeforeValidator(_duration)]
"""Seconds."""
Size = Annotated[int, BeforeValidator(_size)]
"""Bytes."""
FilePath = Annotated[Path, BeforeValidator(_path)]
"""Relative to the settings file."""


class Section(BaseModel):
    """A mapping in a settings file: only known keys, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=False)
