"""What a bundle has to pass before it may answer, wherever it came from: signatures, then activation."""

from dataclasses import dataclass, replace

from sidecar.decision.activation import Activated, activate, resume
from sidecar.decision.bundle import Bundle
from sidecar.decision.engines import EngineMaker
from sidecar.main.policy_signers import Signatures
from sidecar.main.proven import KeptPolicies


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Blocks; ConfigurationError for what may not pass.

    `signatures` is None without `policy.keys`. `resumable`: the engine is part of the code, so that what it has proved of
    a bundle still holds; another program may be another one by now.
    """

    maker: EngineMaker
    kept: KeptPolicies
    signatures: Signatures | None = None
    resumable: bool = True

    def admit(self, bundle: Bundle, where: str) -> Activated:
        """The bundle, ready to answer: resumed where this code has proved it before, otherwise tested in full."""
        signed = replace(bundle, signers=self.signers(bundle, where))
        proof = self.kept.proof(bundle.revision, self.maker.name) if self.resumable else None
        if proof is None:
            with self.kept.trying(bundle.revision):
                return activate(signed, where, self.maker)
        return resume(signed, where, self.maker, tests_passed=proof.tests, documents_tried=proof.tried)

    def signers(self, bundle: Bundle, where: str) -> tuple[str, ...]:
        """Whose signatures count; nobody's are asked for without `policy.keys`."""
        return () if self.signatures is None else self.signatures.check(bundle, where)

    def keys_changed(self) -> bool:
        """Whether the signers are others than at the last question."""
        return self.signatures is not None and self.signatures.changed()
