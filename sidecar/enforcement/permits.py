"""Permits that are handed out at doors that only ask."""

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from sidecar.enforcement.call import Metadata
from sidecar.enforcement.obligations import Duties
from sidecar.vocabulary import SubjectClass


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What may be done. `forward`: the request as it was inspected; None where no message was given.

    `obligations` are those of the decision document, merged; the door has declared that they can be met. `metadata` is
    what the service is to be sent by whoever forwards the request. `expires_at`: unix seconds; nothing is permitted by this
    after it. `dropped`: the entity ids asked about whose data subjects a `drop_records` concerns. `revision`: of the policy
    that permits.
    """

    call_id: str
    forward: bytes | None
    obligations: tuple[Mapping[str, object], ...]
    metadata: Metadata
    expires_at: float
    dropped: Mapping[SubjectClass, tuple[str, ...]] = {}
    revision: str | None = None


@lru_cache(maxsize=512)
def ordered(duties: Duties) -> tuple[tuple[Mapping[str, object], ...], tuple[str, ...]]:
    """The obligations of a permit, and the names of those that change answers.

    The same duties are ordered call after call: the same tuples for them, which doors may remember.
    """
    return duties.document(), duties.names
