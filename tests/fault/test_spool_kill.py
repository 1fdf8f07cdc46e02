"""kill -9 at any moment: every record that `append` returned for is there, and the chain goes on."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from spooling import open_spool, sent

from sidecar.record import parse_leaf
from sidecar.spool.reader import SpoolReader

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[2]
ROUNDS = 12
WRITER = """
import asyncio, itertools, os, sys
from pathlib import Path
from spooling import event, open_spool
from sidecar.spool.log import Spool

async def main():
    spool = open_spool(Path(sys.argv[1]), segment_bytes=64 * 1024, max_bytes=1 << 30)
    for number in itertools.count():
        seq = spool.append([event(str(number), size=number % 3000)])
        os.write(1, b"%s %d\\n" % (spool.epoch.id.encode(), seq))
        if number % 50 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""


def run_and_kill(folder: Path, pick: random.Random) -> tuple[str, int]:
    """Start a writer, kill it, and return the last (epoch, seq) that it reported."""
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, "the writer came up"
        lines = [first]
        stop = time.monotonic() + pick.uniform(0.0, 0.15)
        while time.monotonic() < stop:
            lines.append(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
    whole = [line for line in lines if line.endswith(b"\n")]
    epoch, seq = whole[-1].split()
    return epoch.decode(), int(seq)


async def collect(folder: Path) -> list[tuple[str, int]]:
    spool = open_spool(folder, segment_bytes=64 * 1024, max_bytes=1 << 30)
    reader, found = SpoolReader(spool), []
    while (chunk := reader.take(256, 1 << 20)) is not None:
        leaves = [parse_leaf(item.leaf) for item in sent(chunk)]
        found += [(leaf.epoch, leaf.seq) for leaf in leaves]
    await spool.close()
    return found


def test_no_written_record_is_lost_however_often_the_writer_is_killed(tmp_path: Path) -> None:
    pick = random.Random(23)
    promised = [run_and_kill(tmp_path, pick) for _ in range(ROUNDS)]
    found = asyncio.run(collect(tmp_path))
    assert len(found) == len(set(found)), "no record is there twice"
    have: dict[str, list[int]] = {}
    for epoch, seq in found:
        have.setdefault(epoch, []).append(seq)
    for epoch, seq in promised:
        assert have[epoch] == list(range(len(have[epoch])))
        assert len(have[epoch]) >= seq + 1
    assert list(have) == [epoch for epoch, _ in promised]
