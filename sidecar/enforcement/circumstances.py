"""The circumstances of a call: what the caller claims (purpose, ticket, exception), and what the sidecar knows itself.

Nothing here is free text: purposes and justifications are codes, tickets match a configured pattern, exceptions are
looked up among verified grants. Destination and time never come from the caller, and what lifts the DSP (authorizations,
attested security requirements) is not claimed at all: all that is in force for the people and the service stands there.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Protocol

from sidecar.enforcement.call import Metadata
from sidecar.errors import Code, IdentifyError, InterceptError
from sidecar.exceptions.authorization_store import NOTHING, Lifted
from sidecar.exceptions.jws import SignedObjectError
from sidecar.vocabulary import NO_COUNTS, Environment, ExceptionGrant, Network, Phase, Place, ReasonCode, Subject

PURPOSE = "x-customhouse-purpose"
JUSTIFICATION = "x-customhouse-justification"
TICKET = "x-customhouse-ticket"
EXCEPTION = "x-customhouse-exception"
_CLAIMS = frozenset({PURPOSE, JUSTIFICATION, TICKET, EXCEPTION})
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Grants(Protocol):
    """Verified exception grants."""

    def claim(self, person: str, grant_id: str, now: float) -> ExceptionGrant:
        """The grant with this id, if it names this person and its window holds now. SignedObjectError otherwise."""

    def used(self, grant: ExceptionGrant, call_id: str) -> None:
        """A call was permitted by this grant."""


class Authorizations(Protocol):
    """Verified authorizations and attestations (28 CFR part 202)."""

    def for_call(self, people: Iterable[tuple[str, str | None]], service: str, now: float) -> Lifted:
        """What is in force at `now` for these people (id, counterparty group) at this service."""


class Claims:
    """What stays the same for the whole call."""

    __slots__ = (
        "_justification", "_lifted", "_network", "_ready", "_ticket", "exceptions", "expires_at", "plain", "purpose",
    )  # fmt: skip

    def __init__(
        self,
        purpose: str | None,
        justification: str | None,
        ticket: str | None,
        exceptions: tuple[ExceptionGrant, ...],
        network: Network,
        lifted: Lifted = NOTHING,
    ) -> None:
        self._lifted = lifted
        self.purpose, self._justification, self._ticket = purpose, justification, ticket
        self.exceptions, self._network = exceptions, network
        self.plain = not exceptions and lifted is NOTHING
        """Whether they are words and nothing else, so that equal words in one place are the same claims at any time."""
        ends = [datetime.fromisoformat(grant.expires).timestamp() for grant in exceptions]
        self.expires_at: float = min([*ends, lifted.expires_at])
        """When the first of exception, authorizations and attestation ends, in unix seconds."""
        self._ready: dict[Phase, Environment] = {}

    def environment(self, phase: Phase, minute: str) -> Environment:
        """The document's `context`: the same object for the same minute. `minute` is RFC 3339 with seconds 00."""
        ready = self._ready.get(phase)
        if ready is None or ready.time != minute:
            ready = self._ready[phase] = Environment(
                purpose=self.purpose,
                justification=self._justification,
                ticket=self._ticket,
                exceptions=self.exceptions,
                authorizations=self._lifted.authorizations,
                security_requirements=self._lifted.requirements,
                exposure=NO_COUNTS,
                network=self._network,
                time=minute,
                phase=phase,
            )
        return ready


MAX_KEPT, MAX_WORD = 4096, 128
"""Combinations of words that are remembered, and characters of a word at most, whatever the configured patterns allow."""
_Said = tuple[str | bytes | None, str | bytes | None, str | bytes | None, str | None]


class Circumstances:
    """Reads claims from metadata. One for the whole process; holds no call's state.

    Equal words of callers in one place are one `Claims`, unless something besides is in force for them: exceptions,
    authorizations and attestations are looked up for each call.
    """

    def __init__(
        self,
        *,
        ticket_pattern: str,
        justification_pattern: str,
        destination: Place | None,
        grants: Grants | None,
        authorizations: Authorizations | None = None,
    ) -> None:
        """`destination` None means: the place the calling workload is registered for."""
        self._ticket = re.compile(ticket_pattern)
        self._justification = re.compile(justification_pattern)
        self._destination = None if destination is None else Network(destination=destination)
        self._grants, self._authorizations = grants, authorizations
        self._minute = (0, "")
        self._kept: dict[_Said, Claims] = {}

    def claims(
        self, metadata: Metadata, person: str | None, operated_from: str | None, now: float,
        *, subjects: Iterable[Subject] = (), service: str = "",
    ) -> Claims:  # fmt: skip
        """The caller's claims, checked for form; the grant they name, if it holds; what is in force for `subjects`.

        InterceptError INVALID_ARGUMENT for a claim of the wrong form or given twice; IdentifyError
        `exception_invalid` for a grant that does not hold for this person now.
        """
        found = dict(metadata)
        if len(found) != len(metadata):
            _check_once(metadata)
        lifted = NOTHING if self._authorizations is None else self._authorizations.for_call(
            _parties(subjects), service, now
        )  # fmt: skip
        said = (found.get(PURPOSE), found.get(JUSTIFICATION), found.get(TICKET), operated_from)
        plain = lifted is NOTHING and EXCEPTION not in found
        known = self._kept.get(said) if plain else None
        if known is not None:
            return known
        made = self._checked(found, person, operated_from, now, lifted)
        if plain and all(word is None or len(word) <= MAX_WORD for word in said):
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[said] = made
        return made

    def _checked(
        self,
        found: Mapping[str, str | bytes],
        person: str | None,
        operated_from: str | None,
        now: float,
        lifted: Lifted,
    ) -> Claims:
        network = self._destination or Network(destination=Place(country=operated_from))
        return Claims(
            _matching(
                found, PURPOSE, _CODE.fullmatch, "a purpose code, such as user_support", ReasonCode.PURPOSE_NOT_ALLOWED
            ),
            _matching(
                found,
                JUSTIFICATION,
                self._justification.fullmatch,
                "a justification code",
                ReasonCode.PURPOSE_NOT_ALLOWED,
            ),
            _matching(
                found,
                TICKET,
                self._ticket.fullmatch,
                "a ticket number of the configured form",
                ReasonCode.TICKET_MISSING,
            ),
            self._exceptions(found.get(EXCEPTION), person, now),
            network,
            lifted,
        )

    def lifts(self, subjects: Iterable[Subject], service: str, now: float) -> bool:
        """Whether an authorization or attestation plays a part in what these say at this service at `now`."""
        asked = self._authorizations
        return asked is not None and asked.for_call(_parties(subjects), service, now) is not NOTHING

    def minute(self, now: float) -> str:
        """`now` as RFC 3339 at minute resolution."""
        number = int(now // 60)
        if self._minute[0] != number:
            text = datetime.fromtimestamp(number * 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._minute = (number, text)
        return self._minute[1]

    def _exceptions(self, claimed: str | bytes | None, person: str | None, now: float) -> tuple[ExceptionGrant, ...]:
        if claimed is None:
            return ()
        if self._grants is None or person is None:
            raise IdentifyError(
                "no exception can be claimed here", reason=ReasonCode.EXCEPTION_INVALID, code=Code.PERMISSION_DENIED
            )
        try:
            return (self._grants.claim(person, str(claimed), now),)
        except SignedObjectError as error:
            raise IdentifyError(str(error), reason=ReasonCode.EXCEPTION_INVALID, code=Code.PERMISSION_DENIED) from None

    def used(self, claims: Claims, call_id: str) -> None:
        """A call was permitted by the exception it had claimed."""
        for grant in claims.exceptions:
            if self._grants is not None:
                self._grants.used(grant, call_id)


def _check_once(metadata: Metadata) -> None:
    said = [key for key, _ in metadata if key in _CLAIMS]
    for key in said:
        if said.count(key) > 1:
            raise InterceptError(f"metadata {key} is given twice; send it once", reason=ReasonCode.PURPOSE_NOT_ALLOWED)


def _parties(subjects: Iterable[Subject]) -> Iterator[tuple[str, str | None]]:
    for one in subjects:
        if one.person.id is not None:
            yield one.person.id, one.engagement.group
        if one.workload.id is not None:
            yield one.workload.id, None


def _matching(
    found: Mapping[str, str | bytes], key: str, matches: Callable[[str], object], wanted: str, reason: ReasonCode
) -> str | None:
    value = found.get(key)
    if value is None:
        return None
    value = str(value)  # as bytes, which no door gives under these names, it matches nothing
    if not matches(value):
        raise InterceptError(f"metadata {key} is not {wanted}", reason=reason)
    return value
