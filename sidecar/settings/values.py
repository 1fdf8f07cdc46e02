"""How durations, sizes, paths and addresses are spelled in settings, and what every mapping in them is."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_HOST_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?):([0-9]{1,5})")
_UNIX = "unix:"
_LAST_PORT = 65535


def _duration(value: object) -> object:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a duration is a number and its unit ms, s, m, h or d, such as 50ms or 24h")
    return float(match[1]) * _SECONDS[match[2]]


def _size(value: object) -> object:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("a size is a whole number and B, KiB, MiB or GiB, such as 4MiB")
    return int(match[1]) * _BYTES[match[2]]


def _path(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("a path is a non-empty text")
    base = (info.context or {}).get("base", Path())
    return Path(base, value)


def _host_port(value: object) -> object:
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > _LAST_PORT:
        raise ValueError("an address is host:port or [ipv6]:port")
    return value


def is_loopback(address: str) -> bool:
    """Whether only this host can reach a `HostPort`."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str) and value.startswith(_UNIX):
        return f"{_UNIX}{_path(value.removeprefix(_UNIX), info)}"
    try:
        return _host_port(value)
    except ValueError:
        raise ValueError("an address is host:port, [ipv6]:port or unix:PATH") from None


Duration = Annotated[float, BeforeValidator(_duration), Field(gt=0)]
"""Seconds, more than none."""
Leeway = Annotated[float, BeforeValidator(_duration), Field(ge=0, le=30)]
"""Seconds by which clocks may differ; none is a leeway too."""
Size = Annotated[int, BeforeValidator(_size), Field(gt=0)]
"""Bytes, more than none."""
FilePath = Annotated[Path, BeforeValidator(_path)]
"""Relative to the settings file."""
HostPort = Annotated[str, BeforeValidator(_host_port)]
"""host:port or [ipv6]:port."""
Address = Annotated[str, BeforeValidator(_address)]
"""As `HostPort`, or unix:PATH, which is relative to the settings file."""


class Section(BaseModel):
    """A mapping in a settings file: only known keys, no coercion, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=False)


class Settings(Section):
    """A whole settings file.

    `later`: keys of the interface that this version does not have -> what they are about. They are refused by name, so
    that nobody believes they are in force.
    """

    later: ClassVar[Mapping[str, str]] = {}


def instead(words: Mapping[object, str]) -> BeforeValidator:
    """A validator that refuses values in place of which something else is meant, and says what."""

    def refuse(value: object) -> object:
        if isinstance(value, str | int) and value in words:
            raise ValueError(words[value])
        return value

    return BeforeValidator(refuse)
