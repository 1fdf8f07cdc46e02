"""A start of the producer: takes its slot, reads what is there, begins an epoch."""

import os
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sidecar.spool.epoch import Epoch, RandomPool
from sidecar.spool.files import Files, PosixFiles
from sidecar.spool.recovery import Recovered, recover
from sidecar.spool.shelf import Shelf
from sidecar.spool.slot import SpoolOptions, take_lock, unusable


class Started(NamedTuple):
    """What a spool begins with. Closing `lock` gives the slot back."""

    epoch: Epoch
    recovered: Recovered
    shelf: Shelf
    lock: int


def start(
    options: SpoolOptions, *, store_key: bytes, now: Callable[[], datetime], files: Files | None,
    random: Callable[[int], bytes],
) -> Started:  # fmt: skip
    """See `Spool.open`."""
    folder = options.folder / str(options.slot)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take_lock(folder / "lock")
    except OSError as error:
        raise unusable(folder, error) from None
    try:
        recovered = recover(folder, producer=options.producer, slot=options.slot)
        pool = RandomPool(random)
        epoch = Epoch(producer=options.producer, slot=options.slot, time=now(), store_key=store_key, random=pool)
        shelf = Shelf(folder=folder, files=files or PosixFiles(), epoch=epoch, recovered=recovered)
    except OSError as error:
        os.close(lock)
        raise unusable(folder, error) from None
    except BaseException:
        os.close(lock)
        raise
    return Started(epoch, recovered, shelf, lock)
