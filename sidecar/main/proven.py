"""The bundles that were in force, kept beside the spool with what was proved of them.

A start whose source is out of reach goes on with the last good one; `sidecar policy rollback` goes back to an earlier
one; and a bundle that this very code has activated before need not run its tests again, which callers would wait for.
Everything is authenticated with a key derived from the producer's own: whoever can write the spool's folder, but not sign
records, cannot slip in a bundle that nobody has tested. What is doubtful is taken for absent.
"""

import fcntl
import hmac
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import sidecar
from sidecar.decision.activation import Activated
from sidecar.decision.archive import exact, load_archive, write_archive
from sidecar.decision.bundle import Bundle
from sidecar.errors import ConfigurationError
from sidecar.spool.files import PosixFiles, replace_durably

KEPT = 5
SEEN_SECONDS = 60.0
"""How often it is written down that the source holds the policy in force."""
_INFO = b"customhouse/kept-policies/v1"


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle that was in force. `archive` is the SHA-256 of its file, `since` unix seconds, `code` who proved it.

    `left`: somebody has gone back from it, and it has not been in force since.
    """

    revision: str
    label: str
    signers: tuple[str, ...]
    tests: int
    tried: int
    by: str
    source: str
    since: float
    archive: str
    code: str
    left: bool = False


class Pin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person has put a bundle in force: the source's bundle `over` does not replace it."""

    over: str
    by: str
    at: float


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was in force, the latest first; the first was in force last. `seen` is when its source last held it.

    `trying` is the revision that is being tested at this moment.
    """

    bundles: tuple[Kept, ...] = ()
    pin: Pin | None = None
    seen: float = 0.0
    trying: str | None = None


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: msgspec.Raw
    mac: str


class KeptPolicies:
    """The folder. Blocks; for one thread at a time.

    Several processes may share it: each change is made under a lock, on what the folder holds then.
    `problem` says why the last writing failed: what is in force is then in force all the same, but would not survive a
    restart.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey) -> None:
        self._folder = folder
        self._key = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(key.private_bytes_raw())
        self.code = _code()
        self.problem: str | None = None
        self.state = self._read()

    def proof(self, revision: str, engine: str) -> Kept | None:
        """What this very code, with this engine, has proved of a bundle before."""
        found = self.find(revision)
        return found if found is not None and found.code == self._by(engine) else None

    def find(self, revision: str) -> Kept | None:
        """The bundle kept under this revision."""
        return next((one for one in self.state.bundles if one.revision == revision), None)

    def load(self, kept: Kept) -> Bundle:
        """The bundle itself. ConfigurationError when its file is not what was kept."""
        path = self._path(kept.archive)
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        if not hmac.compare_digest(sha256(content).hexdigest(), kept.archive):
            raise ConfigurationError(
                "the bundle that was kept is missing or damaged", where=str(path), fix="Activate it from its source."
            )
        return load_archive(content, str(path))

    @contextmanager
    def trying(self, revision: str) -> Iterator[None]:
        """While a bundle is tested: should that end the process, the next start can tell, and need not do it again."""
        if not self.state.bundles:
            yield  # nothing to go on with instead
            return
        self._try(revision)
        try:
            yield
        finally:
            self._try(None)

    def _try(self, revision: str | None) -> None:
        with self._alone():
            self.state = msgspec.structs.replace(self.state, trying=revision)
            self._write()

    def before(self, revision: str) -> Kept | None:
        """The bundle that was in force before this one; those that somebody has gone back from are passed over."""
        return next((one for one in self.state.bundles if one.revision != revision and not one.left), None)

    def keep(
        self, active: Activated, *, by: str, source: str, now: float, pin: Pin | None, since: float | None = None,
        leaving: bool = False,
    ) -> None:  # fmt: skip
        """This bundle is in force from now on; `leaving`: as somebody goes back from the one that was so until now.

        What cannot be written is told in `problem`.
        """
        content = write_archive(exact(active.bundle))
        kept = Kept(
            revision=active.revision, label=active.bundle.label, signers=active.bundle.signers,
            tests=active.tests_passed, tried=active.documents_tried, by=by, source=source, since=now if since is None else since,
            archive=sha256(content).hexdigest(), code=self._by(active.engine.name),
        )  # fmt: skip
        with self._alone():
            left = self.state.bundles[0].revision if leaving and self.state.bundles else None
            others = tuple(
                msgspec.structs.replace(one, left=one.left or one.revision == left)
                for one in self.state.bundles
                if one.revision != active.revision
            )
            bundles = (kept, *others)[:KEPT]
            self.state = State(bundles=bundles, pin=pin, seen=now)
            self._durably(lambda: self._put(kept.archive, content))
            self._write()
            self._forget()

    def resumed(self, active: Activated, *, source: str, now: float) -> None:
        """A start goes on with this bundle from its source. Who put it in force, and when, stays as it was."""
        first = self.state.bundles[0] if self.state.bundles else None
        if first is None or first.revision != active.revision:
            self.keep(active, by="start", source=source, now=now, pin=None)
        else:
            self.keep(active, by=first.by, source=source, now=now, pin=None, since=first.since)

    def seen(self, now: float) -> None:
        """The source holds what is in force; written down from time to time."""
        if not 0 <= now - self.state.seen < SEEN_SECONDS:
            with self._alone():
                self.state = msgspec.structs.replace(self.state, seen=now)
                self._write()

    def unpin(self) -> None:
        """The source's bundle may replace what a person has put in force."""
        if self.state.pin is not None:
            with self._alone():
                self.state = msgspec.structs.replace(self.state, pin=None)
                self._write()

    def _by(self, engine: str) -> str:
        return _proved_by(engine, self.code)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.tar.gz"

    def _put(self, digest: str, content: bytes) -> None:
        path = self._path(digest)
        if not path.exists() or sha256(path.read_bytes()).hexdigest() != digest:
            replace_durably(PosixFiles(), path, content)

    def _write(self) -> None:
        encoded = msgspec.json.encode(self.state)
        sealed = msgspec.json.encode(_Sealed(msgspec.Raw(encoded), self._mac(encoded)))
        self._durably(lambda: replace_durably(PosixFiles(), self._folder / "state", sealed))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process changes the folder meanwhile; begins with what it holds now, unless ours is ahead of it."""
        lock = None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            self.problem = f"{self._folder}: {error.strerror or error}"
        try:
            found = self._read()
            if self.problem is None and found.bundles:
                self.state = found
            yield
        finally:
            if lock is not None:
                os.close(lock)

    def _durably(self, write: Callable[[], None]) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write()
        except OSError as error:
            self.problem = f"{self._folder}: {error.strerror or error}"
        else:
            self.problem = None

    def _forget(self) -> None:
        """Delete the files of bundles that are kept no longer."""
        held = {self._path(one.archive) for one in self.state.bundles}
        with suppress(OSError):
            for path in self._folder.glob("*.tar.gz*"):
                if path not in held:
                    path.unlink()

    def _read(self) -> State:
        try:
            sealed = msgspec.json.decode((self._folder / "state").read_bytes(), type=_Sealed)
            encoded = bytes(sealed.state)
            if hmac.compare_digest(sealed.mac, self._mac(encoded)):
                return msgspec.json.decode(encoded, type=State)
        except (OSError, ValueError, TypeError):  # of msgspec: DecodeError is a ValueError
            pass
        return State()

    def _mac(self, encoded: bytes) -> str:
        return hmac.new(self._key, encoded, sha256).hexdigest()


def proving_code(engine: str) -> str:
    """What this process's proofs are marked with: the engine, and the code that activates."""
    return _proved_by(engine, _code())


def _proved_by(engine: str, code: str) -> str:
    return f"{engine} {code}"


def _code() -> str:
    """A digest of the code that activates: the engine, and every Python file that decides what passes."""
    package = Path(sidecar.__file__).parent
    files = (*(package / "decision").glob("*.py"), *(package / "decision").glob("*.so"), package / "vocabulary.py")
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in sorted(files))).hexdigest()
