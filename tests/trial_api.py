"""The trial API of tests/protos, compiled when it is asked for, and a description of it."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc_tools
from grpc_tools import protoc

from sidecar.attributes import descriptors, overlay
from sidecar.attributes.resource import Classifier, Describer

HERE = Path(__file__).parent
FULFILS = frozenset(
    {"redact_fields", "mask_fields", "drop_records", "limit_records", "require_durability", "recheck_seconds"}
)


def compile_files(roots: list[Path], files: list[str], *, with_imports: bool = True) -> bytes:
    with TemporaryDirectory() as folder:
        out = Path(folder, "set.binpb")
        include = [f"-I{root}" for root in [*roots, HERE.parent / "proto", Path(grpc_tools.__file__).parent / "_proto"]]
        flags = ["--include_imports"] if with_imports else []
        code = protoc.main(["protoc", *include, *flags, f"--descriptor_set_out={out}", *files])
        assert code == 0, f"protoc failed on {files}"
        return out.read_bytes()


def compile_text(tmp_path: Path, text: str, *, with_imports: bool = True) -> bytes:
    """One file with our annotations at hand; `text` starts after the package."""
    (tmp_path / "t.proto").write_text(
        'syntax = "proto3";\npackage t;\nimport "sidecar/api/v1/annotations.proto";\n' + text
    )
    return compile_files([tmp_path], ["t.proto"], with_imports=with_imports)


@cache
def trial_set(*, with_imports: bool = True) -> bytes:
    return compile_files([HERE / "protos"], ["trial/v1/trial.proto", "trial/v1/old.proto"], with_imports=with_imports)


@cache
def trial() -> Describer:
    return Describer(descriptors.parse(trial_set(), "trial.binpb"), unguarded=["grpc.health.v1.Health/*"])


def describer(data: bytes, yaml: str | None = None, **more) -> Describer:
    over = None if yaml is None else overlay.parse(yaml, "overlay.yaml")
    return Describer(descriptors.parse(data, "set.binpb"), overlay=over, **more)


def new(name: str):
    """The class of a message of the trial API."""
    return trial().plans.of(f"trial.v1.{name}").new


class Index:
    """Ids that start with `us` are US, with `fr` non-US; all others unknown. Integers below 100 are US."""

    revision = "index-1"

    def __init__(self, *, fresh: bool = True) -> None:
        self.is_fresh = fresh

    def classify(self, kind: str, id: str) -> str:  # noqa: A002 - the word of the port
        if id.startswith("us") or (id.isdecimal() and int(id) < 100):
            return "us"
        return "non_us" if id.startswith("fr") or id.isdecimal() else "unknown"

    def fresh(self, now: float) -> bool:
        return self.is_fresh


CLASSIFIER = Classifier(Index())


def classes_of(parsed) -> dict:
    return CLASSIFIER.classify(parsed.subjects, None, 0.0).classes
