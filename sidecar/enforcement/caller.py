"""Who asks for what: a call's identity, its description and its claims, found out before any policy is asked."""

from functools import lru_cache

from sidecar.attributes.described import Described
from sidecar.attributes.resource import MethodDescription
from sidecar.attributes.subject import Identity
from sidecar.enforcement.call import Call
from sidecar.enforcement.circumstances import Claims
from sidecar.enforcement.named import check_named
from sidecar.enforcement.parts import Parts
from sidecar.errors import InterceptError
from sidecar.observability.calls import CallSpan
from sidecar.vocabulary import Action, Environment, Phase

_LONGEST = 256
"""Characters of a method's name that is remembered: anybody may send one of many thousand."""


class Caller:
    """The state of one call as far as it concerns who asks, and for what.

    What is remembered about a caller stands behind the parts it asks: `Identifier` (who a token from a peer means),
    `Circumstances` (equal words), `Questions` (what they come to in a document). ADR 0032 says when each lapses; for a
    call that is like one before, all of it stands together in `regulars` (ADR 0037).
    """

    # What most calls never change stands here once, and not in each call.
    _described: Described | None = None
    _identity: Identity | None = None
    _claims: Claims | None = None
    _claimed_for = ""
    _given: "Caller | None" = None
    expires_at = float("-inf")
    """When the first of identity and claimed exception lapses, in unix seconds."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self.parts, self.call, self.span, self.call_id = parts, call, span, call_id
        self.action = (_named if len(call.method) <= _LONGEST else _named.__wrapped__)(call.method)

    def identify(self) -> None:
        """Stage 2, and what the caller claims. IdentifyError, InterceptError."""
        call, peer = self.call, self.call.peer
        identity = None if self._given is None else self._given._identity  # noqa: SLF001 - of this very class
        if identity is None:
            identity = self.parts.identifier.identify(
                call.metadata, peer.identities, peer.certificate_sha256, self.parts.clock(), call.asserted
            )
        self._set(identity)
        if call.claimed is not None:
            check_named(call, identity)
        self.span.stage("identify")

    def adopt(self, other: "Caller") -> None:
        """The first identification is what another case of the same request has just found: same caller, same claims.

        Only of a case that went through identification and claims; any other leaves this one to find out by itself.
        """
        mine, theirs = self.call, other.call
        if (mine.metadata, mine.peer, mine.asserted) == (theirs.metadata, theirs.peer, theirs.asserted):
            self._given = other if other.claimed else None

    def identify_workload(self) -> None:
        """The workload at the other end alone, for the record of something it did in its own name. IdentifyError."""
        self._set(self.parts.identifier.calling(self.call.peer.identities, self.parts.clock()))

    def _set(self, identity: Identity) -> None:
        claims, self._identity = self._claims, identity
        self.expires_at = identity.expires_at if claims is None else min(identity.expires_at, claims.expires_at)

    def describe(self) -> MethodDescription:
        """Stage 3 for the method. DescribeError, InterceptError."""
        found = self.parts.describer.method(self.call.method)
        self.describe_as(found)
        return found

    def describe_as(self, described: Described) -> None:
        """Stage 3 for whatever is described this way."""
        self._described = described
        self.action = described.action
        self.span.stage("describe")

    def claim(self) -> None:
        """The caller's claims. InterceptError, IdentifyError."""
        identity, given, service = self._identity or self.identity, self._given, self.action.service or ""
        self._given, self._claimed_for = None, service
        claims = given._claims if given is not None and given._claimed_for == service else None  # noqa: SLF001 - as above
        if claims is None:
            claims = self.parts.circumstances.claims(
                self.call.metadata, identity.person, identity.subjects[0].workload.operated_from, self.parts.clock(),
                subjects=identity.subjects, service=service,
            )  # fmt: skip
        self._claims, self.expires_at = claims, min(identity.expires_at, claims.expires_at)

    @property
    def claimed(self) -> bool:
        """Whether the caller is identified and their claims are known."""
        return self._identity is not None and self._claims is not None

    @property
    def claimed_for(self) -> str:
        """The service for which the caller's claims and what lifts the DSP were looked up; after `claim`."""
        return self._claimed_for

    @property
    def claims(self) -> Claims:
        """What they claim; after `claim`."""
        if self._claims is None:
            raise InterceptError("the caller's claims are not known")
        return self._claims

    @property
    def identity(self) -> Identity:
        """Who asks; after `identify`."""
        if self._identity is None:
            raise InterceptError("the call was not identified")
        return self._identity

    @property
    def described(self) -> Described:
        """What is reached; after `describe`."""
        if self._described is None:
            raise InterceptError("the call was not described")
        return self._described

    def _environment(self, phase: Phase, minute: str) -> Environment:
        if self._claims is None:
            return Environment(time=minute, phase=phase)
        return self._claims.environment(phase, minute)


@lru_cache(maxsize=1024)
def _named(path: str) -> Action:
    """What a caller wants done, before anybody knows what it means."""
    service, _, method = path.lstrip("/").partition("/")
    return Action(service=service, method=method)
