"""What an author's commands fetch: the input of a recorded call from the store, and what an API's methods reach."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.administration.policy_document import read_request
from sidecar.attributes import descriptors as read_descriptors
from sidecar.attributes import overlay as read_overlay
from sidecar.attributes.resource import Describer
from sidecar.errors import ConfigurationError

if TYPE_CHECKING:
    from sidecar.decision.strict_json import JsonObject

_MOST: int = 1000


def recorded(
    call_id: str, phase: str, store: str, ca: Path | None, cert: Path | None, key: Path | None
) -> tuple["JsonObject", dict[str, object]]:
    """The input document of a recorded decision, and what was decided then. The search becomes a record itself.

    ConfigurationError when the store is not named, or has no such decision.
    """
    from sidecar.cli.review import Reviewer

    if not store or ca is None or cert is None or key is None:
        raise ConfigurationError("no store is named", where="--record", fix="Give --store, --ca, --cert and --key")
    with Reviewer(store, ca, cert, key) as reviewer:
        bodies = [one.body for one in reviewer.search({"call_id": call_id, "type": "decision"}, _MOST) if one.body]
    found = [body for body in map(json.loads, bodies) if not phase or body.get("phase") == phase]
    if not found:
        raise ConfigurationError(
            "the store has no decision of this call" + (f" in phase {phase}" if phase else ""), where="--record",
            value=call_id, fix="Look for it: `sidecar oversight search --call-id …`",
        )  # fmt: skip
    last = found[-1]
    told = {"call_id": call_id, "phase": last.get("phase"), "decisions": len(found), "decision": last.get("decision"),
            "revision": (last.get("policy") or {}).get("revision")}  # fmt: skip
    return read_request(json.dumps(last).encode(), f"record of call {call_id}"), told


def described(descriptors: Path | None, overlay: Path | None, config: Path | None) -> Describer:
    """What the methods reach: from a descriptor set and an overlay, or as the settings of a sidecar say."""
    if descriptors is not None and config is None:
        words = None if overlay is None else read_overlay.load(overlay)
        return Describer(read_descriptors.load(descriptors), overlay=words)
    if config is not None and descriptors is None:
        from sidecar.main.build import describer
        from sidecar.settings.loader import load
        from sidecar.settings.sidecar import SidecarSettings

        return describer(load(config, SidecarSettings))
    raise ConfigurationError("nothing, or two things, describe the API", fix="Give --descriptors or --config")
