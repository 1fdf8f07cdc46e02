"""Whether a caller is who they are said to be, where a message names its subject beside the credentials it comes with."""

from sidecar.attributes.subject import Identity
from sidecar.enforcement.call import Call
from sidecar.errors import Code, IdentifyError
from sidecar.vocabulary import ReasonCode


def check_named(call: Call, identity: Identity) -> None:
    """IdentifyError when `call.claimed` is not the principal: the token's subject, or a workload that acts alone."""
    if call.claimed is not None and call.claimed != _principal(identity):
        raise IdentifyError(
            "the credentials are not the named subject's", reason=ReasonCode.UNIDENTIFIED_PERSON,
            code=Code.PERMISSION_DENIED, operator="a caller names one subject and presents another's credentials",
        )  # fmt: skip


def _principal(identity: Identity) -> str | None:
    kind = identity.subjects[0].kind
    if kind == "data_subject":
        return None if identity.own is None else identity.own[1]
    return identity.subjects[0].person.id if kind == "personnel" else identity.workload
