"""What is expected of every scene of the demo at every door: the table that `test_scenes_at_doors` proves.

`docs/doors.md` is written from it (`python -m tests.generated --write`), together with the doors' own declarations.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sidecar.demo.scenes import SCENES
from sidecar.enforcement import declarations
from sidecar.enforcement.call import Door
from sidecar.vocabulary import KNOWN_OBLIGATIONS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "doors.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A door as the suite plays at it. `recorded`: the door's name in the records; `seen`: who knows the outcome.

    `equal` is what the proxy and this door have in common: "all" (words, messages, decisions, figures), "decisions"
    (words, decisions), "question" (words, effects, reason codes, who asks what for, about whom, obligations) or "reasons"
    (words, effects, reason codes).
    """

    name: str
    recorded: str
    seen: str = ""
    equal: str = "all"


AIO = Column(name="in process, grpc.aio", recorded="interceptor")
THREADS = Column(name="in process, grpc", recorded="interceptor")
HTTP = Column(name="in process, ASGI", recorded="interceptor")
HOSTED = Column(name="hosted in Envoy", recorded="proxy")
EXT_PROC = Column(name="ext_proc", recorded="ext_proc")
EXT_AUTHZ = Column(name="ext_authz", recorded="ext_authz", seen="unobserved", equal="decisions")
CHECK = Column(name="Check", recorded="check", seen="reported")
AUTHZEN = Column(name="AuthZEN", recorded="authzen", seen="reported", equal="question")
COLUMNS = (AIO, THREADS, HTTP, HOSTED, EXT_PROC, EXT_AUTHZ, CHECK, AUTHZEN)


@dataclass(frozen=True, slots=True)
class Equal:
    """As at the proxy. `said`: the same in this door's words, where they are others; `only`: as `Column.equal`."""

    said: str = ""
    only: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """Not refused so at the proxy: this door cannot do, or see, what is asked of it. `code` is among the reasons.

    `said`: in the words of the scene, where it says more than that.
    """

    code: str
    said: str = ""

    @property
    def told(self) -> str:
        """What the caller is told."""
        return self.said or f"PERMISSION_DENIED {self.code}"


@dataclass(frozen=True, slots=True)
class Inexpressible:
    """This door has no words for it."""

    why: str


Cell = Equal | Denied | Inexpressible

_UNFULFILLABLE, _UNKNOWN = "obligation_unfulfillable", "subjects_unknown"
_REFUSED = f"PERMISSION_DENIED {_UNFULFILLABLE}"
_ABROAD = "PERMISSION_DENIED person_location"
"""What somebody abroad is told first: whom an answer concerns is not known, so it may concern a US person."""
_NO_STREAM = Inexpressible("a stream")
_NO_LIST = Inexpressible("no resource is named")

_MESSAGES, _CONTACTS, _SYNC, _LEAVES = (
    "messages, a stream from the service", "contacts, a stream to the service", "a stream both ways that goes too far",
    "somebody leaves while a stream is open",
)  # fmt: skip
_LIST, _UNDESCRIBED = "the same person lists all users", "a method nobody has described"
STREAMS = (_MESSAGES, _CONTACTS, _SYNC, _LEAVES)
_REDACTED = (
    "US personnel reads a US user", "the same person reads a German user", "fields beyond the task are withheld",
    "an exception, approved by two",
)  # fmt: skip

CELLS: dict[tuple[Column, str], Cell] = {
    **{(HTTP, scene): _NO_STREAM for scene in STREAMS},
    (HTTP, _UNDESCRIBED): Equal("NOT_FOUND undescribed_method", only="reasons"),
    # Envoy can only reset a stream whose service does not end within two seconds (docs/envoy.md).
    (EXT_PROC, _SYNC): Equal("1 answer, then INTERNAL"),
    (EXT_PROC, _LEAVES): Equal("answer, then INTERNAL"),
    **{(EXT_AUTHZ, scene): Denied(_UNFULFILLABLE) for scene in (*_REDACTED, _LEAVES)},
    (EXT_AUTHZ, _MESSAGES): Denied(_UNFULFILLABLE, f"{_REFUSED}: nothing"),
    (EXT_AUTHZ, _CONTACTS): Denied(_UNFULFILLABLE, f"{_REFUSED}: 0 imported"),
    (EXT_AUTHZ, _LIST): Denied(_UNKNOWN, _ABROAD),
    (EXT_AUTHZ, _SYNC): Denied(_UNKNOWN, f"0 answer, then {_ABROAD}"),
    # A permit for a stream asks for rechecks.
    (CHECK, _MESSAGES): Denied(_UNFULFILLABLE, f"{_REFUSED}: nothing"),
    (CHECK, _CONTACTS): Denied(_UNFULFILLABLE, f"{_REFUSED}: 0 imported"),
    (CHECK, _SYNC): Denied(_UNFULFILLABLE, f"0 answer, then {_REFUSED}"),
    (CHECK, _LEAVES): Denied(_UNFULFILLABLE),
    **{(AUTHZEN, scene): _NO_STREAM for scene in STREAMS},
    **{(AUTHZEN, scene): Equal("UNAUTHENTICATED") for scene in ("an expired token", "a forged token", "no token")},
    (AUTHZEN, _LIST): _NO_LIST,
    (AUTHZEN, _UNDESCRIBED): Equal("PERMISSION_DENIED undescribed_method", only="reasons"),
}
"""Everything else is `Equal()`."""

ELSEWHERE = {
    "a licence does, and the ledger counts": "the ledger's tests",
    "a direct call past the sidecar": "no door is passed",
    "the data is served from Frankfurt": "another sidecar's settings",
    "the store is killed and comes back": "the spool's tests",
    "the exception, when its time has passed": "the demo itself",
}
"""Scenes that are not about a door, and where they are played."""
PLAYED = tuple(scene for scene in SCENES if scene.name not in ELSEWHERE)


def expected(column: Column, scene: str) -> Cell:
    """What has to come of a scene at a door."""
    return CELLS.get((column, scene), Equal())


def word(cell: Cell) -> str:
    """A cell of the printed matrix."""
    match cell:
        case Equal(said):
            return f"= (told `{said.rpartition(', then ')[2]}`)" if said else "="
        case Denied(code):
            return f"deny: `{code}`"
        case Inexpressible(why):
            return f"– ({why})"


def matrix() -> str:
    """Scene by door, as a table."""
    lines = ["| scene | " + " | ".join(one.name for one in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for scene in PLAYED:
        cells = [word(expected(column, scene.name)) for column in COLUMNS]
        lines.append(f"| {scene.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def fulfilments() -> str:
    """Door by obligation, from the doors' declarations."""
    names = sorted(KNOWN_OBLIGATIONS)
    lines = [
        "| door | " + " | ".join(f"`{one}`" for one in names) + " | sees answers |",
        "|---" * (len(names) + 2) + "|",
    ]
    for door in declarations.DOORS.values():
        cells = [_duty(door, one) for one in names]
        lines.append(f"| `{door.name}` | " + " | ".join(cells) + f" | {'yes' if door.sees_answers else 'no'} |")
    return "\n".join(lines)


def _duty(door: Door, obligation: str) -> str:
    if obligation not in door.fulfils:
        return "deny"
    handed_on = not door.sees_answers and obligation in declarations.PROXY.fulfils - declarations.EXT_AUTHZ.fulfils
    return "caller" if handed_on else "yes"


_PARTS = {"obligations": fulfilments, "scenes": matrix}


def page() -> str:
    """docs/doors.md as it should be: what stands between the marks is made anew."""
    text = PAGE.read_text(encoding="utf-8")
    for name, made in _PARTS.items():
        marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        between = re.compile(f"(?<={re.escape(marks[0])}\n).*?(?={re.escape(marks[1])})", re.DOTALL)
        text, found = between.subn(lambda _, made=made: made() + "\n", text)
        if found != 1:
            raise ValueError(f"{PAGE} has no place for {name}: {' … '.join(marks)}")
    return text
