"""How the demo looks: a table that grows, and the verdict. And the same as JSON."""

from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

_NAME, _GOT = 46, 52


@dataclass(frozen=True, slots=True)
class Result:
    """One scene, played."""

    name: str
    expected: str
    got: str
    reason: str
    call_id: str
    as_expected: bool
    past_the_sidecar: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the store showed. `complete`: every call of a scene has its records, and nothing is missing.

    `flip_found`: a replay of the records finds what a candidate policy would newly permit, and nothing else.
    """

    records: int
    checkpoint_size: int
    all_records_verified: bool
    tamper_detected: bool
    complete: bool
    flip_found: bool


def header(console: Console) -> None:
    """The head of the table."""
    console.print(f"    {'scene':{_NAME}} {'what came of it':{_GOT}}", style="bold")


def row(console: Console, number: int, result: Result) -> None:
    """One line of the table; a scene that differs also says what was expected."""
    style = "green" if result.as_expected else "red"
    line = Text(f"{number:3} {result.name:{_NAME}} ")
    line.append(f"{result.got:{_GOT}}", style=style)
    line.append(" ok" if result.as_expected else f" expected: {result.expected}", style=style)
    console.print(line)


def summary(results: list[Result], proof: Proof, seconds: float) -> dict[str, object]:
    """The demo's JSON report."""
    return {
        "scenes": [
            {
                "name": one.name, "expected": one.expected, "got": one.got, "reason": one.reason,
                "call_id": one.call_id, "as_expected": one.as_expected,
            }
            for one in results
        ],
        "records": proof.records,
        "checkpoint_size": proof.checkpoint_size,
        "all_records_verified": proof.all_records_verified,
        "tamper_detected": proof.tamper_detected,
        "flip_found": proof.flip_found,
        "seconds": round(seconds, 1),
    }  # fmt: skip


def verdict(console: Console, results: list[Result], proof: Proof, seconds: float) -> bool:
    """Print the end; whether everything was as it should be."""
    good = sum(one.as_expected for one in results)
    proven = proof.all_records_verified and proof.tamper_detected and proof.complete and proof.flip_found
    fine = good == len(results) and proven
    console.print(
        f"\n{good} of {len(results)} scenes as expected; {proof.records} records, each verified against a log of "
        f"{proof.checkpoint_size}; {seconds:.0f} s",
        style="bold green" if fine else "bold red",
    )
    return fine
