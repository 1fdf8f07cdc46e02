"""What `sidecar doctor` finds: one thing tried, whether it holds, where, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.errors import ConfigurationError, IntegrityError


class NotHeldError(Exception):
    """What was tried does not hold. `warns`: it still does, and will not for long."""

    def __init__(self, what: str, *, where: str = "", fix: str = "", warns: bool = False) -> None:
        super().__init__(what)
        self.what, self.where, self.fix, self.warns = what, where, fix, warns


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing tried. `good` also where it only `warns`."""

    name: str
    good: bool
    what: str
    where: str = ""
    fix: str = ""
    warns: bool = False

    @property
    def state(self) -> str:
        """`ok`, `warning` or `failed`."""
        return "warning" if self.warns else "ok" if self.good else "failed"

    @property
    def detail(self) -> str:
        """Where, what and what to do, in a line."""
        said = f"{self.where}: {self.what}" if self.where else self.what
        return f"{said}. {self.fix}" if self.fix else said

    def document(self) -> dict[str, str]:
        """For `--json`."""
        return {"check": self.name, "state": self.state, "what": self.what, "where": self.where, "fix": self.fix}


def tried(name: str, trial: Callable[[], str], fix: str = "") -> Finding:
    """What comes of a trial, which gives what it saw or raises. `fix`: for files that cannot be read."""
    try:
        return Finding(name, True, trial())
    except NotHeldError as error:
        return Finding(name, error.warns, error.what, error.where, error.fix, error.warns)
    except OSError as error:
        return Finding(name, False, error.strerror or str(error), error.filename or "", fix)
    except ConfigurationError as error:
        found = "" if error.value is None else f" (found {error.value!r})"
        return Finding(name, False, f"{error.what}{found}", error.where, error.fix)
    except IntegrityError as error:
        return Finding(name, False, error.what, error.where, error.fix)
