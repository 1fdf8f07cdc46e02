"""Committed files about the embedded engine: `python -m tests.engine_tables --write [cases] [parity] [capabilities]`.

They need OPA (`make tools`); the tests of `tests/conformance` compare them.
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import engine_capabilities
import opa_cases
import policy_parity

from sidecar import _native

OPA = Path(".tools/bin/opa")


def cases() -> str:
    found = opa_cases.folder()
    if isinstance(found, str):
        raise SystemExit(found)
    return opa_cases.table(opa_cases.run(found))


def parity() -> str:
    measured = policy_parity.measure(OPA)
    if measured.differing:
        raise SystemExit("the engines differ:\n" + "\n".join(measured.differing[:3]))
    return policy_parity.table(measured)


def capabilities() -> str:
    return engine_capabilities.capabilities(OPA, _native.builtins_accepted())


FILES: dict[str, tuple[Path, Callable[[], str]]] = {
    "cases": (opa_cases.FILE, cases),
    "parity": (policy_parity.FILE, parity),
    "capabilities": (engine_capabilities.FILE, capabilities),
}


def main(arguments: list[str]) -> int:
    """Write the files named, or all."""
    if arguments[:1] != ["--write"] or not set(arguments[1:]) <= set(FILES):
        print(__doc__)
        return 2
    for name in arguments[1:] or FILES:
        file, make = FILES[name]
        file.write_text(make())
        print(file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
