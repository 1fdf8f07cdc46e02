"""The policy that a start begins with: the source's, what a person has pinned, or the last good one."""

import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sidecar.decision.activation import Activated, activate
from sidecar.decision.bundle import Bundle
from sidecar.decision.engines import EngineMaker
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main import keys
from sidecar.main.given import clock, naming
from sidecar.main.policy_admission import Admission
from sidecar.main.policy_bucket import Bucket, BucketSource
from sidecar.main.policy_http import Asked, HttpSource
from sidecar.main.policy_signers import Signatures
from sidecar.main.proven import KeptPolicies
from sidecar.main.sources import Source, file_source, folder_source

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings import policy as model
    from sidecar.settings.sidecar import SidecarSettings

FOLDER = "policies"
"""Where bundles are kept, within `record.spool`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What the sidecar begins with. `seen` (unix seconds) is when the source last held `active`.

    `source` is where `active` came from; `found` what the policy's source holds, as far as it can be read; `problem` why
    that is not what is in force.
    """

    active: Activated
    source: str
    seen: float
    found: Bundle | None = None
    problem: str | None = None


def open_source(said: "model.Bundle") -> Source:
    """The source that the settings name. Nothing is asked yet. ConfigurationError."""
    dice = random.SystemRandom().random
    if said.folder is not None:
        return folder_source(said.folder, time.monotonic)
    if said.file is not None:
        return file_source(said.file, time.monotonic)
    if said.url is not None:
        asked = Asked(url=said.url, poll=said.poll, wait=said.wait, ca=said.ca, token_file=said.token_file)
        return HttpSource(asked, jitter=dice)
    return BucketSource(
        Bucket(
            url=said.s3 or "", poll=said.poll, region=said.region, endpoint=said.endpoint, ca=said.ca,
            credentials_file=said.credentials_file,
        ),
        jitter=dice,
    )  # fmt: skip


def admission(settings: "SidecarSettings", maker: EngineMaker) -> Admission:
    """What bundles have to pass, with what was kept of earlier ones. ConfigurationError."""
    said, decision = settings.policy.keys, settings.decision
    return Admission(
        maker=maker,
        kept=KeptPolicies(settings.record.spool / FOLDER, keys.producer_key(settings)),
        signatures=None if said is None else Signatures(said.file, said.require, clock),
        resumable=decision.engine == "embedded" and decision.verify_with is None,
    )


def start(source: Source, entry: Admission, log: OperatorLog, now: float) -> Started:
    """What is in force at a start. ConfigurationError when neither the source nor what was kept gives a policy."""
    with naming(f"policy.bundle.{source.kind}"):
        try:
            found = source.read()
        except ConfigurationError as error:
            return _last_good(entry, log, now, None, error)
        pin = entry.kept.state.pin
        if pin is not None and pin.over == found.revision:
            return _pinned(source, entry, log, now, found)
        try:
            _not_again(entry, found, source.where)
            active = entry.admit(found, source.where)
        except ConfigurationError as error:
            return _last_good(entry, log, now, found, error)
    entry.kept.resumed(active, source=source.where, now=now)
    return Started(active=active, source=source.where, seen=now, found=found)


def _not_again(entry: Admission, found: Bundle, where: str) -> None:
    """ConfigurationError for a bundle whose trial ended the process, where there is another one to go on with."""
    state = entry.kept.state
    if state.trying == found.revision and state.bundles[0].revision != found.revision:
        raise ConfigurationError(
            "the process ended while this bundle was being tested", where=where, value=found.revision,
            fix="It is tested again in ten minutes, or by `sidecar policy activate`; if it ends the process again, mend it",
        )  # fmt: skip


def _pinned(source: Source, entry: Admission, log: OperatorLog, now: float, found: Bundle) -> Started:
    """A person has put another bundle over the one that the source still holds: that stands, also after a restart."""
    kept = entry.kept.state.bundles[0]
    try:
        active = entry.admit(entry.kept.load(kept), f"kept: {kept.revision}")
    except ConfigurationError as error:
        # What was pinned over is no fallback: somebody took it out of force for a reason.
        raise ConfigurationError(
            f"the bundle that was put in force by {kept.by} cannot be: {error}", where=source.where,
            fix="Give the source another revision, or move the folder of kept policies away to give the pin up.",
        ) from None  # fmt: skip
    log.warning("policy_pinned", revision=active.revision, over=found.revision, by=kept.by)
    return Started(active=active, source=kept.source, seen=now, found=found)


def _last_good(
    entry: Admission, log: OperatorLog, now: float, found: Bundle | None, why: ConfigurationError
) -> Started:
    state = entry.kept.state
    if not state.bundles:
        raise why
    kept = state.bundles[0]
    try:
        active = entry.admit(entry.kept.load(kept), f"kept: {kept.revision}")
    except ConfigurationError as error:
        raise ConfigurationError(
            why.what, where=why.where, value=why.value, fix=f"{why.fix}. The last good one is of no use either: {error}"
        ) from None
    log.error("policy_last_good", revision=active.revision, age_seconds=int(now - state.seen), detail=str(why))
    return Started(active=active, source=kept.source, seen=min(state.seen, now), found=found, problem=str(why))


def tried(settings: "SidecarSettings", maker: EngineMaker) -> Activated | None:
    """The bundle of a source on this machine, passed as at a start but for what was kept; None for one elsewhere.

    ConfigurationError says what is wrong with it, with the signers, or with the settings of a source elsewhere.
    """
    said = settings.policy
    signatures = None if said.keys is None else Signatures(said.keys.file, said.keys.require, clock)
    source = open_source(said.bundle)
    if signatures is not None:
        with naming("policy.keys.file"):
            signatures.usable()
    if source.kind not in ("folder", "file"):
        return None
    with naming(f"policy.bundle.{source.kind}"):
        bundle = source.read()
        signers = () if signatures is None else signatures.check(bundle, source.where)
        return activate(replace(bundle, signers=signers), source.where, maker)
