"""Whose signatures make an authorization or an attestation: the file that `identity.authorizations.keys` names."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.errors import ConfigurationError
from sidecar.exceptions.approvers import entries, public_key

Signs = Literal["exemption", "general_licence", "specific_licence", "advisory_opinion", "attestation"]
SIGNS: tuple[Signs, ...] = get_args(Signs)


class SignerKeys:
    """Who may sign what: ids, Ed25519 public keys, each distinct, and the kinds each may sign.

    ```yaml
    signers:
      - {id: counsel@corp, key: <32 bytes in standard base64>, may: [exemption, specific_licence]}
      - {id: ciso@corp, key: …, may: [attestation]}
    ```
    """

    def __init__(self, keys: Mapping[str, Ed25519PublicKey], may: Mapping[str, frozenset[str]]) -> None:
        self.keys: Mapping[str, Ed25519PublicKey] = MappingProxyType(dict(keys))
        self._may = dict(may)

    def may(self, signer: str, kind: Signs) -> bool:
        """Whether this signer's signature counts under an object of this kind."""
        return kind in self._may.get(signer, ())

    @classmethod
    def parse(cls, data: bytes, where: str = "signers.yaml") -> "SignerKeys":
        """The signers in this file. ConfigurationError names what is wrong."""
        keys: dict[str, Ed25519PublicKey] = {}
        may: dict[str, frozenset[str]] = {}
        raws: set[bytes] = set()
        for position, entry in enumerate(entries(data, "signers", where)):
            name, raw, kinds = _signer(entry, f"{where}: signers[{position}]")
            if name.casefold() in {known.casefold() for known in keys} or raw in raws:
                raise ConfigurationError("two signers with one id or one key", where=where, value=name,
                                         fix="Two signatures must come from two people.")  # fmt: skip
            keys[name], may[name] = Ed25519PublicKey.from_public_bytes(raw), kinds
            raws.add(raw)
        return cls(keys, may)


def _signer(entry: object, where: str) -> tuple[str, bytes, frozenset[str]]:
    fields = entry if isinstance(entry, dict) and entry.keys() == {"id", "key", "may"} else {}
    name, key, may = fields.get("id"), fields.get("key"), fields.get("may")
    if not isinstance(name, str) or not isinstance(key, str) or not isinstance(may, list) or not name:
        raise ConfigurationError("needs exactly id, key and may", where=where, fix="Write {id: …, key: …, may: […]}.")
    for kind in may:
        if kind not in SIGNS:
            raise ConfigurationError("nothing that can be signed", where=f"{where}.may", value=kind,
                                     fix=f"Use one of {', '.join(SIGNS)}.")  # fmt: skip
    return name, public_key(key, name, where), frozenset(may)
