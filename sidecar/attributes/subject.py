"""Who asks: stage 2 of a call.

* The calling workload is always known: its verified identity is registered, or the call is refused.
* A token is believed or refused, never ignored: a bad token is no way to become a workload that acts alone.
* `sub` and, where present, the current `act` (RFC 8693) are both resolved; the pipeline decides once for each and both
  must be permitted. Earlier actors are shown in `delegation` and weigh nothing (RFC 8693, 4.1).
* Attributes come from the directory's snapshot at each call. Claims may only take away from them.
* A data subject's own id never enters a `Subject`: it stands in `Identity.own`, for comparison with what is reached.
"""

import math
from collections.abc import Sequence
from typing import Literal, NoReturn, Protocol

import msgspec

from sidecar.attributes.claims import Actor, Claims, Restrictions
from sidecar.attributes.countries import UNITED_STATES
from sidecar.attributes.coverage import WITHOUT_PRESENCE
from sidecar.attributes.peers import Caller, Workloads
from sidecar.attributes.revoked import Mark
from sidecar.attributes.tokens import MAX_TOKEN, Grounds, TokenVerifier, digest_of
from sidecar.errors import Code, ConfigurationError, IdentifyError
from sidecar.vocabulary import Authentication, CoveredPerson, Engagement, Location, Person, ReasonCode, Subject

Metadata = tuple[tuple[str, str | bytes], ...]
Binding = Literal["cnf", "azp", "none"]
BINDINGS: tuple[Binding, ...] = ("cnf", "azp", "none")
UNKNOWN_ACTOR = "unknown"
"""Stands in `delegation` for an earlier actor who is neither in the directory nor registered."""

LAPSED_CAP = 60.0
"""Seconds an identity holds at most when something in the person's entry has lapsed already."""

ASSERTED_CAP = 300.0
"""Seconds for which a person's name on another's word holds at most."""

MAX_KNOWN = 4096
"""Callers remembered."""

_SCHEME = "bearer "
_Key = tuple[bytes, tuple[str, ...], bytes | None]
"""Digest of an authorization header, the peer's identities, its certificate's digest."""


class PersonEntry(Protocol):
    """One person of a directory snapshot."""

    @property
    def person(self) -> Person:
        """The attributes, `covered_person` worked out."""

    @property
    def engagement(self) -> Engagement:
        """Under what agreement the person works."""

    @property
    def as_of(self) -> str:
        """RFC 3339 instant at which the source said so."""

    @property
    def expires_at(self) -> float:
        """Unix seconds at which the first of vetting, training, engagement or the directory's age bound ends."""

    @property
    def revision(self) -> str:
        """Digest of the snapshot that the entry came from."""


class Directory(Protocol):
    """The personnel directory. Its snapshot may be exchanged at any time: an entry says which one it came from."""

    @property
    def revision(self) -> str:
        """Digest of the snapshot in force."""

    @property
    def source(self) -> str:
        """Where the snapshot came from, as `subject.source` names it."""

    def person(self, id: str) -> PersonEntry | None:  # noqa: A002 - the word of the directory
        """The entry of the person with exactly this id."""

    def fresh(self, now: float) -> bool:
        """Whether the snapshot is young enough to be relied on at `now` (unix seconds)."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who is calling.

    `subjects`: the token's subject and, where there is one, the current actor; decide once for each. `person`: the
    first personnel id among them. `workload`: the registered id of the caller. `own`: (kind, id) of a data subject who
    calls for themselves. `expires_at`: unix seconds after which nothing derived from this may be kept, and an open
    stream is identified again with the same metadata (infinite for a workload that acts alone). `directory`: the
    snapshot's revision where one was consulted.
    """

    subjects: tuple[Subject, ...]
    person: str | None
    workload: str | None
    own: tuple[str, str] | None
    expires_at: float
    directory: str | None


class Basis(msgspec.Struct, frozen=True):
    """An identity that was found before, and what it rested on (`Identifier.holds`).

    `subject` and `valid_from` are the token's; a workload in its own name has no token. `entry`: the directory's.
    """

    identity: Identity
    grounds: Grounds
    valid_from: float = -math.inf
    subject: str = ""
    entry: PersonEntry | None = None


class Identifier:
    """Resolves callers. `people` is None where no directory is configured: then no personnel can be identified.

    Whom the same token from the same peer means is remembered, and given again as the same object, while everything it
    rested on is the very same and young enough: the issuer's keys and the list of what is revoked (`Grounds`), the entry
    of a fresh directory; and while neither the token nor anything in the entry has ended. Workloads are configured once.
    Whoever was refused is not remembered.
    """

    def __init__(self, *, tokens: TokenVerifier, people: Directory | None, workloads: Workloads,
                 binding: Binding) -> None:  # fmt: skip
        if binding not in BINDINGS:
            raise ConfigurationError("not a way to bind tokens to callers", where="identity.bind_to_workload",
                                     value=binding, fix=f"Use one of: {', '.join(BINDINGS)}")  # fmt: skip
        self._tokens, self._people, self._workloads = tokens, people, workloads
        self._binding = binding
        self._known: dict[_Key, Basis] = {}
        self._by_themselves: dict[str, Identity] = {}

    def relays(self, identities: tuple[str, ...], now: float) -> bool:
        """Whether a peer's word on the workload behind it is believed. IdentifyError for one that is revoked."""
        caller = self._workloads.of(identities)
        if caller is None or not caller.relays:
            return False
        self._tokens.check_workload(caller.marks, now)
        return True

    def calling(self, identities: tuple[str, ...], now: float) -> Identity:
        """The workload at the other end, for what it does in its own name whatever it may reach. IdentifyError."""
        return self._in_own_name(self._registered(identities, now))

    def identify(self, metadata: Metadata, identities: tuple[str, ...], certificate_sha256: bytes | None,
                 now: float, asserted: str | None = None) -> Identity:  # fmt: skip
        """Who is calling at `now` (unix seconds). No I/O; a stream asks again with the same arguments.

        `asserted`: the person for whom the peer says it asks. It weighs only with a peer registered so, and never
        together with a token; how that person proved who they are is then unknown.

        IdentifyError: UNAUTHENTICATED (no registered peer; no, bad, lapsed or stolen token), PERMISSION_DENIED (a
        valid token of somebody unknown), UNAVAILABLE (directory, keys or revocations too old to tell).
        """
        said = [value for name, value in metadata if name == "authorization"]
        key = _key(said, identities, certificate_sha256) if asserted is None else None
        known = None if key is None else self._known.get(key)
        if known is not None and self.holds(known, now):
            return known.identity
        revoked = self._tokens.revoked()
        caller = self._registered(identities, now)
        token = _bearer(said)
        if asserted is not None:
            return self._asserted(asserted, token, caller, now)
        if token is None:
            return self._alone(caller)
        claims = self._tokens.verify(token, now)
        self._check_binding(claims, identities, certificate_sha256)
        if claims.actors:
            return self._delegated(claims, caller, now)
        subject, lapses, directory = self._principal(claims, caller, (), now)
        found = Identity(subjects=(subject,), person=subject.person.id, workload=caller.workload.id, own=_own(claims),
                         expires_at=min(claims.valid_until, lapses), directory=directory)  # fmt: skip
        if key is not None:
            self._remember(key, claims, revoked, found, now)
        return found

    def basis(self, authorization: str | None, identities: tuple[str, ...], certificate_sha256: bytes | None,
              now: float) -> Basis | None:  # fmt: skip
        """What `identify` rests on for this header (None: there is none) from this peer, where it would find the same.

        None for whoever is not remembered. Whoever keeps it asks `holds` at each call.
        """
        if authorization is not None:
            key = _key((authorization,), identities, certificate_sha256)
            return None if key is None else self._known.get(key)
        caller, revoked = self._workloads.of(identities), self._tokens.revoked()
        found = None if caller is None else self._by_themselves.get(caller.workload.id or "")
        if caller is None or not caller.acts_alone or found is None:
            return None
        try:
            self._tokens.check_workload(caller.marks, now)
        except IdentifyError:
            return None
        return Basis(found, self._tokens.grounds(None, revoked))

    def holds(self, known: Basis, now: float) -> bool:
        """Whether finding out again, at `now`, would find the same."""
        if not known.valid_from <= now < known.identity.expires_at or not known.grounds.hold(now):
            return False
        if known.entry is None:
            return True
        people = self._people
        return people is not None and people.fresh(now) and people.person(known.subject) is known.entry

    def _remember(self, key: _Key, claims: Claims, revoked: frozenset[Mark], found: Identity, now: float) -> None:
        entry = None if self._people is None or found.directory is None else self._people.person(claims.subject)
        if found.directory is not None and (
            entry is None or entry.revision != found.directory or entry.expires_at <= now
        ):
            return  # the directory has just changed, or something in the entry has lapsed: its cap counts from each call
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[key] = Basis(
            found, self._tokens.grounds(claims, revoked), claims.valid_from, claims.subject, entry
        )  # fmt: skip

    def _alone(self, caller: Caller) -> Identity:
        """A workload in its own name: the same object for the same caller, since it rests on the configuration alone."""
        if not caller.acts_alone:
            _refuse("a token is needed: this workload does not act alone")
        return self._in_own_name(caller)

    def _in_own_name(self, caller: Caller) -> Identity:
        name = caller.workload.id or ""
        found = self._by_themselves.get(name)
        if found is None:
            found = self._by_themselves[name] = _itself(caller)
        return found

    def _registered(self, identities: tuple[str, ...], now: float) -> Caller:
        caller = self._workloads.of(identities)
        if caller is None:
            raise IdentifyError("the calling workload is not known", reason=ReasonCode.UNIDENTIFIED_WORKLOAD,
                                operator=f"peer {identities!r} names no, or more than one, entry of "
                                "identity.workloads. Register it there.")  # fmt: skip
        self._tokens.check_workload(caller.marks, now)
        return caller

    def _asserted(self, person: str, token: str | None, caller: Caller, now: float) -> Identity:
        if token is not None:
            _refuse("a token and an asserted person: send the one or the other")
        if not caller.asserts:
            raise IdentifyError("this workload may not name a person without their token",
                                reason=ReasonCode.UNIDENTIFIED_PERSON, code=Code.PERMISSION_DENIED,
                                operator=f"{caller.workload.id} is not registered with `asserts`.")  # fmt: skip
        self._tokens.check_person(person, now)
        subject, lapses, directory = self._personnel(person, None, caller, (), now)
        return Identity(subjects=(subject,), person=subject.person.id, workload=caller.workload.id, own=None,
                        expires_at=min(now + ASSERTED_CAP, lapses), directory=directory)  # fmt: skip

    def _check_binding(self, claims: Claims, identities: tuple[str, ...], certificate_sha256: bytes | None) -> None:
        # A token that says it is bound is held to it whatever the setting (RFC 8705, section 3).
        if claims.certificate is not None:
            bound = certificate_sha256 is not None and claims.certificate == certificate_sha256
        else:
            bound = self._binding != "cnf"
        if bound and self._binding == "azp":
            bound = bool(claims.clients) and all(client in identities for client in claims.clients)
        if not bound:
            raise IdentifyError("the token is not bound to this caller", reason=ReasonCode.UNIDENTIFIED_PERSON,
                                operator=f"a token of {claims.issuer.issuer} was presented by {identities!r}, which "
                                f"it does not name (bind_to_workload: {self._binding}). It may be stolen.")  # fmt: skip

    def _delegated(self, claims: Claims, caller: Caller, now: float) -> Identity:
        chain = tuple(self._shown(actor) for actor in claims.actors)
        first, lapses, directory = self._principal(claims, caller, chain, now)
        actor = claims.actors[0]
        registered = self._workloads.get(actor.name)
        if registered is not None:
            self._tokens.check_workload(registered.marks, now)
            second = Subject(kind="workload", authentication=actor.authentication, workload=registered.workload,
                             delegation=chain, source="configuration")  # fmt: skip
        elif actor.person is None:
            _unknown_person()
        else:
            second, until, directory = self._personnel(actor.person, actor, caller, chain, now)
            lapses = min(lapses, until)
        return Identity(subjects=(first, second), person=first.person.id or second.person.id,
                        workload=caller.workload.id, own=_own(claims), expires_at=min(claims.valid_until, lapses),
                        directory=directory)  # fmt: skip

    def _shown(self, actor: Actor) -> str:
        if self._workloads.get(actor.name) is not None:
            return actor.name
        if actor.person is not None and self._people is not None and self._people.person(actor.person) is not None:
            return actor.person
        return UNKNOWN_ACTOR

    def _principal(self, claims: Claims, caller: Caller, chain: tuple[str, ...],
                   now: float) -> tuple[Subject, float, str | None]:  # fmt: skip
        if claims.issuer.kind == "personnel":
            return self._personnel(claims.subject, claims, caller, chain, now)
        subject = Subject(kind="data_subject", authentication=claims.authentication, workload=caller.workload,
                          delegation=chain, source=claims.issuer.issuer)  # fmt: skip
        return subject, math.inf, None

    def _personnel(self, name: str, said: Claims | Actor | None, caller: Caller, chain: tuple[str, ...],
                   now: float) -> tuple[Subject, float, str]:  # fmt: skip
        people = self._people
        if people is None or not people.fresh(now):
            what = "no directory is configured" if people is None else f"snapshot {people.revision} is too old"
            raise IdentifyError("personnel cannot be identified at present", reason=ReasonCode.STALE_DIRECTORY,
                                code=Code.UNAVAILABLE, operator=f"identity.directory: {what}. Build and install a "
                                "new snapshot (sidecar directory build).")  # fmt: skip
        entry = people.person(name)
        if entry is None:
            _unknown_person()
        restrictions = None if said is None else said.restrictions
        person = entry.person if restrictions is None else restrict(entry.person, restrictions)
        subject = Subject(kind="personnel", person=person, engagement=entry.engagement,
                          authentication=Authentication() if said is None else said.authentication, workload=caller.workload, delegation=chain,
                          source=people.source, as_of=entry.as_of)  # fmt: skip
        lapses = entry.expires_at
        return subject, lapses if lapses > now else now + LAPSED_CAP, entry.revision


def restrict(person: Person, restrictions: Restrictions) -> Person:
    """The person with what a token takes away.

    A country that contradicts the directory's leaves no country at all (unknown is not allowed), and undoes a "not a
    covered person" that may rest on presence in the US (28 CFR 202.256). Nothing a token says makes anybody less covered.
    """
    location, covered = person.location, person.covered_person
    if restrictions.country is not None and location.country is not None \
            and _region(restrictions.country) != _region(location.country):  # fmt: skip
        if covered.value == "no" and location.country in UNITED_STATES and covered.basis not in WITHOUT_PRESENCE:
            covered = CoveredPerson(value="unknown", basis="presence_contradicted", as_of=covered.as_of)
        location = Location(source="token contradicts the directory")
    roles = person.roles
    if restrictions.roles is not None:
        roles = tuple(role for role in roles if role in restrictions.roles)
    return msgspec.structs.replace(
        person, location=location, covered_person=covered, roles=roles,
        us_personnel=False if restrictions.not_us_personnel else person.us_personnel,
    )  # fmt: skip


def _region(country: str) -> str:
    return "US" if country in UNITED_STATES else country


def _bearer(said: Sequence[str | bytes]) -> str | None:
    if len(said) > 1:
        _refuse("more than one authorization header")
    if not said:
        return None
    (found,) = said
    if isinstance(found, bytes) or found[: len(_SCHEME)].lower() != _SCHEME:
        _refuse("the authorization header holds no bearer token")
    return found[len(_SCHEME) :]


def _key(said: Sequence[str | bytes], identities: tuple[str, ...], certificate_sha256: bytes | None) -> _Key | None:
    if len(said) != 1 or isinstance(said[0], bytes) or len(said[0]) > len(_SCHEME) + MAX_TOKEN:
        return None
    digest = digest_of(said[0])
    return None if digest is None else (digest, identities, certificate_sha256)


def _itself(caller: Caller) -> Identity:
    subject = Subject(kind="workload", workload=caller.workload, source="configuration")
    return Identity(subjects=(subject,), person=None, workload=caller.workload.id, own=None, expires_at=math.inf,
                    directory=None)  # fmt: skip


def _own(claims: Claims) -> tuple[str, str] | None:
    return (claims.issuer.subject_kind, claims.subject) if claims.issuer.kind == "data_subject" else None


def _refuse(why: str) -> NoReturn:
    raise IdentifyError(why, reason=ReasonCode.UNIDENTIFIED_PERSON)


def _unknown_person() -> NoReturn:
    raise IdentifyError("the person is not known here", reason=ReasonCode.UNIDENTIFIED_PERSON,
                        code=Code.PERMISSION_DENIED, operator="a valid token names somebody who is not in the "
                        "personnel directory. Add them, or find out who issues such tokens.")  # fmt: skip
