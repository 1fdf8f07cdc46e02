"""Signatures of a bundle: OPA's `.signatures.json` (openpolicyagent.org, "Bundle signing"), by k of n signers.

The file holds JWTs. The payload of each lists the bundle's files with their digests; `kid` (or, older, `keyid`) names
who signed. JSON files are digested as the data they hold (`_canonical`), Rego as bytes. OPA itself accepts exactly one
JWT: a bundle that two have signed is verified here, not there.

A signature counts when all of this holds, and `verify` asks for as many as `require` says, by distinct signers:

1. it names a signer of the list, not revoked, whose time has not run out;
2. its algorithm is that of the signer's key, whatever it says itself, and it verifies;
3. it is for our scope, issued before now, and not expired;
4. it lists each file of the bundle once, with SHA-256 and the digest that the file has, and no file that is not there.
   (Names of files that belong to no bundle may be listed, as `opa sign` on a folder does: nobody reads those.)
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import jwt
import msgspec

from sidecar.decision.bundle import MANIFEST, SIGNATURES, Bundle, belongs
from sidecar.decision.signers import PrivateKey, Signer, Signers, algorithms_of
from sidecar.decision.strict_json import parse_object
from sidecar.errors import ConfigurationError

MAX_SIGNATURES: Final = 16
LEEWAY_SECONDS: Final = 300.0
"""By how much a signature may come from the future: clocks differ."""
_HASH: Final = "SHA-256"
_MAX_HEADER: Final = 4 << 10
"""Characters of a JWT's header, which is parsed before anything is verified."""
_jws = jwt.PyJWS()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`.signatures.json`. A plugin is another way of verifying; OPA names its own `_default`."""

    signatures: list[str]
    plugin: Literal["", "_default"] = ""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    hash: str
    algorithm: str


class _Payload(msgspec.Struct, frozen=True):
    """Other claims may stand in it: OPA adds those of `--claims-file`."""

    files: list[_Entry]
    keyid: str = ""
    scope: str = ""
    iat: float | None = None
    nbf: float | None = None
    exp: float | None = None


class _DoesNotCountError(Exception):
    """Why a signature does not."""


def verify(bundle: Bundle, signers: Signers, *, require: int, now: float, where: str) -> tuple[str, ...]:
    """The ids, sorted, of those whose signatures count, at least `require` of them; `now` is in unix seconds.

    Raises ConfigurationError saying how many count, and for each of the others why it does not.
    """
    if not bundle.signatures:
        raise ConfigurationError(
            "the bundle is not signed", where=where, fix="Sign it: `sidecar policy sign BUNDLE --key KEY.pem --as ID`"
        )
    digests = dict(_digests(bundle, where))
    good: set[str] = set()
    bad: list[str] = []
    for number, token in enumerate(_tokens(bundle.signatures, f"{where}/{SIGNATURES}"), start=1):
        try:
            good.add(_counts(token, digests, signers, now))
        except _DoesNotCountError as why:
            bad.append(f"signature {number}: {why}")
    if len(good) < require:
        raise ConfigurationError(
            f"{len(good)} of {require} signatures that are needed count" + "".join(f"; {one}" for one in bad),
            where=where, fix="Have it signed by those whom policy.keys lists",
        )  # fmt: skip
    return tuple(sorted(good))


def sign(bundle: Bundle, key: PrivateKey, name: str, *, scope: str, now: float, where: str) -> bytes:
    """The bundle's `.signatures.json` with the signature of `name` added, or made anew where there was one of theirs.

    Signatures of other content are dropped: they would not count. ConfigurationError for a key that cannot sign, and
    where there are too many signatures.
    """
    digests = dict(_digests(bundle, where))
    payload: dict[str, object] = {
        "files": [{"name": path, "hash": digest, "algorithm": _HASH} for path, digest in sorted(digests.items())],
        "iat": int(now),
        "keyid": name,
    }
    if scope:
        payload["scope"] = scope
    token = _jws.encode(msgspec.json.encode(payload), key, algorithm=_algorithm(key), headers={"kid": name})
    kept = []
    for other in _tokens(bundle.signatures, f"{where}/{SIGNATURES}") if bundle.signatures else ():
        try:
            found, said = _read(other)
            _check_files(said, digests)
        except _DoesNotCountError:
            continue
        if found != name:
            kept.append(other)
    if len(kept) >= MAX_SIGNATURES:
        raise ConfigurationError(f"more than {MAX_SIGNATURES} signatures", where=where, fix="Build the bundle anew")
    return msgspec.json.format(msgspec.json.encode({"signatures": [*kept, token]}), indent=1) + b"\n"


def _algorithm(key: PrivateKey) -> str:
    known = algorithms_of(key.public_key())
    if not known:
        raise ConfigurationError(
            "this key does not sign bundles",
            where="--key",
            fix="Use Ed25519, P-256, P-384, P-521, or RSA of 2048 bits.",
        )
    return known[0]


def _tokens(content: bytes, where: str) -> list[str]:
    try:
        found = msgspec.json.decode(content, type=_File).signatures
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"no list of signatures: {error}", where=where, fix='It is {"signatures": ["JWT", …]}: sign the bundle anew'
        ) from None
    if not 1 <= len(found) <= MAX_SIGNATURES:
        raise ConfigurationError(
            f"not 1 to {MAX_SIGNATURES} signatures", where=where, value=len(found), fix="Sign the bundle anew"
        )
    return found


def _counts(token: str, digests: Mapping[str, str], signers: Signers, now: float) -> str:
    """The id of whose signature this is. _DoesNotCountError."""
    name, _unverified = _read(token)
    signer = _known(name, signers, now)
    try:
        content = _jws.decode(token, signer.key, algorithms=[signer.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise _DoesNotCountError(f"it does not verify with the key of {name} ({error})") from None
    said = _payload(content)
    if said.scope != signers.scope:
        raise _DoesNotCountError(f"it is for the scope {said.scope!r}, not {signers.scope!r}")
    if any(begins is not None and begins > now + LEEWAY_SECONDS for begins in (said.iat, said.nbf)):
        raise _DoesNotCountError("it is dated in the future")
    if said.exp is not None and said.exp <= now:
        raise _DoesNotCountError("it has expired")
    _check_files(said, digests)
    return signer.id


def _known(name: str, signers: Signers, now: float) -> Signer:
    if name in signers.revoked:
        raise _DoesNotCountError(f"{name} is revoked")
    signer = signers.by_id.get(name)
    if signer is None:
        raise _DoesNotCountError(f"{name or 'nobody'} is no signer of the list")
    if signer.until is not None and signer.until <= now:
        raise _DoesNotCountError(f"the time of {name} has run out")
    return signer


def _read(token: str) -> tuple[str, _Payload]:
    """Who is said to have signed, and what: nothing of it is verified yet."""
    if len(token.partition(".")[0]) > _MAX_HEADER:
        raise _DoesNotCountError("its header is too long")
    try:
        whole = _jws.decode_complete(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError) as error:
        raise _DoesNotCountError(f"it is no JWT ({error})") from None
    if whole["header"].keys() & {"crit", "b64"}:
        raise _DoesNotCountError("it asks for extensions that are not known here")
    said, kid = _payload(whole["payload"]), whole["header"].get("kid", "")
    if not isinstance(kid, str) or (kid and said.keyid and kid != said.keyid):
        raise _DoesNotCountError("it names two signers")
    return kid or said.keyid, said


def _payload(content: bytes) -> _Payload:
    try:
        return msgspec.json.decode(content, type=_Payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _DoesNotCountError(f"it lists no files ({error})") from None


def _check_files(said: _Payload, digests: Mapping[str, str]) -> None:
    left = dict(digests)
    for one in said.files:
        if one.algorithm != _HASH:
            raise _DoesNotCountError(f"{one.name} is digested with {one.algorithm}, not {_HASH}")
        expected = left.pop(one.name, None)
        if expected is None and (belongs(one.name) or one.name in digests):
            raise _DoesNotCountError(f"it lists {one.name}, which is not in the bundle or listed twice")
        if expected is not None and one.hash.lower() != expected:
            raise _DoesNotCountError(f"{one.name} is not the file that was signed")
    if left:
        raise _DoesNotCountError(f"it does not list {min(left)}")


def _digests(bundle: Bundle, where: str) -> Iterable[tuple[str, str]]:
    for name, content in bundle.files:
        structured = name == MANIFEST or name.rpartition("/")[2] == "data.json"
        counted = _canonical(f"{where}/{name}", content) if structured else content
        yield name, hashlib.sha256(counted).hexdigest()


def _canonical(where: str, content: bytes) -> bytes:
    """JSON as OPA digests it (v1/bundle/hash.go): sorted keys, no white space, numbers as written, Go's escapes."""
    text = json.dumps(parse_object(where, content), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\N{LINE SEPARATOR}", "\\u2028").replace("\N{PARAGRAPH SEPARATOR}", "\\u2029").encode("utf-8")
