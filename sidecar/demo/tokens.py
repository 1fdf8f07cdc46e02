"""The demo's identity provider: signs tokens for people at work and for users of the platform."""

import json
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

STAFF = "https://staff.idp.demo.example"
USERS = "https://users.idp.demo.example"
AUDIENCE = "customhouse-demo"
LIFE = 4 * 3600


class IdentityProvider:
    """One issuer with one ES256 key; `jwks` is its public key set."""

    def __init__(self, issuer: str, kid: str) -> None:
        self._issuer, self._kid = issuer, kid
        self._key = ec.generate_private_key(ec.SECP256R1())

    def write_jwks(self, file: Path) -> None:
        """The public key set (RFC 7517)."""
        key = {
            **ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True),
            "kid": self._kid,
            "use": "sig",
            "alg": "ES256",
        }
        file.write_text(json.dumps({"keys": [key]}), encoding="utf-8")

    def token(self, subject: str, client: str, now: float, **changes: object) -> str:
        """A token for `subject`, bound to the workload `client`, signed in with two factors just now."""
        issued = int(now)
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": issued,
            "exp": issued + LIFE,
            "jti": f"{subject}-{issued}-{len(changes)}",
            "azp": client,
            "amr": ["pwd", "hwk", "mfa"],
            "auth_time": issued,
            **changes,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid, "typ": "at+jwt"})
