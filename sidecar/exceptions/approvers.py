"""Whose signatures approve an exception: `approvers.yaml`."""

from base64 import b64decode
from collections.abc import Mapping
from types import MappingProxyType

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.errors import ConfigurationError

KEY_SIZE = 32


class ApproverKeys:
    """Who may approve: ids and Ed25519 public keys, each distinct (`approvers.yaml`).

    ```yaml
    approvers:
      - {id: dana@corp, key: <32 bytes in standard base64>}
    ```
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self.keys: Mapping[str, Ed25519PublicKey] = MappingProxyType(dict(keys))

    @classmethod
    def parse(cls, data: bytes, where: str = "approvers.yaml") -> "ApproverKeys":
        """The approvers in this file. ConfigurationError names what is wrong."""
        keys: dict[str, Ed25519PublicKey] = {}
        raws: dict[bytes, str] = {}
        for position, entry in enumerate(entries(data, "approvers", where)):
            name, raw = _approver(entry, f"{where}: approvers[{position}]")
            if name.casefold() in {known.casefold() for known in keys} or raw in raws:
                raise ConfigurationError("two approvers with one id or one key", where=where, value=name,
                                         fix="Two approvals must come from two people.")  # fmt: skip
            keys[name], raws[raw] = Ed25519PublicKey.from_public_bytes(raw), name
        return cls(keys)


def _approver(entry: object, where: str) -> tuple[str, bytes]:
    name, key = (entry.get("id"), entry.get("key")) if isinstance(entry, dict) and len(entry) == 2 else (None, None)
    if not isinstance(name, str) or not isinstance(key, str) or not name:
        raise ConfigurationError("needs exactly id and key, both text", where=where, fix="Write {id: …, key: …}.")
    return name, public_key(key, name, where)


def public_key(key: str, name: str, where: str) -> bytes:
    """The 32 bytes of an Ed25519 public key, from standard base64. ConfigurationError."""
    try:
        raw = b64decode(key, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_SIZE:
        raise ConfigurationError("no Ed25519 public key", where=f"{where}.key", value=name,
                                 fix="Give its 32 bytes in standard base64.")  # fmt: skip
    return raw


def entries(data: bytes, name: str, where: str) -> list[object]:
    """The one list of a file of keys. ConfigurationError."""
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"not YAML: {error}", where=where, fix="Mend the file.") from None
    found = document.get(name) if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(found, list):
        raise ConfigurationError(f'not one list "{name}"', where=where, fix=f"Write {name}: [{{id, key, …}}].")
    return found
