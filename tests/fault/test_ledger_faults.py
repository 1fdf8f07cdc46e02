"""The ledger is killed at random moments: what it acknowledged is there, what was asked twice counts once."""

import asyncio
import random

import pytest
from ledger_rig import LedgerProcess
from ledger_simulator import Simulator

from sidecar.ledger import inspection
from sidecar.ledger.items import Item, LedgerError, Seen, Settlement
from sidecar.ledger.main import init
from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.loader import load

pytestmark = pytest.mark.fault
ROUNDS = 6
KINDS = (Seen(frozenset({"personal_health"})), Seen(frozenset({"id_device"}), (("c", 1),)),
         Seen(frozenset({"id_contact", "behaviour"}), (("d", 1),)))  # fmt: skip


class Caller:
    """Calls that reserve and settle; each request is repeated until it is acknowledged, over every restart."""

    def __init__(self, number, chance):
        self.number, self.chance, self.calls = number, chance, 0
        self.done = []
        """What was acknowledged, in order: the requests that a ledger must know."""
        self.pending = None

    def next(self):
        self.calls += 1
        call, group = f"{self.number}-{self.calls}", f"g{self.calls % 3}"
        items = [
            Item("person", str(self.chance.randrange(60)), self.chance.choice(KINDS))
            for _ in range(self.chance.randrange(1, 5))
        ]
        left = items[: self.chance.randrange(len(items) + 1)]
        settle = Settlement(call, groups=(group,), source="s", items=left)
        # A third of the calls are never settled, as when their sidecar dies.
        return [("reserve", (call, 1, group, "s", items))] + ([("settle", (settle,))] if self.calls % 3 else [])

    async def run(self, client):
        while True:
            self.pending = self.pending or self.next()
            name, asked = self.pending[0]
            await getattr(client, name)(*asked)
            self.done.append(self.pending.pop(0))


async def use(ledger, callers, seconds):
    client = ledger.client(deadline=5.0)
    work = [asyncio.create_task(caller.run(client)) for caller in callers]
    await asyncio.sleep(seconds)
    ledger.kill()
    found = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(one, LedgerError) for one in found), found
    await client.close()


@pytest.mark.timeout(600)
async def test_what_was_acknowledged_survives_kill_9_and_what_was_repeated_counts_once(tmp_path):
    chance = random.Random(20261123)
    with LedgerProcess(tmp_path) as ledger:
        init(load(ledger.settings, LedgerSettings, {}), keep_secret=False)
        callers = [Caller(number, random.Random(number)) for number in range(8)]
        for _ in range(ROUNDS):
            ledger.start()
            await use(ledger, callers, chance.uniform(0.1, 0.8))
            assert inspection.verify(ledger.database, lambda _done, _of: None) == []
        ledger.start()
        client = ledger.client(deadline=60.0)
        expected = Simulator()
        counted, expected.exposure = expected.exposure, lambda _group: {}  # counting anew at each step would take long
        for caller in callers:
            if caller.pending:  # whatever was under way is asked once more, and now acknowledged
                for name, asked in caller.pending:
                    await getattr(client, name)(*asked)
                    caller.done.append((name, asked))
            for name, asked in caller.done:
                await getattr(expected, name)(*asked)
        assert sum(len(caller.done) for caller in callers) > 50
        for group in ("g0", "g1", "g2"):
            assert await client.peek(group) == counted(group)
        await client.close()
        assert ledger.stop() == 0
    assert inspection.verify(ledger.database, lambda _done, _of: None) == []


@pytest.mark.timeout(600)
async def test_a_sidecar_that_dies_between_reserving_and_settling_leaves_its_reservation_counted(tmp_path):
    with LedgerProcess(tmp_path) as ledger:
        init(load(ledger.settings, LedgerSettings, {}), keep_secret=False)
        ledger.start()
        client = ledger.client()
        await client.reserve("c1", 1, "acme", "s", [Item("person", "1", KINDS[0])])
        await client.close()
        ledger.kill()
        ledger.start()
        after = ledger.client()
        assert await after.peek("acme") == {"personal_health": 1}
        await after.settle(Settlement("c1"))  # its successor, or it itself, comes back and says what became of it
        assert await after.peek("acme") == {}
        await after.close()
