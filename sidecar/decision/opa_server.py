"""A local OPA server for one bundle: started, fed, watched, started again when it dies, and gone when it is stopped.

One process for each bundle, so that a new policy is complete before it is asked, and the old one whole until its last
question is answered. It listens on a Unix socket in a folder of its own that only this user may enter; it gets the bundle
as a file there, talks to nobody, and logs no input.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec

from sidecar.decision.bundle import Bundle
from sidecar.decision.opa_http import Address, BlockingClient
from sidecar.decision.opa_program import OpaProgram, bounded, environment, packed
from sidecar.errors import ConfigurationError

Report = Callable[[str, str], None]
"""Called with (event, detail), from any thread, when an operator should know."""

READY_SECONDS: Final = 30.0
RESTART_SECONDS: Final = 0.1
"""The first pause before a server that died is started again; it doubles, up to RESTART_AT_MOST."""
RESTART_AT_MOST: Final = 10.0
_HEALTHY_SECONDS: Final = 30.0
_FOLDER: Final = "customhouse-opa-server-"
_LINE: Final = 4096
_LINES: Final = 20


class OpaServer:
    """`opa run --server` with one bundle. `start` and `stop` block; a thread watches in between."""

    def __init__(self, program: OpaProgram, bundle: Bundle, report: Report) -> None:
        sweep(Path(tempfile.gettempdir()))
        self._program, self._revision, self._report = program, bundle.revision, report
        self._folder, self._lock = _private_folder()
        (self._folder / "bundle.tar.gz").write_bytes(packed(bundle))
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = threading.Lock()
        self._stopping, self._serving, self._over = threading.Event(), threading.Event(), threading.Event()
        self._said: deque[str] = deque(maxlen=5)
        self._thread = threading.Thread(target=self._keep, name="opa-server", daemon=True)
        # Nothing of it stays where nobody stops it; the process itself the kernel ends.
        self._gone = weakref.finalize(self, _remove, self._folder, self._lock)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return Address(socket=self._folder / "s")

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        """Start it and wait until it answers by the bundle. ConfigurationError with what it says when it does not."""
        self._thread.start()
        client = BlockingClient(self.address, 1.0)
        until = time.monotonic() + READY_SECONDS
        try:
            while not self._over.wait(0.005) and time.monotonic() < until:
                with contextlib.suppress(OSError, ValueError):
                    if client.revision() == self._revision:
                        self._serving.set()
                        return
        finally:
            client.close()
            if not self._serving.is_set():
                self.stop()
        said = "; ".join(self._said) or f"it was not ready after {READY_SECONDS:.0f} s"
        raise ConfigurationError(
            f"OPA does not start: {said}", where="decision.opa.command", value=self._program.path,
            fix="Try the bundle with `opa run --server --bundle`.",
        )  # fmt: skip

    def stop(self) -> None:
        """End it. It holds no state, so it is killed. Idempotent."""
        self._stopping.set()
        with self._guard:
            if self._process is not None:
                self._process.kill()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._gone()

    def _keep(self) -> None:
        """The life of the process, again and again. It is started from this thread, with which the kernel ends it."""
        pause = RESTART_SECONDS
        try:
            while True:
                began = time.monotonic()
                ended = self._live()
                if self._stopping.is_set() or not self._serving.is_set():
                    return
                if time.monotonic() - began > _HEALTHY_SECONDS:
                    pause = RESTART_SECONDS
                self._report(
                    "opa_ended", f"{ended}; calls are refused until it answers again, in {pause:.1f} s or more"
                )
                if self._stopping.wait(pause):
                    return
                pause = min(2 * pause, RESTART_AT_MOST)
        finally:
            self._over.set()

    def _live(self) -> str:
        """Start the process, pass on what it says, until it ends. How it ended."""
        try:
            with self._guard:
                if self._stopping.is_set():
                    return ""
                process = self._process = subprocess.Popen(  # noqa: S603 - the operator's own program, no shell
                    bounded([self._program.path, *self._arguments()]), cwd=self._folder,
                    env=environment(self._folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )  # fmt: skip
        except OSError as error:
            self._said.append(str(error))
            return f"OPA cannot be started: {error}"
        with process:
            if process.stderr is not None:
                self._pass_on(process.stderr)
            return f"OPA ended with {process.wait()}"

    def _arguments(self) -> list[str]:
        return [
            "run", "--server", "--bundle", "bundle.tar.gz", "--addr", f"unix://{self._folder}/s",
            "--unix-socket-perm", "700", "--log-level", "error", "--log-format", "json", "--skip-version-check",
        ]  # fmt: skip

    def _pass_on(self, stream: IO[bytes]) -> None:
        """Errors go to the operator's log, some of them: the rest of what a broken server says is more of the same."""
        left = _LINES
        while line := stream.readline(_LINE):
            said = _error(line)
            if said is not None:
                self._said.append(said)
                if self._serving.is_set() and left > 0:
                    left -= 1
                    self._report("opa_said", said)


class _Line(msgspec.Struct, frozen=True):
    level: str = ""
    msg: str = ""
    err: str = ""


def _error(line: bytes) -> str | None:
    """What a line of the log says; None for what is no error."""
    try:
        found = msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError:
        return line.decode(errors="replace").strip()[:500] or None
    return f"{found.msg} {found.err}".strip()[:500] if found.level in ("error", "fatal", "panic") else None


def _private_folder() -> tuple[Path, int]:
    """A new folder, mode 0700, and the lock that says somebody uses it."""
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
    if len(os.fsencode(folder)) > 100:  # sun_path holds 108 bytes
        folder.rmdir()
        raise ConfigurationError(
            "the path of the folder for temporary files is too long for a socket", where="TMPDIR", value=str(folder),
            fix="Set TMPDIR to a folder with a shorter path.",
        )  # fmt: skip
    lock = os.open(folder / "new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (folder / "new").rename(folder / "lock")  # never seen without being held
    return folder, lock


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def sweep(parent: Path) -> None:
    """Remove what sidecars of this user that were killed have left in `parent`."""
    for folder in parent.glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
