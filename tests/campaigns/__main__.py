"""`python -m tests.campaigns [tokens|keys|streams|runaway|frames|fuzz …] [--long] [--minutes N] [--seed N] [--host envoy]`.

Prints one line for each figure as it is had, and the table at the end; exits with 1 when what must hold did not. Short forms take seconds,
long ones minutes; `--minutes` says how long each of the fuzzers goes on.
"""

import argparse
import asyncio
import os
import platform
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from deployment import Deployment  # noqa: E402
from hosted_parts import HostedDeployment  # noqa: E402

from campaigns import frames, keys, mutations, runaway, streams  # noqa: E402 - the path comes first
from campaigns.crowd import RSS_MIB, compared  # noqa: E402
from campaigns.doors import DOORS  # noqa: E402
from campaigns.figures import Row, table  # noqa: E402
from campaigns.guarded import Guarded  # noqa: E402
from campaigns.tokens import campaign  # noqa: E402


class Run:
    """What was asked for, and what was found."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.long, self.seed = options.long, options.seed
        self.minutes = options.minutes if options.minutes is not None else 10.0 if self.long else 0.1
        self.seconds, self.rounds = (10.0, 3) if self.long else (2.5, 1)
        self._hosted = options.host == "envoy"
        self.rows: list[Row] = []

    def tell(self, name: str, figure: object, *, held: bool) -> None:
        """One more line."""
        self.rows.append(Row(campaign=name, figure=str(figure), held=held))
        print(f"{name}: {figure}{'' if held else '  FAILED'}", flush=True)

    def deployment(self, folder: Path) -> Deployment:
        """With its sidecars on grpc.aio, or inside Envoy."""
        return HostedDeployment(folder) if self._hosted else Deployment(folder)

    # -- the campaigns -----------------------------------------------------------------------------------------------

    def tokens(self, folder: Path) -> None:
        """Every attack at every door."""
        for door in DOORS:
            place = folder / door.replace(" ", "-")
            place.mkdir()
            found = asyncio.run(campaign(door, Guarded(place)))
            self.tell("token attacks", found, held=not (found.accepted or found.wrong))
            for one in (*found.accepted, *found.wrong):
                print("   ", one)

    def keys(self, folder: Path) -> None:
        """Unknown key ids while the issuer is down."""
        with self.deployment(folder / "keys") as deployment:
            for offered in (200.0, 2000.0) if self.long else (2000.0,):
                found = keys.campaign(
                    deployment, offered=offered, seconds=30.0 if self.long else 3.0, rounds=self.rounds
                )
                self.tell(
                    "issuer down", found, held=found.compared.held and found.most_in_a_minute <= keys.FETCHES_A_MINUTE
                )

    def streams(self, folder: Path) -> None:
        """Idle streams, metadata bombs, slow readers, rapid resets."""
        with self.deployment(folder / "streams") as deployment:
            for name, made in _disturbances(deployment).items():
                met = streams.Met()
                found = compared(deployment, lambda: made(met), seconds=self.seconds, rounds=self.rounds)  # noqa: B023
                self.tell(name, f"{met.begun} begun; {found}", held=found.held)

    def runaway(self, folder: Path) -> None:
        """A policy that does not come to an end."""
        with self.deployment(folder / "runaway") as deployment:
            for callers in (1, 2):
                found = runaway.campaign(deployment, seconds=self.seconds, rounds=self.rounds, callers=callers)
                only = set(found.said) == {"UNAVAILABLE policy_error"}
                self.tell(f"runaway policy, {callers} at once", found, held=only and found.compared.held)

    def frames(self, folder: Path) -> None:
        """Garbage at every port, and heads that do not end."""
        with Deployment(folder / "frames") as deployment, frames.all_doors(deployment) as ports:
            slow = frames.slowloris(
                deployment, ports, connections=600 if self.long else 200, wait=12.0 if self.long else 0.0
            )
            self.tell("slow heads", slow, held=slow.compared.held and (not self.long or slow.closed == slow.held))
            found = frames.campaign(deployment, ports, seed=self.seed, seconds=60 * self.minutes)
            self.tell("garbage", found, held=not found.wrong and found.rss <= RSS_MIB)
            for one in found.wrong:
                print("   ", one)

    def fuzz(self, folder: Path) -> None:
        """Messages and tokens that are nearly right."""
        found = asyncio.run(mutations.messages(Guarded(folder), seed=self.seed, seconds=60 * self.minutes))
        self._fuzzed("mutated messages", found)
        self._fuzzed("mutated tokens", mutations.tokens(Guarded(folder), seed=self.seed, seconds=60 * self.minutes))

    def _fuzzed(self, name: str, found: mutations.Fuzzed) -> None:
        self.tell(name, found, held=not found.wrong)
        for one in found.wrong[:20]:
            print("   ", one)


def _disturbances(deployment: Deployment) -> dict[str, Callable[[streams.Met], object]]:
    from contextlib import contextmanager

    @contextmanager
    def resetting(met: streams.Met) -> Iterator[None]:
        streams.rapid_resets(deployment, met, calls=met.begun + 5000)
        yield

    return {
        "idle streams": lambda met: streams.idle(deployment, met, streams=1000),
        "metadata bombs": lambda met: streams.bombs(deployment, met),
        "slow readers": lambda met: streams.slow_readers(deployment, met),
        "rapid resets": resetting,
    }


def main() -> int:
    """The exit code."""
    known = ("tokens", "keys", "streams", "runaway", "frames", "fuzz")
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without one")
    parser.add_argument("--long", action="store_true", help="the forms that take minutes")
    parser.add_argument("--minutes", type=float, help="how long each fuzzer goes on")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeat a run of the fuzzers")
    parser.add_argument("--host", choices=["envoy"], help="the proxy inside Envoy")
    options = parser.parse_args()
    if unknown := set(options.names) - set(known):
        parser.error(f"no campaign {', '.join(sorted(unknown))}")
    run = Run(options)
    with tempfile.TemporaryDirectory(prefix="campaigns-") as folder:
        for name in options.names or known:
            getattr(run, name)(Path(folder))
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"\n{platform.machine()}, {os.cpu_count()} processors, load {load}; seed {run.seed}\n\n{table(run.rows)}")
    return 0 if all(one.held for one in run.rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
