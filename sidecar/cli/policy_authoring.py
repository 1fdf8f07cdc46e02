"""`sidecar policy check`, `test`, `eval`, `explain` and `new service`: what an author does before a policy is in force."""

import functools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar.cli.console import FINDING, out
from sidecar.cli.policy_replay import Ca, Cert, Key, Store
from sidecar.errors import ConfigurationError

if TYPE_CHECKING:
    from sidecar.administration.policy_cases import Case
    from sidecar.decision.strict_json import JsonObject

BundlePath = Annotated[Path, typer.Argument(metavar="FOLDER|BUNDLE", help="A bundle folder, or a .tar.gz.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
CasesFile = Annotated[
    Path | None,
    typer.Option("--cases", metavar="FILE", help="A table of cases; without it, those in the folder (…cases.yaml)."),
]
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="FILE|-", help="An input document, JSON. What it leaves out is unknown."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Change one path of the document. May be given again."),
]


def check(
    path: BundlePath, *,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count too; asks opa, where it is at hand.")] = False,
    opa: Annotated[
        Path | None, typer.Option("--opa", metavar="FILE", help="The opa to ask; else the one on the PATH.")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find what is wrong with a policy without putting it in force. Exits 1 when something has to be mended."""
    import shutil

    from sidecar.administration import policy_opa
    from sidecar.administration.policy_check import check as run_check
    from sidecar.cli import policy_shown
    from sidecar.decision.replay import read

    bundle = read(path)
    found = opa or (Path(on_path) if (on_path := shutil.which("opa")) else None)
    ask = strict or opa is not None
    checked = run_check(bundle, lambda: policy_opa.strict(found, path) if ask and found is not None else None)
    if as_json:
        _document(policy_shown.checked_json(checked, strict=strict))
    else:
        policy_shown.checked(checked, path, asked=ask)
    raise SystemExit(FINDING if checked.fails(strict=strict) else 0)


def try_tests(
    path: BundlePath, *,
    run: Annotated[str, typer.Option("--run", metavar="REGEX", help="Only tests and cases whose names match.")] = "",
    cases: CasesFile = None,
    coverage: Annotated[bool, typer.Option("--coverage", help="Show which lines nothing evaluated.")] = False,
    floor: Annotated[
        float | None, typer.Option("--floor", metavar="PERCENT", min=0, max=100, help="Least coverage; less exits 1.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="A line for each test, with its time.")] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run the bundle's own tests, and its tables of cases. Exits 1 when one fails."""
    from sidecar.administration.policy_test import run as run_tests
    from sidecar.cli import policy_shown
    from sidecar.decision.replay import read

    bundle = read(path)
    table = _cases(path, cases)
    result = run_tests(bundle, str(path), clock=time.perf_counter, cases=table, pattern=run,
                       coverage=coverage or floor is not None)  # fmt: skip
    low = floor is not None and result.percent < floor
    if as_json:
        _document(policy_shown.tested_json(result, floor))
    else:
        policy_shown.tested(result, floor, verbose=verbose)
    raise SystemExit(FINDING if result.failed or low else 0)


def evaluate(
    path: BundlePath,
    file: Annotated[
        str, typer.Option("--input", metavar="FILE|-", help="An input document, JSON. What it leaves out is unknown.")
    ],
    *,
    changes: Set = None,
    entrypoint: Annotated[
        str, typer.Option("--entrypoint", metavar="RULE", help="Another rule with one value, such as data.sidecar.facts.call.")
    ] = "data.sidecar.decision",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Ask a policy one question. Exits 1 when the answer is nothing that a sidecar could act on."""
    from sidecar.administration.policy_document import request
    from sidecar.administration.policy_eval import evaluate as run_evaluate
    from sidecar.cli import policy_shown
    from sidecar.decision.replay import read

    document = request(_changed(_read(file), changes), file)
    answer = run_evaluate(read(path), document, str(path), entrypoint)
    if as_json:
        _document({"revision": answer.revision, "entrypoint": answer.entrypoint, "value": answer.value,
                   "problem": answer.problem})  # fmt: skip
    else:
        policy_shown.evaluated(answer)
    raise SystemExit(FINDING if answer.problem else 0)


def explain(
    path: BundlePath, *,
    file: Input = None,
    record: Annotated[
        str | None, typer.Option("--record", metavar="CALL_ID", help="The input of a recorded call, from the store.")
    ] = None,
    phase: Annotated[
        str, typer.Option("--phase", help="With --record: request or response; else the last decision of the call.")
    ] = "",
    case: Annotated[
        str | None, typer.Option("--case", metavar="NAME", help="The input of a case of the tables.")
    ] = None,
    cases: CasesFile = None,
    changes: Set = None,
    whole: Annotated[bool, typer.Option("--all", help="Every rule that was evaluated, and every cause.")] = False,
    store: Store = "", ca: Ca = None, cert: Cert = None, key: Key = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say why a policy decides as it does: what fired, and what failed first in what could have turned it."""
    from sidecar.administration.policy_document import request
    from sidecar.administration.policy_explain import Explainer
    from sidecar.cli import policy_why_shown
    from sidecar.cli.policy_recorded import recorded
    from sidecar.decision.replay import read

    if sum(one is not None for one in (file, record, case)) != 1:
        raise ConfigurationError(
            "nothing, or more than one thing, to explain", fix="Give one of --input, --record and --case"
        )
    bundle = read(path)
    told: dict[str, object] = {}
    if record is not None:
        document, told = recorded(record, phase, store, ca, cert, key)
    elif case is not None:
        document = _case(path, cases, case)
    else:
        document = _read(str(file))
    explanation = Explainer(bundle, str(path)).explain(
        request(_changed(document, changes), file or record or str(case))
    )
    if as_json:
        _document({**policy_why_shown.explained_json(explanation), **({"recorded": told} if told else {})})
    else:
        policy_why_shown.explained(explanation, told, whole=whole)
    raise SystemExit(FINDING if explanation.error else 0)


def new_service(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Full protobuf name, such as rides.v1.Riders.")], *,
    descriptors: Annotated[
        Path | None, typer.Option("--descriptors", metavar="FILE", help="The API's FileDescriptorSet.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option("--overlay", metavar="FILE", help="With --descriptors: what the protos do not say.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Or the settings of the sidecar that guards it.")
    ] = None,
    into: Annotated[Path, typer.Option("--into", metavar="FOLDER", help="The bundle folder.")] = Path("policies"),
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Start a policy for a guarded service: rule, test, table and cases, which say no until filled in. Never overwrites."""
    from sidecar.administration.policy_new import start
    from sidecar.cli import policy_shown
    from sidecar.cli.policy_recorded import described

    started = start(name, described(descriptors, overlay, config), into)
    if as_json:
        _document({"service": started.service, "slug": started.slug, "files": list(started.files),
                   "methods": started.methods, "categories": list(started.categories), "remarks": list(started.remarks)})  # fmt: skip
    else:
        policy_shown.started(started, into)


def _document(document: object) -> None:
    out().print(json.dumps(document, ensure_ascii=False), markup=False)


def _read(file: str) -> "JsonObject":
    from sidecar.administration.policy_document import read_request

    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return read_request(content, file)


def _changed(document: "JsonObject", changes: list[str] | None) -> "JsonObject":
    from sidecar.administration.policy_document import setting, with_value

    for one in changes or []:
        where, value = setting(one)
        document = with_value(document, where, value, "--set")
    return document


def _cases(path: Path, file: Path | None) -> "tuple[Case, ...]":
    """The cases of a table, or of all in the folder. Names of several tables may be alike."""
    from sidecar.administration.policy_cases import read_cases
    from sidecar.settings.strict_yaml import StrictYamlError, parse

    files = [file] if file is not None else sorted(path.rglob("*cases.yaml")) if path.is_dir() else []
    found: list[Case] = []
    for one in files:
        try:
            tree = parse(one.read_text(encoding="utf-8"))
        except (StrictYamlError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"not YAML: {error}", where=str(one)) from None
        found += read_cases(tree, str(one), functools.partial(_beside, one.parent))
    return tuple(found)


def _beside(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


def _case(path: Path, file: Path | None, name: str) -> "JsonObject":
    import difflib

    import msgspec

    from sidecar.vocabulary import canonical

    cases = _cases(path, file)
    for one in cases:
        if one.name == name:
            document: JsonObject = msgspec.json.decode(canonical(one.request))
            return document
    near = difflib.get_close_matches(name, [one.name for one in cases], n=1, cutoff=0.4)
    raise ConfigurationError(
        "no case of this name",
        where="--case",
        value=name,
        fix=f"Is {near[0]!r} meant?" if near else "Name the table with --cases",
    )
