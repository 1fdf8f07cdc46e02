"""The thread that waits for the disk reports whatever fails, and goes on."""

import asyncio
import errno

import pytest

from sidecar.spool.committer import Committer

pytestmark = pytest.mark.unit


async def test_a_job_that_fails_in_a_way_nobody_foresaw_is_reported_and_the_next_one_is_done() -> None:
    loop = asyncio.get_running_loop()
    committer, told = Committer(loop, "commits"), asyncio.Queue[OSError | None]()
    committer.submit(lambda: b"\xff".decode() and None, told.put_nowait)
    committer.submit(lambda: None, told.put_nowait)
    failed, well = await asyncio.wait_for(told.get(), 60), await asyncio.wait_for(told.get(), 60)
    committer.stop()
    assert failed is not None
    assert failed.errno == errno.EIO
    assert "UnicodeDecodeError" in str(failed)
    assert well is None
