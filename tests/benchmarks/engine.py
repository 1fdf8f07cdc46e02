"""The embedded engine with much data against little."""

from tests.benchmarks.deployment import POLICIES
from tests.benchmarks.pipeline import child
from tests.benchmarks.rows import Row, at_most, middle
from tests.benchmarks.scale import FEW, Scale

MOST, LOAD_MOST = 1.2, 0.5


def measure(scale: Scale) -> list[Row]:
    """Microseconds per evaluation of the shipped policies, and what loading the data takes."""
    group = f"the embedded engine, {scale.data:,} entries of data against {FEW:,}"
    found = child(
        "evaluations",
        {"policies": str(POLICIES), "entries": [FEW, scale.data], "evaluations": scale.pipeline_calls},
    )
    little, much = found["times"]
    ratios = tuple(b / a for a, b in zip(little, much, strict=True))
    seconds, mib = (found["loads"][1][name] for name in ("seconds", "mib"))
    return [
        Row(group=group, what=f"one evaluation, {entries:,} entries", figure=middle(times), unit="µs", samples=tuple(times))
        for entries, times in ((FEW, little), (scale.data, much))
    ] + [
        Row(group=group, what="their ratio", figure=middle(ratios), unit="× the time", target=f"≤ {MOST} ×",
            reached=at_most(middle(ratios), MOST), samples=ratios),
        Row(group=group, what=f"loading {scale.data:,} entries", note=f"{mib:.0f} MiB", figure=seconds, unit="s",
            target=f"≤ {LOAD_MOST} s", reached=at_most(seconds, LOAD_MOST)),
    ]  # fmt: skip
