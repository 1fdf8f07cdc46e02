"""The signers' file of `policy.keys`, read again when it or a key beside it changes."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.decision import signatures
from sidecar.decision.bundle import Bundle
from sidecar.decision.signers import Signers, signers_of
from sidecar.errors import ConfigurationError
from sidecar.settings.strict_yaml import StrictYamlError, parse

MAX_BYTES = 256 << 10
_Mark = tuple[tuple[str, int, int, int, int], ...]


def read_signers(file: Path) -> Signers:
    """The signers in this file. ConfigurationError names what is wrong with it, or with a key that it names."""
    return _read(file, [])


def _read(file: Path, keys: list[Path]) -> Signers:
    def beside(name: str) -> bytes:
        keys.append(file.parent / name)
        return _content(file.parent / name)

    try:
        tree = parse(_content(file).decode("utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(file), fix="List those who may sign bundles there."
        ) from None
    except (StrictYamlError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"not YAML: {error}", where=str(file), fix="Mend the file.") from None
    return signers_of(tree, str(file), beside)


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ConfigurationError(f"larger than {MAX_BYTES} bytes", where=str(file), fix="Is this the right file?")
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    mark: _Mark
    keys: tuple[Path, ...]
    signers: Signers | None
    error: ConfigurationError | None


class Signatures:
    """Says whose signatures a bundle has. Blocks; for any thread.

    While the file cannot be used nobody's signature counts: a bundle may be refused for that, never admitted.
    """

    def __init__(self, file: Path, require: int, clock: Callable[[], float]) -> None:
        """`clock` is UTC in unix seconds. Nothing is read yet."""
        self._file, self._require, self._clock = file, require, clock
        self._reading: _Reading | None = None
        self._one = threading.Lock()

    def check(self, bundle: Bundle, where: str) -> tuple[str, ...]:
        """Whose signatures count, as `signatures.verify`. ConfigurationError when they are too few."""
        return signatures.verify(bundle, self.usable(), require=self._require, now=self._clock(), where=where)

    def usable(self) -> Signers:
        """The signers, enough of them. ConfigurationError names what is wrong with the file."""
        self.changed()
        found = self._reading
        if found is None or found.signers is None:
            raise (found.error if found is not None and found.error is not None else _never(self._file))
        if len(found.signers.by_id.keys() - found.signers.revoked) < self._require:
            raise ConfigurationError(
                f"fewer signers than policy.keys.require ({self._require})", where=str(self._file), fix="List more."
            )
        return found.signers

    def changed(self) -> bool:
        """Read again if the file, or a key that it names, looks another than before; whether it does."""
        with self._one:
            return self._reread()

    def _reread(self) -> bool:
        known = self._reading
        if known is not None and known.error is None and self._mark(known.keys) == known.mark:
            return False
        keys: list[Path] = []
        mark = self._mark(known.keys if known is not None else ())
        signers, failed = None, None
        try:
            signers = _read(self._file, keys)
        except ConfigurationError as error:
            failed = error
        found = tuple(keys)
        mark = mark if known is not None and found == known.keys else self._mark(found)
        self._reading = _Reading(mark=mark, keys=found, signers=signers, error=failed)
        return known is None or known.mark != mark or str(known.error) != str(failed)

    def _mark(self, keys: tuple[Path, ...]) -> _Mark:
        return tuple(_stamp(one) for one in (self._file, *keys))


def _stamp(path: Path) -> tuple[str, int, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0, 0
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _never(file: Path) -> ConfigurationError:
    return ConfigurationError("no signers", where=str(file), fix="List those who may sign bundles there.")
