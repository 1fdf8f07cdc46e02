"""An identity provider, a personnel directory and a clock, all in memory: correct ones, for tests to bend."""

import base64
import json
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from sidecar.attributes.claims import Issuer
from sidecar.attributes.jwks import KeyRing
from sidecar.attributes.peers import RegisteredWorkload, Workloads
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.subject import Identifier
from sidecar.attributes.tokens import TokenVerifier
from sidecar.vocabulary import CoveredPerson, Engagement, Location, Person

NOW = 1_800_000_000.0
WEB = "spiffe://corp/ns/web"
BATCH = "spiffe://corp/ns/batch"
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def new_key(algorithm: str, bits: int = 2048):
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in CURVES:
        return ec.generate_private_key(CURVES[algorithm]())
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public_jwk(key, algorithm: str, kid: str, **more) -> dict:
    text = get_default_algorithms()[algorithm].to_jwk(key.public_key())
    return {**json.loads(text), "kid": kid, "alg": algorithm, "use": "sig", **more}


def jwks(*entries: dict) -> bytes:
    return json.dumps({"keys": list(entries)}).encode()


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Source:
    """A key source held in memory. `content` may be bytes, or an exception to raise; `tag` changes with it."""

    def __init__(self, content) -> None:
        self.content, self.fetches, self.tags = content, 0, []

    def __call__(self, tag):
        self.fetches += 1
        self.tags.append(tag)
        if isinstance(self.content, Exception):
            raise self.content
        mark = str(hash(self.content))
        return None if tag == mark else (self.content, mark)


@dataclass
class Provider:
    """Issues tokens. `sign` takes any header and payload, so that a test may say what no provider would."""

    issuer: str = "https://idp.corp"
    kind: str = "personnel"
    algorithm: str = "ES256"
    kid: str = "k1"
    audience: str = "customhouse"
    subject_claim: str = "sub"
    key: object = None
    more: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key = self.key or new_key(self.algorithm)
        self.source = Source(jwks(self.jwk()))

    def jwk(self, **more) -> dict:
        return public_jwk(self.key, self.algorithm, self.kid, **more)

    def trusted(self) -> Issuer:
        return Issuer(issuer=self.issuer, kind=self.kind, audience=self.audience, algorithms=(self.algorithm,),
                      subject_claim=self.subject_claim, **self.more)  # fmt: skip

    def ring(self, clock: Clock, **more) -> KeyRing:
        settings = {"refresh": 300.0, "max_stale": 3600.0, "source": self.issuer} | more
        ring = KeyRing(fetch=self.source, algorithms=(self.algorithm,), clock=clock, jitter=lambda: 0.5, **settings)
        ring.load()
        return ring

    def header(self, **changes) -> dict:
        return without({"typ": "at+jwt", "alg": self.algorithm, "kid": self.kid} | changes)

    def claims(self, **changes) -> dict:
        usual = {"iss": self.issuer, "aud": self.audience, "sub": "p1", "iat": int(NOW) - 10, "exp": int(NOW) + 900,
                 "azp": WEB}  # fmt: skip
        return without(usual | changes)

    def token(self, **changes) -> str:
        return self.sign(self.header(), self.claims(**changes))

    def sign(self, header, payload, *, key=None, algorithm: str | None = None) -> str:
        parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
        signing = f"{b64url(parts[0])}.{b64url(parts[1])}"
        algorithms = get_default_algorithms()[algorithm or self.algorithm]
        return f"{signing}.{b64url(algorithms.sign(signing.encode(), key or self.key))}"


def without(values: dict) -> dict:
    """The dictionary without the keys whose value is `...`."""
    return {name: value for name, value in values.items() if value is not ...}


@dataclass
class Entry:
    person: Person
    engagement: Engagement = Engagement(type="employment", group="corp")
    as_of: str = "2027-01-15T07:00:00Z"
    expires_at: float = NOW + 3600
    revision: str = "rev1"


class People:
    source = "hr"

    def __init__(self, *names: str) -> None:
        self.entries = {name: Entry(person(name)) for name in names}
        self.revision, self.young = "rev2", True  # newer than the entries: exchanged while a call runs

    def person(self, id):  # noqa: A002 - the port's word
        return self.entries.get(id)

    def fresh(self, now: float) -> bool:
        return self.young


def person(name: str, **changes) -> Person:
    usual = {"us_personnel": True, "location": Location(country="US", source="badge", as_of="2027-01-15T07:00:00Z"),
             "legal_status": "us_citizen", "covered_person": CoveredPerson(value="no", basis="us_person_status"),
             "roles": ("analyst", "oncall"), "status": "active"}  # fmt: skip
    return Person(id=name, **usual | changes)


@dataclass
class Desk:
    """An identifier and the parts it is made of."""

    identifier: Identifier
    tokens: TokenVerifier
    rings: dict
    people: People
    clock: Clock

    def ask(self, token: str | None, *, peer=(WEB,), certificate: bytes | None = None, now: float | None = None):
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        return self.identifier.identify(metadata, peer, certificate, self.clock.now if now is None else now)


def desk(*providers: Provider, people: People | None = None, binding: str = "azp", revocations=None, **more) -> Desk:
    clock = Clock()
    rings = {provider.issuer: provider.ring(clock) for provider in providers}
    tokens = TokenVerifier(issuers=[provider.trusted() for provider in providers], rings=rings,
                           revocations=revocations or Revocations(None, clock=clock), **more)  # fmt: skip
    workloads = Workloads([RegisteredWorkload(id=WEB, operated_from="US", may=("read",)),
                           RegisteredWorkload(id=BATCH, operated_from="US", may=("read",), acts_alone=True)])  # fmt: skip
    people = People("p1", "p2") if people is None else people
    identifier = Identifier(tokens=tokens, people=people, workloads=workloads, binding=binding)
    return Desk(identifier, tokens, rings, people, clock)
