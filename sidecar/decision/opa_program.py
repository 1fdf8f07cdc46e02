"""The `opa` program (openpolicyagent.org), run on a bundle that the sidecar has read itself.

Whatever is run here gets a bundle packed anew from what was read, an environment of its own, no terminal, and bounds. It
ends with the thread that started it: the kernel sees to that (`prctl(2)`, PR_SET_PDEATHSIG), so that not even SIGKILL of
the sidecar leaves one behind.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from sidecar.decision.archive import write_archive
from sidecar.decision.bundle import MANIFEST, Bundle
from sidecar.decision.engines import TestResult
from sidecar.errors import ConfigurationError

MEMORY: Final = 2 << 30
"""Bytes of data a process may hold. Go is told to stay below half of that; at the bound it dies and is started again."""
_OUTPUT: Final = 64 << 20
_SECONDS: Final = 120.0
_TEST_SECONDS: Final = 10
_SHOWN: Final = 10
_VERSION: Final = re.compile(r"^Version: (\d+)\.(\d+)\.", re.MULTILINE)

_BOUNDED: Final = """
import ctypes, os, resource, signal, sys
parent, memory, output = map(int, sys.argv[1:4])
failed = ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
if failed or os.getppid() != parent:
    os._exit(97)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
os.environ.pop("LC_CTYPE", None)  # Python's own
os.execv(sys.argv[4], sys.argv[4:])
"""
"""Sets the bounds, then becomes the program. A process of its own, because nothing may run between fork and exec in one
that has threads; the check of the parent is for one that died before the kernel was told. A core file would hold inputs."""


def bounded(arguments: Sequence[str]) -> list[str]:
    """A command that ends with the calling thread and stays within bounds."""
    limits = [str(os.getpid()), str(MEMORY), str(_OUTPUT)]
    return [sys.executable, "-I", "-S", "-c", _BOUNDED, *limits, *arguments]


def environment(folder: Path) -> dict[str, str]:
    """Everything the program sees of the environment. OPA would read flags and proxies from it."""
    return {"HOME": str(folder), "TMPDIR": str(folder), "GOMAXPROCS": "2", "GOMEMLIMIT": str(MEMORY // 2)}


def packed(bundle: Bundle, *, tests: bool = False) -> bytes:
    """The bundle as OPA's .tar.gz, its revision in the manifest."""
    manifest = {"revision": bundle.revision, "roots": [""], "rego_version": 1}
    modules = bundle.modules + (bundle.tests if tests else ())
    return write_archive(
        [
            (MANIFEST, msgspec.json.encode(manifest)),
            ("data.json", bundle.data),
            *((name, source.encode()) for name, source in modules),
        ]
    )


class OpaProgram:
    """An `opa` program, by path or name on PATH. Version 1.0 or newer. Methods block."""

    def __init__(self, command: str) -> None:
        """ConfigurationError when there is no such program."""
        found = shutil.which(command)
        if found is None:
            raise ConfigurationError(
                "no such program", where="decision.opa.command", value=command,
                fix="Install OPA (openpolicyagent.org/docs, or `make tools`), and give its path.",
            )  # fmt: skip
        self.path = str(Path(found).resolve())
        self._capabilities: bytes | None = None

    def check(self, bundle: Bundle) -> None:
        """Compile the bundle, without every built-in whose answer depends on more than the input document.

        ConfigurationError with what OPA says. `opa run` knows no such restriction, so this comes before it.
        """
        with tempfile.TemporaryDirectory(prefix="customhouse-opa-check-") as name:
            folder = Path(name)
            done, _, said = self._on(folder, packed(bundle), ["check", "--bundle"])
            if done:
                raise _refused(said)

    def run_tests(self, bundle: Bundle) -> tuple[TestResult, ...]:
        """Every test rule by `opa test`; those named `todo_…` are left out, as OPA does. ConfigurationError as `check`."""
        with tempfile.TemporaryDirectory(prefix="customhouse-opa-check-") as name:
            how = ["test", "--format", "json", "--timeout", f"{_TEST_SECONDS}s", "--bundle"]
            done, answer, said = self._on(Path(name), packed(bundle, tests=True), how)
        try:
            found = msgspec.json.decode(answer or b"[]", type=list[_Test])
        except msgspec.DecodeError:
            found = None
        if found is None or (done and not found):
            raise _refused(said or answer.decode(errors="replace"))
        return tuple(one.result() for one in found if not one.skip)

    def _on(self, folder: Path, archive: bytes, arguments: Sequence[str]) -> tuple[int, bytes, str]:
        """Run on a packed bundle, within the capabilities. Exit code, output, messages."""
        (folder / "capabilities.json").write_bytes(self._deterministic(folder))
        (folder / "bundle.tar.gz").write_bytes(archive)
        command = [*arguments, "bundle.tar.gz", "--capabilities", "capabilities.json"]
        return self._run(folder, command)

    def _deterministic(self, folder: Path) -> bytes:
        """OPA's own capabilities without those that look beyond the input, and without any network."""
        if self._capabilities is None:
            code, version, said = self._run(folder, ["version"])
            number = _VERSION.search(version.decode(errors="replace"))
            if code or number is None or int(number[1]) < 1:
                raise ConfigurationError(
                    "not OPA 1.0 or newer", where="decision.opa.command", value=self.path,
                    fix=f"Install a newer OPA. {said[:200]}".strip(),
                )  # fmt: skip
            code, answer, said = self._run(folder, ["capabilities", "--current"])
            if code:
                raise _refused(said)
            known: dict[str, Any] = msgspec.json.decode(answer)
            known["builtins"] = [one for one in known["builtins"] if not one.get("nondeterministic")]
            known["allow_net"] = []
            self._capabilities = msgspec.json.encode(known)
        return self._capabilities

    def _run(self, folder: Path, arguments: Sequence[str]) -> tuple[int, bytes, str]:
        with (folder / "out").open("w+b") as out, (folder / "err").open("w+b") as err:
            try:
                done = subprocess.run(  # noqa: S603 - the operator's own program, no shell
                    bounded([self.path, *arguments]), cwd=folder, env=environment(folder), stdin=subprocess.DEVNULL,
                    stdout=out, stderr=err, timeout=_SECONDS, check=False,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise ConfigurationError(
                    f"opa {arguments[0]} cannot be run: {error}", where="decision.opa.command", value=self.path,
                    fix="Give a program that runs here.",
                ) from None  # fmt: skip
            out.seek(0)
            err.seek(0)
            return done.returncode, out.read(), err.read(1 << 16).decode(errors="replace").strip()


class _Test(msgspec.Struct, frozen=True):
    """One entry of `opa test --format json`. `fail` and `error` are missing where it passed."""

    package: str
    name: str
    duration: int = 0
    fail: bool = False
    skip: bool = False
    error: msgspec.Raw = msgspec.Raw(b"")

    def result(self) -> TestResult:
        said = bytes(self.error)[:300].decode(errors="replace")
        return TestResult(
            package=self.package.removeprefix("data."), name=self.name, passed=not (self.fail or said),
            error=said or None, seconds=self.duration / 1e9,
        )  # fmt: skip


def _refused(said: str) -> ConfigurationError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return ConfigurationError(
        "the policies do not load in OPA: " + "; ".join(lines[:_SHOWN] + more),
        fix="Mend the lines named. Nothing may look beyond the input document: no http.send, no time.now_ns, no rand.",
    )
