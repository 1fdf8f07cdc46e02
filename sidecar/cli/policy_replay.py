"""`sidecar policy replay`, `diff` and `shadow status`: what a candidate would decide otherwise."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sidecar.cli.console import FINDING, fail, out, plain, progress
from sidecar.cli.instants import instant, now
from sidecar.errors import ConfigurationError

if TYPE_CHECKING:
    from sidecar.administration.policy_corpus import Case
    from sidecar.administration.policy_diff import Change, Differences
    from sidecar.administration.policy_flips import Findings, Flip, Gate
    from sidecar.decision.bundle import Bundle

_ROWS = 20
_MOST_VALUE = 120

Before = Annotated[Path, typer.Argument(metavar="BEFORE", help="A bundle folder, or a built bundle (.tar.gz).")]
After = Annotated[Path, typer.Argument(metavar="AFTER", help="The one that would take its place.")]
Against = Annotated[Path, typer.Option("--against", metavar="BUNDLE", help="The candidate: a folder or a .tar.gz.")]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="BUNDLE", help="Compare this bundle with the candidate, instead of what the records say."),
]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="JSON Lines: what `sidecar oversight search --json` prints, bodies, inputs."),
]  # fmt: skip
Store = Annotated[str, typer.Option("--store", envvar="CUSTOMHOUSE_REVIEW_STORE", help="The store's query listener.")]
Ca = Annotated[
    Path | None, typer.Option("--ca", envvar="CUSTOMHOUSE_REVIEW_CA", help="Certificates the store's is checked against.")
]  # fmt: skip
Cert = Annotated[
    Path | None, typer.Option("--cert", envvar="CUSTOMHOUSE_REVIEW_CERT", help="The reviewer's certificate.")
]
Key = Annotated[Path | None, typer.Option("--key", envvar="CUSTOMHOUSE_REVIEW_KEY", help="The key of --cert.")]
FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        help="Exit 1 on: newly-permitted-non-us, newly-permitted, newly-denied, any. May be given again.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write every flip, a JSON object a line.")]
Jobs = Annotated[int, typer.Option(help="Child processes that evaluate; 1: this process does.", min=1, max=64)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def replay(
    against: Against, *,
    baseline: Baseline = None, records: From = None, store: Store = "", ca: Ca = None, cert: Cert = None, key: Key = None,
    since: Annotated[str, typer.Option(help="RFC 3339, inclusive; or an age: 30m, 12h, 7d, 2w.")] = "",
    until: Annotated[str, typer.Option(help="RFC 3339, exclusive; or an age.")] = "",
    person: Annotated[str, typer.Option(help="Personnel id.")] = "",
    service: Annotated[str, typer.Option(help="Full name of a guarded service.")] = "",
    producer: Annotated[str, typer.Option(help="Producer's name.")] = "",
    call_id: Annotated[str, typer.Option("--call-id", help="Call id.")] = "",
    fail_on: FailOn = None, output: Out = None, jobs: Jobs = 1, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Decide recorded calls again by a candidate, and show what changes. Exits 1 where --fail-on says so, or without any.

    The records come from the store (--store …, as for `sidecar oversight search`) or from a file (--from).
    """
    from sidecar.administration import policy_corpus
    from sidecar.oversight.reviewer import Reviewer

    at = now()
    asked = {"type": "decision", "person": person, "service": service, "producer": producer, "call_id": call_id,
             "since": instant(since, at), "until": instant(until, at)}  # fmt: skip
    passed: Counter[str] = Counter()
    with ExitStack() as stack:
        if records is not None:
            if any(value for name, value in asked.items() if name != "type"):
                raise ConfigurationError(
                    "--from takes all of its file", fix="Leave the filters out: they are the store's."
                )
            cases = policy_corpus.lines(records, passed)
        elif not store or ca is None or cert is None or key is None:
            raise ConfigurationError(
                "no records are named", fix="Give --from FILE, or --store, --ca, --cert and --key."
            )
        else:
            reviewer = stack.enter_context(Reviewer(store, ca, cert, key))
            cases = policy_corpus.bodies(((one.index, one.body) for one in reviewer.search(asked, 0)), passed)
        _run(cases, passed, against, baseline, fail_on or [], output, jobs, as_json=as_json)


def diff(
    before: Before, after: After, *,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", metavar="FILE", help="JSON Lines of records or inputs, instead of generated ones.")
    ] = None,
    generated: Annotated[int, typer.Option(help="How many generated inputs, beside the bundles' own corpora.", min=0)] = 2000,
    seed: Annotated[int, typer.Option(help="Of the generated inputs: the same seed gives the same.")] = 1,
    fail_on: FailOn = None, output: Out = None, jobs: Jobs = 1, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Show what differs between two bundles: rules, data, and decisions on recorded or generated inputs."""
    from sidecar.administration import policy_corpus, policy_diff
    from sidecar.decision.replay import read

    passed: Counter[str] = Counter()
    one, other = read(before), read(after)
    texts = policy_diff.differences(one, other)
    cases = (
        policy_corpus.generated((one, other), generated, seed)
        if corpus is None
        else policy_corpus.lines(corpus, passed)
    )
    _run(cases, passed, after, before, fail_on or [], output, jobs, as_json=as_json, texts=texts)


def _run(
    cases: "Iterator[Case]", passed: Counter[str], against: Path, baseline: Path | None, fail_on: list[str],
    output: Path | None, jobs: int, *, as_json: bool, texts: "Differences | None" = None,
) -> None:  # fmt: skip
    from sidecar.administration.policy_children import answering
    from sidecar.administration.policy_flips import Findings
    from sidecar.administration.policy_replay import Asked, replay
    from sidecar.decision.replay import read

    gates = _gates(fail_on)
    findings = Findings(passed=passed)
    candidate = read(against)
    before = None if baseline is None else read(baseline)
    with ExitStack() as stack:
        asked = Asked(stack.enter_context(answering(candidate, against, jobs)))
        other = None
        if before is not None and baseline is not None:
            other = Asked(stack.enter_context(answering(before, baseline, jobs)))
        found = stack.enter_context(_written(output))
        bar = stack.enter_context(progress())
        task = bar.add_task("replaying", total=None)
        replay(cases, asked, other, findings, found=found, advance=lambda count: bar.advance(task, count))
    tripped = findings.tripped(gates)
    if as_json:
        document = {"candidate": _named(against, candidate), "baseline": before and _named(baseline, before),
                    "distinct": asked.distinct, **findings.to_json(), "failed_on": tripped}  # fmt: skip
        if texts is not None:
            document["changes"] = texts.to_json()
        out().print(json.dumps(document), markup=False)
    else:
        _show(findings, asked.distinct, texts)
    if not findings.replayed:
        fail("no decision was replayed: nothing is known about the candidate", FINDING)
    if tripped:
        fail("; ".join(tripped), FINDING)


def _gates(words: list[str]) -> "list[Gate]":
    from sidecar.administration.policy_flips import GATES

    found = [gate for gate in GATES if gate in words]
    unknown = next((word for word in words if word not in GATES), None)
    if unknown is not None:
        raise ConfigurationError("no such gate", where="--fail-on", value=unknown, fix=f"One of {', '.join(GATES)}.")
    return found


def _named(path: Path | None, bundle: "Bundle") -> dict[str, object]:
    return {"bundle": str(path), "revision": bundle.revision, "label": bundle.label}


@contextmanager
def _written(output: Path | None) -> "Iterator[Callable[[Flip], None]]":
    if output is None:
        yield lambda _: None
        return
    try:
        file = output.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"cannot be written: {error.strerror}", where=str(output), fix="Choose another --out."
        ) from None
    with file:
        yield lambda flip: print(json.dumps(flip.to_json()), file=file)


def _show(findings: "Findings", distinct: int, texts: "Differences | None") -> None:
    from sidecar.cli.policy_shown import count

    if texts is not None:
        _show_texts(texts)
    show = out()
    show.print(
        plain(
            f"{count(findings.replayed, 'decision')} replayed ({count(distinct, 'different question')}): "
            f"{findings.agreed} as before, {findings.flips} otherwise"
        )
    )
    for what, number in sorted(findings.passed.items()):
        show.print(plain(f"  not replayed: {number} {what}"))
    if findings.flips:
        show.print(_reasons(findings))
        show.print(_people(findings))
        _show_examples(findings)
    abroad = findings.gates["newly-permitted-non-us"]
    if abroad:
        show.print(plain(f"{abroad} release US or unknown subjects' data to somebody not known to be US personnel"))


def _columns(title: str, *names: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _reasons(findings: "Findings") -> Table:
    table = _columns("Flips by reason", "flip", "before", "now", "decisions", "people")
    found = findings.by_reason()
    for (kind, before, after), people in found[:_ROWS]:
        cells = (kind.replace("_", " "), ", ".join(before), ", ".join(after), people.total(), len(people))
        table.add_row(*map(plain, cells))
    return _rest(table, len(found))


def _people(findings: "Findings") -> Table:
    from sidecar.decision.flips import KINDS

    kinds = [kind for kind in KINDS if findings.kinds[kind]]
    table = _columns("Flips by person", "person", *(kind.replace("_", " ") for kind in kinds))
    found = findings.by_person()
    for person, counts in found[:_ROWS]:
        table.add_row(*map(plain, (person, *(counts[kind] or "" for kind in kinds))))
    return _rest(table, len(found))


def _rest(table: Table, number: int) -> Table:
    if number > _ROWS:
        table.caption = f"and {number - _ROWS} more: --json shows all"
    return table


def _show_examples(findings: "Findings") -> None:
    """Lines, not a table: a call id is there to be copied, and would be broken into pieces."""
    from sidecar.administration.policy_flips import who

    show = out()
    show.print("Examples")
    for one in findings.examples:
        asked, call = one.request, one.case.call_id or one.case.name
        what = f"{asked.action.method} ({asked.context.phase})"
        show.print(plain(f"{one.kind.replace('_', ' ')}: {who(asked)}, {what}, {call}"))
        show.print(plain(f"  {one.before.effect}: {', '.join(one.before.codes)}"))
        show.print(plain(f"  → {one.after.effect}: {', '.join(one.after.codes)}"))


def _show_texts(texts: "Differences") -> None:
    show = out()
    for title, changes in (("rules", texts.rules), ("data", texts.data), ("tests", texts.tests)):
        show.print(plain(f"{title} changed: {len(changes) or 'none'}"))
        for change in changes:
            show.print(plain(f"  {change.word} {change.what}{_values(change) if title == 'data' else ''}"))


def _values(change: "Change") -> str:
    shown = [
        "nothing" if one is None else one if len(one) <= _MOST_VALUE else f"{one[:_MOST_VALUE]}…"
        for one in (change.before, change.after)
    ]
    return f": {shown[0]} → {shown[1]}"


def shadow_status(
    config: Annotated[Path, typer.Option("--config", help="Settings file.", metavar="FILE")], *, as_json: AsJson = False
) -> None:
    """Ask a running sidecar how its candidate agrees with the policy in force. Exits 1 where there is a problem."""
    from sidecar.cli.running import asked
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    settings = load(config, SidecarSettings)
    if settings.shadow is None:
        raise ConfigurationError("no shadow is configured", where="shadow", fix="Add shadow: {bundle: {folder: PATH}}.")
    found = dict(asked(settings, "shadow.status"))
    if "error" in found:
        raise ConfigurationError(f"the sidecar does not say: {found['error']}", where=str(config), fix="Restart it.")
    if as_json:
        out().print(json.dumps(found), markup=False)
    else:
        _show_shadow(found)
    if found.get("problems"):
        raise SystemExit(FINDING)


def _show_shadow(found: dict[str, object]) -> None:
    recent, problems = found.pop("recent", None), found.get("problems")
    show = out()
    table = Table(show_header=False, box=None)
    for key, value in found.items():
        if key == "agreement" and isinstance(value, float):
            text = f"{int(value * 10_000) / 100:.2f} %"  # rounded down: 100 % is all of them
        elif key == "problems":
            text = "; ".join(map(str, problems)) if isinstance(problems, list) and problems else "none"
        else:
            text = "none" if value is None else str(value)
        table.add_row(plain(key.replace("_", " ")), plain(text))
    show.print(table)
    if isinstance(recent, list) and recent:
        flips = _columns("Latest flips", "flip", "what", "minute", "in force", "candidate", "input (SHA-256)")
        for one in recent:
            cells = (
                str(one["flip"]).replace("_", " "), f"{one['method']} ({one['phase']})", one["time"],
                f"{one['active_effect']}: {', '.join(one['active_reasons'])}",
                f"{one['candidate_effect']}: {', '.join(one['candidate_reasons'])}", one["input_sha256"][:16],
            )  # fmt: skip
            flips.add_row(*map(plain, cells))
        show.print(flips)
