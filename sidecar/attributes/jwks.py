"""JSON Web Key Sets (RFC 7517): each key bound to exactly one algorithm, held ready, refreshed off the call path.

* A call never fetches, waits or locks: it reads an immutable mapping that a background task replaces as a whole.
* A key has one algorithm of the issuer's list (RFC 8725, 3.1); a key that fits none, or more than one, is left out.
* Keys are served for at most `max_stale` seconds after the source last confirmed them; then nobody can be identified.
* A key id nobody knows asks for one early refresh per 30 s, and that call is refused at once.
* While keys are held, a source that fails is asked at most every 30 s, whoever would like to know: twice a minute.
"""

import asyncio
import contextlib
import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec
from jwt import PyJWK

from sidecar.attributes.keysource import Fetch, FetchError
from sidecar.errors import Code, ConfigurationError, IdentifyError
from sidecar.vocabulary import ReasonCode

KEY_TYPES: Mapping[str, tuple[str, str | None]] = MappingProxyType({
    "ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521"), "EdDSA": ("OKP", "Ed25519"),
    "RS256": ("RSA", None), "RS384": ("RSA", None), "RS512": ("RSA", None),
    "PS256": ("RSA", None), "PS384": ("RSA", None), "PS512": ("RSA", None),
})  # fmt: skip
"""Algorithms that may be configured, with the key type and curve of each. `none` and HS* are not among them."""

MAX_KEYS = 64
MAX_KID = 256
MAX_UNKNOWN = 1024
EARLY_REFRESH = 30.0
FIRST_RETRY = 5.0
LATER_RETRY = 34.0
"""With the least jitter, still no sooner than an early refresh might be."""
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

Report = Callable[[str, str], None]
"""Called with the name of an event (`jwks_refreshed`, `jwks_failed`) and a sentence for the operator."""


class JwksError(ValueError):
    """Bytes that are not a usable key set. Says which key and why."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundKey:
    """A public key and the one algorithm it verifies. Compared by identity: a replaced key is another key."""

    kid: str
    algorithm: str
    fingerprint: bytes
    jwk: PyJWK


@dataclass(frozen=True, slots=True, kw_only=True)
class RingStatus:
    """What `sidecar status` says about one issuer's keys. Times in unix seconds."""

    source: str
    kids: tuple[str, ...]
    skipped: tuple[str, ...]
    confirmed_at: float | None
    good_until: float
    error: str | None


def check_algorithms(algorithms: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The configured algorithms, if each may be used. ConfigurationError otherwise."""
    for name in algorithms:
        if name not in KEY_TYPES:
            raise ConfigurationError("not a signature algorithm for tokens", where=where, value=name,
                                     fix=f"Use some of: {', '.join(KEY_TYPES)}")  # fmt: skip
    if not algorithms:
        raise ConfigurationError("no algorithm", where=where, fix=f"Name some of: {', '.join(KEY_TYPES)}")
    return algorithms


def parse_jwks(data: bytes, algorithms: tuple[str, ...]) -> tuple[dict[str, BoundKey], tuple[str, ...]]:
    """The usable keys by id, and one sentence for each key left out.

    JwksError when the bytes are no key set, hold more than 64 keys, give two usable keys one id, or none is usable.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise JwksError(f"not JSON: {error}") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise JwksError('no list "keys" (RFC 7517, section 5)')
    if len(entries) > MAX_KEYS:
        raise JwksError(f"{len(entries)} keys; at most {MAX_KEYS}")
    keys: dict[str, BoundKey] = {}
    skipped = []
    for position, entry in enumerate(entries):
        try:
            key = _bind(entry, algorithms)
        except JwksError as error:
            skipped.append(f"key {position}: {error}")
            continue
        if key.kid in keys:
            raise JwksError(f"two keys with kid {key.kid!r}")
        keys[key.kid] = key
    if not keys:
        raise JwksError("no usable key" + "".join(f"; {reason}" for reason in skipped[:4]))
    return keys, tuple(skipped)


def _bind(entry: object, algorithms: tuple[str, ...]) -> BoundKey:
    if not isinstance(entry, dict):
        raise JwksError("not an object")
    kid = entry.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise JwksError(f"kid must be a string of 1 to {MAX_KID} characters")
    if _PRIVATE & entry.keys():
        raise JwksError(f"{kid!r} holds private or symmetric key material; publish public keys only")
    if entry.get("use", "sig") != "sig":
        raise JwksError(f"{kid!r} is not for signatures (use)")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise JwksError(f"{kid!r} is not for verification (key_ops)")
    algorithm = _algorithm_of(entry, kid, algorithms)
    try:
        jwk = PyJWK(entry, algorithm)
        weak = jwk.Algorithm.check_key_length(jwk.key)
    except Exception as error:  # noqa: BLE001 - two libraries parse here, without a common class of errors
        raise JwksError(f"{kid!r} cannot be read: {error}") from None
    if weak:
        raise JwksError(f"{kid!r} is too short: {weak}")
    canonical = json.dumps([algorithm, entry], sort_keys=True).encode()
    return BoundKey(kid=kid, algorithm=algorithm, fingerprint=hashlib.sha256(canonical).digest(), jwk=jwk)


def _algorithm_of(entry: dict[str, object], kid: str, algorithms: tuple[str, ...]) -> str:
    shape = (entry.get("kty"), entry.get("crv"))
    fitting = [name for name in algorithms if KEY_TYPES[name] == shape]
    if "alg" in entry:
        fitting = [name for name in fitting if name == entry["alg"]]
    if len(fitting) != 1:
        found = f"kty {shape[0]!r}, crv {shape[1]!r}, alg {entry.get('alg')!r}"
        raise JwksError(f"{kid!r} fits {len(fitting)} of the configured algorithms ({found})")
    return fitting[0]


@dataclass(slots=True)
class _State:
    keys: Mapping[str, BoundKey] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    tag: str | None = None
    confirmed_at: float | None = None
    error: str | None = None
    failures: int = 0


class KeyRing:
    """The keys of one issuer.

    `load` reads the source once and may block: call it before serving. `run` keeps the ring fresh until cancelled.
    `key` is what a call uses. All three, and the swap, belong to one event loop; only the fetch runs in a thread.
    """

    def __init__(self, *, fetch: Fetch, source: str, algorithms: tuple[str, ...], refresh: float, max_stale: float,
                 clock: Callable[[], float], report: Report = lambda _event, _detail: None,
                 jitter: Callable[[], float] = random.random) -> None:  # fmt: skip
        self._fetch, self._source = fetch, source
        self._algorithms = check_algorithms(algorithms, "identity.issuers.algorithms")
        self._refresh, self._max_stale = refresh, max_stale
        self._clock, self._report, self._jitter = clock, report, jitter
        self._state = _State()
        self._unknown: dict[str, None] = {}
        self._early_at = float("-inf")
        self._wanted = asyncio.Event()
        self.keys: Mapping[str, BoundKey] = self._state.keys
        """By id, never changed: while this is the same object, so is every key in it."""
        self.good_until = float("-inf")
        """Until when (unix seconds) the keys may be used."""

    def key(self, kid: str, now: float) -> BoundKey | None:
        """The key with this id, or None. IdentifyError (UNAVAILABLE) when the keys are older than `max_stale`."""
        self.check_fresh(now)
        key = self._state.keys.get(kid)
        if key is None:
            self._miss(kid, now)
        return key

    def holds(self, key: BoundKey) -> bool:
        """Whether this very key is still in the set."""
        return self._state.keys.get(key.kid) is key

    def check_fresh(self, now: float) -> None:
        """IdentifyError (UNAVAILABLE) when the source has not confirmed the keys for `max_stale` seconds."""
        if now > self.good_until:
            detail = self._state.error or "never read"
            raise IdentifyError("callers cannot be identified at present", reason=ReasonCode.STALE_DIRECTORY,
                                code=Code.UNAVAILABLE, operator=f"{self._source}: the issuer's keys are "
                                f"stale ({detail}). Restore the source; keys are kept {self._max_stale:.0f} s.")  # fmt: skip

    def status(self) -> RingStatus:
        """The state of the ring."""
        state = self._state
        return RingStatus(source=self._source, kids=tuple(state.keys), skipped=state.skipped, error=state.error,
                          confirmed_at=state.confirmed_at, good_until=self.good_until)  # fmt: skip

    def load(self) -> None:
        """Read the source now, in this thread. A failure is kept in `status` and reported, not raised."""
        try:
            self._accept(self._fetch(self._state.tag))
        except (FetchError, JwksError) as error:
            self._fail(str(error))

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self._pause()
            try:
                self._accept(await asyncio.to_thread(self._fetch, self._state.tag))
            except (FetchError, JwksError) as error:
                self._fail(str(error))

    async def _pause(self) -> None:
        delay = self._refresh
        if self._state.failures:
            first = LATER_RETRY if self._state.keys else FIRST_RETRY  # without keys nobody can be identified
            delay = min(delay, first * 2.0 ** min(self._state.failures - 1, 10))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), delay * (0.9 + 0.2 * self._jitter()))
        self._wanted.clear()

    def _accept(self, fetched: tuple[bytes, str | None] | None) -> None:
        old, now = self._state, self._clock()
        if fetched is None:
            if not old.keys:
                raise JwksError("the source says unchanged, but nothing has been read from it")
            self._state = _State(old.keys, old.skipped, old.tag, now)
        else:
            keys, skipped = parse_jwks(fetched[0], self._algorithms)
            for kid, key in keys.items():  # an unchanged key stays the same object, and so do its verified tokens
                kept = old.keys.get(kid)
                if kept is not None and kept.fingerprint == key.fingerprint:
                    keys[kid] = kept
            self._state = _State(MappingProxyType(keys), skipped, fetched[1], now)
            self._unknown.clear()
            self._report("jwks_refreshed", f"{self._source}: {len(keys)} keys, {len(skipped)} left out")
        self.keys, self.good_until = self._state.keys, now + self._max_stale

    def _fail(self, why: str) -> None:
        self._state.error, self._state.failures = why, self._state.failures + 1
        self._early_at = self._clock()  # it has just been asked
        self._report("jwks_failed", f"{self._source}: {why}")

    def _miss(self, kid: str, now: float) -> None:
        """Ask for the keys again, once in a while.

        Only a kid that was asked about is known to be unknown: one that came while nobody could be asked may be a new
        key's, and asks at its next call.
        """
        if kid in self._unknown or 0 <= now - self._early_at < EARLY_REFRESH:
            return
        if len(self._unknown) >= MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[kid] = None
        self._early_at = now
        self._wanted.set()
