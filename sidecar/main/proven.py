"""Which policy this very code has activated before, so that a start after a crash need not run its tests again.

Tests and trial of the same files by the same code give the same result, and cost a second that callers would wait. The
note is authenticated with a key derived from the producer's own: whoever can write the spool's folder, but not sign
records, cannot slip in a bundle that nobody has tested. Anything doubtful about the note means: activate in full.
"""

import hmac
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import sidecar
from sidecar.decision import bundle
from sidecar.decision.bundle import Activated
from sidecar.main.build import naming
from sidecar.settings.sidecar import SidecarSettings
from sidecar.spool.files import PosixFiles, replace_durably

_INFO = b"customhouse/proven-policy/v1"


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    revision: str
    tests: int
    tried: int
    mac: str


class ProvenPolicy:
    """The note beside the spool."""

    def __init__(self, file: Path, key: Ed25519PrivateKey) -> None:
        self._file = file
        self._key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(key.private_bytes_raw())

    def activate(self, settings: SidecarSettings) -> Activated:
        """The bundle in force at the start: resumed if the note proves it, otherwise activated in full and noted."""
        folder, deadline = settings.policy.bundle.folder, settings.decision.deadline
        with naming("policy.bundle.folder"):
            found = bundle.load_folder(folder)
            note = self._read()
            if note is not None and note.revision == found.revision:
                return bundle.resume(found, folder, note.tests, note.tried, deadline_seconds=deadline)
            active = bundle.activate_loaded(found, folder, deadline_seconds=deadline)
        self._write(active)
        return active

    def _read(self) -> _Note | None:
        try:
            note = msgspec.json.decode(self._file.read_bytes(), type=_Note)
        except (OSError, msgspec.DecodeError):
            return None
        return note if hmac.compare_digest(note.mac, self._mac(note.revision, note.tests, note.tried)) else None

    def _write(self, active: Activated) -> None:
        tests, tried = active.tests_passed, active.documents_tried
        note = _Note(active.revision, tests, tried, self._mac(active.revision, tests, tried))
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_durably(PosixFiles(), self._file, msgspec.json.encode(note))
        except OSError:
            return  # the next start takes a second longer

    def _mac(self, revision: str, tests: int, tried: int) -> str:
        said = msgspec.json.encode([_code(), revision, tests, tried])
        return hmac.new(self._key, said, sha256).hexdigest()


def _code() -> str:
    """A digest of the code that activates: the engine, and every Python file that decides what passes."""
    package = Path(sidecar.__file__).parent
    files = (*(package / "decision").glob("*.py"), *(package / "decision").glob("*.so"), package / "vocabulary.py")
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in sorted(files))).hexdigest()
