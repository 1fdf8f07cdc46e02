"""The slots of a spool, shared by processes: each has one to itself, and none is left behind.

`record.spool` holds a folder for each slot, 0, 1, 2 and so on. A slot belongs to the process that holds the lock on it
(flock(2)): the kernel gives it back when that process ends, however it ends. All slots are of one producer: the store is
told its name and key once, and takes the records of each slot as a chain of their own.

* A process takes the lowest slot that is free (`ANY`), and first writes what its predecessor there owed.
* A slot that nobody has, and that still holds records, is a leftover: of a worker that was killed, of more workers than
  there are now. Whoever runs takes it for as long as it needs to write the outcomes that are owed and to send what the
  store does not have (`Leftovers`), and gives it back.
* One sidecar at a time, however many workers it has, uses a spool (`sidecar.spool.slot.held`).
"""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main.records import Records
from sidecar.spool.segment import list_segments
from sidecar.spool.slot import SlotInUseError

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings

MOST = 1024
"""Slots of one spool: more than twice the workers a sidecar may have, since an old generation drains beside a new one."""
ANY = range(MOST)
LOOK_SECONDS = 5.0
"""A slot is a leftover when it was one at two looks: a worker that is being restarted takes its own back."""
_AS_LONG_AS_IT_TAKES = 1e8


def abandoned(spool: Path) -> frozenset[int]:
    """Slots that hold records and that no process has at this moment."""
    return frozenset(number for number, folder in _slots(spool) if _holds_records(folder) and _free(folder))


def _slots(spool: Path) -> Iterator[tuple[int, Path]]:
    try:
        folders = sorted(spool.iterdir())
    except OSError:
        return
    for folder in folders:
        name = folder.name
        if name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) < MOST:
            yield int(name), folder


def _holds_records(folder: Path) -> bool:
    try:
        return bool(list_segments(folder))
    except (OSError, IntegrityError):
        return True  # whoever takes it says what is wrong


def _free(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True  # no process has ever had it, or has it now
    try:
        # Shared, so that two who look at once do not take each other for its owner.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


class Leftovers:
    """Settles the slots that nobody has."""

    def __init__(self, settings: "SidecarSettings", log: OperatorLog, *, every: float = LOOK_SECONDS) -> None:
        self._settings, self._log, self._every = settings, log, every
        self._problems: dict[int, str] = {}
        self._settling: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Look every few seconds, until cancelled; slots that are being settled are given back first."""
        spool, before = self._settings.record.spool, frozenset[int]()
        try:
            while True:
                await asyncio.sleep(self._every)
                found = await asyncio.to_thread(abandoned, spool)
                self._problems = {slot: why for slot, why in self._problems.items() if slot in found}
                for slot in sorted(found & before):
                    self._begin(slot)
                before = found
        finally:
            tasks = list(self._settling.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def problems(self) -> list[str]:
        """What an operator has to mend."""
        return [f"spool slot {slot}, which no worker has: {why}" for slot, why in sorted(self._problems.items())]

    def _begin(self, slot: int) -> None:
        if slot not in self._settling:
            task = asyncio.get_running_loop().create_task(self._settle(slot), name=f"leftover-{slot}")
            self._settling[slot] = task
            task.add_done_callback(lambda _task: self._settling.pop(slot, None))

    async def _settle(self, slot: int) -> None:
        """Write what is owed there, send what the store does not have, and give the slot back."""
        try:
            records = Records.open(self._settings, self._log, (slot,))
        except SlotInUseError:
            return
        except (ConfigurationError, IntegrityError) as error:
            self._refused(slot, str(error))
            return
        work: list[asyncio.Task[None]] = []
        try:
            await records.start({"settles": True})
            self._log.warning("leftover_taken", slot=slot, records=records.status()["spool_records"])
            work = [asyncio.create_task(one) for one in records.run()]
            await records.drain(_AS_LONG_AS_IT_TAKES)
            self._problems.pop(slot, None)
            self._log.warning("leftover_settled", slot=slot)
        except ConfigurationError as error:
            self._refused(slot, str(error))
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await records.close()

    def _refused(self, slot: int, why: str) -> None:
        if self._problems.get(slot) != why:
            self._log.error("leftover_refused", slot=slot, detail=why)
        self._problems[slot] = why
